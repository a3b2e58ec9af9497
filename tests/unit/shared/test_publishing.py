"""Facts leave through the outbox alone: nobody but the relay publishes, and nobody but it and the vault's questions speaks to NATS."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent
RELAY = {"shared/relay.py", "shared/publishing.py"}
WAYS = {"publish", "_send_command"}
PULLS = {"shared/consuming.py"}  # asks the server for messages, which is a publish on the wire


def publishers() -> set[str]:
    """The modules that call one of the client's ways to publish."""
    found = set()
    for folder in ("services", "shared"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAYS:
                    owner = ast.unparse(node.func.value)
                    if owner.endswith(("client", "js", "nats")):
                        found.add(str(path.relative_to(ROOT)))
    return found


def importers(module: str) -> set[str]:
    """The modules that import this one."""
    return {
        str(path.relative_to(ROOT))
        for folder in ("services", "shared")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.module == module)
        or (isinstance(node, ast.Import) and module in {each.name for each in node.names})
    }


def test_nobody_publishes_but_the_relay() -> None:
    assert publishers() == RELAY | PULLS
    assert importers("shared.publishing") == {"shared/relay.py"}
