"""Storing complaints: each once, many in one transaction.

Complaints of one tenant that come while a transaction is under way wait and go together into the next one. Who has just
been answered and sends the next complaint would come too late for that one by a moment: so it waits for as many as there
were, a few milliseconds at most. A single complaint waits for nothing; under load the cost of a commit is shared, and the
tenant's counter row is locked once for all of them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg
import msgspec
import structlog
from msgspec import Struct

from services.intake.domain.complaint import NormalisedComplaint, SourceKind
from services.intake.domain.duplicates import Earlier, duplicate_of, window_of, words_of
from services.intake.domain.entry import received_entry
from services.intake.domain.numbering import NumberForm, number_form
from services.intake.envelope import PersonKey, TenantKeys
from services.intake.refusals import NumbersExhaustedError, PolicyMovedError, QuotaError
from services.intake.repository import complaints as rows
from services.intake.vault import CONTACT_COLUMN, FILE_COLUMN, FILE_NAME_COLUMN, TEXT_COLUMN, Vault
from shared import fail_points
from shared.database import OUTAGES, Database, Tx
from shared.engine.calendar.localtime import zone_of
from shared.engine.model import Actor
from shared.engine.rules import CompiledPolicy
from shared.errors import DomainError, TooManyError, UnavailableError
from shared.idempotency import InProgressError, KeyReusedError
from shared.ids import new_id
from shared.messages.base import encode, subject_of
from shared.messages.intake import ComplaintReceived
from shared.policy.schema import Policy
from shared.reference import Reference, Tenant
from shared.telemetry import describe

_TOGETHER_SECONDS = 0.003  # how long a transaction waits for those who came together with the last one
_REMEMBERED = 10_000  # tenants of whom it is known how many complaints come together
_RACES = 3  # how often two complaints may find the same new telephone number at once before we give up


class Offer(Struct, frozen=True, kw_only=True):
    """A complaint to be stored.

    key: what makes two offers the same, unique within the tenant: `api:<Idempotency-Key>`, `hook:<source>:<id>`, …
    request_sha256: of what came with the key; another one under the same key is refused.
    original: what came in, as it came, where the draft was made from it; sealed with the rest.
    silent: an import of what is past: it happened when the complaint says, and nobody is told.
    """

    key: str
    request_sha256: bytes
    complaint: NormalisedComplaint
    policy: CompiledPolicy
    source: SourceKind
    by: Actor
    complaint_id: UUID
    source_id: UUID | None = None
    original: bytes | None = None
    silent: bool = False
    traceparent: str | None = None


class Stored(Struct, frozen=True, kw_only=True):
    """What is answered, now and for every repeat."""

    complaint_id: UUID
    number: str
    received_at: datetime
    policy_version: int
    duplicate_of: UUID | None
    repeated: bool


class IdentityRaceError(Exception):
    """Another transaction made the same telephone number or address known at the same time; look again."""


Outcome = Stored | DomainError


async def store(
    tx: Tx, keys: TenantKeys, tenant: Tenant, offers: Sequence[Offer], *, counts_today: bool = True
) -> list[Outcome]:
    """Store the offers of one tenant in this transaction, and return what became of each.

    Raises:
        IdentityRaceError: begin again, in a new transaction.
        NumbersExhaustedError, QuotaError: nothing of the batch may stay.
    """
    points = {offer.key: _points(keys, offer.complaint) for offer in offers}
    rules = (offer.policy.document.intake.duplicates for offer in offers)
    windows = [window_of(rule) for rule in rules if rule is not None]
    look = await rows.look(
        tx,
        tenant.tenant_id,
        list(points),
        sorted({point for each in points.values() for point in each}),
        max(windows, default=None),
    )
    outcomes: list[Outcome | None] = [None] * len(offers)
    fresh: list[tuple[int, Offer]] = []
    seen: set[str] = set()
    for place, offer in enumerate(offers):
        if offer.key in look.busy:
            outcomes[place] = InProgressError(retry_after_seconds=1)
        elif offer.key in look.answered or offer.key in seen:
            continue
        elif offer.policy.version != look.policy_version:
            outcomes[place] = PolicyMovedError()
        else:
            seen.add(offer.key)
            fresh.append((place, offer))
    if fresh:
        assembly = Assembly(keys, tenant, look, fresh[0][1].policy.version)
        for _, offer in fresh:
            assembly.add(offer, points[offer.key])
        stored = await rows.store(tx, tenant.tenant_id, assembly.batch())
        assembly.check(stored, tenant.limits.complaints_per_day if counts_today else None)
        for place, offer in fresh:
            row = stored.get(offer.complaint_id)
            if row is not None:
                outcomes[place] = assembly.answer(offer, row.number)
    await _fill_in_answers(tx, tenant.tenant_id, offers, outcomes)
    return [outcome for outcome in outcomes if outcome is not None]


async def _fill_in_answers(tx: Tx, tenant_id: UUID, offers: Sequence[Offer], outcomes: list[Outcome | None]) -> None:
    """Give what was stored before under the same key its answer again."""
    missing = [offer.key for offer, outcome in zip(offers, outcomes, strict=True) if outcome is None]
    if not missing:
        return
    answers = await rows.answered(tx, tenant_id, missing)
    for place, offer in enumerate(offers):
        if outcomes[place] is not None:
            continue
        answer = answers.get(offer.key)
        if answer is None:  # pruned between two looks
            outcomes[place] = InProgressError(retry_after_seconds=1)
        elif answer.request_sha256 != offer.request_sha256:
            outcomes[place] = KeyReusedError(
                "Use a fresh key for a new request; a retry repeats the request unchanged."
            )
        else:
            outcomes[place] = Stored(
                complaint_id=answer.complaint_id,
                number=answer.number,
                received_at=answer.received_at,
                policy_version=answer.policy_version,
                duplicate_of=answer.duplicate_of,
                repeated=True,
            )


def _points(keys: TenantKeys, complaint: NormalisedComplaint) -> list[tuple[str, bytes]]:
    """The blind indexes by which the complainant may be known; the telephone number goes first."""
    contact = complaint.contact
    given = (("phone", contact.phone), ("email", contact.email))
    return [(kind, keys.blind(kind, value)) for kind, value in given if value is not None]


class Assembly:
    """Makes the rows of a batch: who complains, which number, what is sealed, what is told."""

    def __init__(self, keys: TenantKeys, tenant: Tenant, look: rows.Look, policy_version: int) -> None:
        self._keys = keys
        self._tenant = tenant
        self._look = look
        self._policy_version = policy_version
        self._hole = uuid4().hex
        self._known = {(known.kind, known.blind): known for known in look.known}
        self._opened: dict[UUID, PersonKey] = {}
        self._new_points: dict[tuple[str, bytes], UUID] = {}
        self._earlier: dict[UUID, list[Earlier]] = {}
        for complainant_id, earlier in look.earlier:
            self._earlier.setdefault(complainant_id, []).append(earlier)
        self._forms: dict[UUID, NumberForm] = {}
        self._rows: dict[UUID, rows.ComplaintRow] = {}
        self._people: list[tuple[UUID, bytes]] = []
        self._texts: list[rows.TextRow] = []
        self._files: list[rows.AttachmentRow] = []
        self._subject = ""

    def add(self, offer: Offer, points: Sequence[tuple[str, bytes]]) -> None:
        """Put one more complaint into the batch."""
        complaint, policy = offer.complaint, offer.policy.document
        complainant_id, person = self._complainant(points)
        at = complaint.received_at if offer.silent and complaint.received_at is not None else self._look.now
        words = words_of(complaint)
        repeats = self._repeats(policy, words, at, complainant_id)
        self._earlier.setdefault(complainant_id, []).append(
            Earlier(complaint_id=offer.complaint_id, received_at=at, duplicate_of=repeats, words=words)
        )
        text_id = self._text(offer, person, "complaint", complaint.text.encode()) if complaint.text else None
        if offer.original is not None:
            self._text(offer, person, "original", offer.original)
        personal = {
            name: self._text(offer, person, name, text.encode()) for name, text in complaint.personal_fields.items()
        }
        attachments = [self._attachment(offer, person, place) for place in range(len(complaint.attachments))]
        entry = received_entry(
            complaint,
            at=at,
            by=offer.by,
            complainant_id=complainant_id,
            number=self._hole,
            text_id=text_id,
            personal_ids=personal,
            attachment_ids=attachments,
        )
        message = ComplaintReceived(
            message_id=new_id(),
            tenant_id=self._tenant.tenant_id,
            at=at,
            traceparent=offer.traceparent,
            case_id=offer.complaint_id,
            number=self._hole,
            policy_version=offer.policy.version,
            entry=entry,
            source=offer.source,
            duplicate_of=repeats,
            silent=offer.silent,
        )
        self._subject = subject_of(message)
        form = number_form(policy.intake.numbering, at.astimezone(zone_of(self._tenant.zone)).date())
        self._forms[offer.complaint_id] = form
        contact = msgspec.json.encode(complaint.contact)
        self._rows[offer.complaint_id] = rows.ComplaintRow(
            complaint_id=offer.complaint_id,
            key=offer.key,
            request_sha256=offer.request_sha256,
            source=offer.source,
            source_id=offer.source_id,
            complainant_id=complainant_id,
            received_at=at,
            duplicate_of=repeats,
            words=words,
            sealed_contact=person.seal(CONTACT_COLUMN, offer.complaint_id, contact) if contact != b"{}" else None,
            counter=f"number:{form.period}",
            before=form.before,
            after=form.after,
            width=form.width,
            message_id=message.message_id,
            body=encode(message).decode(),
        )

    def batch(self) -> rows.Batch:
        today = self._look.now.astimezone(zone_of(self._tenant.zone)).date()
        return rows.Batch(
            policy_version=self._policy_version,
            generation=self._keys.generation,
            day=f"day:{today.isoformat()}",
            subject=self._subject,
            hole=f'"{self._hole}"',
            complaints=list(self._rows.values()),
            people=self._people,
            points=[rows.PointRow(kind, blind, owner) for (kind, blind), owner in self._new_points.items()],
            texts=self._texts,
            attachments=self._files,
        )

    def check(self, stored: dict[UUID, rows.StoredRow], a_day: int | None) -> None:
        """Refuse a batch of which something may not stay."""
        if not stored:
            return
        owners = {self._rows[complaint_id].complainant_id for complaint_id in stored}
        expected = sum(owner in owners for owner in self._new_points.values())
        row = next(iter(stored.values()))
        if row.points != expected:
            raise IdentityRaceError
        if a_day is not None and row.today > a_day:
            raise QuotaError(f"The plan takes {a_day} complaints a day.", retry_after_seconds=3600)
        for complaint_id, each in stored.items():
            last = self._forms[complaint_id].last
            if last is not None and each.count > last:
                raise NumbersExhaustedError("Widen the pattern of intake.numbering, or let the number grow.")

    def answer(self, offer: Offer, number: str) -> Stored:
        row = self._rows[offer.complaint_id]
        return Stored(
            complaint_id=offer.complaint_id,
            number=number,
            received_at=row.received_at,
            policy_version=offer.policy.version,
            duplicate_of=row.duplicate_of,
            repeated=False,
        )

    def _complainant(self, points: Sequence[tuple[str, bytes]]) -> tuple[UUID, PersonKey]:
        """Return who complains: whoever one of the points is known for, else somebody new. Points not known yet become
        theirs.
        """
        complainant_id: UUID | None = None
        for point in points:
            if known := self._known.get(point):
                complainant_id = known.complainant_id
                if complainant_id not in self._opened:
                    self._opened[complainant_id] = self._keys.person(complainant_id, known.wrapped_key)
                break
            if point in self._new_points:
                complainant_id = self._new_points[point]
                break
        if complainant_id is None:
            complainant_id = new_id()
            self._opened[complainant_id], wrapped = self._keys.new_person(complainant_id)
            self._people.append((complainant_id, wrapped))
        for point in points:
            if point not in self._known:
                self._new_points.setdefault(point, complainant_id)
        return complainant_id, self._opened[complainant_id]

    def _repeats(self, policy: Policy, words: dict[str, object], at: datetime, complainant_id: UUID) -> UUID | None:
        rule = policy.intake.duplicates
        return None if rule is None else duplicate_of(rule, words, at, self._earlier.get(complainant_id, []))

    def _text(self, offer: Offer, person: PersonKey, kind: str, content: bytes) -> UUID:
        text_id = new_id()
        sealed = person.seal(TEXT_COLUMN, text_id, content)
        self._texts.append(rows.TextRow(text_id, offer.complaint_id, kind, sealed, offer.by.id))
        return text_id

    def _attachment(self, offer: Offer, person: PersonKey, place: int) -> UUID:
        attachment = offer.complaint.attachments[place]
        attachment_id = new_id()
        self._files.append(
            rows.AttachmentRow(
                attachment_id,
                offer.complaint_id,
                attachment.media_type,
                len(attachment.content),
                person.seal(FILE_NAME_COLUMN, attachment_id, attachment.name.encode()),
                person.seal(FILE_COLUMN, attachment_id, attachment.content),
            )
        )
        return attachment_id


class _Waiting(Struct):
    offer: Offer
    done: asyncio.Future[Outcome]
    until: float  # by the event loop's clock


class _Queue:
    """Who waits at one tenant, and how many came together lately."""

    __slots__ = ("_called", "_unanswered", "_wanted", "_watch", "expected", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self._unanswered: deque[_Waiting] = deque()  # in the order in which their time is up
        self._watch: asyncio.TimerHandle | None = None
        self.expected = 0
        self._wanted = 0
        self._called: asyncio.Future[None] | None = None

    def add(self, entry: _Waiting) -> None:
        self.waiting.append(entry)
        while self._unanswered and self._unanswered[0].done.done():
            self._unanswered.popleft()
        self._unanswered.append(entry)
        if self._watch is None:  # one timer for all of them: nearly none is ever needed
            self._watch = asyncio.get_running_loop().call_at(entry.until, self._expire)
        if self._called is not None and len(self.waiting) >= self._wanted and not self._called.done():
            self._called.set_result(None)

    def _expire(self) -> None:
        """Answer those whose time is up, and look again when the next one's is."""
        loop = asyncio.get_running_loop()
        while self._unanswered:
            entry = self._unanswered[0]
            if not entry.done.done():
                if entry.until > loop.time():
                    self._watch = loop.call_at(entry.until, self._expire)
                    return
                _settle(entry, UnavailableError("The complaint could not be stored in time.", retry_after_seconds=2))
            self._unanswered.popleft()
        self._watch = None

    async def gather(self, most: int) -> None:
        """Wait until as many are there as came together lately, for a moment at most."""
        self._wanted = min(self.expected, most)
        if len(self.waiting) >= self._wanted:
            return
        loop = asyncio.get_running_loop()
        self._called = called = loop.create_future()
        timer = loop.call_later(_TOGETHER_SECONDS, _come_back, called)
        try:
            await called
        finally:
            timer.cancel()
            self._called = None


