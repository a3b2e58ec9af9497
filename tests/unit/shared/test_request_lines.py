"""The line of each request: what it says, that it says nothing else, and that those of one turn of the loop go out together."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import structlog

from shared import telemetry
from shared.telemetry import Metrics, Watch


class _Stream(io.StringIO):
    """Counts how often it was written to."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = structlog.get_config()
    monkeypatch.setattr(telemetry, "_answers", None)
    yield
    structlog.configure(**before)


async def _ask(tenant_ids: list[UUID]) -> None:
    async def answer(scope: Any, _: Any, send: Any) -> None:
        scope["state"] = {"caller": SimpleNamespace(tenant_id=scope["headers"][0][1])}
        scope["path_template"] = "/v1/complaints"
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(_: Any) -> None:
        """Whoever asked is not looked at."""

    watch = Watch(answer, Metrics("intake"))
    for tenant_id in tenant_ids:
        scope: Any = {"type": "http", "method": "POST", "path": "/v1/complaints", "headers": [(b"x", tenant_id)]}
        await watch(scope, send, send)  # type: ignore[arg-type]
    await asyncio.sleep(0)


async def test_each_request_has_a_line_and_those_of_one_turn_are_written_at_once() -> None:
    stream = _Stream()
    telemetry.configure(stream=stream)
    tenant_ids = [uuid4(), uuid4()]
    await _ask(tenant_ids)
    assert stream.writes == 1
    lines = [msgspec.json.decode(line, type=dict[str, Any]) for line in stream.getvalue().splitlines()]
    assert [line["tenant_id"] for line in lines] == [str(each) for each in tenant_ids]
    assert {
        tuple(line[name] for name in ("event", "level", "service", "method", "route", "status")) for line in lines
    } == {("request_answered", "info", "intake", "POST", "/v1/complaints", 201)}
    assert all(len(line["trace_id"]) == 32 and line["timestamp"].endswith("Z") for line in lines)


async def test_who_wants_no_such_lines_gets_none() -> None:
    stream = _Stream()
    telemetry.configure(level="warning", stream=stream)
    await _ask([uuid4()])
    assert stream.getvalue() == ""
