// What script/check-clients and a client say to each other, a line each: of the client what happens to it, of the script
// what it is to do.

import { createInterface } from 'node:readline';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

export const SUBSCRIPTION = 'subscription { incidentUpdates { updateType incident { title } } }';

/** Of the service: `host:port`. */
export const address = process.argv[2];

export const say = (line) => console.log(line);
export const sayError = (error) => say(`error: ${error?.message ?? JSON.stringify(error)}`);

/** Tells of a result; of one with errors by these, so that the script fails. */
export function sayResult({ data, errors }) {
  const update = data?.incidentUpdates;
  if (errors || !update) say(`no update: ${JSON.stringify({ data, errors })}`);
  else say([update.updateType, update.incident?.title].filter(Boolean).join(' '));
}

export const soon = () => new Promise((resolve) => setTimeout(resolve, 100));

/** The client of graphql-ws, on which others build; its connection stays when nothing is subscribed. */
export const webSocketClient = () =>
  createClient({
    url: `ws://${address}/graphql/ws`,
    webSocketImpl: WebSocket,
    lazy: false,
    retryAttempts: Infinity,
    retryWait: soon,
    onNonLazyError: sayError,
    on: { connected: () => say('connected') },
  });

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Goes on until the script wants the subscription ended, then until it wants all ended. */
export async function converse({ unsubscribe, dispose }) {
  await lines.next();
  unsubscribe();
  say('unsubscribed');
  await lines.next();
  await dispose();
  process.stdin.destroy();
}
