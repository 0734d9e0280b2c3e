"""Publishing by backends: to one channel, or the same data to several."""

from __future__ import annotations

from msgspec import Raw

from beaconfire.api.context import ApiContext, api_error, payload
from beaconfire.api.eagerly import run_all
from beaconfire.api.requests import (
    BroadcastRequest,
    BroadcastResult,
    Message,
    PublishRequest,
    PublishResponse,
    PublishResult,
)
from beaconfire.base.errors import INTERNAL, CommandError
from beaconfire.channels.data_format import check_data
from beaconfire.model.events import report_error


async def publish(api: ApiContext, request: PublishRequest) -> PublishResult:
    return await _publish(api, request.channel, request, payload("data", request.data, request.b64data))


async def broadcast(api: ApiContext, request: BroadcastRequest) -> BroadcastResult:
    """Channels are begun in their order; on an engine that must be waited for they overlap."""
    data = payload("data", request.data, request.b64data)
    responses = [PublishResponse()] * len(request.channels)

    async def publish_one(index: int, channel: str) -> None:
        responses[index] = await _try_publish(api, channel, request, data)

    await run_all(publish_one(index, channel) for index, channel in enumerate(request.channels))
    return BroadcastResult(responses=responses)


async def _try_publish(api: ApiContext, channel: str, message: Message, data: Raw) -> PublishResponse:
    try:
        return PublishResponse(result=await _publish(api, channel, message, data))
    except CommandError as error:
        return PublishResponse(error=api_error(error))
    except Exception as error:  # noqa: BLE001 - one channel's failure must not hide what became of the others
        report_error(api.events, "api broadcast", error)
        return PublishResponse(error=api_error(CommandError(INTERNAL)))


async def _publish(api: ApiContext, channel: str, message: Message, data: Raw) -> PublishResult:
    namespace = api.namespace(channel)
    check_data(data, namespace)
    outcome = await api.channels.publish(
        channel,
        namespace,
        data,
        tags=message.tags or None,
        skip_history=message.skip_history,
        idempotency_key=message.idempotency_key,
        version=message.version,
        version_epoch=message.version_epoch,
        exclude=message.exclude,
        delta=message.delta,
    )
    return PublishResult(offset=outcome.position.offset, epoch=outcome.position.epoch)
