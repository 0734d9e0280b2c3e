"""A backend: publishes a message, repeats the request safely, and counts the connections in the room."""

import httpx

api = httpx.Client(base_url="http://localhost:8000/api/", headers={"X-API-Key": "demo-key"}, timeout=5)


def call(method, **request):
    response = api.post(method, json=request).raise_for_status().json()
    if "error" in response:
        raise RuntimeError(response["error"])
    return response["result"]


message = {"text": "Order 1234 is on its way"}
for attempt in ("first", "second"):  # a retry with the same idempotency key does not publish the message again
    position = call("publish", channel="campfire", data=message, idempotency_key="order-1234-sent")
    print(attempt, "response: stored at offset", position["offset"])
print("connections in the room:", call("presence_stats", channel="campfire")["num_clients"])
