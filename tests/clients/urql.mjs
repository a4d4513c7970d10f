import { Client, fetchExchange, subscriptionExchange } from 'urql';
import { SUBSCRIPTION, address, converse, sayResult, webSocketClient } from './conversation.mjs';

const socket = webSocketClient();
const forwardSubscription = ({ query = '', variables }) => ({
  subscribe: (sink) => ({ unsubscribe: socket.subscribe({ query, variables }, sink) }),
});
const client = new Client({
  url: `http://${address}/graphql`,
  exchanges: [subscriptionExchange({ forwardSubscription }), fetchExchange],
});
const { error } = await client.query('{ incidents { totalCount } }', {}).toPromise();
if (error) throw error;
const results = client.subscription(SUBSCRIPTION, {});
const subscription = results.subscribe(({ data, error }) => sayResult({ data, errors: error }));
await converse({ unsubscribe: () => subscription.unsubscribe(), dispose: () => socket.dispose() });
