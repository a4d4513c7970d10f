// How GraphQL is served over HTTP, by the audits of graphql-http: what the specification says must or should be.

import { serverAudits } from 'graphql-http';
import { address } from './conversation.mjs';

const audits = serverAudits({ url: `http://${address}/graphql` });
const counts = {};
let failed = false;
for (const audit of audits) {
  const { status, reason } = await audit.fn();
  counts[status] = (counts[status] ?? 0) + 1;
  // what is optional is a notice
  if (status !== 'ok') console.log(`${status}: ${audit.name}: ${reason}`);
  failed ||= status === 'error' || status === 'warn';
}
console.log(`${audits.length} audits: ${JSON.stringify(counts)}`);
process.exit(failed || audits.length < 60 ? 1 : 0);
