"""Headers of NATS messages are read as the client itself reads them."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from shared.messaging import Link

NAMES = st.one_of(st.text(alphabet="abzAZ-09 \t:é", max_size=8).map(str.encode), st.binary(max_size=6))
VALUES = st.one_of(st.text(alphabet="ab1 :\t/é", max_size=12).map(str.encode), st.binary(max_size=6))
LINES = st.lists(st.tuples(NAMES, st.sampled_from([b":", b": ", b""]), VALUES).map(b"".join), max_size=6)


@given(LINES)
@example([b"Nats-Msg-Id: 0190-ab", b"ce-type:intake.v1.complaint.received", b"ce-source:\t/recourse/intake "])
@example([b"with space: 1", b": nameless", b"Name", b"", b"N\xc3\xa4me: 1", b"Name: \xff"])
def test_they_are_read_as_the_client_reads_them(lines: list[bytes]) -> None:
    raw = b"\r\n".join(lines) + b"\r\n\r\n"
    assert Link._parse_header_lines(raw) == Client._parse_header_lines(raw)
