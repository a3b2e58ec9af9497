"""Duplicates, reordering and crashes in every order that Hypothesis can think of, against a model of a few lines.

The services run in this process on a real PostgreSQL, without NATS: the machine itself is the network. It holds what the outboxes tell, and
delivers any message to any consumer at any time, twice, or with a crash right before or right after the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from services.composing import SERVICES, build
from services.stack import master_key
from shared import fail_points, telemetry
from shared.consuming import AtFaultError, Consumer
from shared.embedded.environment import database_roles, service_environment
from shared.embedded.folder import kept_passwords, open_folder
from shared.embedded.postgres import PostgresServer
from shared.embedded.processes import Child
from shared.errors import NotFoundError, NotYetError
from shared.migrations import migrate_all
from shared.pending import Delivery, read
from shared.service import Service
from tests.chaos.frame import CaseFailedError, World
from tests.chaos.tenants import PLENTY, POLICY, STAFF
from tests.infra import create_database

T = TypeVar("T")
DATABASE: Final = "model"
OUTCOME: Final = "outcome.json"
ROUNDS: Final = 40
LOOPS: Final = {"sla": ("wake-ups",), "routing": ("refresh", "sweeper"), "reporting": ("facts",)}
PICK: Final = st.integers(0, 9_999)
"""Which of those there are: drawn without looking, since what there is depends on more than Hypothesis knows."""

ACTS: Final = ("investigated", "replied", "commented", "closed")

TOLD: Final = " UNION ALL ".join(
    f"SELECT '{service}' AS producer, id, message_id, subject, body FROM {service}.outbox WHERE tenant_id = $1 AND id > ${place}"
    for place, service in enumerate(SERVICES, 2)
)
TOLD_IN_ORDER: Final = f"SELECT * FROM ({TOLD}) AS every ORDER BY producer, id"

SHOWN: Final = """
SELECT c.case_id, c.version, count(e.seq) AS lines, max(e.seq) AS last,
       array_agg(e.kind ORDER BY e.seq) FILTER (WHERE e.kind = ANY ($2)) AS acts,
       (SELECT count(*) FROM routing.assignment a WHERE a.tenant_id = c.tenant_id AND a.case_id = c.case_id AND a.active) AS assigned
  FROM routing."case" c
  JOIN routing.entry e ON e.tenant_id = c.tenant_id AND e.case_id = c.case_id
 WHERE c.tenant_id = $1 AND c.case_id = ANY ($3)
 GROUP BY c.tenant_id, c.case_id, c.version"""

AHEAD: Final = """
SELECT count(*)
  FROM sla.timeline_entry t
 WHERE t.tenant_id = $1 AND t.case_id = ANY ($2)
   AND NOT EXISTS (SELECT FROM routing.entry e WHERE e.tenant_id = $1 AND e.case_id = t.case_id AND e.seq = t.seq)"""

LEDGER: Final = """
SELECT p.case_id, p.key, p.posted_minor, (SELECT sum(difference_minor) FROM sla.ledger_posting l
                                   WHERE l.tenant_id = p.tenant_id AND l.case_id = p.case_id AND l.key = p.key) AS posted
  FROM sla.ledger_position p
 WHERE p.tenant_id = $1 AND p.case_id = ANY ($2)"""

SETTLED: Final = """
SELECT c.case_id, c.version, w.folded_seq, w.error, f.seq AS fact_seq,
       (SELECT count(*) FROM notify.entry n WHERE n.tenant_id = c.tenant_id AND n.case_id = c.case_id) AS heard
  FROM routing."case" c
  LEFT JOIN sla.watched_case w ON w.tenant_id = c.tenant_id AND w.case_id = c.case_id
  LEFT JOIN reporting.fact f ON f.tenant_id = c.tenant_id AND f.case_id = c.case_id
 WHERE c.tenant_id = $1 AND c.case_id = ANY ($2)"""

COUNTED: Final = """
SELECT coalesce(sum(amount), 0)::int FROM reporting.rollup WHERE tenant_id = $1 AND measure = 'received' AND dimension = 'all'"""


class CrashError(Exception):
    """The process ends here, as far as the services can tell."""


class Message(msgspec.Struct, frozen=True):
    producer: str
    id: int
    message_id: UUID
    subject: str
    body: bytes


class Subscribed(msgspec.Struct, frozen=True):
    """The tenant that all examples share; each looks at its own complaints alone."""

    tenant_id: UUID
    admin: str
    clerk: str


class Bench:
    """The services, and the event loop in which they run: one for all examples."""

    def __init__(self, environments: Mapping[str, Mapping[str, str]], dsn: str) -> None:
        self.runner = asyncio.Runner()
        self._environments = environments
        self._dsn = dsn
        self.services: dict[str, Service] = {}
        self.root: asyncpg.Connection
        self.operator_key = ""
        self.crash_at = ""
        self.tenant: Subscribed | None = None
        self.fault = ""  # the first that was found; what comes after it may be its doing
        self.stored = 0  # complaints of all examples so far
        self.compared = 0  # of those, after each step and at the end
        self._hearers: dict[str, list[tuple[str, Consumer]]] = {}

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def open(self) -> None:
        from services.intake.tenancy import ensure_operator

        self.root = await asyncpg.connect(self._dsn)
        for name in SERVICES:
            service = build(name, self._environments[name])
            await service.runtime.db.open()
            if service.spec.on_start is not None:
                await service.spec.on_start(service.runtime)
            for consumer in service.consumers:
                consumer._database = service.runtime.db
            self.services[name] = service
        self.operator_key = await ensure_operator(self.services["intake"].runtime.db) or ""
        reach = fail_points.reach

        def crashing(name: str) -> None:
            if name == self.crash_at:
                self.crash_at = ""
                raise CrashError
            reach(name)

        fail_points.reach = crashing

    async def close(self) -> None:
        for service in self.services.values():
            if service.spec.on_stop is not None:
                await service.spec.on_stop(service.runtime)
            await service.runtime.db.close()
        await self.root.close()

    async def ask(
        self, service: str, method: str, path: str, key: str, body: Any = None, again: str = ""
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}", **({"Idempotency-Key": again} if again else {})}
        transport = httpx.ASGITransport(app=self.services[service].app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers) as http:
            return await http.request(method, path, json=body)

    def hearers(self, message: Message) -> list[tuple[str, Consumer]]:
        """The consumers whose subjects a message matches."""
        parts = message.subject.split(".")
        pattern = ".".join([*parts[:2], "*", *parts[3:]])
        if pattern not in self._hearers:
            self._hearers[pattern] = [
                (name, consumer)
                for name, service in self.services.items()
                for consumer in service.consumers
                if consumer.stream == message.producer.upper() and pattern in consumer.subjects
            ]
        return self._hearers[pattern]


BENCH: list[Bench] = []


class Machine(RuleBasedStateMachine):
    """The network, the clients, and what they know."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = BENCH[0]
        self.do = self.bench.do
        self.prefix = uuid4().hex
        self.tenant: Subscribed
        self.keys: dict[str, tuple[str, UUID]] = {}  # key → text, complaint
        self.acts: dict[UUID, list[str]] = {}  # what routing has said yes to
        self.messages: list[Message] = []
        self.seen = dict.fromkeys(SERVICES, 0)  # the last row of each outbox that we know
        self.delivered: set[tuple[UUID, str]] = set()  # message, consumer

    @property
    def ids(self) -> list[UUID]:
        return [case_id for _, case_id in self.keys.values()]

    @initialize()
    def subscribe(self) -> None:
        """The first example subscribes the tenant; the others begin where nothing is under way."""
        if self.bench.tenant is None:
            self.do(self._subscribe())
        assert self.bench.tenant is not None
        self.tenant = self.bench.tenant
        self.do(self._skip())

    async def _subscribe(self) -> None:
        ask = self.bench.ask
        body = {"slug": "model", "name": "model", "limits": PLENTY}
        created = await ask("intake", "POST", "/v1/tenants", self.bench.operator_key, body)
        assert created.status_code == 201, created.text
        tenant_id, admin = UUID(created.json()["tenant"]["tenant_id"]), created.json()["admin_key"]
        policy = {"document": POLICY, "reason": "The first version."}
        published = await ask("intake", "POST", "/v1/policies:publish", admin, policy)
        assert published.is_success, published.text
        clerk = {"role": "handler", "name": "Clerk", "staff_id": "clerk.one"}
        key = (await ask("intake", "POST", "/v1/credentials", admin, clerk)).json()["key"]
        self.tenant = self.bench.tenant = Subscribed(tenant_id, admin, key)
        await self._drain()
        for staff_id, role in STAFF:
            put = await ask("routing", "PUT", f"/v1/staff/{staff_id}", admin, {"roles": [role], "unit": "desk"})
            assert put.is_success, put.text
        await self._drain()

    async def _skip(self) -> None:
        """What earlier examples have told has been delivered."""
        await self._look()
        self.messages.clear()

    # -- clients ------------------------------------------------------------------------------------------------------------

    @rule(text=st.sampled_from(["The bill is wrong.", "Nobody answers."]))
    def submit(self, text: str) -> None:
        key = f"{self.prefix}-{len(self.keys)}"
        answer = self._submit(key, text)
        assert answer.status_code == 201, answer.text
        self.keys[key] = (text, UUID(answer.json()["id"]))

    @rule(pick=PICK)
    def submit_again(self, pick: int) -> None:
        if not self.keys:
            return
        key = self._key(pick)
        text, case_id = self.keys[key]
        answer = self._submit(key, text)
        assert (answer.status_code, UUID(answer.json()["id"])) == (201, case_id)

    @rule(pick=PICK)
    def submit_something_else_under_the_same_key(self, pick: int) -> None:
        if not self.keys:
            return
        key = self._key(pick)
        assert self._submit(key, "Something else altogether.").status_code == 422

    @rule(text=st.just("The bill is wrong."), point=st.sampled_from(["intake.stored", "api.commit", "api.committed"]))
    def submit_and_crash(self, text: str, point: str) -> None:
        """The client has no answer, and comes again."""
        key = f"{self.prefix}-{len(self.keys)}"
        self.bench.crash_at = point
        first = self._submit(key, text)
        self.bench.crash_at = ""
        assert first.status_code in (201, 500, 503), first.text
        again = self._submit(key, text)
        assert again.status_code == 201, again.text
        self.keys[key] = (text, UUID(again.json()["id"]))

    def _key(self, pick: int) -> str:
        return list(self.keys)[pick % len(self.keys)]

    def _submit(self, key: str, text: str) -> httpx.Response:
        draft = {"channel": "phone", "category": "billing", "text": text, "complainant": {"name": "Somebody"}}
        return self.do(self.bench.ask("intake", "POST", "/v1/complaints", self.tenant.admin, draft, again=key))

    @rule(pick=PICK, kind=st.sampled_from(ACTS), twice=st.booleans())
    def act(self, pick: int, kind: str, twice: bool) -> None:
        if not self.keys:
            return
        case_id = self.keys[self._key(pick)][1]
        key, body = uuid4().hex, {"kind": kind, "data": {}}
        path = f"/v1/cases/{case_id}/entries"
        answer = self.do(self.bench.ask("routing", "POST", path, self.tenant.clerk, body, again=key))
        if answer.is_success:
            self.acts.setdefault(case_id, []).append(kind)
            if twice:
                repeat = self.do(self.bench.ask("routing", "POST", path, self.tenant.clerk, body, again=key))
                assert repeat.content == answer.content
        else:
            assert answer.status_code in (403, 404, 409, 422), answer.text

    # -- the network --------------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Take up what has been told since."""
        for row in await self.bench.root.fetch(TOLD_IN_ORDER, self.tenant.tenant_id, *self.seen.values()):
            message = Message(*row)
            self.messages.append(message)
            self.seen[message.producer] = max(self.seen[message.producer], message.id)

    async def _open(self, *, done: bool = False) -> list[tuple[Message, str, Consumer]]:
        """What has not been delivered; or what has."""
        await self._look()
        return [
            (message, service, consumer)
            for message in self.messages
            for service, consumer in self.bench.hearers(message)
            if ((message.message_id, consumer.name) in self.delivered) == done
        ]

    async def _deliver(self, group: list[Message], consumer: Consumer) -> bool:
        """Apply messages in one transaction, as the consumer does with what it has pulled; whether any of them was taken."""
        deliveries = []
        for each in group:
            _, message, flaw = read(each.subject, each.body, consumer.handlers)
            assert message is not None, flaw
            deliveries.append(
                Delivery(
                    raw=None,  # type: ignore[arg-type]  # nobody is there to be answered
                    subject=each.subject,
                    body=each.body,
                    key=str(each.message_id),
                    times=1,
                    tenant_id=self.tenant.tenant_id,
                    message=message,
                    flaw=None,
                    touched=0.0,
                    taken_by=consumer,
                )
            )
        faults: list[AtFaultError] = []
        try:
            try:
                await consumer._in_one_transaction(deliveries, 10.0, careful=False)
            except AtFaultError:
                faults = await consumer._in_one_transaction(deliveries, 10.0, careful=True)
        except CrashError:
            return False
        for fault in faults:
            if not isinstance(fault.error, NotYetError | NotFoundError):
                raise fault.error
        failed = {fault.delivery.key for fault in faults}
        taken = [each for each in group if str(each.message_id) not in failed]
        self.delivered.update((each.message_id, consumer.name) for each in taken)
        return bool(taken)

    @rule()
    def deliver_next(self) -> None:
        for message, _, consumer in self.do(self._open())[:3]:
            self.do(self._deliver([message], consumer))

    @rule(pick=PICK)
    def deliver_any(self, pick: int) -> None:
        waiting = self.do(self._open())
        if waiting:
            message, _, consumer = waiting[pick % len(waiting)]
            self.do(self._deliver([message], consumer))

    @rule(pick=PICK)
    def deliver_again(self, pick: int) -> None:
        done = self.do(self._open(done=True))
        if done:
            message, _, consumer = done[pick % len(done)]
            self.do(self._deliver([message], consumer))

    @rule(pick=PICK, point=st.sampled_from(["worker.commit", "worker.committed"]))
    def crash(self, pick: int, point: str) -> None:
        """A consumer ends right before its commit, or right after it and before its acknowledgement."""
        waiting = self.do(self._open())
        if waiting:
            self.bench.crash_at = point
            message, _, consumer = waiting[pick % len(waiting)]
            self.do(self._deliver([message], consumer))
            self.bench.crash_at = ""

    @rule(service=st.sampled_from(sorted(LOOPS)), point=st.sampled_from(["", "worker.commit", "worker.committed"]))
    def work(self, service: str, point: str) -> None:
        """A round of a service's loops, which may end in a crash."""
        self.bench.crash_at = point
        self.do(self._round(service))
        self.bench.crash_at = ""

    async def _round(self, service: str) -> bool:
        again = False
        for loop in self.bench.services[service].loops:
            if loop.name in LOOPS.get(service, ()):
                try:
                    again |= await loop._step() == 0
                except CrashError:
                    again = True
        return again

    async def _drain(self) -> None:
        """Deliver everything, in order, until nobody has anything to tell any more."""
        for _ in range(ROUNDS):
            waiting = await self._open()
            busy = False
            groups: dict[str, tuple[Consumer, list[Message]]] = {}
            for message, service, consumer in waiting:
                groups.setdefault(f"{service} {consumer.name}", (consumer, []))[1].append(message)
            for consumer, group in groups.values():
                busy |= await self._deliver(group, consumer)
            for service in LOOPS:
                busy |= await self._round(service)
            if not busy and not await self._open():
                return
        left = await self._open()
        raise AssertionError(f"{len(left)} messages could never be applied: {[each[0].subject for each in left[:3]]}")

    # -- what must hold --------------------------------------------------------------------------------------------------------

    @invariant()
    def each_key_has_one_complaint(self) -> None:
        query = "SELECT key, complaint_id FROM intake.receipt WHERE tenant_id = $1 AND key LIKE $2"
        rows = self.do(self.bench.root.fetch(query, self.tenant.tenant_id, f"api:{self.prefix}-%"))
        assert {row["key"]: row["complaint_id"] for row in rows} == {
            f"api:{key}": case_id for key, (_, case_id) in self.keys.items()
        }
        self.bench.compared += len(rows)

    @invariant()
    def timelines_are_whole_and_as_said(self) -> None:
        for row in self.do(self.bench.root.fetch(SHOWN, self.tenant.tenant_id, list(ACTS), self.ids)):
            assert row["lines"] == row["last"] == row["version"]
            assert row["assigned"] == 1
            assert (row["acts"] or []) == self.acts.get(row["case_id"], [])
        assert self.do(self.bench.root.fetchval(AHEAD, self.tenant.tenant_id, self.ids)) == 0

    @invariant()
    def the_ledger_adds_up(self) -> None:
        for row in self.do(self.bench.root.fetch(LEDGER, self.tenant.tenant_id, self.ids)):
            assert row["posted_minor"] == row["posted"]

    def teardown(self) -> None:
        """What failed first is kept: Hypothesis tells of its repetition, which need not go the same way."""
        try:
            if not isinstance(sys.exception(), Exception):
                self._settle()
        finally:
            fault = sys.exception()
            if isinstance(fault, Exception) and not self.bench.fault:
                self.bench.fault = "".join(traceback.format_exception(fault, limit=-5))

    def _settle(self) -> None:
        """Everything comes to rest, and then every service agrees about every complaint."""
        self.bench.crash_at = ""
        if not self.keys:
            return
        self.do(self._drain())
        self.each_key_has_one_complaint()
        self.timelines_are_whole_and_as_said()
        self.the_ledger_adds_up()
        rows = self.do(self.bench.root.fetch(SETTLED, self.tenant.tenant_id, self.ids))
        assert {row["case_id"] for row in rows} == set(self.ids)
        for row in rows:
            assert row["error"] is None
            assert row["version"] == row["folded_seq"] == row["fact_seq"] == row["heard"], dict(row)
        self.bench.stored += len(self.keys)
        assert self.do(self.bench.root.fetchval(COUNTED, self.tenant.tenant_id)) == self.bench.stored


