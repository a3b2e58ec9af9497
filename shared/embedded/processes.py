"""Child processes that never outlive their parent, the ports they listen on, and the files that hold what they log."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shared.embedded.errors import PortBusyError

LOOPBACK = "127.0.0.1"
LOG_BYTES = 10 * 1024 * 1024  # a longer log is set aside (one older copy is kept) when its server starts
_PR_SET_PDEATHSIG = 1
# Below the range the system hands out for outgoing connections (from 32768 on Linux, 49152 on macOS): a client that
# keeps calling a port of that range while its server is down may be given the same port itself, and then holds it.
_FREE_PORTS = range(15_000, 32_000)

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def dies_with_parent(death_signal: int, before: Callable[[], None] | None = None) -> Callable[[], None]:
    """Return what a child does between fork and exec so that the kernel sends it `death_signal` when its parent dies.

    Linux only; elsewhere the returned function does `before` alone, and `guard` must watch the child.
    """
    parent = os.getpid()

    def prepare() -> None:
        if before is not None:
            before()
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, death_signal)
            if os.getppid() != parent:  # the parent died in between
                os._exit(1)

    return prepare


def kernel_watches() -> bool:
    """Whether the kernel ends our children with us: on Linux, and when started from the thread that lives longest."""
    return _libc is not None and threading.current_thread() is threading.main_thread()


def guard(pid: int, death_signal: int) -> None:
    """Start a process that waits for our end and then signals `pid`: for systems whose kernel cannot do it.

    The guard holds the reading end of a pipe that only we can write to; it closes when we end, however that happens.
    """
    reading, writing = os.pipe()
    code = "import os, sys; os.read(0, 1); os.kill(int(sys.argv[1]), int(sys.argv[2]))"
    subprocess.Popen(  # noqa: S603 - our own interpreter with our own code
        [sys.executable, "-I", "-S", "-c", code, str(pid), str(death_signal)],
        stdin=reading,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(reading)
    _guards[pid] = writing


_guards: dict[int, int] = {}


def release_guard(pid: int) -> None:
    """Forget a guard whose charge has ended; it signals a process that is gone, which does nothing."""
    writing = _guards.pop(pid, None)
    if writing is not None:
        os.close(writing)


class Child:
    """One running child process in a session of its own, so that Ctrl-C reaches it through us and in our order."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        death_signal: int,
        environment: Mapping[str, str] | None = None,
        before_exec: Callable[[], None] | None = None,
        user: int | None = None,
        group: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.log = log
        rotate(log)
        self._log_starts_at = log.stat().st_size if log.exists() else 0
        with log.open("ab") as sink:
            log.chmod(0o600)
            self._process = subprocess.Popen(  # noqa: S603 - our own servers and services
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                preexec_fn=dies_with_parent(death_signal, before_exec),
                start_new_session=True,
                pass_fds=tuple(pass_fds),
                user=user,
                group=group,
                extra_groups=None if user is None else [],
            )
        if not kernel_watches():
            guard(self._process.pid, death_signal)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        code = self._process.poll()
        if code is not None:
            release_guard(self.pid)
        return code

    def last_words(self) -> str:
        """How it ended; empty while it runs."""
        code = self.returncode
        if code is None:
            return ""
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def send(self, number: int) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self.returncode is None:
            self._process.send_signal(number)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; false if `seconds` passed first."""
        end = None if seconds is None else time.monotonic() + seconds
        pause = 0.005
        while self.returncode is None:
            if end is not None and time.monotonic() > end:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        return True

    async def stop(self, gently: int, seconds: float, firmly: int = signal.SIGKILL) -> None:
        """Ask with one signal, wait, then insist with another, and with SIGKILL at the very end."""
        for number, patience in ((gently, seconds), (firmly, 5.0), (signal.SIGKILL, 5.0)):
            self.send(number)
            if await self.wait(patience):
                return

    def log_tail(self, lines: int = 5) -> str:
        """The last lines that this run (not an earlier one) has logged."""
        with self.log.open("rb") as source:
            source.seek(self._log_starts_at)
            text = source.read().decode(errors="replace")
        return "\n".join(text.strip().splitlines()[-lines:])


def rotate(log: Path) -> None:
    """Set a log aside that has grown long."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


_given: set[int] = set()  # never twice: whom it was given to may not listen yet


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    for _ in range(1000):
        port = random.choice(_FREE_PORTS)  # noqa: S311 - no secret, only spread
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise PortBusyError("No free port was found between 15000 and 32000; something holds thousands of ports open.")


def claim_port(port: int, purpose: str) -> int:
    """Return `port`, or a free one for 0. Raises PortBusyError, in a sentence, when somebody listens there."""
    if port == 0:
        return free_port()
    if not is_free(port):
        raise PortBusyError(
            f"Port {port} for {purpose} is in use by another program; stop that or choose another port."
        )
    return port


async def listening(port: int, seconds: float = 0.5) -> bool:
    """Whether somebody accepts connections on this port of the loopback address."""
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
