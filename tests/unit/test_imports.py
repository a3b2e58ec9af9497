"""The direction of imports: services meet in messages, `shared` knows no service, the pure parts touch nothing outside."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = ("intake", "routing", "sla", "notify", "reporting")
IMPURE = {
    "aiosmtplib", "aiosmtpd", "asyncio", "asyncpg", "httpx", "litestar", "logging", "nats", "os", "prometheus_client", "random", "secrets",
    "socket", "structlog", "subprocess", "threading", "time", "urllib.request", "uvicorn",
}  # fmt: skip
PURE_OF_SHARED = {
    "shared.engine", "shared.policy", "shared.messages", "shared.errors", "shared.ids", "shared.money",
}  # fmt: skip
CLOCKS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today"), ("time", "time")}


def modules(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, parents: set[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_no_other(service: str) -> None:
    others = {f"services.{other}" for other in SERVICES if other != service}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in modules(ROOT / "services" / service)
        for name in imported(tree)
        if under(name, others)
    ]
    assert wrong == []


def test_shared_imports_no_service_and_no_test() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in modules(ROOT / "shared")
        for name in imported(tree)
        if under(name, {"services", "tests"})
    ]
    assert wrong == []


def pure_folders() -> list[Path]:
    return [
        ROOT / "shared" / "engine",
        ROOT / "shared" / "policy",
        *(ROOT / "services" / service / "domain" for service in SERVICES),
    ]


@pytest.mark.parametrize("folder", pure_folders(), ids=lambda folder: str(folder.relative_to(ROOT)))
def test_the_pure_parts_do_no_io_and_ask_no_clock(folder: Path) -> None:
    wrong = []
    for path, tree in modules(folder):
        where = path.relative_to(ROOT)
        wrong += [f"{where} imports {name}" for name in imported(tree) if under(name, IMPURE)]
        wrong += [
            f"{where} imports {name}"
            for name in imported(tree)
            if name.startswith("shared.") and name != "shared" and not under(name, PURE_OF_SHARED)
        ]
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and (node.value.id, node.attr) in CLOCKS
            ):
                wrong.append(f"{where}:{node.lineno} asks {node.value.id}.{node.attr}")
            if isinstance(node, ast.Name) and node.id in ("open", "input", "print"):
                wrong.append(f"{where}:{node.lineno} uses {node.id}")
    assert wrong == []


def test_the_checks_see_what_they_look_for() -> None:
    tree = ast.parse("import os\nfrom shared import database\nfrom services.sla import api\n")
    assert {"os", "shared.database", "services.sla", "services.sla.api"} <= set(imported(tree))
    assert under("services.sla.api", {"services.sla"})
    assert not under("services.slate", {"services.sla"})
