"""Each service's own copy of reference data: tenants, credentials, policies, calendars, staff and test clocks.

The copy is kept by handlers for the messages of intake and routing (`consumers`), and read through `Reference`, which
caches. What can be revoked is cached for half a second at most; what never changes once published (a policy's
version) is compiled once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec

from shared import auth
from shared.auth import Caller
from shared.consuming import Consumer
from shared.database import Database, Record, Tx
from shared.engine.calendar import CalendarBook, CalendarSection, CalendarSpec, Revision
from shared.engine.calendar.book import FROM_THE_BEGINNING
from shared.engine.rules import CompiledPolicy
from shared.errors import NotFoundError, NotYetError, UnauthorizedError
from shared.ids import OPERATOR
from shared.messages.base import LIVE
from shared.messages.intake import CalendarPublished, CredentialChanged, Limits, PolicyPublished, TenantChanged
from shared.messages.routing import ClockTicked, Staff, StaffChanged
from shared.policy.compiling import compile_policy

FRESH_SECONDS = 0.5  # what a revocation waits for, besides its message
LIVE_TICK_SECONDS = 1.0  # ticks of the live time, of which nothing is kept here, share a transaction
POLICIES = 500
CALENDARS = 1000
CREDENTIALS = 20_000

PUT_TENANT = """
INSERT INTO tenant (tenant_id, revision, slug, name, zone, sandbox, active, limits, webhook_url, language, two_admins, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (tenant_id) DO UPDATE
   SET revision = excluded.revision, slug = excluded.slug, name = excluded.name, zone = excluded.zone, sandbox = excluded.sandbox,
       active = excluded.active, limits = excluded.limits, webhook_url = excluded.webhook_url, language = excluded.language,
       two_admins = excluded.two_admins, created_at = excluded.created_at
 WHERE tenant.revision < excluded.revision"""

PUT_CREDENTIAL = """
INSERT INTO credential (tenant_id, credential_id, revision, key_hash, role, name, active, staff_id, expires_at, sees_personal_data)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT (tenant_id, credential_id) DO UPDATE
   SET revision = excluded.revision, key_hash = excluded.key_hash, role = excluded.role, name = excluded.name, active = excluded.active,
       staff_id = excluded.staff_id, expires_at = excluded.expires_at, sees_personal_data = excluded.sees_personal_data
 WHERE credential.revision < excluded.revision"""

PUT_POLICY = """
INSERT INTO policy (tenant_id, version, document, settings, effect, published_by, reason, sha256, published_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (tenant_id, version) DO NOTHING"""

PUT_CALENDAR = """
INSERT INTO calendar (tenant_id, name, revision, spec, announced_through, moves_running, published_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (tenant_id, name, revision) DO NOTHING"""

PUT_STAFF = """
INSERT INTO staff (tenant_id, staff_id, revision, roles, unit, active, absent_until, deputy)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (tenant_id, staff_id) DO UPDATE
   SET revision = excluded.revision, roles = excluded.roles, unit = excluded.unit, active = excluded.active,
       absent_until = excluded.absent_until, deputy = excluded.deputy
 WHERE staff.revision < excluded.revision"""

PUT_TEST_CLOCK = """
INSERT INTO test_clock (tenant_id, now)
VALUES ($1, $2)
    ON CONFLICT (tenant_id) DO UPDATE SET now = excluded.now
 WHERE test_clock.now < excluded.now"""

TENANT = """
SELECT tenant_id, revision, slug, name, zone, sandbox, active, limits, webhook_url, language, two_admins, created_at
  FROM tenant
 WHERE tenant_id = $1"""

TENANTS = """
SELECT tenant_id, revision, slug, name, zone, sandbox, active, limits, webhook_url, language, two_admins, created_at
  FROM tenant
 WHERE tenant_id > $1
 ORDER BY tenant_id
 LIMIT $2"""

CREDENTIAL = """
SELECT credential.tenant_id, credential_id, key_hash, role, credential.name, credential.active, staff_id, expires_at, sees_personal_data,
       tenant.tenant_id AS known, tenant.revision, slug, tenant.name AS tenant_name, zone, sandbox, tenant.active AS tenant_active, limits,
       webhook_url, language, two_admins, created_at
  FROM credential
  LEFT JOIN tenant ON tenant.tenant_id = credential.tenant_id
 WHERE credential_id = $1"""

POLICY = """
SELECT version, document, settings, published_at
  FROM policy
 WHERE tenant_id = $1 AND version = $2"""

CURRENT_VERSION = """
SELECT max(version)
  FROM policy
 WHERE tenant_id = $1"""

POLICY_CALENDARS = """
SELECT version, document -> 'calendar' AS section, published_at
  FROM policy
 WHERE tenant_id = $1
 ORDER BY version"""

CALENDARS_OF_TENANT = """
SELECT name, revision, spec, announced_through, moves_running, published_at
  FROM calendar
 WHERE tenant_id = $1
 ORDER BY name, revision"""

STAFF = """
SELECT staff_id, roles, unit, active, absent_until, deputy
  FROM staff
 WHERE tenant_id = $1
 ORDER BY staff_id"""

K = TypeVar("K")
V = TypeVar("V")


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A subscriber as every service knows it."""

    tenant_id: UUID
    revision: int
    slug: str
    name: str
    zone: str
    sandbox: bool
    active: bool
    limits: Limits
    webhook_url: str | None
    language: str
    two_admins: bool
    created_at: datetime | None


class Reference:
    """Cached readers of one service's copy. One per service; `runtime.reference`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tenants: _Cache[UUID, Tenant] = _Cache(CREDENTIALS, FRESH_SECONDS)
        self._credentials: _Cache[UUID, list[_Credential]] = _Cache(CREDENTIALS, FRESH_SECONDS)
        self._versions: _Cache[UUID, int] = _Cache(CREDENTIALS, FRESH_SECONDS)
        self._policies: _Cache[tuple[UUID, int], CompiledPolicy] = _Cache(POLICIES, None)
        self._books: _Cache[UUID, CalendarBook] = _Cache(CALENDARS, FRESH_SECONDS * 10)
        self._staff: _Cache[UUID, tuple[Staff, ...]] = _Cache(CREDENTIALS, FRESH_SECONDS)

    # -- readers -----------------------------------------------------------------------------------------------------------

    async def tenant(self, tenant_id: UUID) -> Tenant:
        """NotFoundError for a tenant that this service does not know (yet)."""

        async def load() -> Tenant:
            async with self._database.worker_tx(tenant_id) as tx:
                row = await tx.fetchrow(TENANT, tenant_id)
            if row is None:
                raise NotFoundError()
            return _tenant(row)

        return await self._tenants.through(tenant_id, load)

    async def tenants(self) -> list[Tenant]:
        """Return every tenant, for loops that go through all of them."""
        found: list[Tenant] = []
        last = UUID(int=0)
        while True:
            async with self._database.worker_tx(LIVE) as tx:
                rows = await tx.fetch(TENANTS, last, 500)
            found += map(_tenant, rows)
            if len(rows) < 500:
                return found
            last = rows[-1]["tenant_id"]

    async def current_version(self, tenant_id: UUID) -> int:
        """Return the newest published version; NotFoundError when there is none."""
        cached = self._versions.get(tenant_id)
        if cached is not None:
            return cached

        async def load() -> int:
            async with self._database.worker_tx(tenant_id) as tx:
                found: int | None = await tx.fetchval(CURRENT_VERSION, tenant_id)
            if found is None:
                raise NotFoundError("No policy has been published.")
            return found

        return await self._versions.through(tenant_id, load)

    def note_version(self, tenant_id: UUID, version: int) -> None:
        """Go on believing what a transaction has just seen to be the newest version. What was dropped since stays dropped."""
        if self._versions.get(tenant_id) == version:
            self._versions.put(tenant_id, version)

    async def current_policy(self, tenant_id: UUID) -> CompiledPolicy:
        return await self.policy(tenant_id, await self.current_version(tenant_id))

    async def policy(self, tenant_id: UUID, version: int) -> CompiledPolicy:
        """Return a version, compiled. NotYetError when it has not arrived: a handler that raises it is tried again."""
        cached = self._policies.get((tenant_id, version))
        if cached is not None:
            return cached

        async def load() -> CompiledPolicy:
            async with self._database.worker_tx(tenant_id) as tx:
                row = await tx.fetchrow(POLICY, tenant_id, version)
            if row is None:
                raise NotYetError(f"policy version {version} has not arrived")
            return await asyncio.to_thread(compile_policy, row["document"], row["settings"], version)

        return await self._policies.through((tenant_id, version), load)

    def policy_at_hand(self, tenant_id: UUID, version: int) -> CompiledPolicy | None:
        """Return a version that is compiled already, for who cannot wait."""
        return self._policies.get((tenant_id, version))

    async def calendars(self, tenant_id: UUID, tx: Tx | None = None) -> CalendarBook:
        """Return the tenant's calendars with all their editions: those of the policy's versions and those published by themselves.

        Args:
            tx: of the tenant, among others perhaps, for who has a transaction and need not wait for another one.
        """
        found = self._books.get(tenant_id)
        if found is None:
            async with self._database.worker_tx(tenant_id) if tx is None else contextlib.nullcontext(tx) as tx:
                tenant = await tx.fetchrow(TENANT, tenant_id)
                policies = await tx.fetch(POLICY_CALENDARS, tenant_id)
                published = await tx.fetch(CALENDARS_OF_TENANT, tenant_id)
            if tenant is None and not policies:
                raise NotYetError("the tenant has not arrived")
            found = self._books.put(tenant_id, book_of(tenant["zone"] if tenant else None, policies, published))
        return found

    async def staff(self, tenant_id: UUID) -> tuple[Staff, ...]:
        """Return the tenant's staff as the messages told it: ids and roles only."""
        found = self._staff.get(tenant_id)
        if found is None:
            async with self._database.worker_tx(tenant_id) as tx:
                rows = await tx.fetch(STAFF, tenant_id)
            found = self._staff.put(
                tenant_id,
                tuple(Staff(**{**dict(row), "roles": tuple(row["roles"])}) for row in rows),
            )
        return found

    async def authenticate(self, key: str) -> Caller:
        """Return whom a key stands for. UnauthorizedError, always the same, if it is unknown, wrong, expired or revoked."""
        parsed = auth.parse_key(key)
        if parsed is None:
            raise UnauthorizedError()
        credential_id, secret = parsed
        found = self._credentials.get(credential_id)
        if found is None:
            found = await self._credentials.through(credential_id, lambda: self._load_credentials(credential_id))
        for each in found:
            if auth.matches(secret, each.key_hash) and each.is_valid():
                return each.caller
        if not found:
            auth.matches(secret, "0" * 64)  # an unknown id takes as long as a wrong secret
        raise UnauthorizedError()

    async def _load_credentials(self, credential_id: UUID) -> list[_Credential]:
        """What is known of a credential; its tenant comes along, since whoever calls needs both."""
        async with self._database.worker_tx(LIVE) as tx:
            rows = await tx.fetch(CREDENTIAL, credential_id)
        for row in rows:
            if row["known"] is not None:
                self._tenants.put(row["known"], _tenant_of(row))
        return [_credential(row) for row in rows]

    def forget(self, tenant_id: UUID, credential_id: UUID | None = None) -> None:
        """Drop what is cached of a tenant, its policies' compiled versions apart: for the service that changed it, after its commit."""
        for cache in (self._tenants, self._versions, self._books, self._staff):
            cache.drop(tenant_id)
        if credential_id is not None:
            self._credentials.drop(credential_id)
        else:
            self._credentials.clear()

    # -- handlers ----------------------------------------------------------------------------------------------------------

    def consumers(self, service: str) -> list[Consumer]:
        """Return the consumers that keep this copy: put them into `ServiceSpec.consumers`, leaving out those of what the service owns."""
        found = []
        if service != "intake":
            found.append(
                Consumer(
                    service,
                    "intake",
                    name=f"{service}-on-tenant",
                    handlers={
                        TenantChanged: self.on_tenant,
                        CredentialChanged: self.on_credential,
                        PolicyPublished: self.on_policy,
                        CalendarPublished: self.on_calendar,
                    },
                )
            )
        if service != "routing":
            found.append(
                Consumer(
                    service,
                    "routing",
                    name=f"{service}-on-staff",
                    handlers={StaffChanged: self.on_staff, ClockTicked: self.on_tick},
                    linger=lambda tenant_id: LIVE_TICK_SECONDS if tenant_id == LIVE else 0.0,
                )
            )
        return found

    async def on_tenant(self, message: TenantChanged, tx: Tx) -> None:
        await tx.execute(
            PUT_TENANT,
            message.tenant_id,
            message.revision,
            message.slug,
            message.name,
            message.zone,
            message.sandbox,
            message.active,
            message.limits,
            message.webhook_url,
            message.language,
            message.two_admins,
            message.created_at,
        )
        tx.after_commit(lambda: self.forget(message.tenant_id))

    async def on_credential(self, message: CredentialChanged, tx: Tx) -> None:
        await tx.execute(
            PUT_CREDENTIAL,
            message.tenant_id,
            message.credential_id,
            message.revision,
            message.key_hash,
            message.role,
            message.name,
            message.active,
            message.staff_id,
            message.expires_at,
            message.sees_personal_data,
        )
        tx.after_commit(lambda: self._credentials.drop(message.credential_id))

    async def on_policy(self, message: PolicyPublished, tx: Tx) -> None:
        await tx.execute(
            PUT_POLICY,
            message.tenant_id,
            message.version,
            message.document,
            message.settings,
            message.effect,
            message.published_by,
            message.reason,
            message.sha256,
            message.at,
        )
        tx.after_commit(lambda: self.forget(message.tenant_id))

    async def on_calendar(self, message: CalendarPublished, tx: Tx) -> None:
        await tx.execute(
            PUT_CALENDAR,
            message.tenant_id,
            message.name,
            message.revision,
            message.spec,
            date.fromisoformat(message.announced_through) if message.announced_through else None,
            message.moves_running,
            message.at,
        )
        tx.after_commit(lambda: self._books.drop(message.tenant_id))

    async def on_staff(self, message: StaffChanged, tx: Tx) -> None:
        staff = message.staff
        await tx.execute(
            PUT_STAFF,
            message.tenant_id,
            staff.staff_id,
            message.revision,
            list(staff.roles),
            staff.unit,
            staff.active,
            staff.absent_until,
            staff.deputy,
        )
        tx.after_commit(lambda: self._staff.drop(message.tenant_id))

    async def on_tick(self, message: ClockTicked, tx: Tx) -> None:
        """Ticks of a sandbox tell its test clock; the live tenants' tick is nothing to keep."""
        if message.tenant_id != LIVE:
            await tx.execute(PUT_TEST_CLOCK, message.tenant_id, message.at)


def book_of(zone: str | None, policies: list[Any], published: list[Any]) -> CalendarBook:
    """Return the calendars of a tenant.

    Args:
        zone: the tenant's; the newest policy's own counts first.
        policies: rows (section, published_at), in the order of their versions. A calendar of a policy is an edition of its own where it
            differs from the one before; the first is in force from the beginning.
        published: rows (name, spec, announced_through, moves_running, published_at): editions published apart from any policy.
    """
    revisions: dict[str, list[Revision]] = {}
    last: dict[str, CalendarSpec] = {}
    section = CalendarSection(zone=zone) if zone else CalendarSection()
    for row in policies:
        if row["section"] is None:
            continue
        section = msgspec.convert(row["section"], CalendarSection)
        for name, spec in section.calendars.items():
            if last.get(name) != spec:
                since = row["published_at"] if name in last else FROM_THE_BEGINNING
                revisions.setdefault(name, []).append(Revision(published_at=since, spec=spec))
                last[name] = spec
    # A policy that says nothing about it means the usual one, until an edition is published.
    if section.default not in revisions:
        fallback = section.calendars.get(section.default) or CalendarSpec()
        revisions[section.default] = [Revision(published_at=FROM_THE_BEGINNING, spec=fallback)]
    for row in published:
        values = dict(row["spec"])
        if row["announced_through"] is not None:
            values["announced_through"] = row["announced_through"].isoformat()
        revisions.setdefault(row["name"], []).append(
            Revision(
                published_at=row["published_at"] if row["name"] in revisions else FROM_THE_BEGINNING,
                spec=msgspec.convert(values, CalendarSpec),
                moves_running=row["moves_running"],
            )
        )
    return CalendarBook(section.zone, revisions, default=section.default, counting=section.counting)


def _tenant(row: Record) -> Tenant:
    return Tenant(**{**dict(row), "limits": msgspec.convert(row["limits"], Limits)})


def _tenant_of(row: Record) -> Tenant:
    """The tenant in a row of `CREDENTIAL`."""
    named = {"tenant_id": row["known"], "name": row["tenant_name"], "active": row["tenant_active"]}
    values = {name: row[name] for name in Tenant.__struct_fields__ if name not in named}
    return Tenant(**{**values, **named, "limits": msgspec.convert(row["limits"], Limits)})


class _Credential(msgspec.Struct, frozen=True, kw_only=True):
    key_hash: str
    active: bool  # the tenant, too
    expires_at: datetime | None
    caller: Caller

    def is_valid(self) -> bool:
        return self.active and (self.expires_at is None or self.expires_at > datetime.now(UTC))


def _credential(row: Record) -> _Credential:
    return _Credential(
        key_hash=row["key_hash"],
        active=row["active"] and (bool(row["tenant_active"]) or row["tenant_id"] == OPERATOR),
        expires_at=row["expires_at"],
        caller=Caller(
            tenant_id=row["tenant_id"],
            role=row["role"],
            name=row["name"],
            credential_id=row["credential_id"],
            staff_id=row["staff_id"],
            sees_personal_data=row["sees_personal_data"],
            limits=msgspec.convert(row["limits"], Limits) if row["limits"] is not None else Limits(),
            sandbox=bool(row["sandbox"]),
        ),
    )


class _Cache(Generic[K, V]):
    """The last `size` values used, each for `seconds` at most (None: for as long as it is used)."""

    def __init__(self, size: int, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._seconds, self._clock = size, seconds, clock
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._loading: dict[K, asyncio.Task[V]] = {}

    async def through(self, key: K, load: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Return what is cached, else what `load` finds; those who ask meanwhile wait for the same look.

        What is dropped while it is being loaded is not kept, and whoever asks after that causes a look of their own.
        """
        found = self.get(key)
        if found is not None:
            return found
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(load())
            task.add_done_callback(lambda done: self._loaded(key, done))
        return await asyncio.shield(task)

    def _loaded(self, key: K, task: asyncio.Task[V]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if self._loading.get(key) is task:
            del self._loading[key]
            if not failed:
                self.put(key, task.result())

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._seconds is not None and self._clock() - entry[0] > self._seconds:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key: K, value: V) -> V:
        self._entries[key] = (self._clock(), value)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
        return value

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)
        self._loading.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()
        self._loading.clear()
