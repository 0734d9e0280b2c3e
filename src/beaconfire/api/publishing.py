"""API methods that publish: publish and broadcast."""

from __future__ import annotations

from msgspec import Raw

from beaconfire.api.context import ApiContext, api_error, payload
from beaconfire.api.messages.publishing import (
    BroadcastRequest,
    BroadcastResult,
    PublishFields,
    PublishRequest,
    PublishResponse,
    PublishResult,
)
from beaconfire.base.errors import INTERNAL, CommandError
from beaconfire.base.tasks import run_all
from beaconfire.model.events import report_error


async def publish(api: ApiContext, request: PublishRequest) -> PublishResult:
    """Publishes data in one channel."""
    return await _publish(api, request.channel, request, payload("data", request.data, request.b64data))


async def broadcast(api: ApiContext, request: BroadcastRequest) -> BroadcastResult:
    """Publishes the same data in several channels, started in order. If the engine suspends, the calls overlap."""
    data = payload("data", request.data, request.b64data)
    responses = [PublishResponse()] * len(request.channels)

    async def publish_one(index: int, channel: str) -> None:
        responses[index] = await _try_publish(api, channel, request, data)

    calls = (publish_one(index, channel) for index, channel in enumerate(request.channels))
    await run_all(calls, concurrently=api.may_suspend)
    return BroadcastResult(responses=responses)


async def _try_publish(api: ApiContext, channel: str, fields: PublishFields, data: Raw) -> PublishResponse:
    try:
        return PublishResponse(result=await _publish(api, channel, fields, data))
    except CommandError as error:
        return PublishResponse(error=api_error(error))
    except Exception as error:  # noqa: BLE001 - the failure in one channel must not hide the results of the others
        report_error(api.events, "api broadcast", error)
        return PublishResponse(error=api_error(CommandError(INTERNAL)))


async def _publish(api: ApiContext, channel: str, fields: PublishFields, data: Raw) -> PublishResult:
    namespace = api.namespace(channel)
    tags = fields.tags or None
    data = await api.publishing.permit_for_api(channel, namespace, data, tags)
    outcome = await api.channels.publish(
        channel,
        namespace,
        data,
        tags=tags,
        skip_history=fields.skip_history,
        producer=fields.producer,
        seq=fields.seq,
        idempotency_key=fields.idempotency_key,
        version=fields.version,
        version_epoch=fields.version_epoch,
        exclude=fields.exclude,
        delta=fields.delta,
    )
    position = outcome.position
    return PublishResult(
        offset=position.offset, epoch=position.epoch, durability=outcome.durability if position.epoch else ""
    )
