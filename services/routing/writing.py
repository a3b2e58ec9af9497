"""Appending to timelines: the one way in which entries come about, whoever asks for them.

A case is written under its row lock. Its timeline is folded, the policy's gates are asked, what an entry counts is stamped by the subjects'
cases, and everything that follows (the assignee, the columns of the work list, the next wake-up, the messages) is stored with it, in one
transaction of the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from services.routing.domain import approving
from services.routing.domain.columns import bare_columns, columns
from services.routing.domain.counting import counted_entry, counts_since, items, known_at, subject_key, taken_back
from services.routing.domain.naming import Naming, naming, route_to
from services.routing.domain.picking import NOBODY_NAMED, Pick, pick
from services.routing.domain.staffing import Member, holders
from services.routing.repository import assignments, cases, clocks
from services.routing.repository.assignments import Assignment
from services.routing.repository.cases import Inserted, NewCase, Owner, Stored
from services.routing.roster import Roster
from shared import fail_points, outbox
from shared.database import Tx
from shared.engine import subjects
from shared.engine.calendar import CalendarBook
from shared.engine.case import Case, replay
from shared.engine.model import SYSTEM, Actor, CountStamp, Entry, Refusal, RouteView, Standing
from shared.engine.rules import CompiledPolicy, SubjectRule
from shared.engine.subjects import Wanted, wanted
from shared.errors import ConflictError, ForbiddenError
from shared.ids import derived_id, new_id
from shared.messages.routing import EntryAppended
from shared.reference import Reference

COUNT_PASSES = 4
"""A count may fire a rule that counts further, so often at most."""

FOLLOW_UPS = 6
"""What the system enters by itself may cause it to enter more, so often at most."""


class RefusedByPolicyError(ConflictError):
    slug = "refused-by-policy"
    title = "The policy does not allow this."


class RefusedToActorError(ForbiddenError):
    """The same for a refusal that is about who asks."""

    slug = RefusedByPolicyError.slug
    title = RefusedByPolicyError.title


SOON = timedelta(seconds=5)

STAMPS = "routing.stamps"
"""Of cases that this transaction is about to make."""

ABOUT_THE_ACTOR = frozenset({"forbidden", "beyond_authority"})


class ChangedError(ConflictError):
    slug = "case-changed"
    title = "The case was changed by somebody else."


class Writing:
    """One case while it is being written: what is stored, what is added, and the engine's view of both."""

    def __init__(
        self,
        tx: Tx,
        *,
        sandbox: bool,
        now: datetime,
        policies: Mapping[int, CompiledPolicy],
        calendars: CalendarBook,
        new: NewCase | None = None,
        stored: Stored | None = None,
        staff_revision: int | None = None,
    ) -> None:
        self.tx = tx
        self.tenant_id = tx.tenant_id
        self.sandbox = sandbox
        self.new = new
        self.stored = stored
        self.policies = dict(policies)
        self.calendars = calendars
        self.timeline: list[Entry] = [] if stored is None else list(stored.timeline)
        self.added: list[Entry] = []
        known = stored or new
        assert known is not None
        self.case_id = known.case_id
        self.kind = known.kind
        self.number = known.number
        self.source = known.source
        self.silent = known.silent
        self.policy_version = known.policy_version
        self.now = max(now, self.timeline[-1].at) if self.timeline else now
        self.case = self.replayed()
        self.staff_revision = staff_revision
        self.assignment = None if stored is None else stored.assignment
        self.assigned_to: Assignment | None = None  # the new one, when it changes
        self.standing: Standing | None = None

    @property
    def policy(self) -> CompiledPolicy:
        """The version the case follows just now."""
        return self.case.policy

    @property
    def next_seq(self) -> int:
        return self.timeline[-1].seq + 1 if self.timeline else 1

    @property
    def is_complaint(self) -> bool:
        return self.kind == "complaint"

    def replayed(self) -> Case:
        return replay(
            self.policies, self.timeline, self.calendars, policy_version=self.policy_version, case_kind=self.kind
        )

    def has_key(self, key: str) -> bool:
        return any(entry.key == key for entry in self.timeline)

    def entry(
        self,
        kind: str,
        by: Actor,
        data: dict[str, Any],
        *,
        counts: dict[str, CountStamp] | None = None,
        key: str | None = None,
    ) -> Entry:
        """Make the next line, not applied yet."""
        return Entry(seq=self.next_seq, kind=kind, at=self.now, by=by, data=data, counts=counts or {}, key=key)

    def refusal(self, entry: Entry) -> Refusal | None:
        return self.case.refusal(entry)


