"""Storing complaints: each once, many in one statement, of several tenants where they come at once.

Each complaint stays with its tenant all the way: its lot has the tenant's keys and looks, its rows bear the tenant's id, and
nothing is looked up or joined without it. Most need nothing from the server before their rows are made, and are stored in one
call (`store_plainly`); the others in a transaction that looks first (`store`). Who goes together is decided in gathering.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from services.intake.domain.complaint import NormalisedComplaint, SourceKind
from services.intake.domain.duplicates import Earlier, duplicate_of, window_of, words_of
from services.intake.domain.entry import received_entry
from services.intake.domain.numbering import NumberForm, number_form
from services.intake.envelope import PersonKey, TenantKeys
from services.intake.refusals import NumbersExhaustedError, PolicyMovedError, QuotaError
from services.intake.repository import complaints as rows
from services.intake.vault import CONTACT_COLUMN, FILE_COLUMN, FILE_NAME_COLUMN, TEXT_COLUMN
from shared.database import Database, Tx
from shared.engine.calendar.localtime import zone_of
from shared.engine.model import Actor
from shared.engine.rules import CompiledPolicy
from shared.errors import DomainError
from shared.idempotency import InProgressError, KeyReusedError
from shared.ids import new_id
from shared.messages.base import encode, subject_of
from shared.messages.intake import ComplaintReceived
from shared.policy.schema import Policy
from shared.reference import Tenant


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


class Lot(Struct, frozen=True, kw_only=True):
    """What one tenant's part of a batch is."""

    tenant: Tenant
    keys: TenantKeys
    offers: Sequence[Offer]
    counts_today: bool = True  # against the plan


class IdentityRaceError(Exception):
    """Another transaction made the same telephone number or address known at the same time; look again."""


_LONG_AGO: Final = datetime(1000, 1, 1, tzinfo=UTC)
_HOLES: Final = 500 * 365 * 86_400_000_000  # microseconds

Outcome = Stored | DomainError
Point = tuple[str, bytes]  # kind and blind index of a telephone number or address


def is_plain(tenant: Tenant, offer: Offer) -> bool:
    """Whether a complaint may be stored without a look: it counts as received at this moment, which nobody has set."""
    return offer.complaint.received_at is None and not offer.silent and not tenant.sandbox


async def store_plainly(
    database: Database, lots: Sequence[Lot], about_now: datetime, lock_seconds: float
) -> list[list[Outcome | None]]:
    """Store, in one round trip and a transaction of its own, those of the offers that need no look before: everybody is
    taken for somebody new, each key for a fresh one. The server finds out for whom that is true; the outcome of the others is None.

    Args:
        lots: of offers that are plain.
        about_now: a guess of the server's time, which is right about the day at least.
    """
    batch = _batch()
    parts = []
    for lot in lots:
        version = lot.offers[-1].policy.version
        look = rows.Look(now=about_now, policy_version=version, busy=set(), answered=set(), known=[], earlier=[])
        part = Assembly(lot, look, batch, at=batch.hole_at)
        part.assemble([_points(lot.keys, offer.complaint) for offer in lot.offers])
        part.outcomes = [None] * len(lot.offers)
        parts.append(part)
    stored = await rows.store_plainly(database, batch, lock_seconds)
    for part in parts:
        part.settle(stored)
    return [part.outcomes for part in parts]


async def store(tx: Tx, lots: Sequence[Lot]) -> list[list[Outcome]]:
    """Store the lots in this transaction, which is one of their tenants, and return what became of each offer.

    Raises:
        IdentityRaceError: begin again, in a new transaction.
        NumbersExhaustedError, QuotaError: nothing of the batch may stay.
    """
    points = [[_points(lot.keys, offer.complaint) for offer in lot.offers] for lot in lots]
    looks = await rows.look(tx, [_asked(lot, of_lot) for lot, of_lot in zip(lots, points, strict=True)])
    batch = _batch()
    parts = [Assembly(lot, look, batch) for lot, look in zip(lots, looks, strict=True)]
    for part, of_lot in zip(parts, points, strict=True):
        part.assemble(of_lot)
    if batch.complaints:
        stored = await rows.store(tx, batch)
        _check_identities(batch, stored)
        for part in parts:
            part.settle(stored)
    for part in parts:
        await _fill_in_answers(tx, part.tenant_id, part.offers, part.outcomes)
    return [[outcome for outcome in part.outcomes if outcome is not None] for part in parts]


