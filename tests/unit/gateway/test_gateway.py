"""The gateway before services of all kinds: in this process, elsewhere, slow to come back, gone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import Any

import httpx
import msgspec
import pytest

from services.gateway import backends
from services.gateway.app import Gateway
from services.gateway.backends import Backend, InMemory, OverHttp
from services.supervisor import Endpoint, serving
from shared.embedded.access import SERVICES
from shared.embedded.processes import free_port


class Echo:
    """A service that answers with what it was asked."""

    def __init__(self, name: str, *, ready: bool = True) -> None:
        self.name = name
        self.ready = ready
        self.requests: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        said = {
            "service": self.name,
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "bytes": len(body),
            "headers": headers,
        }
        self.requests.append(said)
        status = 200
        if scope["path"] == "/readyz":
            status = 200 if self.ready else 503
            said = {"service": self.name, "ready": self.ready, "reasons": [], "notes": []}
        elif scope["path"] == "/openapi.json":
            said = {"paths": {f"/v1/{self.name}": {"get": {"tags": [self.name]}}}}
        content = msgspec.json.encode(said)
        start = [(b"content-type", b"application/json"), (b"x-own", b"kept"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": start})
        for place in range(0, len(content), 50):
            await send({"type": "http.response.body", "body": content[place : place + 50], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def asking(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=gateway.app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


def in_memory(**changed: Any) -> Gateway:
    services: dict[str, Backend] = {name: InMemory(Echo(name, **changed)) for name in SERVICES}
    return Gateway(services, most_body_bytes=1000)


@asynccontextmanager
async def elsewhere(echo: Echo, most_bytes: int = 1000) -> AsyncIterator[Gateway]:
    """A gateway whose intake is a server of its own; the others are down."""
    port = free_port()
    async with serving(echo.name, Endpoint(echo, port)):
        gateway = Gateway(
            {
                name: OverHttp(f"http://127.0.0.1:{port if name == echo.name else free_port()}", most_bytes)
                for name in SERVICES
            },
            most_bytes,
        )
        try:
            yield gateway
        finally:
            await gateway.close()


@pytest.fixture(params=["in memory", "over HTTP"])
async def intake(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Gateway, Echo]]:
    """A gateway and the intake behind it, both ways."""
    echo = Echo("intake")
    if request.param == "in memory":
        yield Gateway({name: InMemory(echo if name == "intake" else Echo(name)) for name in SERVICES}, 1000), echo
    else:
        async with elsewhere(echo) as gateway:
            yield gateway, echo


async def test_a_request_and_its_answer_go_through_unchanged(intake: tuple[Gateway, Echo]) -> None:
    gateway, _ = intake
    async with asking(gateway) as client:
        answer = await client.post(
            "/v1/complaints?a=1&b=%E6%8A%95",
            content=b"x" * 321,
            headers={"Idempotency-Key": "k-1", "Content-Type": "application/json", "Connection": "x-secret"},
        )
    said = answer.json()
    assert answer.status_code == 200
    assert (said["service"], said["method"], said["path"], said["query"]) == (
        "intake",
        "POST",
        "/v1/complaints",
        "a=1&b=%E6%8A%95",
    )
    assert said["bytes"] == 321
    assert said["headers"]["idempotency-key"] == "k-1"
    assert answer.headers["x-own"] == "kept"


async def test_the_trace_of_the_caller_is_continued(intake: tuple[Gateway, Echo]) -> None:
    gateway, echo = intake
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with asking(gateway) as client:
        await client.get("/v1/me", headers={"traceparent": trace})
    handed_on = echo.requests[-1]["headers"]["traceparent"]
    assert handed_on.split("-")[1] == trace.split("-")[1]
    assert handed_on != trace


async def test_a_body_in_pieces_arrives_whole(intake: tuple[Gateway, Echo]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"y" * 100

    gateway, _ = intake
    async with asking(gateway) as client:
        assert (await client.post("/v1/imports", content=pieces())).json()["bytes"] == 500


async def test_an_oversize_body_is_refused_before_it_is_read(intake: tuple[Gateway, Echo]) -> None:
    gateway, echo = intake
    async with asking(gateway) as client:
        answer = await client.post("/v1/complaints", content=b"x" * 1001)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")
    assert answer.headers["content-type"] == "application/problem+json"
    assert echo.requests == []


async def test_a_body_that_says_nothing_of_its_size_is_cut_off_where_it_grows_too_large() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"z" * 300

    async with elsewhere(Echo("intake")) as gateway, asking(gateway) as client:
        answer = await client.post("/v1/complaints", content=endless())
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")


async def test_an_unknown_path_is_a_problem_like_any_other() -> None:
    async with asking(in_memory()) as client:
        answer = await client.get("/v1/nothing")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    before = backends._PATIENCE_SECONDS
    backends._PATIENCE_SECONDS = seconds
    try:
        yield
    finally:
        backends._PATIENCE_SECONDS = before


async def test_a_service_that_is_down_is_said_to_be(intake: tuple[Gateway, Echo]) -> None:
    async with elsewhere(Echo("intake")) as gateway, asking(gateway) as client:
        with patience(0.2):
            answer = await client.get("/v1/statistics")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert answer.headers["retry-after"]


async def test_a_service_that_is_being_restarted_is_waited_for() -> None:
    port = free_port()
    gateway = Gateway({name: OverHttp(f"http://127.0.0.1:{port}", 1000) for name in SERVICES}, 1000)
    async with asking(gateway) as client:
        waiting = asyncio.create_task(client.post("/v1/complaints", content=b"once"))
        await asyncio.sleep(0.2)
        echo = Echo("intake")
        async with serving("intake", Endpoint(echo, port)):
            answer = await waiting
    await gateway.close()
    assert (answer.status_code, answer.json()["bytes"]) == (200, 4)
    assert len(echo.requests) == 1


async def test_a_post_that_broke_off_is_not_repeated_for_the_sender() -> None:
    calls = 0

    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        await reader.readuntil(b"\r\n\r\n")
        calls += 1
        writer.transport.abort()

    server = await asyncio.start_server(breaking, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    gateway = Gateway({name: OverHttp(f"http://127.0.0.1:{port}", 1000) for name in SERVICES}, 1000)
    async with asking(gateway) as client:
        answer = await client.post("/v1/complaints", content=b"once")
    server.close()
    await gateway.close()
    assert (answer.status_code, calls) == (503, 1)
    assert "Idempotency-Key" in answer.json()["detail"]


async def test_it_is_ready_when_every_service_is() -> None:
    async with asking(in_memory()) as client:
        well = await client.get("/readyz")
    async with asking(in_memory(ready=False)) as client:
        ill = await client.get("/readyz")
    assert (well.status_code, well.json()["ready"], len(well.json()["services"])) == (200, True, 5)
    assert (ill.status_code, ill.json()["ready"]) == (503, False)


async def test_readiness_names_the_service_that_does_not_answer() -> None:
    async with elsewhere(Echo("intake")) as gateway, asking(gateway) as client:
        answer = await client.get("/readyz")
    states = {each["service"]: each["ready"] for each in answer.json()["services"]}
    assert answer.status_code == 503
    assert states == {"intake": True, "routing": False, "sla": False, "notify": False, "reporting": False}
    assert all(each["reasons"][0]["do"] for each in answer.json()["services"] if not each["ready"])


async def test_without_all_services_there_is_no_description_of_some() -> None:
    async with elsewhere(Echo("intake")) as gateway, asking(gateway) as client:
        answer = await client.get("/openapi.json")
    assert answer.status_code == 503
    assert "routing" in answer.json()["detail"]


async def test_figures_are_its_own_and_those_of_each_service() -> None:
    async with asking(in_memory()) as client:
        await client.get("/v1/cases/0190a000-0000-7000-8000-000000000000/clocks")
        own = (await client.get("/metrics")).text
        services = (await client.get("/metrics/sla")).json()
        nobodys = await client.get("/metrics/nobody")
    assert 'route="/v1/cases/*/clocks"' in own
    assert (services["service"], services["path"]) == ("sla", "/metrics")
    assert nobodys.status_code == 404


async def test_pages_need_nothing_from_anywhere_else() -> None:
    async with asking(in_memory()) as client:
        root = await client.get("/")
        page = await client.get("/docs")
        described = (await client.get("/openapi.json")).json()
    assert (root.status_code, root.headers["location"]) == (307, "/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert set(described["paths"]) == {f"/v1/{name}" for name in SERVICES}
    folder = resources.files("services.gateway").joinpath("pages")
    for file in folder.iterdir():
        assert not re.search(r"https?://|//cdn|@import", file.read_text(encoding="utf-8")), file.name
    for reference in re.findall(r'(?:href|src)="([^"#]+)"', page.text):
        async with asking(in_memory()) as client:
            assert (await client.get(reference)).status_code == 200, reference


async def test_a_bug_is_answered_without_its_inside() -> None:
    class Broken:
        async def forward(self, *_: Any) -> None:
            raise RuntimeError("a secret")

        get: Callable[..., Any]

        async def close(self) -> None: ...

    gateway = Gateway({name: Broken() for name in SERVICES})
    async with asking(gateway) as client:
        answer = await client.get("/v1/me")
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/internal")
    assert "secret" not in answer.text
