"""The one way out: every request to an address that a tenant has given goes through here.

A tenant's address must never make us talk to our own network. A name is resolved once, every answer must pass an
explicit table of addresses that are not the public Internet, and the connection goes to the address that was checked,
with the name kept for `Host` and TLS. Redirects are not followed, proxies of the environment are not used, connections
are not shared between destinations, answers are cut at a size and everything ends by a deadline. The operator may open
single networks and ports (`127.0.0.1:*` for local sinks).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal
from urllib.parse import SplitResult, urlsplit

import httpx
from msgspec import Struct

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

# What is not the public Internet, written out: `is_private` and `is_global` miss several of these, and what they say
# differs between Python versions.
DENIED_V4: tuple[ipaddress.IPv4Network, ...] = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT, and 100.100.100.200, a cloud's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's metadata on a public address
        "169.254.0.0/16",  # link-local, and 169.254.169.254, metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, and 192.0.0.192, metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
"""Outside it nothing is global unicast: loopback, IPv4-mapped, NAT64, unique local, link-local, multicast."""
DENIED_V6: tuple[ipaddress.IPv6Network, ...] = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, and Teredo, which carries an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "3fff::/20",  # documentation
    )
)

_HOST = re.compile(r"[A-Za-z0-9_\-.:]{1,253}")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\U0010ffff\\]")

Refusal = Literal["malformed", "scheme", "user_info", "port", "address", "unresolved"]


class EgressRefusedError(Exception):
    """The destination is not one we talk to; nothing was sent. `reason` is stable, `detail` names no address."""

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Refusal = reason
        self.detail = detail


class EgressFailedError(Exception):
    """No answer. `sent` is false when the other side cannot have seen the request, true when it may have."""

    def __init__(self, detail: str, *, sent: bool) -> None:
        super().__init__(detail)
        self.detail = detail
        self.sent = sent


class Opening(Struct, frozen=True):
    """One network and port that the operator opens; port None means every port."""

    network: Network
    port: int | None


class EgressRules(Struct, frozen=True, kw_only=True):
    """What the operator allows."""

    openings: tuple[Opening, ...] = ()
    plain_http: bool = False  # port 80 on the public Internet
    timeout_seconds: float = 10.0  # one request, from resolving to the last byte
    most_bytes: int = 65_536  # of an answer


class Target(Struct, frozen=True):
    """A destination that passed: connect to `address`, speak to `host`."""

    host: str
    address: str
    port: int


class Answer(Struct, frozen=True):
    """What came back; `body` is cut at the limit, `cut` says so."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    cut: bool = False


def openings(text: str) -> tuple[Opening, ...]:
    """Read the operator's list: `127.0.0.1:*, 10.1.0.0/16:8443, [::1]:2525`. Raises ValueError naming the bad item."""
    found = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        network, colon, port = item.rpartition(":")
        try:
            if not colon:
                raise ValueError
            number = None if port == "*" else int(port)
            if number is not None and not 0 < number < 65_536:
                raise ValueError
            found.append(Opening(ipaddress.ip_network(network.strip("[]"), strict=True), number))
        except ValueError:
            raise ValueError(f"{item!r} is not ADDRESS:PORT, NETWORK/BITS:PORT or either with :*") from None
    return tuple(found)


