import { SUBSCRIPTION, converse, sayError, sayResult, webSocketClient } from './conversation.mjs';

const client = webSocketClient();
const sink = { next: sayResult, error: sayError, complete: () => {} };
const unsubscribe = client.subscribe({ query: SUBSCRIPTION }, sink);
await converse({ unsubscribe, dispose: () => client.dispose() });