class Desk:
    """Where timelines are written. One per process."""

    def __init__(
        self, reference: Reference, roster: Roster, on_written: Callable[[bool, bool], None] = lambda *_: None
    ) -> None:
        """Args: on_written: called after the commit of new lines: whether it was in a sandbox, whether the case changes by itself soon."""
        self.reference = reference
        self.roster = roster
        self._on_written = on_written

    # -- beginning -------------------------------------------------------------------------------------------------------

    async def expect(self, tx: Tx, new: Sequence[tuple[UUID, UUID]]) -> None:
        """Ask once for what `begin_new` asks for each of these cases, given as (tenant, case)."""
        tx.kept[STAMPS] = await clocks.stamp_together(tx, new)

    async def begin(self, tx: Tx, case_id: UUID, *, at: datetime | None = None) -> Writing | None:
        """Open a case under its row lock; None when the tenant has no such case.

        Args:
            at: stamps new entries with this instant instead of the present one: for what an effect of a sandbox on its way brings about.

        Raises:
            NotYetError: a policy version that the timeline names has not arrived.
        """
        stored = await cases.lock(tx, tx.tenant_id, case_id)
        if stored is None:
            return None
        stamp = await clocks.stamp(tx, tx.tenant_id)
        writing = Writing(
            tx,
            sandbox=stamp.is_sandbox,
            now=at if at is not None and stamp.is_sandbox else stamp.at,
            policies=await self.policies(tx.tenant_id, stored),
            calendars=await self.reference.calendars(tx.tenant_id),
            stored=stored,
            staff_revision=stamp.staff_revision,
        )
        await self._count_what_fell_due(writing, inclusive=False)
        return writing

    async def begin_new(self, tx: Tx, new: NewCase, first: Entry, *, at: datetime | None = None) -> Writing | None:
        """Open a case that does not exist, with its first line as given; None when it does."""
        expected: dict[UUID, clocks.Stamps] = tx.kept.get(STAMPS, {})
        together = expected.get(tx.tenant_id)
        stamp = together.take(new.case_id) if together is not None else None
        if stamp is None:
            stamp = await clocks.stamp(tx, tx.tenant_id, new.case_id)
        if stamp.version is not None:
            return None
        writing = Writing(
            tx,
            sandbox=stamp.is_sandbox,
            now=at if at is not None and stamp.is_sandbox else stamp.at,
            policies={new.policy_version: await self.reference.policy(tx.tenant_id, new.policy_version)},
            calendars=await self.reference.calendars(tx.tenant_id),
            new=new,
            staff_revision=stamp.staff_revision,
        )
        writing.now = max(writing.now, first.at)
        await self._apply(writing, first)
        return writing

    async def policies(self, tenant_id: UUID, stored: Stored) -> dict[int, CompiledPolicy]:
        """Return every version that a timeline refers to."""
        versions = {stored.policy_version}
        versions |= {int(entry.data["version"]) for entry in stored.timeline if entry.kind == "policy_changed"}
        return {version: await self.reference.policy(tenant_id, version) for version in versions}

    # -- adding ----------------------------------------------------------------------------------------------------------

    async def add(
        self,
        writing: Writing,
        kind: str,
        by: Actor,
        data: dict[str, Any],
        *,
        key: str | None = None,
        checked: bool = True,
    ) -> Entry | None:
        """Append an entry; None when one with this key is there already.

        Args:
            checked: ask the policy's gates. What the system enters because of the policy is not asked.

        Raises:
            RefusedByPolicyError, RefusedToActorError: with the rule, its clause and the reason. Nothing has changed.
        """
        if key is not None and writing.has_key(key):
            return None
        entry = writing.entry(kind, by, data, key=key)
        if checked:
            refusal = writing.refusal(entry)
            if refusal is not None:
                raise refused(refusal, writing)
        return await self._apply(writing, entry)

    async def _apply(self, writing: Writing, entry: Entry) -> Entry:
        """Take the entry into the case, stamped with what it counts."""
        if entry.kind == "policy_changed":
            version = int(entry.data["version"])
            writing.policies[version] = await self.reference.policy(writing.tenant_id, version)
            writing.timeline.append(entry)
            writing.case = writing.replayed()  # a retroactive change begins anew from the first line
        else:
            if writing.policy.subjects:
                entry = await self._stamped(writing, entry)
            else:
                writing.case.apply(entry)
            writing.timeline.append(entry)
        writing.added.append(entry)
        for rule, count, seq in taken_back(writing.timeline, entry):
            data = {"rule": rule, "case_id": str(writing.case_id), "seq": seq, "by_seq": entry.seq}
            await self._to_subject(
                writing, count.subject, "uncounted", data, f"{writing.case_id}:{seq}:{rule}:back:{entry.seq}"
            )
        return entry

    async def _stamped(self, writing: Writing, entry: Entry) -> Entry:
        """Apply the entry with the counts it needs. Most entries count nothing, so it is tried once as it is."""
        asked: list[str] = []

        def ask(rule: SubjectRule, subject: str, added: int, at: datetime) -> None:
            asked.append(rule.id)

        writing.case.counter = ask
        try:
            writing.case.apply(entry)
        finally:
            writing.case.counter = None
        if not asked:
            return entry
        known: dict[tuple[str, str], CountStamp] = {}
        found: dict[str, CountStamp] = {}
        wants: list[Wanted] = []
        for _ in range(COUNT_PASSES):
            missing, found = wanted(
                writing.policies,
                writing.timeline,
                writing.calendars,
                entry,
                known,
                policy_version=writing.policy_version,
                case_kind=writing.kind,
            )
            if not missing:
                break
            for want in sorted(
                missing, key=lambda want: (want.subject, want.rule)
            ):  # one order for all, against deadlocks
                if (want.rule, want.subject) not in known:
                    known[want.rule, want.subject] = await self._stamp(writing, want)
                    wants.append(want)
        stamped = Entry(
            seq=entry.seq,
            kind=entry.kind,
            at=entry.at,
            by=entry.by,
            data=entry.data,
            counts={**entry.counts, **found},
            key=entry.key,
        )
        writing.case = writing.replayed()
        writing.case.apply(stamped)
        for want in wants:
            data = counted_entry(want.rule, writing.case_id, entry.seq, want.at, known[want.rule, want.subject])
            await self._to_subject(writing, want.subject, "counted", data, f"{writing.case_id}:{entry.seq}:{want.rule}")
        return stamped

    async def _stamp(self, writing: Writing, want: Wanted) -> CountStamp:
        """Ask the subject's case, and keep it from counting for anybody else until commit."""
        policy = writing.policy
        subject = await cases.lock_subject(writing.tx, writing.tenant_id, subject_key(want.subject))
        calendar = writing.calendars.at(policy.calendar_name, want.at, want.at)
        lines: Sequence[Entry] = ()
        if subject is not None:
            since = counts_since(want.at, want.window, calendar)
            lines = await cases.counted(writing.tx, writing.tenant_id, subject.case_id, want.rule, since)
        known = known_at(items(lines, want.rule), want.at, want.window, calendar)
        return subjects.stamp(policy.subjects[want.rule], want.subject, want.added, want.at, known, calendar)

    async def _to_subject(self, writing: Writing, subject: str, kind: str, data: dict[str, Any], key: str) -> None:
        """Append to the subject's case, made on its first use, and tell it."""
        tx, tenant_id, key_of_case = writing.tx, writing.tenant_id, subject_key(subject)
        found = await cases.lock_subject(tx, tenant_id, key_of_case)
        case_id = derived_id("subject", tenant_id, key_of_case) if found is None else found.case_id
        entry = Entry(
            seq=1 if found is None else found.version + 1,
            kind=kind,
            at=writing.now if found is None else max(writing.now, found.changed_at),
            by=SYSTEM,
            data=data,
            key=key,
        )
        if found is None:
            new = NewCase(
                case_id=case_id,
                kind="subject",
                policy_version=writing.policy.version,
                received_at=entry.at,
                number="",
                subject_key=key_of_case,
            )
            made = Inserted(
                tenant_id=tenant_id,
                new=new,
                entries=[entry],
                columns=bare_columns(writing.policy),
                owner=Owner(),
                wake_at=None,
                sandbox=writing.sandbox,
            )
            await cases.insert(tx, [made])
        else:
            await cases.grow_subject(tx, tenant_id, found, [entry])
        await outbox.add(
            tx,
            EntryAppended(
                message_id=derived_id("entry", tenant_id, case_id, entry.seq),
                tenant_id=tenant_id,
                at=entry.at,
                case_id=case_id,
                case_kind="subject",
                policy_version=writing.policy.version,
                entry=entry,
                silent=writing.silent,
            ),
        )

    async def _count_what_fell_due(self, writing: Writing, *, inclusive: bool) -> None:
        """Enter the counts that no entry caused: a breach counts although nobody did anything."""
        if not writing.policy.subjects or not writing.timeline:
            return
        for _ in range(COUNT_PASSES):
            fell_due: list[Wanted] = []

            def ask(rule: SubjectRule, subject: str, added: int, at: datetime, due: list[Wanted] = fell_due) -> None:
                due.append(Wanted(rule=rule.id, subject=subject, added=added, at=at, window=rule.window))

            writing.case.counter = ask
            try:
                writing.case.advance(writing.now, inclusive=inclusive)
            finally:
                writing.case.counter = None
            if not fell_due:
                return
            for want in sorted(fell_due, key=lambda want: (want.subject, want.rule)):
                key = f"count:{want.rule}:{want.subject}:{want.at.isoformat()}"
                if writing.has_key(key):
                    continue
                count = await self._stamp(writing, want)
                entry = writing.entry(
                    "counted", SYSTEM, {"rule": want.rule, "subject": want.subject}, counts={want.rule: count}, key=key
                )
                data = counted_entry(want.rule, writing.case_id, entry.seq, want.at, count)
                await self._to_subject(
                    writing, want.subject, "counted", data, f"{writing.case_id}:{entry.seq}:{want.rule}"
                )
                await self._apply(writing, entry)

    # -- saving ----------------------------------------------------------------------------------------------------------

    async def save(self, writing: Writing, *, at_the_end: bool = False) -> Standing:
        """Add what the system enters by itself, store everything, tell it, and return the standing.

        Args:
            at_the_end: a new case is stored with others right before the commit, or when somebody calls `tx.finish()`.

        Raises ChangedError when the case was written by somebody else, which the row lock rules out for a case that was locked.
        """
        standing = await self._follow_up(writing)
        writing.standing = standing
        owner = self._owner(writing)
        found = columns(standing, [rule.id for rule in writing.policy.clocks.values() if rule.timer])
        wake_at = standing.next_at
        if writing.new is not None:
            made = Inserted(
                tenant_id=writing.tenant_id,
                new=writing.new,
                entries=writing.added,
                columns=found,
                owner=owner,
                wake_at=wake_at,
                sandbox=writing.sandbox,
                assigned=writing.assigned_to,
            )
            if at_the_end and not any(map(approving.requested, writing.added)):
                writing.tx.at_the_end(_insert, for_all=True).append(made)
            else:
                await _insert(writing.tx, [made])
        else:
            assert writing.stored is not None
            if not await cases.update(
                writing.tx,
                writing.tenant_id,
                writing.stored,
                writing.added,
                found,
                owner,
                wake_at,
                sandbox=writing.sandbox,
            ):
                raise ChangedError()
        if writing.assigned_to is not None and writing.new is None:
            await assignments.replace(
                writing.tx, writing.tenant_id, writing.assigned_to, had_one=writing.assignment is not None
            )
        await self._note_approvals(writing)
        await outbox.add_many(writing.tx, [self._message(writing, entry) for entry in writing.added])
        if writing.sandbox:
            came = int(writing.new is not None and writing.source == "effect")
            will_come = found.creates - (writing.stored.creates if writing.stored is not None else 0)
            await clocks.note_written(writing.tx, writing.tenant_id, len(writing.added), will_come - came)
        self._note_loads(writing, standing)
        fail_points.reach("routing.written")
        is_due_soon = wake_at is not None and wake_at - writing.now < SOON
        writing.tx.after_commit(lambda: self._on_written(writing.sandbox, is_due_soon))
        return standing

    async def _follow_up(self, writing: Writing) -> Standing:
        lines = len(writing.timeline)
        for _ in range(FOLLOW_UPS):
            if len(writing.timeline) != lines:
                # Looking at the standing has taken what is due at this very instant; on a replay the entries added since come before it.
                writing.case = writing.replayed()
                lines = len(writing.timeline)
            await self._count_what_fell_due(writing, inclusive=True)
            standing = writing.case.standing(writing.now)
            if not writing.is_complaint or not await self._assign(writing, standing):
                return standing
        return writing.case.standing(writing.now)

    async def _assign(self, writing: Writing, standing: Standing) -> bool:
        """Choose the assignee when somebody else is named than before; whether an entry was added, which may change more."""
        named = naming(writing.timeline, standing)
        present = writing.assigned_to or writing.assignment
        if present is not None and present.named == named.key:
            return False
        members = await self.roster.members(
            writing.tx, writing.tenant_id, revision=writing.staff_revision, with_loads=True
        )
        chosen = await self._choose(writing, named, members)
        writing.assigned_to = Assignment(
            assignment_id=new_id(),
            case_id=writing.case_id,
            seq=named.seq,
            unit=chosen.unit,
            role=chosen.role,
            staff_id=chosen.staff_id,
            part=chosen.as_,
            in_place_of=chosen.in_place_of,
            rule=chosen.rule,
            clause=chosen.clause,
            named=named.key,
            assigned_at=writing.now,
        )
        if named.route is None or not named.route.auto:
            return False
        data = {
            name: value
            for name, value in (("unit", chosen.unit), ("staff", chosen.staff_id), ("to", chosen.role))
            if value is not None and (name != "to" or (chosen.unit is None and chosen.staff_id is None))
        }
        entry = await self.add(writing, "assigned", SYSTEM, data, key=f"route:{named.key}", checked=False)
        if entry is None:
            return False
        # The entry says who has it; that it was the route's choice stays on the assignment.
        after = naming(writing.timeline, writing.case.standing(writing.now))
        if after.seq == entry.seq:
            writing.assigned_to = msgspec.structs.replace(writing.assigned_to, named=after.key, seq=entry.seq)
        return True

    async def _choose(self, writing: Writing, named: Naming, members: Mapping[str, Member]) -> Pick:
        route = named.route
        if named.is_back:
            present = writing.assigned_to or writing.assignment
            former = None if present is None else await assignments.before(writing.tx, writing.tenant_id, present)
            if former is not None:
                return Pick(
                    unit=former.unit,
                    role=former.role,
                    staff_id=former.staff_id,
                    as_=former.part,
                    rule=former.rule,
                    clause=former.clause,
                )
            route = RouteView(rule="", clause=None, role=NOBODY_NAMED)
        elif named.to is not None:
            route = route_to(named.to, holders(members.values(), named.to)[0])
        if route is not None and not route.rule and route.staff is not None:
            # A person named this person; whether they are there is that person's business.
            unit = route.unit or (members[route.staff].unit if route.staff in members else None)
            return Pick(unit=unit, role=route.role, staff_id=route.staff)
        return pick(route, members, writing.now, is_refused=_refuser(writing), concerned=_concerned(writing))

    def _owner(self, writing: Writing) -> Owner:
        present = writing.assigned_to or writing.assignment
        if present is None:
            return Owner()
        return Owner(unit=present.unit, role=present.role, staff_id=present.staff_id)

    async def _note_approvals(self, writing: Writing) -> None:
        for entry in writing.added:
            asked = approving.requested(entry)
            if asked is not None:
                await assignments.request_approval(writing.tx, writing.tenant_id, writing.case_id, entry, asked)
            decided = approving.decided(entry)
            if decided is not None:
                await assignments.decide_approval(writing.tx, writing.tenant_id, writing.case_id, entry, decided)

    def _message(self, writing: Writing, entry: Entry) -> EntryAppended:
        return EntryAppended(
            message_id=derived_id("entry", writing.tenant_id, writing.case_id, entry.seq),
            tenant_id=writing.tenant_id,
            at=entry.at,
            case_id=writing.case_id,
            case_kind=writing.kind,  # type: ignore[arg-type]  # the table's check constraint says the same
            policy_version=writing.policy_version,
            entry=entry,
            number=writing.number,
            source=writing.source,
            silent=writing.silent,
        )

    def _note_loads(self, writing: Writing, standing: Standing) -> None:
        tenant_id, was, now = writing.tenant_id, writing.assignment, writing.assigned_to
        was_closed = writing.stored is not None and writing.stored.closed
        present = now or was
        if was is not None and not was_closed and (now is not None or standing.closed):
            self.roster.note(tenant_id, was.staff_id, -1)
        if present is not None and not standing.closed and (now is not None or was_closed):
            self.roster.note(tenant_id, present.staff_id, +1, present.assigned_at)


