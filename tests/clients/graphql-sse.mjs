import { createClient } from 'graphql-sse';
import { SUBSCRIPTION, address, converse, say, sayError, sayResult, soon } from './conversation.mjs';

const client = createClient({
  url: `http://${address}/graphql/stream`,
  retryAttempts: Infinity,
  retry: soon,
  on: { connected: () => say('connected') },
});
const sink = { next: sayResult, error: sayError, complete: () => {} };
const unsubscribe = client.subscribe({ query: SUBSCRIPTION }, sink);
await converse({ unsubscribe, dispose: () => client.dispose() });
