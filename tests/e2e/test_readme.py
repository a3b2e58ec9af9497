"""The tour of README.md does what it says: its commands are run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.e2e.conftest import World
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]

# For machines without curl: the options that the tour uses.
CURL = """#!{python}
import sys, urllib.error, urllib.request
arguments, headers, body, url = sys.argv[1:], {{}}, None, ""
while arguments:
    each = arguments.pop(0)
    if each == "-H":
        name, _, value = arguments.pop(0).partition(": ")
        headers[name] = value
    elif each == "-d":
        body = arguments.pop(0).encode()
    elif each != "-s":
        url = each
try:
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(urllib.request.Request(url, body, headers))
except urllib.error.HTTPError as refusal:
    sys.exit(refusal.read().decode())
sys.stdout.write(answer.read().decode())
"""


def tour(url: str, key: str) -> list[str]:
    """The blocks of commands after the one that starts the stack, with this stack's address and key in them."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## A tour")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert blocks[0].strip() == ".venv/bin/recourse up"
    return [block.replace("rk_…", key).replace("http://127.0.0.1:8080", url) for block in blocks[1:]]


def programs(folder: Path) -> None:
    """The programs that the tour calls, where `make env` would have put the first of them."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    recourse = f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m services.cli "$@"\n'
    for name, text in (("recourse", recourse), ("curl", CURL.format(python=sys.executable))):
        program = folder / ".venv" / "bin" / name
        program.write_text(text)
        program.chmod(0o755)


async def test_the_tour_can_be_walked_as_it_is_written(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    programs(folder)
    key = world.operator._headers["Authorization"].removeprefix("Bearer ")
    blocks = tour(world.stack.url, key)
    assert len(blocks) >= 6
    script = "\n".join(f"echo '== {number}'\n{block}" for number, block in enumerate(blocks))
    process = await asyncio.create_subprocess_exec(
        *("sh", "-eu", "-c", script),
        cwd=folder,
        env={**os.environ, "RECOURSE_URL": world.stack.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    said = out.decode()
    assert process.returncode == 0, err.decode()
    for expected in (
        '"state":"published"',
        '"R09.20"',
        "working day 3",
        "The clock stands at",
        '"kind": "escalated"',
        '"late": 1',
    ):
        assert expected in said, expected
    assert "王芳" not in said