async def _insert(tx: Tx, made: Sequence[Inserted]) -> None:
    if not await cases.insert(tx, made):
        raise ChangedError()


def refused(refusal: Refusal, writing: Writing) -> RefusedByPolicyError | RefusedToActorError:
    """Return the refusal as the caller gets it."""
    kind = RefusedToActorError if refusal.reason in ABOUT_THE_ACTOR else RefusedByPolicyError
    return kind(
        refusal.detail or f"Rule {refusal.rule} refuses it: {refusal.reason}.",
        rule=refusal.rule,
        clause=refusal.clause,
        reason=refusal.reason,
        policy_version=writing.policy.version,
        state=writing.case.state,
    )


def _refuser(writing: Writing) -> Callable[[str], bool]:
    """Return a function that tells whether the policy refuses somebody as the assignee, not the assigning as such."""
    if not any(key.partition(":")[0] == "assigned" and handlers.gates for key, handlers in writing.policy.on.items()):
        return lambda _: False
    plain = writing.refusal(writing.entry("assigned", SYSTEM, {}))

    def is_refused(staff_id: str) -> bool:
        found = writing.refusal(writing.entry("assigned", SYSTEM, {"staff": staff_id}))
        return found is not None and (plain is None or found.rule != plain.rule)

    return is_refused


def _concerned(writing: Writing) -> frozenset[str]:
    """The respondent, and whoever the complaint says has an interest in the matter."""
    respondent = (writing.case.scope.complaint.get("respondent") or {}).get("staff")
    interested = writing.case.scope.fields.get("interested_staff") or ()
    names = interested if isinstance(interested, list | tuple) else (interested,)
    return frozenset(str(name) for name in (respondent, *names) if name)
