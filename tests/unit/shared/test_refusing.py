"""Problem documents, keys and guards, rate limits, bodies: the parts that need no server."""

from __future__ import annotations

import json
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import auth, body, problems, telemetry
from shared.auth import Caller, new_key, parse_key, requires
from shared.database import is_outage
from shared.errors import (
    ConflictError,
    DomainError,
    FieldError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    NotFoundError,
    TooLargeError,
    TooManyError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedMediaError,
)
from shared.rate_limit import RateLimiter

KINDS = [
    (MalformedError, 400),
    (UnauthorizedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (TooLargeError, 413),
    (UnsupportedMediaError, 415),
    (InvalidError, 422),
    (TooManyError, 429),
    (UnavailableError, 503),
]


@pytest.mark.parametrize(("kind", "status"), KINDS)
def test_each_kind_of_refusal_has_one_status_also_for_its_subclasses(kind: type[DomainError], status: int) -> None:
    class SpecialError(kind):  # type: ignore[valid-type, misc]
        slug = "special"
        title = "Special."

    each: type[DomainError]
    for each in (kind, SpecialError):
        document = problems.document(each("why", rule="R1", errors=[FieldError("/a", "is odd")]))
        assert document == {
            "type": f"/problems/{each.slug}",
            "title": each.title,
            "status": status,
            "detail": "why",
            "rule": "R1",
            "errors": [{"pointer": "/a", "detail": "is odd"}],
        }


def test_a_member_cannot_take_the_place_of_a_standard_one() -> None:
    assert problems.document(ConflictError(status="odd"))["status"] == 409


def test_retry_after_is_whole_seconds_and_at_least_one() -> None:
    assert problems.response(TooManyError(retry_after_seconds=0.02)).headers["Retry-After"] == "1"
    assert problems.response(TooManyError(retry_after_seconds=2.1)).headers["Retry-After"] == "3"


# -- keys ------------------------------------------------------------------------------------------------------------------


def test_a_key_is_found_by_its_id_and_known_by_its_hash() -> None:
    credential_id = uuid4()
    key, stored = new_key(credential_id)
    parsed = parse_key(key)
    assert parsed is not None
    assert parsed[0] == credential_id
    assert auth.matches(parsed[1], stored)
    assert not auth.matches(parsed[1][:-1], stored)
    assert parsed[1] not in stored
    assert new_key(credential_id)[0] != key


@given(st.text(max_size=90))
def test_no_other_text_is_a_key(text: str) -> None:
    assert parse_key(text) is None


@pytest.mark.parametrize("change", ["{}\n", " {}", "{}x", "RK{}"])
def test_a_key_with_anything_around_it_is_none(change: str) -> None:
    key, _ = new_key(uuid4())
    assert parse_key(change.format(key)) is None


def test_a_guard_names_known_roles_only() -> None:
    for roles in ((), ("root",), ("admin", "Admin")):
        with pytest.raises(ValueError):
            requires(*roles)


def test_the_actor_of_an_entry_is_the_person_or_else_the_credential() -> None:
    caller = Caller(tenant_id=uuid4(), role="handler", name="Desk", credential_id=UUID(int=5), staff_id="s-1")
    assert caller.actor(roles=("doctor", "handler"), unit="ward").roles == ("doctor", "handler")
    assert caller.actor().id == "s-1"
    assert msgspec.structs.replace(caller, staff_id=None).actor().id == f"handler:{UUID(int=5)}"


# -- rate limits -----------------------------------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    now = 0.0
    limiter = RateLimiter(lambda: now)
    tenant = uuid4()
    for _ in range(10):
        limiter.take(tenant, per_second=2, burst=10)
    with pytest.raises(TooManyError) as caught:
        limiter.take(tenant, 2, 10)
    assert caught.value.retry_after_seconds == 0.5
    now = 0.5
    limiter.take(tenant, 2, 10)
    with pytest.raises(TooManyError):
        limiter.take(tenant, 2, 10)
    limiter.take(uuid4(), 2, 10)  # another tenant's bucket is full
    now = 100.0
    for _ in range(10):
        limiter.take(tenant, 2, 10)
    with pytest.raises(TooManyError):
        limiter.take(tenant, 2, 10)


# -- bodies ----------------------------------------------------------------------------------------------------------------


class Inner(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    long_name: int
    when: str | None = None


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    tricks: list[str]


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    pets: list[Cat | Dog] = []
    sizes: dict[str, Annotated[int, msgspec.Meta(le=9)]] = {}
    maybe: list[Inner] | None = None
    ids: tuple[UUID, ...] = ()


NAMES = st.sampled_from(
    ["inner", "pets", "sizes", "maybe", "ids", "longName", "when", "type", "lives", "tricks", "innr"]
)
PLAIN: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(max_size=5).filter(lambda text: "\x00" not in text),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            NAMES,
            inner,
        )
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_a_body_is_refused_exactly_when_it_does_not_fit_and_then_something_is_pointed_at(value: Any) -> None:
    """The second pass tells the same truth as msgspec: never a mistake in what fits, never silence about what does not."""
    encoded = msgspec.json.encode(value)
    try:
        expected = msgspec.json.decode(encoded, type=Outer)
    except msgspec.ValidationError:
        with pytest.raises(MalformedError) as caught:
            body.decode(encoded, Outer)
        assert caught.value.errors
        for error in caught.value.errors:
            assert error.pointer == "" or error.pointer.startswith("/")
    else:
        assert body.decode(encoded, Outer) == expected
        assert body.mistakes(value, Outer) == []


def test_mistakes_are_found_in_every_corner() -> None:
    value = {
        "inner": {"longNam": 1},
        "pets": [{"type": "cat", "lives": "nine"}, {"type": "cow"}, {"type": "dog", "tricks": [1]}],
        "sizes": {"a": 10, "b/c": "x"},
        "maybe": [{"longName": 1}, {"longName": None}],
        "ids": ["no"],
    }
    with pytest.raises(MalformedError) as caught:
        body.decode(json.dumps(value).encode(), Outer)
    found = {error.pointer: error.suggestion for error in caught.value.errors}
    assert found == {
        "/inner/longNam": "longName",
        "/inner/longName": None,
        "/pets/0/lives": None,
        "/pets/1/type": None,
        "/pets/2/tricks/0": None,
        "/sizes/a": None,
        "/sizes/b~1c": None,
        "/maybe/1/longName": None,
        "/ids/0": None,
    }


def test_the_number_of_mistakes_told_is_limited() -> None:
    with pytest.raises(MalformedError) as caught:
        body.decode(json.dumps({"inner": {"longName": 1}, "ids": ["x"] * 5000}).encode(), Outer)
    assert len(caught.value.errors) == body.MAX_ERRORS


def test_32_levels_are_taken_and_33_are_not() -> None:
    assert body.decode(b"[" * 32 + b"]" * 32, Any) is not None
    with pytest.raises(body.TooDeepError):
        body.decode(b"[" * 33 + b"]" * 33, Any)
    brackets_in_text = json.dumps(["[{" * 100, '\\"[[' * 50]).encode()
    assert body.decode(brackets_in_text, Any) == json.loads(brackets_in_text)


def test_what_is_told_of_a_mistake_does_not_quote_the_value() -> None:
    class Choice(msgspec.Struct):
        kind: str
        state: Annotated[str, msgspec.Meta(pattern="^[a-z]+$")]

    with pytest.raises(MalformedError) as caught:
        body.decode(b'{"kind": 13800138000, "state": "13800138000"}', Choice)
    assert "13800138000" not in json.dumps(problems.document(caught.value))


# -- what may be said of an error --------------------------------------------------------------------------------------------


def a_postgres_error() -> asyncpg.PostgresError:
    error = asyncpg.UniqueViolationError("duplicate key value violates unique constraint")
    error.detail = "Key (phone)=(13800138000) already exists."
    error.constraint_name = "contact_phone"
    return error


@pytest.mark.parametrize(
    "error",
    [
        a_postgres_error(),
        ValueError("13800138000"),
        KeyError("13800138000"),
        msgspec.ValidationError("Invalid enum value '13800138000' - at `$.kind`"),
        asyncpg.DataError("invalid input for query argument $1: '13800138000'"),
    ],
)
def test_what_is_said_of_an_error_holds_no_value(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        raise error
    said = telemetry.describe(caught.value)
    assert "13800138000" not in json.dumps(said)
    assert "13800138000" not in telemetry.error_text(caught.value)
    assert said["error_class"] == type(error).__name__
    assert said["where"].startswith("tests/unit/shared/test_refusing.py:")


def test_the_constraint_that_was_broken_is_said() -> None:
    assert telemetry.describe(a_postgres_error())["constraint"] == "contact_phone"


def test_an_outage_is_told_from_a_mistake_of_ours() -> None:
    for outage in (
        asyncpg.ConnectionDoesNotExistError(""),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InterfaceError("pool is closing"),
        asyncpg.CannotConnectNowError(""),
        asyncpg.DeadlockDetectedError(""),
        ConnectionRefusedError(),
        TimeoutError(),
        UnavailableError(),
    ):
        assert is_outage(outage)
    for mistake in (
        asyncpg.InterfaceError("the server expects 1 argument for this query, 2 were passed"),
        asyncpg.UndefinedTableError(""),
        asyncpg.UniqueViolationError(""),
        ValueError(),
        RuntimeError(),
    ):
        assert not is_outage(mistake)


# -- logs and traces -----------------------------------------------------------------------------------------------------------


def test_the_log_drops_what_is_not_on_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    import structlog

    telemetry.configure("sla")
    try:
        structlog.get_logger().info(
            "case_folded", case_id=UUID(int=1), phone="13800138000", text="a complaint", count=3
        )
        line = json.loads(capsys.readouterr().err)
    finally:
        structlog.contextvars.clear_contextvars()
        structlog.reset_defaults()
    assert (line["event"], line["service"], line["case_id"], line["count"]) == (
        "case_folded",
        "sla",
        str(UUID(int=1)),
        3,
    )
    assert sorted(line["dropped"]) == ["phone", "text"]
    assert "13800138000" not in json.dumps(line)


def test_a_trace_is_continued_or_begun() -> None:
    given_trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with telemetry.continued_trace(given_trace) as current:
        assert telemetry.trace_id() == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert current != given_trace
        with telemetry.continued_trace(telemetry.traceparent()) as inner:
            assert inner[3:35] == current[3:35]
        assert telemetry.traceparent() == current
    assert telemetry.traceparent() is None
    for broken in (None, "", "00-x", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", given_trace + "-more"):
        with telemetry.continued_trace(broken):
            assert telemetry.trace_id() != "4bf92f3577b34da6a3ce929d0e0e4736"
            assert len(telemetry.trace_id() or "") == 32


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("Invalid enum value 'a name' - at `$.kind`", "Invalid enum value '…' - at `$.kind`"),
        ("Expected `str` matching regex '^[a-z]+$'", "Expected `str` matching regex '^[a-z]+$'"),
    ],
)
def test_a_refusal_says_what_would_fit_and_never_what_was_sent(told: str, kept: str) -> None:
    assert telemetry.without_values(told) == kept
