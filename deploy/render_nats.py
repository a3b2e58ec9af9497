"""Writes deploy/nats/nats.conf: who may do what on NATS follows from the declared messages. A test keeps the file current.

.venv/bin/python deploy/render_nats.py
"""

from __future__ import annotations

from pathlib import Path

from shared.embedded.access import USERS, render_config

TARGET = Path(__file__).resolve().parent / "nats" / "nats.conf"


def rendered() -> str:
    """The configuration for a container: passwords come from its environment."""
    config = render_config(
        {user: f"$RECOURSE_NATS_PASSWORD_{user.upper()}" for user in USERS},
        store="/data",
        host="0.0.0.0",  # noqa: S104 - inside a container's own network
        port=4222,
        monitor="0.0.0.0:8222",
        max_file="8GB",
    )
    return f"# Written by deploy/render_nats.py; change it there.\n{config}"


if __name__ == "__main__":
    TARGET.write_text(rendered())
