"""What reporting is told: builders of messages, and the producers that publish them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import nats
from nats.aio.client import Client

from shared.auth import new_key
from shared.engine.model import (
    AcceptanceView,
    Actor,
    ClassView,
    ClockView,
    EffectView,
    Entry,
    PenaltyView,
)
from shared.ids import derived_id, new_id
from shared.messages import (
    AnnouncementMade,
    ComplaintReceived,
    CredentialChanged,
    DeliveryChanged,
    EntryAppended,
    Message,
    PenaltyPosted,
    PolicyPublished,
    StandingChanged,
    TenantChanged,
    encode,
    subject_of,
)
from shared.messages.intake import Limits
from shared.messaging import Messaging, stream_of
from shared.settings import ServiceSettings
from shared.telemetry import Metrics
from tests.infra import Infra
from tests.waiting import PATIENCE

NINE = datetime(2026, 3, 2, 1, tzinfo=UTC)  # 09:00 in Shanghai
PRODUCERS = ("intake", "routing", "sla", "notify")


class Tellers:
    """The services whose messages reporting hears, each with its own stream and NATS user."""

    def __init__(self, infra: Infra) -> None:
        self.infra = infra
        self._clients: dict[str, Client] = {}

    async def connect(self) -> None:
        for producer in PRODUCERS:
            client = await nats.connect(
                self.infra.nats_url(producer), connect_timeout=int(PATIENCE), inbox_prefix=f"_INBOX_{producer}".encode()
            )
            self._clients[producer] = client
            settings = ServiceSettings(
                service=producer, database_url="", nats_url="", stream_max_bytes=64 * 1024 * 1024
            )
            await client.jetstream().add_stream(Messaging(settings, Metrics(producer)).stream_config())

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()

    async def tell(self, *messages: Message) -> None:
        """Publish as their producers do; the same message may be told any number of times."""
        for message in messages:
            subject = subject_of(message)
            producer = subject.partition(".")[0]
            headers = {"Nats-Msg-Id": str(uuid4())}  # so that the broker's own window of duplicates stays out of it
            await (
                self._clients[producer]
                .jetstream()
                .publish(subject, encode(message), headers=headers, stream=stream_of(producer))
            )


# --- reference data


def a_tenant(tenant_id: UUID, zone: str = "Asia/Shanghai", revision: int = 1) -> TenantChanged:
    return TenantChanged(
        message_id=new_id(),
        tenant_id=tenant_id,
        at=NINE,
        revision=revision,
        slug=tenant_id.hex,
        name="A tenant",
        zone=zone,
        sandbox=False,
        active=True,
        limits=Limits(requests_per_second=1000, burst=1000),
    )


def a_credential(tenant_id: UUID, role: Any = "admin", **changes: Any) -> tuple[CredentialChanged, str]:
    credential_id = new_id()
    key, hashed = new_key(credential_id)
    values: dict[str, Any] = {
        "message_id": new_id(),
        "tenant_id": tenant_id,
        "at": NINE,
        "credential_id": credential_id,
        "revision": 1,
        "key_hash": hashed,
        "role": role,
        "name": role,
        "active": True,
    }
    return CredentialChanged(**{**values, **changes}), key


def a_policy(tenant_id: UUID, document: dict[str, Any], version: int = 1) -> PolicyPublished:
    return PolicyPublished(
        message_id=new_id(),
        tenant_id=tenant_id,
        at=NINE,
        version=version,
        document=document,
        settings={},
        effect="keep",
        published_by="admin",
    )


# --- one complaint


class Complaint:
    """One complaint and what is told of it; everything that is told of one instance belongs together."""

    def __init__(self, tenant_id: UUID, number: str = "20260302-0001", at: datetime = NINE, **received: Any) -> None:
        self.tenant_id, self.case_id, self.number, self.at = tenant_id, new_id(), number, at
        self._entries = 1
        self._received = Entry(
            seq=1,
            kind="received",
            at=at,
            by=Actor(id="system"),
            data={
                "channel": "phone",
                "anonymous": False,
                "complainant": {"id": "c-4711", "type": "customer"},
                **received,
            },
        )

    def received(self) -> ComplaintReceived:
        return ComplaintReceived(
            message_id=new_id(),
            tenant_id=self.tenant_id,
            at=self.at,
            case_id=self.case_id,
            number=self.number,
            policy_version=1,
            entry=self._received,
            source="api",
        )

    def entry(self, kind: str, hours: float = 1, **data: Any) -> EntryAppended:
        """The next line of the timeline."""
        self._entries += 1
        entry = Entry(
            seq=self._entries, kind=kind, at=self.at + timedelta(hours=hours), by=Actor(id="clerk"), data=data
        )
        return self._appended(entry)

    def first_entry(self) -> EntryAppended:
        return self._appended(self._received)

    def _appended(self, entry: Entry) -> EntryAppended:
        return EntryAppended(
            message_id=derived_id("entry", self.case_id, entry.seq),
            tenant_id=self.tenant_id,
            at=entry.at,
            case_id=self.case_id,
            case_kind="complaint",
            policy_version=1,
            entry=entry,
            number=self.number,
        )

    def standing(
        self, seq: int = 1, hours: float = 1, clocks: Sequence[ClockView] = (), **changes: Any
    ) -> StandingChanged:
        values: dict[str, Any] = {
            "message_id": new_id(),
            "tenant_id": self.tenant_id,
            "at": self.at,
            "case_id": self.case_id,
            "case_kind": "complaint",
            "seq": seq,
            "now": self.at + timedelta(hours=hours),
            "state": "accepted",
            "closed": False,
            "classified": ClassView(kind="external", category="billing", severity="light"),
            "outcome": None,
            "acceptance": AcceptanceView(accepted=True, at=self.at),
            "clocks": tuple(clocks),
            "penalties": (),
            "number": self.number,
        }
        return StandingChanged(**{**values, **changes})

    def announcement(self, key: str, kind: str = "escalated", withdrawn: bool = False) -> AnnouncementMade:
        effect = EffectView(key=key, rule="reply", clause="R09.21", kind=kind, at=self.at, to="leader")
        return AnnouncementMade(
            message_id=new_id(),
            tenant_id=self.tenant_id,
            at=self.at,
            case_id=self.case_id,
            case_kind="complaint",
            effect=effect,
            withdrawn=withdrawn,
        )

    def posting(self, minor: int, kind: str = "fine", currency: str = "CNY") -> PenaltyPosted:
        return PenaltyPosted(
            message_id=new_id(),
            tenant_id=self.tenant_id,
            at=self.at,
            case_id=self.case_id,
            posting_id=new_id(),
            difference_minor=minor,
            penalty=PenaltyView(
                key="p",
                rule="late",
                clause="R09.36",
                party="s1",
                kind=kind,
                at=self.at,
                amount_minor=minor,
                currency=currency,
            ),
            month="2026-03",
        )

    def delivery(self, state: Any, minutes: int, delivery_id: UUID | None = None) -> DeliveryChanged:
        return DeliveryChanged(
            message_id=new_id(),
            tenant_id=self.tenant_id,
            at=self.at + timedelta(minutes=minutes),
            delivery_id=delivery_id or derived_id("delivery", self.case_id),
            case_id=self.case_id,
            rule="ack",
            channel="sms",
            audience="complainant",
            state=state,
            attempts=1,
        )


def a_clock(state: Any, clause: str = "R09.21", due_at: datetime = NINE + timedelta(days=3)) -> ClockView:
    return ClockView(
        rule="reply",
        run=0,
        part=0,
        clause=clause,
        name=None,
        state=state,
        started_at=NINE,
        anchor_at=NINE,
        due_at=due_at,
    )


def a_whole_life(complaint: Complaint) -> list[Message]:
    """Everything that is told of a complaint that is received, answered late, escalated, fined and closed."""
    late = a_clock("breached")
    return [
        complaint.received(),
        complaint.first_entry(),
        complaint.standing(1, 0, [a_clock("running")]),
        complaint.entry("accepted"),
        complaint.entry("assigned", 2, unit="centre", staff="h1"),
        complaint.standing(3, 2, [a_clock("running")]),
        complaint.announcement("reply/escalated"),
        complaint.standing(3, 72, [late]),
        complaint.posting(10_000),
        complaint.posting(-2_500),
        complaint.entry("resolved", 80, outcome="upheld"),
        complaint.entry("closed", 81),
        complaint.standing(5, 81, [late], state="closed", closed=True, outcome="upheld"),
        complaint.delivery("sent", 1),
        complaint.delivery("delivered", 2),
    ]


def again(messages: Iterable[Message]) -> list[Message]:
    """The same facts under new message ids, as a producer tells them that has lost its memory."""
    return [msgspec.structs.replace(message, message_id=new_id()) for message in messages]
