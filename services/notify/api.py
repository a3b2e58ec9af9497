"""The HTTP edge: deliveries, webhook endpoints, providers, delivery receipts. Decode, call, encode; no rules."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import UNSET

from services.notify import repository, views
from services.notify.channels import email
from services.notify.channels.email import EmailConfig
from services.notify.channels.sms import SmsConfig, SmsSecrets, pointed
from services.notify.channels.webhook import Secret, rotated
from services.notify.domain.cloud_events import TEST_TYPE, is_pattern
from services.notify.domain.messages import SUBSCRIBERS
from services.notify.handlers import TEST_RULE, Handlers, delivery_id, store
from services.notify.parts import Parts, endpoint_place, provider_place
from services.notify.repository import NewDelivery, NewEvent
from services.notify.telling import tell_changes
from shared import webhooks
from shared.auth import Caller, public, requires
from shared.body import decode
from shared.database import Record, Tx
from shared.egress import EgressRefusedError, check_port, parse_url
from shared.errors import ConflictError, FieldError, InvalidError, NotFoundError, UnauthorizedError
from shared.idempotency import KeyReusedError, key_of, once
from shared.ids import derived_id, new_id
from shared.messages.base import LIVE
from shared.service import Runtime
from shared.time_source import now_in

READERS: Final = ("admin", "supervisor", "handler", "auditor", "integration")
MOST_ENDPOINTS = 20
MOST_PROVIDERS = 20
RECEIPT_BYTES = 65_536
ARRIVAL_SECONDS = 1.5  # how long a case that is not known here may take to arrive before it counts as none
ARRIVAL_STEP_SECONDS = 0.15

Limit = Annotated[int, QueryParameter(ge=1, le=200)]
Word = Annotated[str | None, QueryParameter(max_length=120)]
Cursor = Annotated[str | None, QueryParameter(max_length=300)]
StateFilter = Literal["queued", "held", "sending", "sent", "delivered", "failed", "dead", "suppressed", "expanded"]
ChannelFilter = Literal["sms", "email", "webhook"]


class NotRetriableError(ConflictError):
    slug = "delivery-not-retriable"
    title = "Only a dead or failed delivery can be sent again."


class TooManyEndpointsError(ConflictError):
    slug = "too-many-webhooks"
    title = "The tenant has as many webhook endpoints as it may have."


class TooManyProvidersError(ConflictError):
    slug = "too-many-providers"
    title = "The tenant has as many providers as it may have."


class UnsafeAddressError(InvalidError):
    slug = "address-refused"
    title = "The address is not one that we call."


# -- deliveries --------------------------------------------------------------------------------------------------------


@get("/v1/deliveries", guards=[requires(*READERS)], operation_id="list_deliveries")
async def list_deliveries(
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    case_id: FromQuery[UUID | None] = None,
    in_state: Annotated[StateFilter | None, QueryParameter(name="state")] = None,
    channel: FromQuery[ChannelFilter | None] = None,
    rule: Word = None,
    audience: Word = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> views.Deliveries:
    """Who was told what, the newest first. Addresses are masked."""
    rows = await repository.list_deliveries(
        tx,
        caller.tenant_id,
        case_id=case_id,
        state=in_state,
        channel=channel,
        rule=rule,
        audience=audience,
        before=views.place(cursor),
        limit=limit,
    )
    return views.Deliveries(deliveries=[views.delivery_view(row) for row in rows], next_cursor=_next(rows, limit))


@get("/v1/deliveries/{delivery_id:uuid}", guards=[requires(*READERS)], operation_id="get_delivery")
async def get_delivery(
    delivery_id: FromPath[UUID], caller: NamedDependency[Caller], tx: NamedDependency[Tx]
) -> views.DeliveryInFull:
    """One delivery with its attempts."""
    row = _found(await repository.delivery_row(tx, caller.tenant_id, delivery_id))
    tries = await repository.attempts(tx, caller.tenant_id, delivery_id)
    return views.DeliveryInFull(
        delivery=views.delivery_view(row), attempts=[msgspec.convert(dict(each), views.AttemptView) for each in tries]
    )


@get("/v1/cases/{case_id:uuid}/deliveries", guards=[requires(*READERS)], operation_id="list_case_deliveries")
async def list_case_deliveries(
    case_id: FromPath[UUID],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
    cursor: Cursor = None,
    limit: Limit = 100,
) -> views.CaseDeliveries:
    """What was told about one case, the oldest first."""
    after = views.place(cursor)
    loop = asyncio.get_running_loop()
    until = loop.time() + ARRIVAL_SECONDS
    while True:
        async with runtime.db.api_tx(caller.tenant_id) as tx:
            seq = await repository.case_seq(tx, caller.tenant_id, case_id)
            rows = await repository.case_deliveries(tx, caller.tenant_id, case_id, after=after, limit=limit)
        if seq is not None or rows:
            break
        if loop.time() >= until:
            raise NotFoundError()
        await asyncio.sleep(ARRIVAL_STEP_SECONDS)
    return views.CaseDeliveries(
        case_id=case_id,
        as_of_seq=seq or 0,
        deliveries=[views.delivery_view(row) for row in rows],
        next_cursor=_next(rows, limit),
    )


@post(
    "/v1/deliveries/{command:str}",
    guards=[requires("admin", "supervisor")],
    operation_id="retry_delivery",
    status_code=202,
)
async def retry_delivery(
    command: FromPath[str],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> Response[bytes]:
    """`{delivery_id}:retry`: send a dead or failed delivery again."""
    wanted, _ = _command(command, "retry")

    async def act() -> views.Queued:
        state = _found(await repository.delivery_state(tx, caller.tenant_id, wanted))
        if not await repository.retry(tx, caller.tenant_id, wanted):
            raise NotRetriableError(f"It is {state['state']}.", state=state["state"])
        tx.after_commit(lambda: runtime.wake("sender"))
        return views.Queued(delivery_id=wanted)

    return await once(request, tx, act, status=202)


# -- webhook endpoints -------------------------------------------------------------------------------------------------


@post("/v1/webhooks", guards=[requires("admin")], operation_id="create_webhook", status_code=201)
async def create_webhook(
    data: JSONBody[views.NewEndpoint],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> views.EndpointWithSecret:
    """Name an address that is told of every entry and effect, or of those that it wants. The answer holds the signing secret."""
    parts = _parts(runtime)
    _check_url(parts, data.url, "/url")
    _check_filters(data.events)
    key = key_of(request)
    # The answer holds a secret, so it is not kept with the key: the id follows from the key, and the rest from the row.
    endpoint_id = new_id() if key is None else derived_id("endpoint", caller.tenant_id, key)
    if len(await repository.endpoints(tx, caller.tenant_id)) >= MOST_ENDPOINTS:
        raise TooManyEndpointsError(f"There may be {MOST_ENDPOINTS}.")
    sealed = _seal(parts, caller.tenant_id, endpoint_id, [Secret(webhooks.new_secret())])
    row = await repository.add_endpoint(
        tx, caller.tenant_id, endpoint_id, data.url, data.description, data.events, sealed
    )
    if row is None:
        row = _found(await repository.endpoint(tx, caller.tenant_id, endpoint_id))
        if (row["url"], row["description"], list(row["events"])) != (data.url, data.description, data.events):
            raise KeyReusedError("Use a fresh key for a new request; a retry repeats the request unchanged.")
    tx.after_commit(lambda: _handlers(runtime).forget_subscriptions(caller.tenant_id))
    return views.EndpointWithSecret(
        endpoint=views.endpoint_view(row), secret=_secrets(parts, caller.tenant_id, row)[0].value
    )


@get("/v1/webhooks", guards=[requires("admin", "supervisor", "auditor")], operation_id="list_webhooks")
async def list_webhooks(caller: NamedDependency[Caller], tx: NamedDependency[Tx]) -> views.Endpoints:
    """The addresses that are told, without their secrets."""
    rows = await repository.endpoints(tx, caller.tenant_id)
    return views.Endpoints(webhooks=[views.endpoint_view(row) for row in rows])


@get("/v1/webhooks/{endpoint_id:uuid}", guards=[requires("admin", "supervisor", "auditor")], operation_id="get_webhook")
async def get_webhook(
    endpoint_id: FromPath[UUID], caller: NamedDependency[Caller], tx: NamedDependency[Tx]
) -> views.EndpointView:
    """One address that is told."""
    return views.endpoint_view(_found(await repository.endpoint(tx, caller.tenant_id, endpoint_id)))


@patch("/v1/webhooks/{endpoint_id:uuid}", guards=[requires("admin")], operation_id="change_webhook")
async def change_webhook(
    endpoint_id: FromPath[UUID],
    data: JSONBody[views.EndpointChange],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> views.EndpointView:
    """Change what is given, and only that. Setting `active` starts an endpoint again that was stopped for failing."""
    row = _found(await repository.lock_endpoint(tx, caller.tenant_id, endpoint_id))
    url = row["url"] if data.url is UNSET else data.url
    events = list(row["events"]) if data.events is UNSET else data.events
    active = row["active"] if data.active is UNSET else data.active
    _check_url(_parts(runtime), url, "/url")
    _check_filters(events)
    changed = await repository.change_endpoint(
        tx,
        caller.tenant_id,
        endpoint_id,
        url=url,
        description=row["description"] if data.description is UNSET else data.description,
        events=events,
        active=active,
        stopped_because=None if active else (row["stopped_because"] or "by_hand"),
        sealed=row["sealed"],
    )
    tx.after_commit(lambda: _handlers(runtime).forget_subscriptions(caller.tenant_id))
    return views.endpoint_view(_found(changed))


@delete("/v1/webhooks/{endpoint_id:uuid}", guards=[requires("admin")], operation_id="delete_webhook")
async def delete_webhook(
    endpoint_id: FromPath[UUID],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> None:
    """Tell this address nothing more; what is on its way to it is suppressed."""
    if not await repository.delete_endpoint(tx, caller.tenant_id, endpoint_id):
        raise NotFoundError()
    tx.after_commit(lambda: _handlers(runtime).forget_subscriptions(caller.tenant_id))


@post("/v1/webhooks/{command:str}", guards=[requires("admin")], operation_id="command_webhook", status_code=202)
async def command_webhook(
    command: FromPath[str],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> Response[views.Queued | views.EndpointWithSecret]:
    """`{endpoint_id}:test` sends a test event once; `{endpoint_id}:rotate` makes a new signing secret and shows it."""
    endpoint_id, verb = _command(command, "test", "rotate")
    row = _found(await repository.lock_endpoint(tx, caller.tenant_id, endpoint_id))
    if verb == "test":
        return Response(await _test(tx, runtime, row), status_code=202)
    body = await request.body()
    rotation: views.Rotation = decode(body, views.Rotation) if body.strip() else views.Rotation()
    return Response(await _rotate(tx, runtime, row, rotation), status_code=200)


async def _test(tx: Tx, runtime: Runtime[Any], row: Record) -> views.Queued:
    endpoint_id: UUID = row["endpoint_id"]
    event_id, at = new_id(), await now_in(tx)
    tenant = await runtime.reference.tenant(tx.tenant_id)
    event = NewEvent(
        tenant_id=tx.tenant_id,
        event_id=event_id,
        kind=TEST_TYPE,
        case_id=None,
        number="",
        source="",
        at=at,
        body={"endpoint_id": str(endpoint_id)},
    )
    new = NewDelivery(
        tenant_id=tx.tenant_id,
        event_id=event_id,
        delivery_id=delivery_id(tx.tenant_id, event_id, TEST_RULE, SUBSCRIBERS, str(endpoint_id), "webhook"),
        case_id=None,
        rule=TEST_RULE,
        audience=SUBSCRIBERS,
        addressee=str(endpoint_id),
        channel="webhook",
        state="queued",
        at=at,
        due_at=at,
    )
    await store(tx, runtime, [event], [new], sandboxes=[tx.tenant_id] if tenant.sandbox else [])
    return views.Queued(delivery_id=new.delivery_id)


async def _rotate(tx: Tx, runtime: Runtime[Any], row: Record, rotation: views.Rotation) -> views.EndpointWithSecret:
    parts = _parts(runtime)
    hours = parts.settings.secret_overlap_hours if rotation.overlap_hours is UNSET else rotation.overlap_hours
    new = webhooks.new_secret()
    secrets = rotated(_secrets(parts, tx.tenant_id, row), new, datetime.now(UTC), timedelta(hours=hours))
    changed = await repository.change_endpoint(
        tx,
        tx.tenant_id,
        row["endpoint_id"],
        url=row["url"],
        description=row["description"],
        events=row["events"],
        active=row["active"],
        stopped_because=row["stopped_because"],
        sealed=_seal(parts, tx.tenant_id, row["endpoint_id"], secrets),
    )
    return views.EndpointWithSecret(endpoint=views.endpoint_view(_found(changed)), secret=new)


# -- providers ---------------------------------------------------------------------------------------------------------


@post("/v1/providers", guards=[requires("admin")], operation_id="create_provider", status_code=201)
async def create_provider(
    data: JSONBody[views.NewProvider],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> Response[bytes]:
    """Say how SMS or e-mail leaves. An active provider takes the place of the channel's active one."""
    parts = _parts(runtime)
    _check_provider(parts, data.config)
    _check_receipt_secrets(data.secrets)

    async def act() -> views.ProviderView:
        if len(await repository.providers(tx, caller.tenant_id)) >= MOST_PROVIDERS:
            raise TooManyProvidersError(f"There may be {MOST_PROVIDERS}.")
        provider_id = new_id()
        sealed = parts.sealer.seal(caller.tenant_id, provider_place(provider_id), msgspec.json.encode(data.secrets))
        channel = "sms" if isinstance(data, views.NewSmsProvider) else "email"
        await repository.add_provider(
            tx, caller.tenant_id, provider_id, channel, data.name, data.config, sealed, active=data.active
        )
        return views.provider_view(_found(await repository.provider(tx, caller.tenant_id, provider_id)))

    return await once(request, tx, act, status=201)


