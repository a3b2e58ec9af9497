"""The guarded way out: no address of our own network is reached, whatever a URL, a name or an answer says."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from shared.egress import (
    Egress,
    EgressFailedError,
    EgressRefusedError,
    EgressRules,
    is_public,
    openings,
    parse_url,
    resolve,
)


def words(text: str) -> list[str]:
    return text.split()


PUBLIC = words("""
    1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.167.0.1 198.17.0.1 198.20.0.1 11.0.0.1
    126.255.255.255 128.0.0.1 223.255.255.255 169.253.1.1 192.0.1.1 2606:4700:4700::1111 2001:4860:4860::8888
    2400:3200::1 2a00:1450:4001::1
""")
DENIED = words("""
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.255.255.254
    168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192
    192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255
    240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:8.8.8.8 64:ff9b::7f00:1
    64:ff9b::a00:1 64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:db8::1 2002:7f00:1::
    2002:a00:1::1 3fff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254 fd12:3456::1 fe80::1 fec0::1 ff02::1
""")


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", DENIED)
def test_denied_addresses_are_denied(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@given(st.ip_addresses())
def test_nothing_that_python_calls_private_passes(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Our table is at least as strict as the standard library's."""
    if not address.is_global or address.is_multicast:
        assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_no_ipv6_form_of_an_ipv4_address_passes(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for prefix, shift in (("::ffff:0:0", 0), ("::", 0), ("64:ff9b::", 0), ("2002::", 80), ("2001::", 0)):
        assert not is_public(ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | number << shift))


BAD_URLS = [
    ("file:///etc/passwd", "scheme"),
    ("gopher://example.org/", "scheme"),
    ("ftp://example.org/", "scheme"),
    ("dict://example.org:11211/", "scheme"),
    ("javascript:alert(1)", "scheme"),
    ("data:text/plain,x", "scheme"),
    ("//example.org/", "scheme"),
    ("example.org/x", "scheme"),
    ("", "scheme"),
    ("https://user@example.org/", "user_info"),
    ("https://user:secret@example.org/", "user_info"),
    ("https://example.org@127.0.0.1/", "user_info"),
    ("https://@example.org/", "user_info"),
    ("https://", "malformed"),
    ("https:///path", "malformed"),
    ("https://exa mple.org/", "malformed"),
    ("https://example.org/a b", "malformed"),
    ("https://example.org\\@127.0.0.1/", "malformed"),
    ("https://example.org/\r\nHost: x", "malformed"),
    ("https://example.org\t/", "malformed"),
    ("https://example.org\x00/", "malformed"),
    ("https://例え.jp/", "malformed"),
    ("https://ⓛocalhost/", "malformed"),
    ("https://127。0。0。1/", "malformed"),
    ("https://[::1/", "malformed"),
    ("https://[fe80::1%25eth0]/", "malformed"),
    ("https://example.org:99999/", "malformed"),
    ("https://example.org:abc/", "malformed"),
    ("https://exa%6dple.org/", "malformed"),
    ("https://" + "a" * 2050, "malformed"),
    ("https://example.org:22/", "port"),
    ("https://example.org:4222/", "port"),
    ("https://example.org:5432/", "port"),
    ("https://example.org:80/", "port"),
    ("https://example.org:8443/", "port"),
    ("http://example.org/", "port"),
    ("http://example.org:443/", "port"),
]


@pytest.mark.parametrize(("url", "reason"), BAD_URLS)
def test_a_url_that_is_not_called(url: str, reason: str) -> None:
    with pytest.raises(EgressRefusedError) as refused:
        parse_url(url, EgressRules())
    assert refused.value.reason == reason


def test_http_is_called_only_where_the_operator_allows_it() -> None:
    assert parse_url("http://example.org/", EgressRules(plain_http=True)).hostname == "example.org"
    with pytest.raises(EgressRefusedError, match="port"):
        parse_url("http://example.org:443/", EgressRules(plain_http=True))


# Ways of writing the loopback address and its relatives; the resolver of the system understands most of them.
LOCAL_HOSTS = words("""
    localhost 127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001 0 0.0.0.0 [::1] [::]
    [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::7f00:1] [2002:7f00:1::] 10.0.0.1 100.100.100.200
    169.254.169.254 [fd00:ec2::254] [fe80::1]
""")


