"""The process that reads messages: little memory, no files, no secrets. A hostile message can stop it, and nothing
else.

Frames on standard input: four bytes of length, one of options, the message. Frames on standard output: four bytes of
    length, MessagePack.
"""

from __future__ import annotations

import ctypes
import resource
import signal
import sys
from typing import BinaryIO

import msgspec

from services.intake.domain.mail import Mail, MailRefused, read_mail

_TAKES_AUTOMATIC = 1
_PR_SET_PDEATHSIG = 1


def main() -> None:
    _confine(int(sys.argv[1]))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        header = _exactly(source, 5)
        raw = _exactly(source, int.from_bytes(header[:4], "big")) if header is not None else None
        if header is None or raw is None:
            return
        answer = msgspec.msgpack.encode(_read(raw, takes_automatic=bool(header[4] & _TAKES_AUTOMATIC)))
        sink.write(len(answer).to_bytes(4, "big") + answer)
        sink.flush()


def _read(raw: bytes, *, takes_automatic: bool) -> Mail | MailRefused:
    try:
        return read_mail(raw, takes_automatic=takes_automatic)
    except Exception:  # whatever a parser of others stumbles over, the message is at fault
        return MailRefused("malformed", "the message cannot be read")


def _confine(memory_bytes: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends us by closing our input


def _exactly(source: BinaryIO, count: int) -> bytes | None:
    content = source.read(count)
    return content if len(content) == count else None


if __name__ == "__main__":
    main()
