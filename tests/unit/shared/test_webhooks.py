"""Standard Webhooks signatures: what is accepted, what is refused and why."""

from __future__ import annotations

import base64
import hashlib
import hmac
import statistics
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.webhooks import SignatureError, new_secret, secret_bytes, sign, verify

NOW = datetime(2026, 11, 20, 9, 0, 0, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
BODY = '{"complaint": {"number": "20261120-0001", "channel": "phone"}, "é": 1.50}'.encode()
ID = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"


def by_hand(secret: str, message_id: str, timestamp: str, body: bytes, version: str = "v1") -> str:
    """The specification's formula, written a second time."""
    key = base64.b64decode(secret[len("whsec_") :])
    signed = message_id.encode() + b"." + timestamp.encode() + b"." + body
    return f"{version},{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


def headers(
    *, secret: str = SECRET, message_id: str = ID, seconds: float = 0, body: bytes = BODY, version: str = "v1"
) -> dict[str, str]:
    timestamp = str(int((NOW + timedelta(seconds=seconds)).timestamp()))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": by_hand(secret, message_id, timestamp, body, version),
    }


def timed(timestamp: str) -> dict[str, str]:
    """Correctly signed, whatever the timestamp says."""
    return {
        "webhook-id": ID,
        "webhook-timestamp": timestamp,
        "webhook-signature": by_hand(SECRET, ID, timestamp, BODY),
    }


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in headers().items() if key != name}


def signature() -> str:
    return headers()["webhook-signature"]


def v1(mac: bytes) -> str:
    return f"v1,{base64.b64encode(mac).decode()}"


def signed_as(value: str) -> dict[str, str]:
    return headers() | {"webhook-signature": value}


def test_the_example_of_the_specification_verifies() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signed = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    now = datetime.fromtimestamp(1614265330, UTC)
    assert verify([secret], signed, b'{"test": 2432232314}', now).message_id == "msg_p5jXN8AQM9LWM0D4loKWxJek"


Case = tuple[str, list[str], dict[str, str] | list[tuple[str, str]], bytes]
PADDED = "whsec_" + base64.b64encode(b"x" * 24).decode()
ZEROS = "whsec_" + base64.b64encode(b"\0" * 32).decode()
V1 = signature()
V1_BYTES = base64.b64decode(V1.removeprefix("v1,"))
LATER = str(int(NOW.timestamp()) + 1)

ACCEPTED: list[Case] = [
    ("now", [SECRET], headers(), BODY),
    ("299 seconds ago", [SECRET], headers(seconds=-299), BODY),
    ("299 seconds ahead", [SECRET], headers(seconds=299), BODY),
    ("300 seconds ago", [SECRET], headers(seconds=-300), BODY),
    ("300 seconds ahead", [SECRET], headers(seconds=300), BODY),
    ("empty body", [SECRET], headers(body=b""), b""),
    ("body that is not JSON", [SECRET], headers(body=b"\x00\xff"), b"\x00\xff"),
    ("body of a megabyte", [SECRET], headers(body=b"a" * 1_000_000), b"a" * 1_000_000),
    ("secret without its prefix", [SECRET.removeprefix("whsec_")], headers(), BODY),
    ("shortest secret", [PADDED], headers(secret=PADDED), BODY),
    ("new secret while rotating", [SECRET, OTHER], headers(), BODY),
    ("old secret while rotating", [OTHER, SECRET], headers(), BODY),
    ("sender signs with both", [OTHER], signed_as(f"{V1} {headers(secret=OTHER)['webhook-signature']}"), BODY),
    ("a later version beside ours", [SECRET], signed_as(f"v2,AAAA {V1}"), BODY),
    ("an asymmetric signature beside ours", [SECRET], signed_as(f"v1a,AAAA {V1}"), BODY),
    ("broken base64 beside ours", [SECRET], signed_as(f"v1,*** {V1}"), BODY),
    ("two spaces between", [SECRET], signed_as(f"v1,AAAA  {V1}"), BODY),
    ("header names in capitals", [SECRET], {key.upper(): value for key, value in headers().items()}, BODY),
    ("headers as pairs", [SECRET], list(headers().items()), BODY),
    ("headers in another order", [SECRET], list(reversed(headers().items())), BODY),
    ("other headers around", [SECRET], {"host": "x", **headers(), "content-type": "application/json"}, BODY),
    ("repeated header of another name", [SECRET], [("x", "1"), ("x", "2"), *headers().items()], BODY),
    ("an id of one character", [SECRET], headers(message_id="a"), BODY),
    ("an id of 256 characters", [SECRET], headers(message_id="a" * 256), BODY),
]