def _come_back(called: asyncio.Future[None]) -> None:
    if not called.done():
        called.set_result(None)


class Storing:
    """Collects the offers of each tenant into transactions. One per process."""

    def __init__(
        self,
        database: Database,
        reference: Reference,
        vault: Vault,
        *,
        batch: int,
        queue: int,
        connections: int,
        seconds: float,
    ) -> None:
        self._database = database
        self._reference = reference
        self._vault = vault
        self._batch = batch
        self._most = queue
        self._seconds = seconds
        self._slots = asyncio.Semaphore(max(1, connections))
        self._queues: OrderedDict[UUID, _Queue] = OrderedDict()  # the least recently used first
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    async def store(self, tenant_id: UUID, offer: Offer) -> Stored:
        """Return the answer once the complaint is committed; raises what it is refused for.

        UnavailableError when that takes too long. Whether it was stored is then open, as after any broken connection: a
        retry with the same key gets the answer.
        """
        queue = self._queue_of(tenant_id)
        if len(queue.waiting) >= self._most:
            raise TooManyError("Too many complaints of this tenant are waiting to be stored.", retry_after_seconds=1)
        loop = asyncio.get_running_loop()
        entry = _Waiting(offer, loop.create_future(), loop.time() + self._seconds)
        queue.add(entry)
        if tenant_id not in self._tasks:
            self._tasks[tenant_id] = asyncio.create_task(self._work_off(tenant_id), name="intake storing")
        outcome = await entry.done
        if isinstance(outcome, Stored):
            return outcome
        raise outcome

    async def stop(self) -> None:
        """Let what is under way end."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _queue_of(self, tenant_id: UUID) -> _Queue:
        queue = self._queues.get(tenant_id)
        if queue is None:
            queue = self._queues[tenant_id] = _Queue()
            if len(self._queues) > _REMEMBERED:
                idle = next((each for each in self._queues if each not in self._tasks and each != tenant_id), None)
                if idle is not None:
                    del self._queues[idle]
        return queue

    async def _work_off(self, tenant_id: UUID) -> None:
        queue = self._queues[tenant_id]
        try:
            while queue.waiting:
                await queue.gather(self._batch)
                async with self._slots:
                    taken = self._next(queue.waiting)
                    await self._take(tenant_id, taken)
                queue.expected = len(taken) + len(queue.waiting)
        finally:
            # Nothing was awaited since the queue was found empty, so nobody can have come in between.
            del self._tasks[tenant_id]
            for entry in queue.waiting:
                _settle(entry, UnavailableError("The service is stopping.", retry_after_seconds=1))
            queue.waiting.clear()

    def _next(self, waiting: deque[_Waiting]) -> list[_Waiting]:
        """Take as many as go together; nobody waits for the answer to an offer whose sender has gone."""
        taken: list[_Waiting] = []
        while waiting and len(taken) < self._batch:
            entry = waiting.popleft()
            if not entry.done.done():
                taken.append(entry)
        return taken

    async def _take(self, tenant_id: UUID, entries: list[_Waiting]) -> None:
        if not entries:
            return
        try:
            outcomes = await self._transact(tenant_id, [entry.offer for entry in entries])
        except asyncio.CancelledError:
            for entry in entries:
                _settle(entry, UnavailableError("The service is stopping.", retry_after_seconds=1))
            raise
        except Exception as error:
            if isinstance(error, (UnavailableError, *OUTAGES)):
                structlog.get_logger().warning("storing_failed", count=len(entries), **describe(error))
                # Whoever waits behind them would only wait for the same outage.
                for entry in (*entries, *self._queues[tenant_id].waiting):
                    _settle(entry, UnavailableError("The database does not answer in time.", retry_after_seconds=2))
                return
            if len(entries) == 1:
                _settle(entries[0], error)
                return
            structlog.get_logger().warning("batch_divided", count=len(entries), **describe(error))
            for entry in entries:
                await self._take(tenant_id, [entry])
            return
        fail_points.reach("intake.kept")
        for entry, outcome in zip(entries, outcomes, strict=True):
            _settle(entry, outcome)

    async def _transact(self, tenant_id: UUID, offers: list[Offer]) -> list[Outcome]:
        tenant = await self._reference.tenant(tenant_id)
        for attempt in range(_RACES):
            try:
                async with self._database.api_tx(tenant_id) as tx:
                    outcomes = await store(tx, await self._vault.keys(tx), tenant, offers)
                    fail_points.reach("intake.stored")
            except (IdentityRaceError, asyncpg.DeadlockDetectedError):
                if attempt == _RACES - 1:
                    raise UnavailableError("Too much happens at once.", retry_after_seconds=1) from None
                await asyncio.sleep(0.005 * (attempt + 1))
                continue
            for outcome in outcomes:
                if isinstance(outcome, Stored) and not outcome.repeated:  # else it would have been told to come again
                    self._reference.note_version(tenant_id, outcome.policy_version)
                    break
            return outcomes
        raise AssertionError("unreachable")


def _settle(entry: _Waiting, outcome: Outcome | Exception) -> None:
    if entry.done.done():
        return
    if isinstance(outcome, Stored | DomainError):
        entry.done.set_result(outcome)
    else:
        entry.done.set_exception(outcome)
