"""PostgreSQL from its wheel: starts, recovers, is refused twice, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import asyncpg
import pytest

from shared.embedded.errors import FolderInUseError, NewerDataError, PortBusyError
from shared.embedded.folder import open_folder
from shared.embedded.identity import as_other_user
from shared.embedded.postgres import PostgresServer, embedded_postgres, programs
from tests.processes import is_alive, wait_until_gone

HOLDER = """
import asyncio, sys
from pathlib import Path
from shared.embedded.postgres import embedded_postgres
async def main():
    async with embedded_postgres(Path(sys.argv[1])) as server:
        print(server.pid, flush=True)
        await asyncio.sleep(300)
asyncio.run(main())
"""


def owner_of_process(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


async def ask(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_it_starts_with_the_settings_that_lose_nothing_and_leak_nothing(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path) as server:
        for setting, value in {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
            "TimeZone": "UTC",
            "server_encoding": "UTF8",
        }.items():
            assert await ask(server.dsn, f"SHOW {setting}") == value, setting
        assert str(await ask(server.dsn, "SHOW server_version")).startswith("18.")
        assert await ask(server.dsn, "SELECT inet_server_addr()::text") in ("127.0.0.1", "127.0.0.1/32")


async def test_nobody_gets_in_without_the_password(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path) as server:
        for password in ("", "wrong"):
            with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InterfaceError)):
                await ask(server.dsn_of("postgres", password=password), "SELECT 1")
        assert server.dsn.split(":")[2].split("@")[0] not in server.log.read_text()


async def test_what_was_committed_survives_kill_and_restart(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path) as server:
        await ask(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        port = server.port
        await server.kill()
        assert not server.is_running()
        await server.start()
        assert server.port == port
        assert await ask(server.dsn, "SELECT n FROM kept") == 7
        await server.restart()
        assert await ask(server.dsn, "SELECT n FROM kept") == 7
    async with embedded_postgres(tmp_path) as server:
        assert await ask(server.dsn, "SELECT n FROM kept") == 7


async def test_a_second_stack_on_the_folder_is_refused(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path) as first:
        with pytest.raises(FolderInUseError, match=f"process {os.getpid()}"):
            await PostgresServer(tmp_path, 0).start()
        assert await ask(first.dsn, "SELECT 1") == 1


async def test_a_busy_port_is_refused(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortBusyError, match=f"Port {port} for PostgreSQL"):
            await PostgresServer(open_folder(tmp_path), port).start()
    async with embedded_postgres(tmp_path) as server:  # the refusal left no lock
        assert server.is_running()


async def test_data_of_another_major_version_is_refused(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    (folder / "postgres" / "data").mkdir(parents=True)
    (folder / "postgres" / "data" / "PG_VERSION").write_text("19\n")
    with pytest.raises(NewerDataError, match="PostgreSQL 19"):
        await PostgresServer(folder, 0).start()


async def test_an_interrupted_creation_of_the_data_files_is_begun_again(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    (folder / "postgres.new" / "data").mkdir(parents=True)
    (folder / "postgres.new" / "data" / "PG_VERSION").write_text("18\n")
    async with embedded_postgres(tmp_path) as server:
        assert await ask(server.dsn, "SELECT 1") == 1
    assert not (folder / "postgres.new").exists()


async def test_the_server_ends_with_the_process_that_started_it_and_can_be_started_again(tmp_path: Path) -> None:
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    server_pid = int(await holder.stdout.readline())
    assert is_alive(server_pid)
    holder.kill()
    await holder.wait()
    assert wait_until_gone(server_pid)
    async with embedded_postgres(tmp_path) as server:
        assert await ask(server.dsn, "SELECT 1") == 1


@pytest.mark.parametrize("folder_mode", [0o755, 0o700], ids=["open folder", "folder closed to others"])
async def test_as_root_without_user_namespaces_it_runs_as_another_account(tmp_path: Path, folder_mode: int) -> None:
    """The third way of `choose_identity`; anybody but root is that other account already."""
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(folder_mode)
    identity = as_other_user(programs()) if os.geteuid() == 0 else None
    server = PostgresServer(open_folder(parent / "data"), 0, identity=identity)
    await server.start()
    try:
        assert owner_of_process(server.pid) != 0
        await ask(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        await server.kill()
        await server.start()
        assert await ask(server.dsn, "SELECT n FROM kept") == 7
    finally:
        await server.stop()
    async with embedded_postgres(parent / "data") as again:  # the data are that account's, and used as that account
        assert await ask(again.dsn, "SELECT n FROM kept") == 7
