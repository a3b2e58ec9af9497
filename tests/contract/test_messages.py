"""What has been told once can be read for ever: stored bytes of every message still decode, to the same values.

`stored/` holds two bodies of each message: `full` with every field it had when it was stored, and `first` with only the fields
that its first version required. Files are added with a new message (`python -m tests.contract.samples`), and never edited.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from shared.messages import Message, message_types
from shared.messages.asyncapi import render
from shared.messages.base import class_of, decode, encode, subject_of, tenant_token, type_of
from shared.migrations import SERVICES
from tests.contract.samples import STORED, sample

KINDS = sorted(message_types().items())
ROOT = Path(__file__).resolve().parent.parent.parent


def stored(name: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode((STORED / f"{name}.json").read_bytes())
    return found


@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.parametrize("which", ["full", "first"])
def test_stored_bytes_decode_to_what_was_told(name: str, kind: type[Message], which: str) -> None:
    body = stored(name)[which]
    message = decode(msgspec.json.encode(body), kind)
    again = msgspec.json.decode(encode(message))
    for field, value in body.items():
        assert again[field] == value, f"{name}.{field} changed its name, type or meaning"


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_message_survives_writing_and_reading(name: str, kind: type[Message]) -> None:
    message = sample(kind)
    assert decode(encode(message), kind) == message
    assert class_of(subject_of(message)) is kind
    assert type_of(message) == name


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_reader_ignores_what_a_later_version_adds(name: str, kind: type[Message]) -> None:
    message = sample(kind)
    later = {**msgspec.json.decode(encode(message)), "added_later": {"x": [1]}}
    assert decode(msgspec.json.encode(later), kind) == message


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_message_is_declared_as_a_contract(name: str, kind: type[Message]) -> None:
    assert re.fullmatch(r"(intake|routing|sla|notify|reporting)\.v\d+\.[a-z_]+\.[a-z_]+", name)
    assert re.fullmatch(r"[a-z]+\.v\d+\.\{tenant_id\}\.[a-z_]+\.[a-z_]+", kind.SUBJECT)
    assert kind.__module__ == f"shared.messages.{name.split('.')[0]}"
    assert (kind.__doc__ or "").strip().endswith(".")
    assert kind.__struct_config__.frozen
    assert kind.__struct_config__.kw_only if hasattr(kind.__struct_config__, "kw_only") else True


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_no_field_could_hold_personal_data(name: str, kind: type[Message]) -> None:
    """Names of people, contacts and free text live in the vault. A tenant's or a credential's own name is neither."""
    fields = set(kind.__struct_fields__) - (
        {"name"} if kind.__name__ in ("TenantChanged", "CredentialChanged", "CalendarPublished") else set()
    )
    assert not fields & {
        "phone",
        "email",
        "address",
        "text",
        "body",
        "complainant",
        "contact",
        "name",
        "words",
        "subject_line",
    }


def test_the_document_of_events_is_up_to_date() -> None:
    """Made by `python -m shared.messages.asyncapi > docs/asyncapi.json`."""
    assert (ROOT / "docs" / "asyncapi.json").read_text(encoding="utf-8") == render()


def test_every_stored_message_still_has_its_class() -> None:
    assert {path.stem for path in STORED.glob("*.json")} == {name for name, _ in KINDS}


@pytest.mark.parametrize("service", SERVICES)
def test_every_durable_fits_the_names_that_nats_permits(service: str) -> None:
    from shared.embedded.access import durables_of

    nouns = {name.split(".")[2] for name, _ in KINDS}
    assert {f"{service}-on-{noun}" for noun in nouns} <= set(durables_of(service))


@pytest.mark.parametrize("token", ["*", ">", "a.b", "a b", "", "x\r\ny", "\x00", "ACME", "0" * 300])
def test_a_tenants_token_is_a_uuid_and_nothing_else(token: str) -> None:
    with pytest.raises(ValueError):
        tenant_token(token)  # type: ignore[arg-type]
    assert tenant_token(UUID(int=10)) == "00000000-0000-0000-0000-00000000000a"


@pytest.mark.parametrize(
    "subject", ["intake.v1.x.entry", "intake.v1.x.entry.requested.more", "intake.v2.x.entry.requested", "", ">", "x"]
)
def test_an_unknown_subject_has_no_class(subject: str) -> None:
    assert class_of(subject) is None
