"""The record of the other side: what it took, under which key, how often."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct


class Taken(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message as the other side knows it; lines with the same key add up.

    key: of an SMS the key it came with; of an e-mail its Message-ID, or what stands before the @; of a webhook its webhook-id.
    times: how often it was taken as a message of its own. A repeat that the other side recognised by its key is none.
    """

    channel: Literal["sms", "email", "webhook"]
    key: str
    times: int = 1


def read_record(path: Path) -> list[Taken]:
    """Return the lines. Raises msgspec.MsgspecError for a line that is none."""
    decoder = msgspec.json.Decoder(Taken)
    return [decoder.decode(line) for line in path.read_bytes().splitlines() if line.strip()]


def write_record(path: Path, taken: Iterable[Taken]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in taken))


def key_of(taken: Taken) -> str:
    """The key alone: `<key@domain>` is how a mail bears it."""
    return taken.key.strip().strip("<>").partition("@")[0]
