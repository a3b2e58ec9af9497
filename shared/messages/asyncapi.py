"""The AsyncAPI 3.0 document: every message, its subject, its stream and its schema. `python -m shared.messages.asyncapi` prints it."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import msgspec

from shared.messages import Message, message_types

TENANT = {"description": "The tenant's UUID, 36 lower-case characters; all zeros for what concerns all live tenants."}
HEADERS = {
    "type": "object",
    "properties": {
        "Nats-Msg-Id": {
            "type": "string",
            "description": "The message's id; after a repair a slash and a further id may follow it.",
        },
        "ce-specversion": {"const": "1.0"},
        "ce-id": {"type": "string", "format": "uuid"},
        "ce-type": {"type": "string"},
        "ce-source": {"type": "string"},
        "content-type": {"const": "application/json"},
    },
}


def document() -> dict[str, Any]:
    """Return the document, the same for the same declarations."""
    kinds = dict(sorted(message_types().items()))
    _, schemas = msgspec.json.schema_components(list(kinds.values()), ref_template="#/components/schemas/{name}")
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, kind in kinds.items():
        producer = name.split(".")[0]
        channels[name] = {
            "address": kind.SUBJECT,
            "description": f"In the stream {producer.upper()}.",
            "parameters": {"tenant_id": TENANT},
            "messages": {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"}},
        }
        operations[f"{producer} tells {kind.__name__}"] = {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Recourse events",
            "version": "1",
            "description": "What the services tell each other over NATS JetStream. Delivered at least once and possibly out of order;"
            " readers ignore unknown fields. No message carries personal data.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {kind.__name__: _message(name, kind) for name, kind in kinds.items()},
            "schemas": dict(sorted(schemas.items())),
        },
    }


def _message(name: str, kind: type[Message]) -> dict[str, Any]:
    return {
        "name": name,
        "summary": inspect.cleandoc(kind.__doc__ or ""),
        "headers": HEADERS,
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
    }


def render() -> str:
    return msgspec.json.format(msgspec.json.encode(document()), indent=2).decode() + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