def _batch() -> rows.Batch:
    """An empty batch, whose holes nobody could have thought of."""
    return rows.Batch(hole=uuid4().hex, hole_at=_LONG_AGO + timedelta(microseconds=secrets.randbelow(_HOLES)))


def _asked(lot: Lot, points: Sequence[Sequence[Point]]) -> rows.Asked:
    rules = (offer.policy.document.intake.duplicates for offer in lot.offers)
    windows = [window_of(rule) for rule in rules if rule is not None]
    return rows.Asked(
        lot.tenant.tenant_id,
        list(dict.fromkeys(offer.key for offer in lot.offers)),
        sorted({point for each in points for point in each}),
        max(windows, default=None),
    )


def _check_identities(batch: rows.Batch, stored: Mapping[int, rows.StoredRow]) -> None:
    """Raise IdentityRaceError where somebody else has made a new point known since the look."""
    if not batch.points or not stored:
        return
    owners = {batch.complaints[place].complainant_id for place in stored}
    if next(iter(stored.values())).points != sum(point.complainant_id in owners for point in batch.points):
        raise IdentityRaceError


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


@lru_cache(maxsize=1_000)
def _bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """When a day begins and ends there."""
    begins, ends = (datetime.combine(each, time.min, zone).astimezone(UTC) for each in (day, day + timedelta(days=1)))
    return begins, ends


def _points(keys: TenantKeys, complaint: NormalisedComplaint) -> list[Point]:
    """The blind indexes by which the complainant may be known; the telephone number goes first."""
    contact = complaint.contact
    given = (("phone", contact.phone), ("email", contact.email))
    return [(kind, keys.blind(kind, value)) for kind, value in given if value is not None]


