"""What a delivery says of itself is read as the client reads it."""

from __future__ import annotations

import nats.errors
import pytest
from nats.aio.msg import Msg

from shared.pending import told_by

REPLIES = (
    "$JS.ACK.ROUTING.reporting-on-entry.1.4711.12.1763772000000000000.3",
    "$JS.ACK.hub.f2a1.ROUTING.reporting-on-entry.2.18446744073709551615.12.1763772000000000000.0",
    "$JS.ACK._.f2a1.ROUTING.reporting-on-entry.40.9.12.1763772000000000000.1000000.r4nd0m",
)


@pytest.mark.parametrize("reply", REPLIES)
def test_count_place_and_backlog_are_what_the_client_reads(reply: str) -> None:
    theirs = Msg.Metadata._from_reply(reply)
    assert told_by(reply) == (theirs.num_delivered, theirs.sequence.stream, theirs.num_pending)


@pytest.mark.parametrize("reply", ["", "_INBOX.abc.def", "$JS.ACK.ROUTING.reporting-on-entry", "a.b.c.d.e.f.g.h.i"])
def test_what_is_no_delivery_of_a_stream_is_refused(reply: str) -> None:
    with pytest.raises(nats.errors.NotJSMessageError):
        told_by(reply)
