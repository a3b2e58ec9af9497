"""A whole stack in this process: its own PostgreSQL and NATS, the five services, the gateway, and the other side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from msgspec import Struct

from services.demo.client import Api
from services.notify.sinks import EmailSink, SmsSink, WebhookSink
from services.stack import Stack, running


class World(Struct):
    """The running stack, the operator, and everything that messages go to."""

    stack: Stack
    operator: Api
    sms: SmsSink
    email: EmailSink
    webhook: WebhookSink


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(
            running(tmp_path / "data", extra={"RECOURSE_EGRESS_ALLOW": "127.0.0.1:*"})
        )
        sinks = [await exits.enter_async_context(sink.running()) for sink in (SmsSink(), EmailSink(), WebhookSink())]
        http = await exits.enter_async_context(httpx.AsyncClient(base_url=stack.url, timeout=30, trust_env=False))
        assert stack.operator_key is not None
        yield World(stack, Api(http, stack.operator_key), *sinks)  # type: ignore[arg-type]