@pytest.mark.parametrize("host", LOCAL_HOSTS)
async def test_no_spelling_of_a_local_address_gets_through(host: str) -> None:
    with pytest.raises(EgressRefusedError) as refused:
        await Egress(EgressRules()).request("GET", f"https://{host}/")
    assert refused.value.reason in ("address", "unresolved")


def names(answers: dict[str, Sequence[str]]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def resolver(host: str, port: int) -> Sequence[str]:
        return answers[host]

    return resolver


@pytest.mark.parametrize("address", [*DENIED, "fe80::1%eth0", "not an address"])
async def test_a_name_that_leads_to_a_denied_address_is_refused(address: str) -> None:
    egress = Egress(EgressRules(), resolver=names({"innocent.example": [address]}))
    with pytest.raises(EgressRefusedError) as refused:
        await egress.request("POST", "https://innocent.example/hook", body=b"{}")
    assert refused.value.reason == "address"
    assert address not in str(refused.value)


async def test_one_denied_answer_among_public_ones_is_enough() -> None:
    egress = Egress(EgressRules(), resolver=names({"mixed.example": ["1.1.1.1", "2606:4700::1", "10.0.0.1"]}))
    with pytest.raises(EgressRefusedError, match="address"):
        await egress.target("mixed.example", 443, ports=frozenset({443}))


async def test_a_name_without_an_address_is_refused() -> None:
    async def nobody(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    for resolver in (nobody, names({"empty.example": []})):
        with pytest.raises(EgressRefusedError, match="unresolved"):
            await Egress(EgressRules(), resolver=resolver).target("empty.example", 443, ports=frozenset({443}))


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1/8:*", "localhost:80", ":80", "1.2.3.4:x"]
)
def test_the_operators_list_is_read_strictly(text: str) -> None:
    with pytest.raises(ValueError, match="is not ADDRESS:PORT"):
        openings(text)


def test_the_operators_list() -> None:
    found = openings("127.0.0.1:*, 10.1.0.0/16:8443,[::1]:2525")
    assert [(str(opening.network), opening.port) for opening in found] == [
        ("127.0.0.1/32", None),
        ("10.1.0.0/16", 8443),
        ("::1/128", 2525),
    ]
    assert openings("") == ()


async def test_an_opening_is_for_its_address_and_port_alone() -> None:
    rules = EgressRules(openings=openings("127.0.0.1:8025"))
    egress = Egress(rules, resolver=names({"a": ["127.0.0.1"], "b": ["127.0.0.2"], "c": ["1.1.1.1"]}))
    assert (await egress.target("a", 8025, ports=frozenset({25}))).address == "127.0.0.1"
    for host, port in (("a", 8026), ("a", 25), ("b", 8025), ("c", 8025)):
        with pytest.raises(EgressRefusedError):
            await egress.target(host, port, ports=frozenset({25}))


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def local(port: int, **rules: float) -> EgressRules:
    return EgressRules(openings=openings(f"127.0.0.1:{port}"), **rules)  # type: ignore[arg-type]


class Recorder:
    """Answers every request with the same bytes and keeps what it was sent."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.requests: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        self.requests.append(head + await reader.readexactly(length))
        writer.write(self.answer)
        await writer.drain()
        writer.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Seen: yes\r\n\r\nok"


async def test_the_name_is_kept_for_host_while_the_checked_address_is_called() -> None:
    recorder = Recorder(OK)
    async with listening(recorder) as port:
        asked: list[str] = []

        async def once(host: str, number: int) -> Sequence[str]:
            asked.append(host)
            return ["127.0.0.1"]

        answer = await Egress(local(port), resolver=once).request(
            "POST", f"http://sink.example:{port}/hook?a=1#part", headers={"x-mine": "1", "host": "evil"}, body=b"{}"
        )
    assert (answer.status, answer.body, answer.headers["x-seen"], answer.cut) == (200, b"ok", "yes", False)
    assert asked == ["sink.example"]
    head = recorder.requests[0].lower()
    assert head.startswith(b"post /hook?a=1 http/1.1\r\n")
    assert f"host: sink.example:{port}\r\n".encode() in head
    assert b"evil" not in head
    assert b"x-mine: 1" in head
    assert recorder.requests[0].endswith(b"{}")


async def test_a_name_that_changes_its_answer_is_called_where_it_was_checked() -> None:
    """DNS rebinding: the second answer would be local; it is never asked for."""
    recorder = Recorder(OK)
    async with listening(recorder) as port:
        answers = iter([["203.0.114.7"], ["127.0.0.1"]])

        async def rebinding(host: str, number: int) -> Sequence[str]:
            return next(answers)

        rules = EgressRules(timeout_seconds=0.3, plain_http=True, openings=openings("203.0.114.7:*"))
        with pytest.raises(EgressFailedError) as failed:
            await Egress(rules, resolver=rebinding).request("GET", f"http://rebinding.example:{port}/")
    assert failed.value.sent is False
    assert recorder.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_like_any_other(status: int) -> None:
    inner = Recorder(OK)
    async with listening(inner) as inner_port:
        location = f"http://127.0.0.1:{inner_port}/secret"
        outer = Recorder(f"HTTP/1.1 {status} Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
        async with listening(outer) as port:
            rules = EgressRules(openings=openings(f"127.0.0.1:{port},127.0.0.1:{inner_port}"))
            answer = await Egress(rules).request("POST", f"http://127.0.0.1:{port}/", body=b"{}")
    assert answer.status == status
    assert len(outer.requests) == 1
    assert inner.requests == []


async def test_a_huge_answer_is_cut() -> None:
    served = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while served < 1_000_000_000:
                writer.write(b"x" * 65_536)
                served += 65_536
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with listening(endless) as port:
        answer = await Egress(local(port)).request("GET", f"http://127.0.0.1:{port}/")
    assert answer.cut
    assert len(answer.body) == 65_536
    assert served < 20_000_000


async def test_a_compressed_answer_is_not_unpacked() -> None:
    import gzip

    bomb = gzip.compress(b"\0" * 10_000_000)
    recorder = Recorder(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb)
    async with listening(recorder) as port:
        answer = await Egress(local(port)).request("GET", f"http://127.0.0.1:{port}/")
    assert len(answer.body) <= 65_536
    assert b"accept-encoding: identity" in recorder.requests[0].lower()


async def test_an_answer_in_drops_ends_by_the_deadline() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(20_000):
                writer.write(b"X-Drop: 1\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with listening(slow) as port:
        with pytest.raises(EgressFailedError) as failed:
            await Egress(local(port, timeout_seconds=0.4)).request("GET", f"http://127.0.0.1:{port}/", timeout=99)
    assert failed.value.sent is True


async def test_a_refused_connection_was_not_sent_and_a_broken_one_may_have_been() -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with listening(breaking) as port:
        with pytest.raises(EgressFailedError) as failed:
            await Egress(local(port)).request("POST", f"http://127.0.0.1:{port}/", body=b"{}")
        assert failed.value.sent is True
    with pytest.raises(EgressFailedError) as failed:
        await Egress(local(port)).request("POST", f"http://127.0.0.1:{port}/", body=b"{}")
    assert failed.value.sent is False


def certificate(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server context with a certificate for `name`, and a client context that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cadata=signed.public_bytes(serialization.Encoding.PEM).decode())


async def test_the_certificate_is_checked_against_the_name_not_the_address(tmp_path: Path) -> None:
    server, client = certificate("hooks.example", tmp_path)
    offered: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: offered.append(name)
    recorder = Recorder(OK)
    async with listening(recorder, server) as port:
        resolver = names({"hooks.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]})
        egress = Egress(local(port), resolver=resolver, tls=client)
        assert (await egress.request("GET", f"https://hooks.example:{port}/")).status == 200
        with pytest.raises(EgressFailedError) as failed:
            await egress.request("GET", f"https://other.example:{port}/")
    assert failed.value.sent is False
    assert offered == ["hooks.example", "other.example"]
    assert len(recorder.requests) == 1


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, recorder = Recorder(OK), Recorder(OK)
    async with listening(proxy) as proxy_port, listening(recorder) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy_port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy_port}")
        assert (await Egress(local(port)).request("GET", f"http://127.0.0.1:{port}/")).status == 200
    assert proxy.requests == []


async def test_the_system_resolver_answers_each_address_once() -> None:
    assert await resolve("127.0.0.1", 80) == ["127.0.0.1"]
