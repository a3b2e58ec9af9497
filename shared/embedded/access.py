"""Who may do what on NATS, and the configuration file that says so to the server.

An allow-list for each service: what is not listed is denied. Purging, deleting and looking into other streams are the
operator's alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from shared.messages import message_types
from shared.messages.contacts import STAFF_SUBJECT

SERVICES: Final = ("intake", "routing", "sla", "notify", "reporting")
OPERATOR: Final = "operator"
USERS: Final = (*SERVICES, OPERATOR)

VAULT: Final = "vault.v1.>"  # "how do I reach …": the only synchronous calls between services
_FURTHER_NAMES: Final = frozenset({"zone"})  # of durables that keep a part of what a noun tells
_ASKS: Final = {"notify": VAULT}
_ANSWERS: Final = {"intake": VAULT, "routing": STAFF_SUBJECT}

MAX_PAYLOAD = 1024 * 1024


class Permissions(msgspec.Struct, frozen=True):
    """Subjects one user may publish to and subscribe to; `answers`: it may reply once to each request it gets."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False


def stream_of(service: str) -> str:
    """The name of the one stream that holds what a service publishes."""
    return service.upper()


def inbox_prefix(service: str) -> str:
    """Where a service's answers arrive; each connects with its own prefix, so nobody hears another's."""
    return f"_INBOX_{service}"


def durables_of(service: str) -> tuple[str, ...]:
    """Every name a durable consumer of this service may bear: `<service>-on-<noun>`, or `-on-<producer>`.

    NATS cannot grant "everything that starts with": each name must be listed, so they come from the declared messages.
    """
    nouns = {name.split(".")[2] for name in message_types()}
    return tuple(f"{service}-on-{word}" for word in sorted({*nouns, *SERVICES, *_FURTHER_NAMES}))


def permissions_of(user: str) -> Permissions:
    """Return what a user may do. Raises ValueError for an unknown user."""
    if user == OPERATOR:
        return Permissions((">",), (">",))
    if user not in SERVICES:
        raise ValueError(f"unknown user of NATS: {user}")
    stream = stream_of(user)
    publish = [
        f"{user}.v1.>",
        *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE", "INFO", "MSG.GET")),
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
    ]
    for durable in durables_of(user):
        publish += [
            f"$JS.API.CONSUMER.CREATE.*.{durable}",
            f"$JS.API.CONSUMER.CREATE.*.{durable}.>",
            f"$JS.API.CONSUMER.DURABLE.CREATE.*.{durable}",
            f"$JS.API.CONSUMER.INFO.*.{durable}",
            f"$JS.API.CONSUMER.MSG.NEXT.*.{durable}",
            f"$JS.ACK.*.{durable}.>",
        ]
    subscribe = [f"{inbox_prefix(user)}.>"]
    if user in _ASKS:
        publish.append(_ASKS[user])
    if user in _ANSWERS:
        subscribe.append(_ANSWERS[user])
    return Permissions(tuple(publish), tuple(subscribe), answers=user in _ANSWERS)


def render_config(
    passwords: Mapping[str, str],
    *,
    store: str,
    port: int,
    monitor: str,
    max_file: str | int,
    max_memory: str | int = "256MB",
    host: str = "127.0.0.1",
    users: Sequence[str] = USERS,
) -> str:
    """Return the server's configuration file.

    Args:
        passwords: one for each user; a value `$NAME` is a variable that the server reads from its environment.
        monitor: address of the monitoring pages, `host:port`.
        max_file: bytes that streams may take on the disk, less than there is; the server refuses messages beyond it.
    """
    accounts = [_user(user, passwords[user]) for user in users]
    lines = [
        f"host: {json.dumps(host)}",
        f"port: {port}",
        f"http: {json.dumps(monitor)}",
        "server_name: recourse",
        f"max_payload: {MAX_PAYLOAD}",
        "ping_interval: 5s",  # a dead link is seen within three pings, not after minutes
        "ping_max: 2",
        "write_deadline: 5s",
        "jetstream {",
        f"  store_dir: {json.dumps(store)}",
        f"  max_file: {max_file}",
        f"  max_mem: {max_memory}",
        "  # The default acknowledges first and writes to the disk within two minutes.",
        "  sync_interval: always",
        "}",
        "authorization {",
        "  users: [",
        *accounts,
        "  ]",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _user(name: str, password: str) -> str:
    allowed = permissions_of(name)
    secret = password if password.startswith("$") else json.dumps(password)
    answers = ["        allow_responses: { max: 1, expires: 10s }"] if allowed.answers else []
    return "\n".join(
        [
            "    {",
            f"      user: {name}",
            f"      password: {secret}",
            "      permissions: {",
            f"        publish: {{ allow: {_subjects(allowed.publish)} }}",
            f"        subscribe: {{ allow: {_subjects(allowed.subscribe)} }}",
            *answers,
            "      }",
            "    }",
        ]
    )


def _subjects(subjects: Sequence[str]) -> str:
    return "[\n" + "".join(f"          {json.dumps(subject)}\n" for subject in subjects) + "        ]"
