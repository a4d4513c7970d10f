import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { OperationTypeNode } from 'graphql';
import { SUBSCRIPTION, address, converse, sayError, sayResult, webSocketClient } from './conversation.mjs';

const socket = webSocketClient();
const client = new ApolloClient({
  link: ApolloLink.split(
    ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
    new GraphQLWsLink(socket),
    new HttpLink({ uri: `http://${address}/graphql` }),
  ),
  cache: new InMemoryCache(),
});
await client.query({ query: gql('{ incidents { totalCount } }') });
const subscription = client.subscribe({ query: gql(SUBSCRIPTION) }).subscribe({ next: sayResult, error: sayError });
await converse({ unsubscribe: () => subscription.unsubscribe(), dispose: () => socket.dispose() });
