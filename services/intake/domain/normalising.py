"""From a channel's draft to a complaint that fits the policy, or to everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from services.intake.domain import vocabulary
from services.intake.domain.complaint import (
    ATTACHMENTS_BYTES,
    FIELDS_LIMIT,
    NAME_LIMIT,
    TEXT_LIMIT,
    Complainant,
    Contact,
    Draft,
    Fault,
    Handler,
    NormalisedComplaint,
    Respondent,
)
from services.intake.domain.contacts import email_address, looks_like_damaged_number, phone_number
from services.intake.domain.texts import is_clean, is_clean_line, normal
from services.intake.domain.values import ValueFault, field_value
from shared.policy.schema import Field, Policy

_AHEAD: Final = timedelta(minutes=5)  # how far a sender's clock may be ahead of ours
_DERIVED: Final = {
    "has_name": "name",
    "has_address": "address",
}  # own fields that follow from the contact, where a policy declares them


def normalise(
    draft: Draft,
    policy: Policy,
    now: datetime,
    *,
    region: str = "CN",
    channel: str | None = None,
    from_text: bool = False,
) -> NormalisedComplaint | tuple[Fault, ...]:
    """Return the complaint in the policy's words, or every fault of the draft in the order of its fields.

    Args:
        draft: what the channel made of what came in.
        policy: the tenant's current one: its vocabulary says what may be stated.
        now: the tenant's time, aware; nothing was received later than this.
        region: the country of telephone numbers written without one.
        channel: the source's own channel, where the draft names none.
        from_text: the draft comes from a table or a foreign payload: labels stand for names, texts for values.
    """
    faults: list[Fault] = []
    words = policy.vocabulary
    stated = draft.channel if draft.channel and draft.channel.strip() else channel
    if stated is None:
        faults.append(Fault(("channel",), "a channel is needed", vocabulary.near("", vocabulary.channels(policy))))
    named = vocabulary.word("channel", stated, vocabulary.channels(policy), "channel", faults, by_label=from_text)
    kind = vocabulary.word("kind", draft.kind, words.kinds, "kind", faults, by_label=from_text)
    category = vocabulary.word("category", draft.category, words.categories, "category", faults, by_label=from_text)
    severity = vocabulary.word("severity", draft.severity, words.severities, "severity", faults, by_label=from_text)
    text = _free_text(draft, faults)
    complainant = draft.complainant or Complainant()
    contact = _contact(complainant, draft.language, region, faults)
    complainant_type = _name(("complainant", "type"), complainant.type, faults)
    respondent = _party("respondent", draft.respondent, faults)
    handler = _party("handler", draft.handler, faults)
    fields, personal = _fields(draft.fields, words.fields, faults, from_text=from_text)
    _derive(fields, words.fields, contact)
    if draft.anonymous and (contact.name or contact.is_reachable or contact.address):
        faults.append(
            Fault(("anonymous",), "an anonymous complaint has no name, telephone number or address of its complainant")
        )
    if draft.anonymous and policy.intake.anonymous == "refuse":
        faults.append(Fault(("anonymous",), "this policy takes no anonymous complaints"))
    received_at = _received_at(draft.received_at, now, faults)
    reference = _name(("reference",), draft.reference, faults)
    if sum(len(attachment.content) for attachment in draft.attachments) > ATTACHMENTS_BYTES:
        faults.append(Fault(("attachments",), f"attachments are at most {ATTACHMENTS_BYTES} bytes together"))
    for place, attachment in enumerate(draft.attachments):
        if not attachment.name.strip() or not is_clean_line(attachment.name) or set(attachment.name) & set("/\\"):
            faults.append(Fault(("attachments", str(place), "name"), "a plain file name without folders is needed"))
    if faults or named is None:
        return tuple(faults)
    return NormalisedComplaint(
        channel=named,
        kind=kind,
        category=category,
        severity=severity,
        anonymous=draft.anonymous,
        complainant_type=complainant_type,
        contact=contact,
        respondent=respondent,
        handler=handler,
        fields=fields,
        personal_fields=personal,
        text=text,
        received_at=received_at,
        reference=reference,
        attachments=tuple(draft.attachments),
    )


def _free_text(draft: Draft, faults: list[Fault]) -> str | None:
    """The subject, where there is one, is the first line of the text."""
    parts: list[str] = []
    for key, value in (("subject", draft.subject), ("text", draft.text)):
        if value is None:
            continue
        part = normal(value).strip()
        if not is_clean(part):
            faults.append(
                Fault(
                    (key,),
                    "the text holds characters that are no text (NUL, control characters, half a surrogate pair)",
                )
            )
        elif len(part) > TEXT_LIMIT:
            faults.append(Fault((key,), f"a text has at most {TEXT_LIMIT} characters"))
        elif part:
            parts.append(part)
    return "\n\n".join(parts) or None


def _contact(given: Complainant, language: str | None, region: str, faults: list[Fault]) -> Contact:
    phone = email = None
    if given.phone is not None and given.phone.strip():
        phone = phone_number(given.phone, region)
        if phone is None:
            damaged = looks_like_damaged_number(given.phone)
            detail = (
                "a spreadsheet has cut the number short: store the column as text"
                if damaged
                else "this is no telephone number"
            )
            faults.append(
                Fault(("complainant", "phone"), detail, "" if damaged else "as 13812341111 or +86 138 1234 1111")
            )
    if given.email is not None and given.email.strip():
        email = email_address(given.email)
        if email is None:
            faults.append(
                Fault(("complainant", "email"), "this is not one plain e-mail address", "as name@example.com")
            )
    lines: dict[str, str | None] = {}
    for key, value in (("name", given.name), ("address", given.address)):
        line = normal(value).strip() if value else ""
        if not is_clean_line(line):
            faults.append(Fault(("complainant", key), "one line without control characters is needed"))
        lines[key] = line or None
    return Contact(
        name=lines["name"],
        phone=phone,
        email=email,
        address=lines["address"],
        language=given.language or language or None,
    )


def _name(path: tuple[str, ...], value: str | None, faults: list[Fault]) -> str | None:
    """A name that stands on the timeline: one short line."""
    if value is None or not value.strip():
        return None
    name = normal(value).strip()
    if len(name) > NAME_LIMIT or not is_clean_line(name) or name.startswith("="):
        faults.append(Fault(path, f"one line of at most {NAME_LIMIT} characters that does not begin with = is needed"))
        return None
    return name


def _party(key: str, party: Respondent | Handler | None, faults: list[Fault]) -> dict[str, str]:
    if party is None:
        return {}
    parts = {part: _name((key, part), getattr(party, part), faults) for part in party.__struct_fields__}
    return {part: name for part, name in parts.items() if name is not None}


def _fields(
    given: Mapping[str, Any], declared: Mapping[str, Field], faults: list[Fault], *, from_text: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    fields: dict[str, Any] = {}
    personal: dict[str, str] = {}
    if len(given) > FIELDS_LIMIT:
        faults.append(Fault(("fields",), f"a complaint has at most {FIELDS_LIMIT} own fields"))
        return fields, personal
    for name, value in given.items():
        field = declared.get(name)
        if field is None:
            faults.append(
                Fault(
                    ("fields", name[:NAME_LIMIT]), "the policy declares no such field", vocabulary.near(name, declared)
                )
            )
            continue
        if value is None or (from_text and value == ""):
            continue
        if field.personal:
            text = normal(value).strip() if isinstance(value, str) else ""
            if not text or len(text) > TEXT_LIMIT or not is_clean(text):
                faults.append(Fault(("fields", name), f"text of 1 to {TEXT_LIMIT} characters is needed"))
            else:
                personal[name] = text
            continue
        try:
            fields[name] = field_value(field, value, from_text=from_text)
        except ValueFault as fault:
            path = ("fields", name) if fault.at is None else ("fields", name, fault.at)
            faults.append(Fault(path, fault.detail, fault.suggestion))
    return fields, personal


def _derive(fields: dict[str, Any], declared: Mapping[str, Field], contact: Contact) -> None:
    """Say whether a name, an address, a contact was given where a policy asks: rules may know that, without knowing
    them.
    """
    for name, part in _DERIVED.items():
        if name in declared and declared[name].type == "bool":
            fields.setdefault(name, getattr(contact, part) is not None)
    if "has_contact" in declared and declared["has_contact"].type == "bool":
        fields.setdefault("has_contact", contact.is_reachable)


def _received_at(at: datetime | None, now: datetime, faults: list[Fault]) -> datetime | None:
    if at is None:
        return None
    if at.tzinfo is None:
        faults.append(Fault(("received_at",), "an instant with its offset is needed, as 2026-03-02T10:00:00+08:00"))
        return None
    if at > now + _AHEAD:
        faults.append(Fault(("received_at",), "the complaint cannot have been received later than now"))
    if at.year < 1970:
        faults.append(Fault(("received_at",), "the instant is too long ago"))
        return None
    return min(at, now).astimezone(UTC)