class Assembly:
    """Makes the rows of one lot, in a batch that may hold others: who complains, which number, what is sealed, what is told."""

    def __init__(self, lot: Lot, look: rows.Look, batch: rows.Batch, at: datetime | None = None) -> None:
        """`at`: stands for the time, which is known when it is stored; None: it is the look's."""
        self.tenant_id = lot.tenant.tenant_id
        self.offers = lot.offers
        self.outcomes: list[Outcome | None] = [None] * len(lot.offers)
        self._lot = lot
        self._keys = lot.keys
        self._look = look
        self._at = at or look.now
        self._is_timed = at is None
        self._batch = batch
        self._zone = zone_of(lot.tenant.zone)
        self._a_day = lot.tenant.limits.complaints_per_day if lot.counts_today else None
        self._known = {known.point: known for known in look.known}
        self._opened: dict[UUID, PersonKey] = {}
        self._new_points: dict[Point, UUID] = {}
        self._earlier: dict[UUID, list[Earlier]] = {}
        for complainant_id, earlier in look.earlier:
            self._earlier.setdefault(complainant_id, []).append(earlier)
        self._added: list[tuple[int, int, NumberForm]] = []  # place in the lot, place in the batch
        self._subject = ""

    def assemble(self, points: Sequence[Sequence[Point]]) -> None:
        """Put those offers into the batch that are to be stored; say of the others what becomes of them, if that is known yet."""
        look = self._look
        seen: set[str] = set()
        for place, offer in enumerate(self.offers):
            if offer.key in look.busy:
                self.outcomes[place] = InProgressError(retry_after_seconds=1)
            elif offer.key in look.answered or offer.key in seen:
                continue
            elif offer.policy.version != look.policy_version:
                self.outcomes[place] = PolicyMovedError()
            else:
                seen.add(offer.key)
                self._add(place, offer, points[place])
        if not self._added:
            return
        for (kind, blind), owner in self._new_points.items():
            self._batch.points.append(rows.PointRow(self.tenant_id, kind, blind, owner))
        day = look.now.astimezone(self._zone).date()
        begins, ends = (None, None) if self._is_timed else _bounds(day, self._zone)
        self._batch.tenants.append(
            rows.TenantRow(
                tenant_id=self.tenant_id,
                policy_version=self.offers[self._added[0][0]].policy.version,
                generation=self._keys.generation,
                day=f"day:{day.isoformat()}",
                subject=self._subject,
                begins=begins,
                ends=ends,
                a_day=self._a_day,
            )
        )

    def settle(self, stored: Mapping[int, rows.StoredRow]) -> None:
        """Take the answers of what was stored. Raises what nothing may stay for."""
        a_day = self._a_day
        for place, in_batch, form in self._added:
            row = stored.get(in_batch)
            if row is None:
                continue
            if a_day is not None and row.today > a_day:
                raise QuotaError(f"The plan takes {a_day} complaints a day.", retry_after_seconds=3600)
            if form.last is not None and row.count > form.last:
                raise NumbersExhaustedError("Widen the pattern of intake.numbering, or let the number grow.")
            complaint = self._batch.complaints[in_batch]
            self.outcomes[place] = Stored(
                complaint_id=complaint.complaint_id,
                number=row.number,
                received_at=row.received_at,
                policy_version=self.offers[place].policy.version,
                duplicate_of=complaint.duplicate_of,
                repeated=False,
            )

    def _add(self, place: int, offer: Offer, points: Sequence[Point]) -> None:
        complaint, policy = offer.complaint, offer.policy.document
        complainant_id, person = self._complainant(points)
        at = complaint.received_at if offer.silent and complaint.received_at is not None else self._at
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
        attachments = [self._attachment(offer, person, number) for number in range(len(complaint.attachments))]
        entry = received_entry(
            complaint,
            at=at,
            by=offer.by,
            complainant_id=complainant_id,
            number=self._batch.hole,
            text_id=text_id,
            personal_ids=personal,
            attachment_ids=attachments,
        )
        message = ComplaintReceived(
            message_id=new_id(),
            tenant_id=self.tenant_id,
            at=at,
            traceparent=offer.traceparent,
            case_id=offer.complaint_id,
            number=self._batch.hole,
            policy_version=offer.policy.version,
            entry=entry,
            source=offer.source,
            duplicate_of=repeats,
            silent=offer.silent,
        )
        if not self._subject:
            self._subject = subject_of(message)
        on = at if self._is_timed else self._look.now
        form = number_form(policy.intake.numbering, on.astimezone(self._zone).date())
        contact = msgspec.json.encode(complaint.contact)
        self._added.append((place, len(self._batch.complaints), form))
        self._batch.complaints.append(
            rows.ComplaintRow(
                tenant_id=self.tenant_id,
                complaint_id=offer.complaint_id,
                key=offer.key,
                request_sha256=offer.request_sha256,
                source=offer.source,
                source_id=offer.source_id,
                complainant_id=complainant_id,
                received_at=at if self._is_timed else None,
                duplicate_of=repeats,
                words=msgspec.json.encode(words).decode(),
                sealed_contact=person.seal(CONTACT_COLUMN, offer.complaint_id, contact) if contact != b"{}" else None,
                counter=f"number:{form.period}",
                before=form.before,
                after=form.after,
                width=form.width,
                last=form.last,
                message_id=message.message_id,
                body=encode(message).decode(),
            )
        )

    def _complainant(self, points: Sequence[Point]) -> tuple[UUID, PersonKey]:
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
            self._batch.people.append(rows.PersonRow(self.tenant_id, complainant_id, wrapped))
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
        self._batch.texts.append(rows.TextRow(self.tenant_id, text_id, offer.complaint_id, kind, sealed, offer.by.id))
        return text_id

    def _attachment(self, offer: Offer, person: PersonKey, place: int) -> UUID:
        attachment = offer.complaint.attachments[place]
        attachment_id = new_id()
        self._batch.attachments.append(
            rows.AttachmentRow(
                self.tenant_id,
                attachment_id,
                offer.complaint_id,
                attachment.media_type,
                len(attachment.content),
                person.seal(FILE_NAME_COLUMN, attachment_id, attachment.name.encode()),
                person.seal(FILE_COLUMN, attachment_id, attachment.content),
            )
        )
        return attachment_id
