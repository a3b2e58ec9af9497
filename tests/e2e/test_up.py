"""`recourse up` as a person uses it: from another terminal, twice by mistake, with data of another version, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from shared.embedded.folder import LAYOUT
from tests.processes import is_alive
from tests.waiting import PATIENCE


async def recourse(*arguments: str, key: str = "") -> tuple[int, str, str]:
    """Run a command to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECOURSE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.cli",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environment, "RECOURSE_KEY": key},
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    return process.returncode or 0, out.decode(), err.decode()


class Up:
    """A running `recourse up --json`."""

    def __init__(self, process: asyncio.subprocess.Process, found: dict[str, object]) -> None:
        self.process = process
        self.url = str(found["url"])
        self.key = str(found["operator_key"])
        self.found = found

    async def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return await asyncio.wait_for(self.process.wait(), PATIENCE)


@asynccontextmanager
async def up(data: Path, *options: str) -> AsyncIterator[Up]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.cli", "up", "--json", "--data", str(data), "--port", "0", "--smtp-port", "0", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
            assert line, "it ended before it was up"
            text += line.decode()
        yield Up(process, msgspec.json.decode(text))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def children_of(pid: int) -> list[int]:
    """Everything that a process has started, at whatever distance."""
    parents: dict[int, int] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                parents[int(each.name)] = int((each / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found, queue = [], [pid]
    while queue:
        of = queue.pop()
        mine = [child for child, parent in parents.items() if parent == of]
        found += mine
        queue += mine
    return found


@pytest.mark.timeout(240)
async def test_a_stack_on_a_laptop(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with up(data) as running:
        started = children_of(running.process.pid)
        assert len(started) >= 2  # PostgreSQL with its own, and NATS
        code, out, _ = await recourse("status", "--json", "--data", str(data))
        assert (code, msgspec.json.decode(out)["ready"]) == (0, True)

        code, admin, err = await recourse(
            "tenant", "create", "hospital", "--sandbox", "--data", str(data), key=running.key
        )
        assert code == 0, err
        code, out, _ = await recourse("tenant", "list", "--json", "--data", str(data), key=running.key)
        assert [each["slug"] for each in msgspec.json.decode(out)] == ["hospital"]
        code, out, err = await recourse("sandbox", "advance", "36h", "--data", str(data), key=admin.strip())
        assert code == 0, err
        code, out, _ = await recourse("dlq", "list", "--data", str(data), key=running.key)
        assert (code, out) == (0, "There are none.\n")

        code, out, err = await recourse("up", "--data", str(data), "--port", "0", "--smtp-port", "0")
        assert code == 3
        assert "is using the data folder" in err
        port = running.url.rpartition(":")[2]
        code, _, err = await recourse("up", "--data", str(tmp_path / "other"), "--port", port, "--smtp-port", "0")
        assert code == 3
        assert f"Port {port} for the gateway is in use" in err
        assert (await recourse("status", "--data", str(data)))[0] == 0  # neither harmed the one that runs

        assert await running.interrupt() == 0
    assert [pid for pid in started if is_alive(pid)] == []
    assert (await recourse("status", "--data", str(data), "--url", running.url))[0] == 3

    async with up(data) as again:
        assert again.found["operator_key"] is None  # shown once
        code, out, _ = await recourse("tenant", "list", "--json", "--data", str(data), key=running.key)
        assert [each["slug"] for each in msgspec.json.decode(out)] == ["hospital"]
        assert await again.interrupt() == 0


def test_data_of_a_newer_version_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "layout.json").write_bytes(msgspec.json.encode({"layout": LAYOUT + 1}))
    code, out, err = asyncio.run(recourse("up", "--data", str(tmp_path), "--port", "0", "--smtp-port", "0"))
    assert (code, out) == (3, "")
    assert "newer version" in err
    assert sorted(each.name for each in tmp_path.iterdir() if each.name != "logs") == ["layout.json"]


async def test_ctrl_c_while_it_starts_leaves_nothing_running(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.cli", "up", "--data", str(tmp_path), "--port", "0", "--smtp-port", "0"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(PATIENCE):
        while not (started := children_of(process.pid)):  # noqa: ASYNC110 - a process tells no event
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    assert [pid for pid in started if is_alive(pid)] == []


def test_a_port_of_somebody_else_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = asyncio.run(recourse("up", "--data", str(tmp_path), "--port", "0", "--smtp-port", str(port)))
    assert code == 3
    assert f"Port {port} for mail is in use by another program" in err
