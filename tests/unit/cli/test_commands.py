"""The command line: what it understands, what it says of what it cannot do, and with which code it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services import cli
from services.cli import output
from services.cli.client import refusal
from services.notify.sinks import Request, http_server
from services.stack import Address, address_of
from shared import VERSION

Run = Callable[..., tuple[int, str, str]]
LETTER = "0190a000-0000-7000-8000-000000000001"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command; its exit code, stdout and stderr."""
    for name in ("RECOURSE_URL", "RECOURSE_KEY"):
        monkeypatch.delenv(name, raising=False)

    def once(*arguments: str) -> tuple[int, str, str]:
        try:
            code = cli.run(arguments)
        except SystemExit as ended:  # how the parser ends
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return once


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("up", "--nonsense"),
        ("up", "--port", "many"),
        ("serve", "nobody"),
        ("dlq", "show", "not-an-id"),
        ("tenant", "create"),
    ],
)
def test_what_is_not_understood_ends_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert (out + err).strip()


@pytest.mark.parametrize(
    "arguments", [("dlq", "retry"), ("sandbox", "advance"), ("sandbox", "advance", "3wd", "--to", "x")]
)
def test_what_contradicts_itself_ends_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2


def test_every_command_and_group_explains_itself(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for name in [*cli.COMMANDS, *cli.GROUPS]:
        assert name in out
    for name in cli.COMMANDS:
        assert run(name, "--help")[0] == 0
    for group in cli.GROUPS:
        assert f"recourse {group} COMMAND" in run(group, "--help")[1]


def test_the_version_is_that_of_the_package(run: Run) -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    assert run("--version")[1].strip() == project["project"]["version"] == VERSION


def test_help_loads_neither_servers_nor_services() -> None:
    script = (
        "import sys\nfrom services import cli\n"
        "try: cli.run(['--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('litestar', 'asyncpg', 'nats', 'httpx', 'uvicorn') if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == "[]"


def test_nobody_there_is_one_sentence_and_code_3(run: Run, tmp_path: Path) -> None:
    code, out, err = run("status", "--url", "http://127.0.0.1:9", "--data", str(tmp_path))
    assert (code, out) == (3, "")
    assert err.startswith("Nobody answers at http://127.0.0.1:9.")
    assert len(err.strip().splitlines()) == 1


def test_a_missing_key_is_said_before_anything_is_asked(run: Run) -> None:
    code, _, err = run("tenant", "list", "--url", "http://127.0.0.1:9")
    assert code == 3
    assert "RECOURSE_KEY" in err


def test_missing_settings_are_all_named() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECOURSE_")}
    arguments = [sys.executable, "-m", "services.cli", "serve", "gateway"]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 3
    for name in ("INTAKE", "ROUTING", "SLA", "NOTIFY", "REPORTING"):
        assert f"RECOURSE_{name}_URL is not set" in ended.stderr


def test_migrate_asks_for_its_address(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECOURSE_SUPERUSER_URL", raising=False)
    code, _, err = run("migrate")
    assert code == 3
    assert "RECOURSE_SUPERUSER_URL" in err


def test_a_bug_is_no_sentence() -> None:
    assert output.sentence_of(RuntimeError("a bug")) is None
    assert output.sentence_of(ExceptionGroup("several", [RuntimeError("a bug")])) is None


def test_the_sentence_of_a_refusal_is_found_however_deep_it_lies() -> None:
    from shared.embedded.errors import PortBusyError

    deep = ExceptionGroup("several", [RuntimeError("x"), ExceptionGroup("more", [PortBusyError("Port 80 is in use.")])])
    assert output.sentence_of(deep) == "Port 80 is in use."


def test_columns_stand_under_each_other_also_in_chinese() -> None:
    shown = output.table(("NAME", "N"), [("医院", 1), ("bank", None)])
    assert shown.splitlines() == ["NAME  N", "医院  1", "bank"]


def test_a_problem_reads_as_a_sentence_with_its_fields() -> None:
    problem = {
        "type": "/problems/malformed",
        "title": "The request does not fit its schema.",
        "errors": [{"pointer": "/chanel", "detail": "is not known", "suggestion": "channel"}],
    }
    assert (
        refusal(400, problem) == "The request does not fit its schema. /chanel: is not known (did you mean channel?)."
    )
    assert "status 502" in refusal(502, "bad gateway")


# -- with somebody at the other end --------------------------------------------------------------------------------------------------


class OtherEnd:
    """Answers by path, and remembers what it was asked."""

    def __init__(self, answers: dict[str, tuple[int, Any]]) -> None:
        self.answers = answers
        self.asked: list[Request] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with http_server(self._answer) as url:
            yield url

    async def _answer(self, request: Request) -> tuple[int, Any]:
        self.asked.append(request)
        return self.answers.get(f"{request.method} {request.path}", (404, {"title": "There is nothing here."}))


async def command(end: OtherEnd, *arguments: str) -> tuple[int, str, str]:
    """Run a command as a process, with the other end in this one."""
    import asyncio

    async with end.running() as url:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.cli",
            *arguments,
            "--url",
            url,
            "--key",
            "rk_test",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_status_says_what_is_wrong_and_what_to_do() -> None:
    services = [
        {"service": "intake", "ready": True, "reasons": [], "notes": []},
        {
            "service": "sla",
            "ready": False,
            "reasons": [{"what": "PostgreSQL does not answer.", "do": "Start it."}],
            "notes": [],
        },
    ]
    end = OtherEnd({"GET /readyz": (503, {"service": "gateway", "ready": False, "services": services})})
    code, out, _ = await command(end, "status")
    assert code == 1
    assert "intake     ready" in out
    assert "PostgreSQL does not answer. Start it." in out
    code, out, _ = await command(end, "status", "--json")
    assert (code, msgspec.json.decode(out)["ready"]) == (1, False)


async def test_a_new_tenant_s_key_alone_goes_to_stdout() -> None:
    created = {"tenant": {"tenant_id": LETTER}, "admin_key": "rk_new", "credential_id": LETTER}
    end = OtherEnd({"POST /v1/tenants": (201, created)})
    code, out, err = await command(end, "tenant", "create", "hospital", "--sandbox")
    assert (code, out) == (0, "rk_new\n")
    assert "hospital" in err
    sent = msgspec.json.decode(end.asked[0].body)
    assert (sent["slug"], sent["sandbox"]) == ("hospital", True)
    assert end.asked[0].header("authorization") == "Bearer rk_test"


async def test_a_refusal_of_the_api_is_one_sentence_and_code_3() -> None:
    problem = {"title": "Another tenant has this slug.", "errors": [{"pointer": "/slug", "detail": "is taken"}]}
    end = OtherEnd({"POST /v1/tenants": (409, problem)})
    code, out, err = await command(end, "tenant", "create", "hospital")
    assert (code, out, err) == (3, "", "Another tenant has this slug. /slug: is taken.\n")


async def test_dead_letters_of_all_services_are_listed_and_one_is_found_by_its_id_alone() -> None:
    letter = {
        "dead_letter_id": LETTER,
        "consumer": "sla-on-entry",
        "state": "dead",
        "reason": "failed",
        "attempts": 8,
        "dead_at": "2026-11-23T02:00:00Z",
    }
    answers: dict[str, tuple[int, Any]] = {
        f"GET /v1/ops/{name}/dead-letters": (200, {"items": [letter] if name == "sla" else [], "next_cursor": None})
        for name in ("intake", "routing", "sla", "notify", "reporting")
    }
    answers[f"GET /v1/ops/sla/dead-letters/{LETTER}"] = (200, {"letter": letter, "body": "{}"})
    answers[f"POST /v1/ops/sla/dead-letters/{LETTER}/retry"] = (202, {"count": 1})
    end = OtherEnd(answers)
    code, out, _ = await command(end, "dlq", "list")
    assert (code, "sla-on-entry" in out) == (0, True)
    code, out, _ = await command(end, "dlq", "list", "--json")
    assert [each["service"] for each in msgspec.json.decode(out)] == ["sla"]
    code, out, _ = await command(end, "dlq", "retry", LETTER)
    assert (code, out) == (0, "1 tried again.\n")
    code, _, err = await command(end, "dlq", "show", LETTER.replace("0001", "0002"))
    assert (code, "No service has" in err) == (3, True)


def test_the_address_of_a_stack_that_has_gone_is_none(tmp_path: Path) -> None:
    assert address_of(tmp_path) is None
    (tmp_path / "address.json").write_bytes(msgspec.json.encode(Address("http://127.0.0.1:1", 2, 2**22 - 1)))
    assert address_of(tmp_path) is None
    (tmp_path / "address.json").write_bytes(b"{")
    assert address_of(tmp_path) is None


@pytest.mark.parametrize(
    ("policy", "scenario", "told"),
    [
        ("policy: 1\ntitle: T\npolicy: 1\n", None, "3:1: error: /policy: the key policy stands twice"),
        (
            "policy: 1\ntitle: T\nclocks: [{id: a, start: recieved}]\n",
            None,
            "/clocks/0/start: recieved is no kind of entry",
        ),
        (None, None, "there is no template of the regime W09"),
        (None, "id: x\n\tregime: W09\n", "2:1: not YAML: the line begins with a tab"),
        (None, "id: x\nregimes: W09\n", "unknown field"),
    ],
)
def test_a_simulation_says_what_it_cannot_read(
    run: Run, tmp_path: Path, policy: str | None, scenario: str | None, told: str
) -> None:
    case, document = tmp_path / "case.yaml", tmp_path / "policy.yaml"
    begun = "complaint: {received_at: 2026-03-02T10:00:00+08:00}\nuntil: 2026-03-03T00:00:00+08:00\n"
    case.write_text(scenario or f"id: x\nregime: W09\nclauses: []\ntitle: x\n{begun}events: []\nexpect: {{}}\n")
    if policy is not None:
        document.write_text(policy)
    code, out, err = run("policy", "simulate", str(case), *([] if policy is None else ["--policy", str(document)]))
    assert (code, out) == (output.NOT_WELL, "")
    assert told in err


def test_a_text_that_is_no_document_is_a_finding_of_lint(run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("policy: 1\ntitle: T\npolicy: 1\n")
    code, out, _ = run("policy", "lint", str(broken), "--json")
    (found,) = msgspec.json.decode(out)["problems"]
    assert code == output.NOT_WELL
    assert (found["path"], found["line"], found["code"]) == ("/policy", 3, "document")
