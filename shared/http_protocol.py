"""How HTTP is spoken: by uvicorn, but an answer that is there as a whole goes out as a whole.

uvicorn writes the head and the body of an answer one after the other, each a call of the system and a packet that wakes whoever reads.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle


class WholeAnswers(HttpToolsProtocol):
    """The protocol of one connection."""

    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self.cycle.__class__ = (
                _Cycle  # its task has been made, and has not begun: uvicorn has no place to name a class of ours
            )


class _Cycle(RequestResponseCycle):
    """One request and its answer. The head waits for what comes after it."""

    _head: Any = None

    async def send(self, message: Any) -> None:
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started:
            self._head = message  # instead of one that nothing came after, where the application has failed meanwhile
            return
        head, self._head = self._head, None
        if head is not None:
            if kind == "http.response.body" and not message.get("more_body") and self._write(head, message["body"]):
                return
            await super().send(head)
        await super().send(message)

    def _write(self, head: Any, body: bytes) -> bool:
        """Write a whole answer; False, with nothing done, for any but the plainest: those are uvicorn's."""
        if (
            self.disconnected
            or self.flow.write_paused
            or not self.keep_alive
            or self.access_log
            or self.scope["method"] == "HEAD"
        ):
            return False
        lines = [STATUS_LINE[head["status"]]]
        length = -1
        for name, value in (*self.default_headers, *head["headers"]):
            if name == b"content-length":
                length = int(value)
            elif name in (b"connection", b"transfer-encoding"):
                return False
            lines.append(b"%b: %b\r\n" % (name, value))
        start = b"".join(lines)
        if (
            length != len(body)
            or start.count(b"\n") != len(lines)
            or start.count(b"\r") != len(lines)
            or b"\0" in start
        ):
            return False
        self.transport.write(b"%b\r\n%b" % (start, body))
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.expected_content_length = 0
        self.chunked_encoding = False
        self.message_event.set()
        self.on_response()
        return True
