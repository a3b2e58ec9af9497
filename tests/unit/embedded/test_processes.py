"""Child processes end with their parent, whatever ends it, and ports are claimed in a way that a person understands."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shared.embedded import processes
from shared.embedded.errors import PortBusyError
from shared.embedded.processes import Child, claim_port, free_port
from tests.processes import is_alive, wait_until_gone

PARENT = """
import sys, time
from pathlib import Path
from shared.embedded import processes
if sys.argv[2] == "guarded":
    processes._libc = None
child = processes.Child([sys.executable, "-c", "import time; time.sleep(300)"], log=Path(sys.argv[1]), death_signal=9)
print(child.pid, flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("how", ["by the kernel", "guarded"])
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path, how: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "log"), how], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until_gone(child)


async def test_a_child_that_ignores_the_gentle_signal_is_stopped_firmly(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)"
    )
    child = Child([sys.executable, "-c", code], log=tmp_path / "log", death_signal=signal.SIGKILL)
    while "deaf" not in child.log_tail():
        assert not await child.wait(0.02), child.log_tail()
    await child.stop(signal.SIGTERM, 0.1)
    assert child.returncode == -signal.SIGKILL


async def test_the_log_tail_is_of_this_run_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("first\n")
    child = Child([sys.executable, "-c", "print('second')"], log=log, death_signal=signal.SIGKILL)
    await child.wait()
    assert child.log_tail() == "second"
    assert log.read_text() == "first\nsecond\n"


async def test_a_long_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES", 10)
    log = tmp_path / "log"
    log.write_text("x" * 11)
    child = Child([sys.executable, "-c", "print('new')"], log=log, death_signal=signal.SIGKILL)
    await child.wait()
    assert log.read_text() == "new\n"
    assert (tmp_path / "log.1").read_text() == "x" * 11


def test_a_busy_port_is_refused_in_a_sentence() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortBusyError, match=f"Port {port} for PostgreSQL is in use by another program"):
            claim_port(port, "PostgreSQL")


def test_a_free_port_is_never_one_that_the_system_hands_out() -> None:
    assert all(free_port() < 32_768 for _ in range(20))
