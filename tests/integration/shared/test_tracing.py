"""One trace from the request to the handler of what it told, also when nothing exports it."""

from __future__ import annotations

from typing import Any

import pytest
from litestar import post
from litestar.di import NamedDependency
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared import outbox
from shared.auth import requires
from shared.database import Tx
from shared.messages import EntryRequested
from shared.tracing import start_tracing, stop_tracing, trace_id
from tests.stack import Stack, a_request, http, record
from tests.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@post("/v1/told", guards=[requires("admin")], status_code=202)
async def tell(tx: NamedDependency[Tx]) -> None:
    await outbox.add(tx, a_request(tx.tenant_id))


@pytest.mark.parametrize("exported", [False, True])
async def test_a_trace_goes_from_the_request_to_the_handler(stack: Stack, exported: bool) -> None:
    seen: list[str | None] = []
    exporter = InMemorySpanExporter()

    async def on_request(message: EntryRequested, tx: Tx) -> None:
        seen.append(trace_id())
        await record(message, tx)

    providers = [start_tracing(name, "", exporter=exporter) for name in ("intake", "sla")] if exported else []
    try:
        async with stack.service("intake", routes=[tell]) as intake, stack.hearing(on_request):
            async with http(intake, await stack.a_key(await stack.a_tenant())) as client:
                answer = await client.post("/v1/told", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
                assert answer.status_code == 202
                assert answer.headers["traceresponse"].split("-")[1] == TRACE
            await until(stack.effects)
        assert seen == [TRACE]
    finally:
        for name in ("intake", "sla"):
            stop_tracing(name)
        for provider in providers:
            provider.shutdown()
    if exported:
        spans: dict[str, Any] = {
            span.name: span
            for span in exporter.get_finished_spans()
            if span.context is not None and f"{span.context.trace_id:032x}" == TRACE
        }
        assert set(spans) == {"POST request", "sla-on-entry EntryRequested"}
        assert spans["sla-on-entry EntryRequested"].parent.span_id == spans["POST request"].context.span_id
        assert {span.resource.attributes["service.name"] for span in spans.values()} == {"intake", "sla"}
