"""A backend: publishes in a room, safely twice, and asks who is there."""

import httpx

api = httpx.Client(base_url="http://localhost:8000/api/", headers={"X-API-Key": "demo-key"}, timeout=5)


def call(method, **request):
    answer = api.post(method, json=request).raise_for_status().json()
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["result"]


message = {"text": "Order 1234 is on its way"}
for attempt in ("first", "second"):  # as after a lost answer: the key makes sure that it is published once
    position = call("publish", channel="campfire", data=message, idempotency_key="order-1234-sent")
    print(attempt, "answer: stored at offset", position["offset"])
print("connections in the room:", call("presence_stats", channel="campfire")["num_clients"])
