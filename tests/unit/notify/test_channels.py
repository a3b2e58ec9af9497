"""The adapters' own rules: what a mail looks like, how answers are read, which secrets sign, what is sealed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from uuid import UUID, uuid4

import pytest

from services.notify.channels.email import Email, EmailConfig, compose, is_address
from services.notify.channels.sms import pointed, retry_after
from services.notify.channels.webhook import Secret, rotated, usable
from services.notify.sealing import SealBrokenError, Sealer
from services.notify.settings import NotifySettings
from shared.egress import Answer
from shared.settings import SettingsError, load

AT = datetime(2026, 11, 20, 9, tzinfo=UTC)
CONFIG = EmailConfig(host="mail.example", from_address="complaints@tenant.example", from_name="投诉办")


def a_mail(**changes: object) -> EmailMessage:
    values = {"key": UUID(int=7), "to": "a@example.org", "subject": "投诉 1", "text": "您好\n再见", "at": AT, **changes}
    return compose(CONFIG, Email(**values))  # type: ignore[arg-type]


def test_a_mail_says_that_a_machine_wrote_it_and_bears_its_key() -> None:
    mail = a_mail()
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"] == f"<{UUID(int=7)}@tenant.example>"
    assert mail["From"] == "投诉办 <complaints@tenant.example>"
    assert mail["Date"] == "Fri, 20 Nov 2026 09:00:00 +0000"
    assert mail.get_content_type() == "text/plain"
    assert b"\xe6" not in mail.as_bytes()[:200]  # headers are encoded


@pytest.mark.parametrize("subject", ["a\r\nBcc: x@example.org", "a\nb", "a\rb"])
def test_no_header_takes_a_line_break(subject: str) -> None:
    with pytest.raises(ValueError):
        a_mail(subject=subject)


@pytest.mark.parametrize(
    "address",
    ["", "a", "@b.org", "a@", "a@b", "a b@c.org", "a@b.org, c@d.org", "A <a@b.org>", "a@b.org\r\nBcc: c@d.org", "a@b@c.org",
     "a@b.org\n", "ü@b.org", "a@bü.org", "a\x00@b.org", "x" * 300 + "@b.org", "a,b@c.org", "(c)a@b.org", "a@[127.0.0.1]@b.org"],
)  # fmt: skip
def test_what_is_not_one_plain_address(address: str) -> None:
    assert not is_address(address)
    with pytest.raises(ValueError, match="not an address"):
        a_mail(to=address)


@pytest.mark.parametrize("address", ["a@b.org", "wang.fang+x@mail.example.org", "o'brien@b.co.uk", "1@2.cn"])
def test_plain_addresses(address: str) -> None:
    assert is_address(address)


def test_values_are_read_at_a_pointer() -> None:
    body = {"data": {"list": [{"id": 5}], "code": 0}}
    assert pointed(body, "/data/list/0/id") == 5
    assert pointed(body, "/data/code") == 0
    for absent in ("/x", "/data/list/1/id", "/data/list/x", "/data/code/x"):
        assert pointed(body, absent) is None
    assert pointed("text", "/x") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("0", 0), ("", None), ("-1", None), ("Fri, 20 Nov 2026", None), ("٥", None), ("9" * 9, None)],
)
def test_retry_after(text: str, seconds: int | None) -> None:
    found = retry_after(Answer(503, {"retry-after": text}, b""))
    assert found == (None if seconds is None else timedelta(seconds=seconds))


def test_a_rotation_keeps_the_old_secret_for_its_overlap_and_never_longer() -> None:
    day = timedelta(hours=24)
    first = rotated([Secret("one")], "two", AT, day)
    assert usable(first, AT) == ["two", "one"]
    assert usable(first, AT + day - timedelta(microseconds=1)) == ["two", "one"]
    assert usable(first, AT + day) == ["two"]
    again = rotated(first, "three", AT + timedelta(hours=1), day)
    assert usable(again, AT + timedelta(hours=1)) == ["three", "two", "one"]
    assert usable(again, AT + day) == ["three", "two"]  # the first one's end has not moved
    assert usable(rotated(again, "four", AT, timedelta(0)), AT) == ["four"]
    many = first
    for number in range(10):
        many = rotated(many, f"s{number}", AT, day)
    assert len(many) == 4


def test_a_sealed_secret_opens_for_its_tenant_and_row_alone() -> None:
    sealer, tenant, other = Sealer(b"k" * 32), uuid4(), uuid4()
    sealed = sealer.seal(tenant, "endpoint|1", b"whsec")
    assert sealer.open(tenant, "endpoint|1", sealed) == b"whsec"
    assert b"whsec" not in sealed
    assert sealed != sealer.seal(tenant, "endpoint|1", b"whsec")
    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for opener, whose, place, what in (
        (sealer, other, "endpoint|1", sealed),
        (sealer, tenant, "endpoint|2", sealed),
        (sealer, tenant, "endpoint|1", flipped),
        (sealer, tenant, "endpoint|1", b""),
        (Sealer(b"x" * 32), tenant, "endpoint|1", sealed),
    ):
        with pytest.raises(SealBrokenError):
            opener.open(whose, place, what)
    assert Sealer(b"x" * 32, b"k" * 32).open(tenant, "endpoint|1", sealed) == b"whsec"


def test_hashes_differ_between_tenants_and_purposes() -> None:
    sealer, tenant, other = Sealer(b"k" * 32), uuid4(), uuid4()
    hashes = {
        sealer.hash(tenant, "a", "1"),
        sealer.hash(tenant, "b", "1"),
        sealer.hash(other, "a", "1"),
        sealer.hash(tenant, "a", "2"),
    }
    assert len(hashes) == 4
    assert sealer.hash(tenant, "a", "1") in hashes


def test_a_master_key_of_another_length_stops_the_start_without_showing_it() -> None:
    environ = {"RECOURSE_DATABASE_URL": "x", "RECOURSE_NATS_URL": "x", "RECOURSE_MASTER_KEY": "c2hvcnQ="}
    settings = load(NotifySettings, "notify", environ)
    with pytest.raises(SettingsError, match="RECOURSE_MASTER_KEY") as refused:
        settings.keys()
    assert "c2hvcnQ=" not in str(refused.value) + repr(settings)
