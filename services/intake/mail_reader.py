"""Reads messages in a process of its own, with a deadline; a process that hangs or dies is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Final

import msgspec
import structlog

from services.intake.domain.mail import Mail, MailRefused, gate

_ROOT: Final = Path(__file__).resolve().parents[2]
_AFTER: Final = 1_000  # messages read by one process; what a parser leaves behind does not add up for ever
_START_SECONDS: Final = 20.0


class TooSlowError(Exception):
    """The message was not read in time: by its own fault, or because the machine is busy."""


class MailReader:
    """One process, one message at a time."""

    def __init__(self, memory_bytes: int, seconds: float) -> None:
        self._memory_bytes = memory_bytes
        self._seconds = seconds
        self._process: asyncio.subprocess.Process | None = None
        self._count = 0
        self._turn = asyncio.Lock()

    async def read(self, raw: bytes, *, takes_automatic: bool = False) -> Mail | MailRefused:
        """Return what the message says, or why it is not taken. Raises TooSlowError."""
        if refused := gate(raw):
            return refused
        async with self._turn:
            process = await self._running()
            try:
                answer = await asyncio.wait_for(_asked(process, raw, takes_automatic=takes_automatic), self._seconds)
            except TimeoutError:
                await self._end()
                raise TooSlowError from None
            except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
                structlog.get_logger().warning("mail_process_died", size=len(raw))
                await self._end()
                return MailRefused("malformed", "the message cannot be read within its limits")
            except BaseException:
                await self._end()  # an answer may still be on its way, and would be taken for the next message's
                raise
        return answer

    async def close(self) -> None:
        async with self._turn:
            await self._end()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and (self._process.returncode is not None or self._count >= _AFTER):
            await self._end()
        if self._process is None:
            self._count = 0
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.intake.mail_child",
                str(self._memory_bytes),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # a traceback could quote the message
                cwd=_ROOT,
                env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(_ROOT)},
            )
            # The first answer takes as long as Python takes to start; that is not the message's time.
            probe = b"From: a@b.example\r\n\r\nx"
            await asyncio.wait_for(_asked(self._process, probe, takes_automatic=False), _START_SECONDS)
        self._count += 1
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _asked(process: asyncio.subprocess.Process, raw: bytes, *, takes_automatic: bool) -> Mail | MailRefused:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(len(raw).to_bytes(4, "big") + bytes([takes_automatic]) + raw)
    await process.stdin.drain()
    size = int.from_bytes(await process.stdout.readexactly(4), "big")
    answer: Mail | MailRefused = msgspec.msgpack.decode(await process.stdout.readexactly(size), type=Mail | MailRefused)
    return answer