class Model:
    """The case: a process of its own, since it keeps one processor busy, on a PostgreSQL of its own."""

    name: Final = "duplicates and reordering"
    place: Final = "aside"

    def needs(self) -> str:
        return ""

    async def run(self, world: World) -> dict[str, Any]:
        order = Order(
            seed=world.chance.randrange(2**32), examples=world.size.model_examples, steps=world.size.model_steps
        )
        folder = Path(tempfile.mkdtemp(prefix="recourse-model-"))
        command = [sys.executable, "-m", "tests.chaos.model", str(folder), msgspec.json.encode(order).decode()]
        child = Child(command, log=folder / "model.log", death_signal=signal.SIGKILL)
        try:
            await child.wait()
            outcome = folder / OUTCOME
            if not outcome.exists():
                raise CaseFailedError(f"the model ended by itself: {child.last_words()}, {child.log_tail(1)}")
            done = msgspec.json.decode(outcome.read_bytes(), type=Outcome)
        finally:
            await child.stop(signal.SIGTERM, 0.0)
            shutil.rmtree(folder, ignore_errors=True)
        if done.failure:
            raise CaseFailedError(f"hypothesis seed {order.seed}: {done.failure}")
        return {**msgspec.structs.asdict(order), "complaints": done.complaints, "compared": done.compared}


