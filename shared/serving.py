"""Serves a service over HTTP until it is told to stop: the last step of every composition root."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable

import uvicorn

from shared.http_protocol import WholeAnswers
from shared.service import Service, StartError

GRACE_SECONDS = 5
YOUNG_OBJECTS = 20_000  # made and not yet gone, before the collector looks at them


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: whoever runs several services in one loop decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


async def serve(service: Service, stop: asyncio.Event, listening: Callable[[int], None] | None = None) -> None:
    """Start the service, answer HTTP until `stop` is set, then stop in order: requests in hand, transactions in hand, connections.

    Args:
        listening: called with the port once requests are answered; port 0 in the settings takes any free one.

    Raises:
        StartError: the address is taken, or whatever `Service.start` finds.
    """
    place = _listener(service.settings.host, service.settings.port)
    server = _Server(
        uvicorn.Config(
            service.app,
            http=WholeAnswers,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # nothing here asks where a request came from
            date_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=GRACE_SECONDS,
            limit_concurrency=1000,
            h11_max_incomplete_event_size=65_536,
            backlog=2048,
        )
    )
    try:
        await service.start()
        serving = asyncio.create_task(server.serve(sockets=[place]), name=f"{service.spec.name} http")
        stopping = asyncio.create_task(stop.wait())
        try:
            if listening is not None:
                listening(place.getsockname()[1])
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.should_exit = True
            await asyncio.shield(serving)
            stopping.cancel()
    finally:
        place.close()
        await service.stop()


def settle_collector() -> None:
    """Spare the garbage collector what is there for good: modules and settings, and most of what a request makes is gone by itself."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)


def run(service: Service, listening: Callable[[int], None] | None = None) -> None:
    """Serve one service as a whole process, until SIGTERM or SIGINT."""

    async def main() -> None:
        settle_collector()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, stop.set)
        await serve(service, stop, listening)

    with contextlib.suppress(ImportError):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        return
    asyncio.run(main())


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((host, port))
    except OSError as taken:
        place.close()
        raise StartError(
            f"The address {host}:{port} is taken: stop what listens there, or choose another port."
        ) from taken
    place.set_inheritable(True)
    return place
