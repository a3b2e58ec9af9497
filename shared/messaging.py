"""The connection to NATS: one per service, with deadlines, that never gives up and says how often it came back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec
import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from shared.database import UnsafeServerError
from shared.errors import UnavailableError
from shared.settings import ServiceSettings
from shared.telemetry import Metrics, describe

API_SECONDS = 5.0
DUPLICATE_WINDOW_SECONDS = 120.0
EXTRA_DAYS = (
    1  # a message stays in the stream longer than in the outbox, so what the outbox still has must be in the stream
)

log = structlog.get_logger()


def stream_of(service: str) -> str:
    """The name of the one stream that holds what a service publishes."""
    return service.upper()


BLANKS = " \t\n\r\v\f"  # what `bytes.strip` takes away


class Link(Client):
    """The client, with a quicker reading of headers: each message that comes has seven or eight."""

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """As the client's own, which looks at every character of a name by itself: names are ASCII without spaces, others are left out."""
        found: dict[str, str] = {}
        for line in raw.decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon and name.isascii():
                key = name.strip(BLANKS)
                if not key or key.split() == [key]:
                    found[key] = value.strip(BLANKS)
        return found


class Messaging:
    """NATS for one service. `generation` grows with every connection made: who remembers an older one must look again."""

    def __init__(self, settings: ServiceSettings, metrics: Metrics) -> None:
        self.settings = settings
        self.service = settings.service
        self.generation = 0
        self.unsafe: str | None = None  # why the server's storage is refused, if it is
        self._metrics = metrics
        self._client: Client | None = None
        self._responders: list[tuple[str, str, Callable[[bytes], Awaitable[bytes]]]] = []
        self._connected = asyncio.Event()
        self._log = log.bind(service=self.service)

    # -- life ------------------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect, however long that takes. Run as a task: the HTTP edge answers without NATS."""
        wait = 0.2
        while self._client is None:
            client = Link()
            try:
                await self._connect(client)
                await self._check_durability()
                self.unsafe = None
                self._client = client
            except UnsafeServerError as unsafe:
                self.unsafe = str(unsafe)
                self._log.error("nats_refused", reason=str(unsafe))
            except Exception as error:
                self._log.warning("nats_unreachable", **describe(error))
            finally:
                if self._client is None:
                    with contextlib.suppress(Exception):
                        await client.close()
            if self._client is None:
                await asyncio.sleep(wait)
                wait = min(wait * 2, 2.0)
        for responder in self._responders:
            await self._listen(*responder)
        self._on_connected()

    async def _connect(self, client: Client) -> None:
        await client.connect(
            servers=[self.settings.nats_url],
            name=f"recourse {self.service}",
            **self._login(),
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,  # type: ignore[arg-type]  # seconds; the client only sleeps for it
            connect_timeout=2,
            ping_interval=5,
            max_outstanding_pings=2,
            inbox_prefix=f"_INBOX_{self.service}",
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
        )

    async def close(self) -> None:
        if self._client is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._client.close(), 3)
        self._connected.clear()
        self._metrics.nats_connected.labels(self.service).set(0)

    @property
    def is_connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def wait_connected(self) -> None:
        """Return once connected, at once if so."""
        await self._connected.wait()

    @property
    def client(self) -> Client:
        """The connection; UnavailableError while there is none."""
        if self._client is None or not self._client.is_connected:
            raise UnavailableError("NATS is not connected.", retry_after_seconds=1)
        return self._client

    @property
    def js(self) -> JetStreamContext:
        return self.client.jetstream(timeout=API_SECONDS)

    # -- requests and answers ------------------------------------------------------------------------------------------------

    async def request(self, subject: str, body: bytes, timeout: float = 2.0) -> bytes:
        """Ask another service and return its answer. UnavailableError when nobody answers in time."""
        try:
            answer: Msg = await self.client.request(subject, body, timeout=timeout)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise UnavailableError("The other service does not answer.", retry_after_seconds=2) from error
        return answer.data

    async def respond(self, subject: str, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Answer requests on `subject`, shared out among replicas. May be called before the connection exists."""
        responder = (subject, self.service, answer)
        self._responders.append(responder)
        if self._client is not None:
            await self._listen(*responder)

    async def _listen(self, subject: str, queue: str, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        async def on_request(message: Msg) -> None:
            try:
                await message.respond(await answer(message.data))
            except Exception as error:
                self._log.warning("request_unanswered", subject=subject, **describe(error))

        assert self._client is not None
        await self._client.subscribe(subject, queue=queue, cb=on_request)

    # -- the service's own stream ----------------------------------------------------------------------------------------------

    async def ensure_stream(self) -> StreamInfo:
        """Return the service's stream as it is, created or brought to our configuration if need be."""
        wanted = self.stream_config()
        try:
            info = await self.js.stream_info(stream_of(self.service))
        except nats.js.errors.NotFoundError:
            info = await self.js.add_stream(wanted)
            self._log.warning("stream_created", stream=stream_of(self.service))
            return info
        if _differs(info.config, wanted):
            info = await self.js.update_stream(wanted)
            self._log.info("stream_updated", stream=stream_of(self.service))
        return info

    def stream_config(self) -> StreamConfig:
        return StreamConfig(
            name=stream_of(self.service),
            subjects=[f"{self.service}.v1.>"],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.NEW,
            max_age=(self.settings.outbox_retention_days + EXTRA_DAYS) * 86_400,
            max_bytes=self.settings.stream_max_bytes,
            duplicate_window=DUPLICATE_WINDOW_SECONDS,
            num_replicas=self.settings.stream_replicas,
            allow_direct=True,
            allow_atomic=True,
        )

    # -- callbacks -------------------------------------------------------------------------------------------------------------

    def _on_connected(self) -> None:
        self.generation += 1
        self._connected.set()
        self._metrics.nats_connected.labels(self.service).set(1)
        self._log.info("nats_connected", count=self.generation)

    async def _on_reconnected(self) -> None:
        self._on_connected()

    async def _on_disconnected(self) -> None:
        self._connected.clear()
        self._metrics.nats_connected.labels(self.service).set(0)
        self._log.warning("nats_disconnected")

    async def _on_closed(self) -> None:
        self._connected.clear()

    async def _on_error(self, error: Exception) -> None:
        self._log.warning("nats_failed", **describe(error))

    def _login(self) -> dict[str, Any]:
        if self.settings.nats_password is None:
            return {}
        return {"user": self.service, "password": str(self.settings.nats_password)}

    async def _check_durability(self) -> None:
        """Refuse a server that acknowledges before it has written, where its monitoring lets us see that."""
        if self.settings.nats_monitor_url is None or not self.settings.require_durable:
            return
        try:
            async with httpx.AsyncClient(timeout=2, trust_env=False) as http:
                answer = await http.get(f"{self.settings.nats_monitor_url.rstrip('/')}/jsz")
            config = msgspec.json.decode(answer.content).get("config") or {}
        except (httpx.HTTPError, msgspec.DecodeError, AttributeError) as error:
            # Whether it may lose what it confirms is not known: try again rather than trust it.
            raise ConnectionError("the monitoring address gives no answer") from error
        if not config.get("sync_always"):
            raise UnsafeServerError("NATS may lose what it confirms: sync_interval must be always.")


def _differs(present: StreamConfig, wanted: StreamConfig) -> bool:
    return any(
        getattr(present, name) != getattr(wanted, name)
        for name in ("subjects", "max_age", "max_bytes", "discard", "num_replicas", "allow_direct", "allow_atomic")
    )
