"""A chat in a terminal. Usage: python examples/sdk.py [ROOM [TOKEN]]"""

import asyncio
import sys

from centrifuge import Client, SubscriptionEventHandler


class Room(SubscriptionEventHandler):
    async def on_subscribed(self, context):
        print("joined", context.channel, flush=True)
        if context.was_recovering and not context.recovered:
            print("some messages were lost: read the history", flush=True)

    async def on_publication(self, context):
        author = (context.pub.info.user or "someone") if context.pub.info else "the backend"
        data = context.pub.data
        print(f"{author}: {data['text'] if isinstance(data, dict) and 'text' in data else data}", flush=True)


async def main(room="campfire", token=""):
    client = Client("ws://localhost:8000/connection/websocket", token=token)
    subscription = client.new_subscription(room, events=Room())
    await client.connect()
    await subscription.subscribe()
    while line := await asyncio.to_thread(sys.stdin.readline):
        await subscription.publish({"text": line.strip()})
    await client.disconnect()


asyncio.run(main(*sys.argv[1:]))