def is_public(address: Address) -> bool:
    """Whether the address is on the public Internet, by our table."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in DENIED_V4)
    return address in PUBLIC_V6 and not any(address in network for network in DENIED_V6)


def parse_url(url: str, rules: EgressRules) -> SplitResult:
    """Return the parts of an http or https URL that may be called as far as its text tells. Raises EgressRefusedError.

    Names are not resolved here, so this also serves to check an address when it is saved.
    """
    if len(url) > 2048 or _FORBIDDEN.search(url):
        raise EgressRefusedError(
            "malformed", "a URL has at most 2048 printable ASCII characters and no spaces or backslashes"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise EgressRefusedError("malformed", "the URL cannot be read") from None
    if parts.scheme not in ("http", "https"):
        raise EgressRefusedError("scheme", "only https, or http where the operator allows it")
    if "@" in parts.netloc:
        raise EgressRefusedError("user_info", "a URL with a user name or password is not called")
    host = parts.hostname or ""
    if not _HOST.fullmatch(host):
        raise EgressRefusedError("malformed", "the URL names no host")
    check_port(host, port or _default_port(parts), _web_ports(parts, rules), rules)
    return parts


def _default_port(parts: SplitResult) -> int:
    return 443 if parts.scheme == "https" else 80


def _web_ports(parts: SplitResult, rules: EgressRules) -> frozenset[int]:
    if parts.scheme == "https":
        return frozenset({443})
    return frozenset({80}) if rules.plain_http else frozenset()


def check_port(host: str, port: int, ports: frozenset[int], rules: EgressRules) -> None:
    """Refuse a port early where no answer could make it good: neither usual nor opened for any address."""
    if port in ports or any(opening.port in (None, port) for opening in rules.openings):
        return
    raise EgressRefusedError("port", f"port {port} is not open")


async def resolve(host: str, port: int) -> list[str]:
    """Every address of the host, by the system's resolver. Raises OSError."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class Egress:
    """The guarded client. One per process; it keeps no connection open."""

    def __init__(self, rules: EgressRules, *, resolver: Resolver = resolve, tls: ssl.SSLContext | None = None) -> None:
        self.rules = rules
        self._resolve = resolver
        self._tls = tls or ssl.create_default_context()

    async def target(self, host: str, port: int, *, ports: frozenset[int]) -> Target:
        """Resolve a host once and return the address to connect to.

        Raises EgressRefusedError unless every answer may be talked to.

        Args:
            ports: those that may be used on the public Internet; the operator's openings bring their own.
        """
        try:
            answers = await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise EgressRefusedError("unresolved", "the name has no address") from None
        if not answers:
            raise EgressRefusedError("unresolved", "the name has no address")
        for answer in answers:
            self._check(answer, port, ports)
        return Target(host=host, address=answers[0], port=port)

    def _check(self, answer: str, port: int, ports: frozenset[int]) -> None:
        try:
            address = ipaddress.ip_address(answer)
        except ValueError:  # with a zone, say: fe80::1%eth0
            raise EgressRefusedError("address", "the name leads to an address that is not public") from None
        if any(
            address.version == opening.network.version and address in opening.network and opening.port in (None, port)
            for opening in self.rules.openings
        ):
            return
        if not is_public(address):
            raise EgressRefusedError("address", "the name leads to an address that is not public")
        if port not in ports:
            raise EgressRefusedError("port", f"port {port} is not open")

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float | None = None,
    ) -> Answer:
        """Send one request and return the answer, whatever its status. Raises EgressRefusedError, EgressFailedError."""
        parts = parse_url(url, self.rules)
        seconds = min(timeout or self.rules.timeout_seconds, self.rules.timeout_seconds)
        progress = _Progress()
        try:
            async with asyncio.timeout(seconds):
                target = await self.target(
                    parts.hostname or "", parts.port or _default_port(parts), ports=_web_ports(parts, self.rules)
                )
                return await self._exchange(method, parts, target, headers or {}, body, progress)
        except TimeoutError:
            raise EgressFailedError("no answer in time", sent=progress.connected) from None
        except httpx.HTTPError as failure:
            raise EgressFailedError(type(failure).__name__, sent=progress.connected) from None

    async def _exchange(
        self,
        method: str,
        parts: SplitResult,
        target: Target,
        headers: Mapping[str, str],
        body: bytes,
        progress: _Progress,
    ) -> Answer:
        literal = f"[{target.address}]" if ":" in target.address else target.address
        url = parts._replace(netloc=f"{literal}:{target.port}", fragment="").geturl()
        sent = {"accept-encoding": "identity", "user-agent": "recourse", **headers, "host": parts.netloc}
        async with (
            httpx.AsyncClient(
                verify=self._tls,
                trust_env=False,
                follow_redirects=False,
                timeout=self.rules.timeout_seconds,
                limits=httpx.Limits(max_keepalive_connections=0),
            ) as client,
            client.stream(
                method,
                url,
                headers=sent,
                content=body,
                extensions={"sni_hostname": target.host, "trace": progress.trace},
            ) as response,
        ):
            received = bytearray()
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) > self.rules.most_bytes:
                    break
            return Answer(
                status=response.status_code,
                headers=dict(response.headers.items()),
                body=bytes(received[: self.rules.most_bytes]),
                cut=len(received) > self.rules.most_bytes,
            )


class _Progress:
    """Remembers whether the first byte of the request may have left."""

    def __init__(self) -> None:
        self.connected = False

    async def trace(self, event: str, info: Mapping[str, object]) -> None:
        if event.endswith("send_request_headers.started"):
            self.connected = True
