"""Writes deploy/.env with one fresh secret for every place in compose.yaml that asks for one. Needs nothing but Python.

    python3 deploy/new_secrets.py

A file that exists is completed, never overwritten: its secrets are in use.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ASKED = re.compile(r"\$\{([A-Z_]+):\?")


def asked_for(compose: str) -> list[str]:
    """The names of the secrets that a compose file cannot do without."""
    return sorted(set(ASKED.findall(compose)))


def completed(existing: str, names: list[str]) -> str:
    """The text of the file, with a line for each name that it did not have."""
    present = {line.partition("=")[0].strip() for line in existing.splitlines()}
    added = [f"{name}={new_secret(name)}" for name in names if name not in present]
    return "\n".join([*existing.splitlines(), *added]) + "\n"


def new_secret(name: str) -> str:
    if "MASTER_KEY" in name:  # a key, not a password: 32 bytes
        return base64.b64encode(secrets.token_bytes(32)).decode()
    return f"p{secrets.token_hex(24)}"  # a leading letter: NATS reads an all-digit word as a number


def main() -> int:
    target = HERE / ".env"
    existing = target.read_text() if target.exists() else ""
    text = completed(existing, asked_for((HERE / "compose.yaml").read_text()))
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as sink:
        sink.write(text)
    sys.stdout.write(f"{target} is complete.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