class Order(msgspec.Struct, frozen=True):
    """What the process of the model is asked for."""

    seed: int
    examples: int
    steps: int


class Outcome(msgspec.Struct, frozen=True):
    """What has become of it; `failure` is empty when everything held."""

    failure: str
    complaints: int
    compared: int


def main(folder: Path, order: Order) -> None:
    """Run the model in this process, and write down what has become of it."""
    telemetry.configure(level="error")
    postgres = PostgresServer(open_folder(folder), 0)
    with asyncio.Runner() as runner:
        runner.run(postgres.start())
        try:
            bench = Bench(*runner.run(_database(postgres)))
            failure = _run(bench, order)
        finally:
            runner.run(postgres.stop())
    outcome = Outcome(failure, bench.stored, bench.compared)
    (folder / OUTCOME).write_bytes(msgspec.json.encode(outcome))


async def _database(postgres: PostgresServer) -> tuple[dict[str, dict[str, str]], str]:
    """Every schema, and the settings of every service."""
    passwords = kept_passwords(postgres.folder / "roles.secret.json", database_roles())
    await create_database(postgres.dsn, DATABASE)
    dsn = postgres.dsn_of(DATABASE)
    await migrate_all(dsn, passwords)
    environments: dict[str, dict[str, str]] = {}
    for name in SERVICES:
        variables = service_environment(
            name,
            database_url=postgres.address_of(DATABASE),
            role_passwords=passwords,
            nats_url="nats://127.0.0.1:1",  # nobody is there: the machine is the network
            nats_password="",
            nats_monitor_url="http://127.0.0.1:1",
            stream_bytes=2**30,
            port=0,
        )
        if name in ("intake", "routing", "notify"):
            variables[f"RECOURSE_{name.upper()}_MASTER_KEY"] = master_key(postgres.folder, name)
        if name == "reporting":  # a round is to find what there is, whenever it comes
            variables["RECOURSE_FACT_PATIENCE_SECONDS"] = variables["RECOURSE_FACT_IDLE_SECONDS"] = "0"
        environments[name] = variables
    return environments, dsn


def _run(bench: Bench, order: Order) -> str:
    """Go through the examples; returns what did not hold in one of them."""
    reach = fail_points.reach
    try:
        bench.do(bench.open())
        BENCH[:] = [bench]
        run_state_machine_as_test(
            seed(order.seed)(Machine),
            settings=settings(
                max_examples=order.examples,
                stateful_step_count=order.steps,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink) if order.examples <= 50 else (Phase.generate,),
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Exception:
        return bench.fault or traceback.format_exc(limit=-3)
    finally:
        fail_points.reach = reach
        BENCH.clear()
        with contextlib.suppress(Exception):
            bench.runner.run(bench.close())
        bench.runner.close()
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Order))