REFUSED: list[tuple[str, list[str], dict[str, str] | list[tuple[str, str]], bytes, str]] = [
    ("wrong secret", [OTHER], headers(), BODY, "signature_wrong"),
    ("no secret", [], headers(), BODY, "signature_wrong"),
    ("no secret, signed with zeros", [], headers(secret=ZEROS), BODY, "signature_wrong"),
    ("one byte changed", [SECRET], headers(), BODY.replace(b"phone", b"phonf"), "signature_wrong"),
    ("one byte more", [SECRET], headers(), BODY + b"\n", "signature_wrong"),
    ("one byte less", [SECRET], headers(), BODY[:-1], "signature_wrong"),
    ("JSON written anew", [SECRET], headers(), BODY.replace(b": ", b":"), "signature_wrong"),
    ("JSON with escapes", [SECRET], headers(), BODY.replace("é".encode(), b"\\u00e9"), "signature_wrong"),
    ("number written otherwise", [SECRET], headers(), BODY.replace(b"1.50", b"1.5"), "signature_wrong"),
    ("byte order mark added", [SECRET], headers(), b"\xef\xbb\xbf" + BODY, "signature_wrong"),
    ("id changed", [SECRET], headers() | {"webhook-id": ID + "x"}, BODY, "signature_wrong"),
    ("timestamp changed", [SECRET], headers() | {"webhook-timestamp": LATER}, BODY, "signature_wrong"),
    ("301 seconds ago", [SECRET], headers(seconds=-301), BODY, "outside_window"),
    ("301 seconds ahead", [SECRET], headers(seconds=301), BODY, "outside_window"),
    ("a day ago", [SECRET], headers(seconds=-86_400), BODY, "outside_window"),
    ("a year ahead", [SECRET], headers(seconds=31_536_000), BODY, "outside_window"),
    ("milliseconds", [SECRET], timed(str(int(NOW.timestamp() * 1000))), BODY, "timestamp_malformed"),
    ("negative time", [SECRET], timed(f"-{int(NOW.timestamp())}"), BODY, "timestamp_malformed"),
    ("time with a plus", [SECRET], timed(f"+{int(NOW.timestamp())}"), BODY, "timestamp_malformed"),
    ("1e9", [SECRET], timed("1e9"), BODY, "timestamp_malformed"),
    ("time with a fraction", [SECRET], timed(f"{int(NOW.timestamp())}.0"), BODY, "timestamp_malformed"),
    ("time with a leading zero", [SECRET], timed(f"0{int(NOW.timestamp())}"), BODY, "timestamp_malformed"),
    ("time with a space", [SECRET], timed(f" {int(NOW.timestamp())}"), BODY, "timestamp_malformed"),
    ("time with a newline", [SECRET], timed(f"{int(NOW.timestamp())}\n"), BODY, "timestamp_malformed"),
    ("time in hexadecimal", [SECRET], timed(hex(int(NOW.timestamp()))), BODY, "timestamp_malformed"),
    ("time in Arabic digits", [SECRET], timed("١٧٦٣٦٢٩٢٠٠"), BODY, "timestamp_malformed"),
    ("time with underscores", [SECRET], timed("1_763_629_200"), BODY, "timestamp_malformed"),
    ("time as a date", [SECRET], timed("2026-11-20T09:00:00Z"), BODY, "timestamp_malformed"),
    ("time of 13 digits", [SECRET], timed("9" * 13), BODY, "timestamp_malformed"),
    ("empty time", [SECRET], timed(""), BODY, "timestamp_malformed"),
    ("NaN", [SECRET], timed("NaN"), BODY, "timestamp_malformed"),
    ("no id", [SECRET], without("webhook-id"), BODY, "header_missing"),
    ("no timestamp", [SECRET], without("webhook-timestamp"), BODY, "header_missing"),
    ("no signature", [SECRET], without("webhook-signature"), BODY, "header_missing"),
    ("nothing at all", [SECRET], {}, BODY, "header_missing"),
    ("id twice", [SECRET], [*headers().items(), ("Webhook-Id", ID)], BODY, "header_repeated"),
    ("timestamp twice", [SECRET], [*headers().items(), ("webhook-timestamp", "1")], BODY, "header_repeated"),
    ("signature twice", [SECRET], [*headers().items(), ("WEBHOOK-SIGNATURE", V1)], BODY, "header_repeated"),
    ("empty id", [SECRET], headers(message_id=""), BODY, "id_malformed"),
    ("id with a dot", [SECRET], headers(message_id="a.b"), BODY, "id_malformed"),
    ("id with a space", [SECRET], headers(message_id="a b"), BODY, "id_malformed"),
    ("id with a newline", [SECRET], headers(message_id="a\n"), BODY, "id_malformed"),
    ("id that is not ASCII", [SECRET], headers(message_id="id-é"), BODY, "id_malformed"),
    ("id of 257 characters", [SECRET], headers(message_id="a" * 257), BODY, "id_malformed"),
    ("version 0", [SECRET], headers(version="v0"), BODY, "signature_wrong"),
    ("version in capitals", [SECRET], headers(version="V1"), BODY, "signature_wrong"),
    ("no version", [SECRET], signed_as(V1.removeprefix("v1,")), BODY, "signature_wrong"),
    ("asymmetric version", [SECRET], headers(version="v1a"), BODY, "signature_wrong"),
    ("empty signature", [SECRET], signed_as(""), BODY, "signature_wrong"),
    ("version without signature", [SECRET], signed_as("v1,"), BODY, "signature_wrong"),
    ("signature in hexadecimal", [SECRET], signed_as("v1," + V1_BYTES.hex()), BODY, "signature_wrong"),
    ("signature cut short", [SECRET], signed_as(v1(V1_BYTES[:16])), BODY, "signature_wrong"),
    ("signature with a byte more", [SECRET], signed_as(v1(V1_BYTES + b"x")), BODY, "signature_wrong"),
    ("signature without padding", [SECRET], signed_as(V1.rstrip("=")), BODY, "signature_wrong"),
    ("signatures divided by commas", [SECRET], signed_as(f"v1,AAAA,{V1}"), BODY, "signature_wrong"),
    ("ours behind sixteen others", [SECRET], signed_as(" ".join(["v1,AAAA"] * 16 + [V1])), BODY, "signature_wrong"),
    ("secret of another tenant", [OTHER, PADDED], headers(), BODY, "signature_wrong"),
    ("parts shifted into the body", [SECRET], headers(body=b"1." + BODY), BODY, "signature_wrong"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("secrets", "sent", "body"), [case[1:] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED]
)
def test_accepted(secrets: list[str], sent: dict[str, str] | list[tuple[str, str]], body: bytes) -> None:
    found = {name.lower(): value for name, value in (sent.items() if isinstance(sent, dict) else sent)}
    signed = verify(secrets, sent, body, NOW)
    assert signed.message_id == found["webhook-id"]
    assert signed.at == datetime.fromtimestamp(int(found["webhook-timestamp"]), UTC)


@pytest.mark.parametrize(
    ("secrets", "sent", "body", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_refused(
    secrets: list[str], sent: dict[str, str] | Iterable[tuple[str, str]], body: bytes, reason: str
) -> None:
    with pytest.raises(SignatureError) as refused:
        verify(secrets, sent, body, NOW)
    assert refused.value.reason == reason


def test_the_window_is_measured_to_the_fraction_of_a_second() -> None:
    signed = headers(seconds=-300)
    verify([SECRET], signed, BODY, NOW)
    with pytest.raises(SignatureError, match="outside_window"):
        verify([SECRET], signed, BODY, NOW + timedelta(microseconds=1000))


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_***",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "hunter2",
    ],
    ids=["empty", "only the prefix", "not base64", "23 bytes", "65 bytes", "a word"],
)
def test_a_weak_secret_neither_signs_nor_verifies(secret: str) -> None:
    with pytest.raises(ValueError, match="webhook secret"):
        sign([secret], ID, NOW, BODY)
    with pytest.raises(ValueError, match="webhook secret"):
        verify([secret], headers(), BODY, NOW)


def test_nothing_is_signed_without_a_secret_or_with_an_ambiguous_id() -> None:
    with pytest.raises(ValueError, match="nothing to sign with"):
        sign([], ID, NOW, BODY)
    with pytest.raises(ValueError, match="without dots"):
        sign([SECRET], "a.1", NOW, BODY)


def test_new_secrets_are_strong_and_differ() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(len(secret_bytes(secret)) == 32 for secret in secrets)


@given(body=st.binary(max_size=200), count=st.integers(1, 3))
def test_what_is_signed_verifies_with_each_secret_alone(body: bytes, count: int) -> None:
    secrets = [new_secret() for _ in range(count)]
    signed = sign(secrets, ID, NOW, body)
    for secret in secrets:
        assert verify([secret], signed, body, NOW + timedelta(seconds=60)).message_id == ID


@given(position=st.integers(0, len(BODY) * 8 - 1))
def test_no_single_bit_of_the_body_may_change(position: int) -> None:
    changed = bytearray(BODY)
    changed[position // 8] ^= 1 << position % 8
    with pytest.raises(SignatureError, match="signature_wrong"):
        verify([SECRET], headers(), bytes(changed), NOW)


def test_every_secret_is_compared_even_after_one_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constant time is a property of how it is done: each pair goes through compare_digest, also after a match."""
    compared = 0
    real = hmac.compare_digest

    def counting(left: bytes, right: bytes) -> bool:
        nonlocal compared
        compared += 1
        return real(left, right)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    verify([SECRET, OTHER], signed_as(f"{V1} v1,AAAA v1,BBBB"), BODY, NOW)
    assert compared == 6


def test_an_unknown_sender_takes_about_as_long_as_a_wrong_signature() -> None:
    def median(secrets: list[str]) -> float:
        spent = []
        for _ in range(400):
            began = time.process_time()
            with pytest.raises(SignatureError):
                verify(secrets, headers(secret=OTHER, body=b"x" * 20_000), b"y" * 20_000, NOW)
            spent.append(time.process_time() - began)
        return statistics.median(spent)

    unknown, wrong = median([]), median([SECRET])
    assert unknown > wrong / 3