@get("/v1/providers", guards=[requires("admin", "auditor")], operation_id="list_providers")
async def list_providers(caller: NamedDependency[Caller], tx: NamedDependency[Tx]) -> views.Providers:
    """How messages leave, without secrets."""
    rows = await repository.providers(tx, caller.tenant_id)
    return views.Providers(providers=[views.provider_view(row) for row in rows])


@get("/v1/providers/{provider_id:uuid}", guards=[requires("admin", "auditor")], operation_id="get_provider")
async def get_provider(
    provider_id: FromPath[UUID], caller: NamedDependency[Caller], tx: NamedDependency[Tx]
) -> views.ProviderView:
    """One provider, without its secrets."""
    return views.provider_view(_found(await repository.provider(tx, caller.tenant_id, provider_id)))


@put("/v1/providers/{provider_id:uuid}", guards=[requires("admin")], operation_id="change_provider")
async def change_provider(
    provider_id: FromPath[UUID],
    data: JSONBody[views.ProviderChange],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> views.ProviderView:
    """Replace a provider's settings; secrets that are not given stay."""
    parts = _parts(runtime)
    row = _found(await repository.provider(tx, caller.tenant_id, provider_id))
    channel = "sms" if isinstance(data, views.SmsProviderChange) else "email"
    if row["channel"] != channel:
        raise InvalidError(errors=[FieldError("/channel", f"is {row['channel']} and stays so")])
    _check_provider(parts, data.config)
    sealed = row["sealed"]
    if data.secrets is not UNSET:
        _check_receipt_secrets(data.secrets)
        sealed = parts.sealer.seal(caller.tenant_id, provider_place(provider_id), msgspec.json.encode(data.secrets))
    changed = await repository.change_provider(
        tx, caller.tenant_id, provider_id, channel, data.name, data.config, sealed, active=data.active
    )
    return views.provider_view(_found(changed))


@delete("/v1/providers/{provider_id:uuid}", guards=[requires("admin")], operation_id="delete_provider")
async def delete_provider(
    provider_id: FromPath[UUID], caller: NamedDependency[Caller], tx: NamedDependency[Tx]
) -> None:
    """Forget a provider and its secrets; its receipts are refused from now on."""
    if not await repository.delete_provider(tx, caller.tenant_id, provider_id):
        raise NotFoundError()


# -- receipts ----------------------------------------------------------------------------------------------------------


@post(
    "/v1/receipts/{provider_id:uuid}",
    guards=[public("signed by the provider")],
    operation_id="take_receipt",
    opt={"body": "application/json"},
    status_code=204,
    request_max_body_size=RECEIPT_BYTES,
)
async def take_receipt(
    provider_id: FromPath[UUID], request: Request[Any, Any, Any], runtime: NamedDependency[Runtime[Any]]
) -> None:
    """A provider's delivery receipt, signed in the way of Standard Webhooks with the secret stored for the provider.

    404 while the message is not known under the name that the receipt gives it: send the receipt again.
    """
    body = await request.body()
    async with runtime.db.worker_tx(LIVE) as tx:
        tenant_id = await repository.receipt_tenant(tx, provider_id)
    if tenant_id is None:  # the same work and the same answer as for a wrong signature
        _verified(request, (), body)
        return
    parts = _parts(runtime)
    async with runtime.db.worker_tx(tenant_id) as tx:
        row = await repository.provider(tx, tenant_id, provider_id)
        if row is None or row["channel"] != "sms":
            _verified(request, (), body)
            return
        sealed = parts.sealer.open(tenant_id, provider_place(provider_id), row["sealed"])
        secrets = msgspec.json.decode(sealed, type=SmsSecrets)
        signed = _verified(request, secrets.receipts, body)
        config = msgspec.convert(row["config"], SmsConfig)
        await _apply_receipt(tx, provider_id, config, signed.message_id, decode(body, Any))


async def _apply_receipt(tx: Tx, provider_id: UUID, config: SmsConfig, webhook_id: str, body: Any) -> None:
    ref, status = pointed(body, config.receipt.ref), pointed(body, config.receipt.status)
    state: Literal["delivered", "failed"] | None = None
    if status in config.receipt.delivered:
        state = "delivered"
    elif status in config.receipt.failed:
        state = "failed"
    if state is None or not isinstance(ref, str | int):
        return  # a step on the way, or something that is no receipt of ours
    if not await repository.add_receipt(tx, tx.tenant_id, provider_id, webhook_id, str(ref)[:200], state):
        return
    rows = await repository.find_by_ref(tx, tx.tenant_id, provider_id, str(ref)[:200])
    if not rows:
        raise NotFoundError()
    at = await now_in(tx)
    for row in rows:
        if row["state"] in ("sent", "sending", "queued") or (row["state"] == "failed" and state == "delivered"):
            reason = "receipt" if state == "failed" else ""
            await repository.change(tx, tx.tenant_id, row["delivery_id"], state, at, reason=reason)
            await repository.leave_queue(tx, tx.tenant_id, row["delivery_id"])
            await tell_changes(tx, [row["delivery_id"]], at=at)


def _verified(request: Request[Any, Any, Any], secrets: Sequence[str], body: bytes) -> webhooks.Signed:
    try:
        return webhooks.verify(secrets, request.headers.multi_items(), body, datetime.now(UTC))
    except webhooks.SignatureError:
        raise UnauthorizedError() from None


# -- what they share -----------------------------------------------------------------------------------------------------


def _found(row: Record | None) -> Record:
    if row is None:
        raise NotFoundError()
    return row


def _next(rows: Sequence[Record], limit: int) -> str | None:
    return views.cursor(rows[-1]) if len(rows) == limit else None


def _command(text: str, *verbs: str) -> tuple[UUID, str]:
    """Read `{id}:{verb}`; NotFoundError for anything else."""
    given, _, verb = text.partition(":")
    if verb not in verbs:
        raise NotFoundError()
    try:
        return UUID(given), verb
    except ValueError:
        raise NotFoundError() from None


def _parts(runtime: Runtime[Any]) -> Parts:
    parts: Parts = runtime.parts["notify"]
    return parts


def _handlers(runtime: Runtime[Any]) -> Handlers:
    handlers: Handlers = runtime.parts["notify-handlers"]
    return handlers


def _seal(parts: Parts, tenant_id: UUID, endpoint_id: UUID, secrets: Sequence[Secret]) -> bytes:
    return parts.sealer.seal(tenant_id, endpoint_place(endpoint_id), msgspec.json.encode(secrets))


def _secrets(parts: Parts, tenant_id: UUID, row: Record) -> list[Secret]:
    plain = parts.sealer.open(tenant_id, endpoint_place(row["endpoint_id"]), row["sealed"])
    return msgspec.json.decode(plain, type=list[Secret])


def _check_url(parts: Parts, url: str, pointer: str) -> None:
    try:
        parse_url(url, parts.egress.rules)
    except EgressRefusedError as refusal:
        raise UnsafeAddressError(errors=[FieldError(pointer, refusal.detail)], reason=refusal.reason) from None


def _check_filters(events: Sequence[str]) -> None:
    wrong = [
        FieldError(f"/events/{place}", "is no event type, trigger or beginning with .*")
        for place, text in enumerate(events)
        if not is_pattern(text)
    ]
    if wrong:
        raise InvalidError(errors=wrong)


def _check_provider(parts: Parts, config: SmsConfig | EmailConfig) -> None:
    if isinstance(config, SmsConfig):
        _check_url(parts, config.url, "/config/url")
        if config.lookup_url is not None:
            _check_url(parts, config.lookup_url, "/config/lookup_url")
            if config.lookup_url.count("{key}") != 1:
                raise InvalidError(errors=[FieldError("/config/lookup_url", "holds {key} once")])
        return
    try:
        check_port(config.host, config.port, email.PORTS, parts.egress.rules)
    except EgressRefusedError as refusal:
        raise UnsafeAddressError(errors=[FieldError("/config/port", refusal.detail)], reason=refusal.reason) from None
    if config.tls == "none" and config.username:
        raise InvalidError(errors=[FieldError("/config/tls", "a password is not sent without TLS")])
    if not email.is_address(config.from_address):
        raise InvalidError(errors=[FieldError("/config/from_address", "is not one plain address")])


def _check_receipt_secrets(secrets: Any) -> None:
    for place, secret in enumerate(getattr(secrets, "receipts", ())):
        try:
            webhooks.secret_bytes(secret)
        except ValueError as error:
            raise InvalidError(errors=[FieldError(f"/secrets/receipts/{place}", str(error))]) from None


ROUTES = [
    list_deliveries,
    get_delivery,
    list_case_deliveries,
    retry_delivery,
    create_webhook,
    list_webhooks,
    get_webhook,
    change_webhook,
    delete_webhook,
    command_webhook,
    create_provider,
    list_providers,
    get_provider,
    change_provider,
    delete_provider,
    take_receipt,
]
