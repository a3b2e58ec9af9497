"""What a round over due cases writes, gathered case by case; nothing here reads or writes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from services.sla.domain.announcing import is_late, news
from services.sla.domain.ledger import Posting, postings
from services.sla.domain.standing import digest_of
from services.sla.repository import Announced, Rest, Row, Watched
from shared.engine.case import Case
from shared.engine.model import EffectView, Standing
from shared.ids import Deriving
from shared.messages import AnnouncementMade, Message, PenaltyPosted, StandingChanged


class _Ids:
    """The ids of what is told about cases of one tenant: of the same fact the same, however often it is told."""

    def __init__(self, tenant_id: UUID) -> None:
        self.announcement = Deriving("announcement", tenant_id)
        self.withdrawn = Deriving("announcement.withdrawn", tenant_id)
        self.posting = Deriving("posting", tenant_id)
        self.posted = Deriving("penalty.posted", tenant_id)
        self.standing = Deriving("standing", tenant_id)


def _row_of(message: AnnouncementMade) -> Announced:
    effect = message.effect
    return Announced(
        message.tenant_id,
        message.case_id,
        effect.key,
        effect.rule,
        effect.clause,
        effect.kind,
        effect.at,
        effect.to,
        effect.what,
        effect.data,
        message.late,
        effect.silent,
    )


class Batch:
    """What is new about cases of one tenant as of `now`.

    Args:
        tolerance: an announcement that comes later than this after its instant is late.
    """

    def __init__(self, tenant_id: UUID, now: datetime, tolerance: timedelta) -> None:
        self.tenant_id = tenant_id
        self.now = now
        self.tolerance = tolerance
        self._ids = _Ids(tenant_id)
        self.cases: dict[UUID, tuple[Watched, datetime]] = {}  # with the instant each was looked at
        self.announced: list[Announced] = []
        self.withdrawn: list[tuple[UUID, str]] = []
        self.rows: list[Row] = []
        self.rests: list[Rest] = []
        self.messages: list[Message] = []

    def take(self, case: Watched, folded: Case) -> None:
        """Add what is new about one case: all of it, or nothing if that cannot be told."""
        case_id, name = case.case_id, str(case.case_id)
        now = max(self.now, case.timeline[-1].at)
        if case.folded_at is not None and case.folded_at > now:
            now = case.folded_at  # somebody has seen a later tick: what has been said as of then is not taken back
        standing = folded.standing(now)
        fresh = news(standing.effects, case.told)
        announced = [self._announcement(case, name, effect, now) for effect in fresh.made]
        rows: list[Row] = []
        if standing.penalties or case.positions:
            rows = [
                self._row(case, name, folded, count, posting, now)
                for count, posting in enumerate(postings(standing.penalties, case.positions), case.postings + 1)
            ]
        facts = {fact: value for fact, _, value in folded.facts()} if folded.policy.facts else {}
        digest = digest_of(standing, facts)
        self.cases[case_id] = case, now
        if announced:
            self.announced += [_row_of(message) for message in announced]
            self.messages += announced
        if fresh.withdrawn:
            self.withdrawn += [(case_id, key) for key in fresh.withdrawn]
        if rows:
            self.rows += rows
            self.messages += [self._posted(case, row) for row in rows]
        if digest != case.digest or standing.seq != case.folded_seq:
            self.messages.append(self._changed(case, name, standing, facts))
        self.rests.append(
            Rest(self.tenant_id, case_id, standing.next_at, standing.seq, now, digest, case.postings + len(rows))
        )

    def took_back(self, effects: Iterable[tuple[UUID, EffectView]]) -> None:
        """Tell what has been withdrawn, as it had been announced."""
        for case_id, effect in effects:
            case, now = self.cases[case_id]
            self.messages.append(
                AnnouncementMade(
                    message_id=self._ids.withdrawn.id(str(case_id), effect.key),
                    tenant_id=self.tenant_id,
                    at=now,
                    case_id=case_id,
                    case_kind=case.case_kind,
                    effect=effect,
                    number=case.number,
                    withdrawn=True,
                )
            )

    def _announcement(self, case: Watched, name: str, effect: EffectView, now: datetime) -> AnnouncementMade:
        shown = msgspec.structs.replace(effect, silent=True) if case.silent else effect
        return AnnouncementMade(
            message_id=self._ids.announcement.id(name, effect.key),
            tenant_id=self.tenant_id,
            at=effect.at,
            case_id=case.case_id,
            case_kind=case.case_kind,
            effect=shown,
            number=case.number,
            late=is_late(effect, now, self.tolerance) and not shown.silent,
        )

    def _row(self, case: Watched, name: str, folded: Case, count: int, posting: Posting, now: datetime) -> Row:
        penalty = posting.penalty
        return Row(
            posting_id=self._ids.posting.id(name, str(count)),
            case_id=case.case_id,
            key=posting.key,
            difference_minor=posting.difference_minor,
            posted_minor=posting.posted_minor,
            digest=posting.digest,
            month=str(penalty.data.get("month") or folded.calendar.month(penalty.at)),
            posted_at=now,
            penalty=penalty,
        )

    def _posted(self, case: Watched, row: Row) -> PenaltyPosted:
        return PenaltyPosted(
            message_id=self._ids.posted.id(str(row.posting_id)),
            tenant_id=self.tenant_id,
            at=row.posted_at,
            case_id=case.case_id,
            posting_id=row.posting_id,
            difference_minor=row.difference_minor,
            penalty=row.penalty,
            month=row.month,
            number=case.number,
        )

    def _changed(self, case: Watched, name: str, standing: Standing, facts: dict[str, Any]) -> StandingChanged:
        return StandingChanged(
            message_id=self._ids.standing.id(name, str(standing.seq), standing.now.isoformat()),
            tenant_id=self.tenant_id,
            at=standing.now,
            case_id=case.case_id,
            case_kind=case.case_kind,
            seq=standing.seq,
            now=standing.now,
            state=standing.state,
            closed=standing.closed,
            classified=standing.classified,
            outcome=standing.outcome,
            acceptance=standing.acceptance,
            clocks=standing.clocks,
            penalties=standing.penalties,
            owner=standing.owner,
            routing=standing.routing,
            facts=facts,
            number=case.number,
            policy_version=standing.policy_version,
        )
