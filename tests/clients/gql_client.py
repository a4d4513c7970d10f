"""gql, which looks for the subprotocol's header by the case of its name: its part in script/check-clients."""

import asyncio
import sys

from gql import Client, gql
from gql.transport.exceptions import TransportError
from gql.transport.websockets import WebsocketsTransport

SUBSCRIPTION = gql("subscription { incidentUpdates { updateType incident { title } } }")


def say(line):
    print(line, flush=True)


async def told():
    """Waits for what the script says next."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def hear(session):
    async for result in session.subscribe(SUBSCRIPTION):
        update = result["incidentUpdates"]
        incident = update["incident"]
        say(f"{update['updateType']} {incident['title']}" if incident else update["updateType"])


async def main():
    unsubscribe = asyncio.create_task(told())
    while True:
        transport = WebsocketsTransport(url=f"ws://{sys.argv[1]}/graphql/ws")
        try:
            async with Client(transport=transport) as session:
                say("connected" if transport.subprotocol == "graphql-transport-ws" else transport.subprotocol)
                hearing = asyncio.create_task(hear(session))
                await asyncio.wait({hearing, unsubscribe}, return_when=asyncio.FIRST_COMPLETED)
                if unsubscribe.done():
                    hearing.cancel()
                    await asyncio.gather(hearing, return_exceptions=True)
                    say("unsubscribed")
                    return await told()
                hearing.result()
        except (OSError, TransportError):
            await asyncio.sleep(0.1)


asyncio.run(main())
