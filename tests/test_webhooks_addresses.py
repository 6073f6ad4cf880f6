"""No webhook makes our machines call what only they can reach, whatever a URL or the DNS says."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from tests.fixtures.receiver import SECRET, Receiver, receiving
from trilogue.errors import Invalid
from trilogue.webhooks.addresses import Reach, reach_of, read_url
from trilogue.webhooks.sending import LONGEST_EXCERPT, Answer, Resolve, Sender
from trilogue.webhooks.signing import read_secrets

PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::808:808", "2002:808:808::1"]
PRIVATE = ["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "127.0.0.1", "127.9.9.9", "::1"]
PRIVATE += ["fd12:3456::1", "64:ff9b::a01:203", "2002:7f00:1::"]
NEVER = ["0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.1.1", "100.100.100.200", "168.63.129.16", "192.0.0.192"]
NEVER += ["224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "203.0.113.7", "192.88.99.1"]
NEVER += ["::", "fe80::1", "fe80::1%eth0", "ff02::1", "fec0::1", "fd00:ec2::254", "2001:db8::1", "2001::1", "100::1"]
NEVER += ["::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1"]
BODY = b'{"type":"ping"}'


@pytest.mark.parametrize(
    ("reach", "addresses"), [(Reach.PUBLIC, PUBLIC), (Reach.PRIVATE, PRIVATE), (Reach.NEVER, NEVER)]
)
def test_every_address_is_public_private_or_for_no_webhook_at_all(reach: Reach, addresses: list[str]) -> None:
    judged = {text: reach_of(ipaddress.ip_address(text)) for text in addresses}
    assert judged == dict.fromkeys(addresses, reach)


@pytest.mark.parametrize("allowed", [False, True])
def test_a_url_with_such_an_address_is_refused_when_it_is_given(allowed: bool) -> None:
    for text in NEVER + ([] if allowed else PRIVATE):
        host = f"[{text}]" if ":" in text else text
        with pytest.raises(Invalid, match=r"no public address|is no URL|URL must be") as refused:
            read_url(f"https://{host}/hooks?key=hush", allow_private=allowed)
        assert "hush" not in refused.value.message
    for name in ("localhost", "LOCALHOST.", "a.localhost"):
        if not allowed:
            with pytest.raises(Invalid, match="no public address"):
                read_url(f"https://{name}:8080/", allow_private=False)
        else:
            read_url(f"http://{name}:8080/", allow_private=True)
    assert read_url("https://93.184.216.34:8443/x", allow_private=allowed).port == 8443


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://",
        "https:///hooks",
        "example.com",
        "https://me:pass-hush@example.com/",
        "https://example.com/#hush",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://exa mple.com/",
        "https://example.com/\r\nx-evil: 1",
        "https://bücher.example/",
        "https://example.com/" + "x" * 2_000,
        "gopher://127.0.0.1:6379/_FLUSHALL",
    ],
)
def test_what_is_no_url_of_a_receiver_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(Invalid, match=r"^webhook: the URL ") as refused:
        read_url(url, allow_private=False)
    assert refused.value.code == "invalid_webhook"
    assert "hush" not in refused.value.message


def test_plain_http_is_for_private_receivers_only() -> None:
    read_url("http://127.0.0.1:9/", allow_private=True)
    with pytest.raises(Invalid, match="needs https://"):
        read_url("http://93.184.216.34/", allow_private=True)


class Names:
    """A name server of the test's own: what each name's address is, the first time and later."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, _: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


async def _sent(
    url: str,
    *,
    allowed: bool,
    resolve: Resolve | None = None,
    tls: ssl.SSLContext | None = None,
    timeout: float = 5.0,
) -> Answer:
    secrets = read_secrets(SecretStr(SECRET))
    async with Sender(secrets, allow_private=allowed, timeout=timeout, resolve=resolve, tls=tls) as sender:
        return await sender.send(url, "wh_1", BODY)


@pytest.mark.parametrize(
    "found", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"], ["::1"]]
)
async def test_a_name_with_one_address_that_is_not_public_is_not_called(found: list[str], receiver: Receiver) -> None:
    assert receiver.listener
    port = receiver.listener.url.rpartition(":")[2]
    answer = await _sent(f"https://hooks.example:{port}/", allowed=False, resolve=Names(found))
    assert (answer.status, answer.delivered) == (None, False)
    assert "no public address" in str(answer.error)
    assert receiver.listener.connections == 0


async def test_what_the_system_resolves_is_judged_too_also_other_ways_to_write_an_address(receiver: Receiver) -> None:
    assert receiver.listener
    port = receiver.listener.url.rpartition(":")[2]
    for host in ("ip6-localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1"):
        answer = await _sent(f"https://{host}:{port}/", allowed=False)
        assert answer.error, host
        assert answer.status is None
    assert receiver.listener.connections == 0


async def test_it_connects_to_the_address_that_was_judged_and_asks_the_dns_once(receiver: Receiver) -> None:
    assert receiver.listener
    port = receiver.listener.url.rpartition(":")[2]
    names = Names(["127.0.0.1"], ["192.0.2.1"])
    answer = await _sent(f"http://hooks.example:{port}/hooks?x=1", allowed=True, resolve=names)
    assert (answer.status, answer.error) == (204, None)
    assert names.asked == ["hooks.example"]
    [seen] = receiver.seen
    assert (seen.headers["host"], seen.path) == (f"hooks.example:{port}", "/hooks?x=1")
    assert seen.headers["user-agent"].startswith("Trilogue/")


async def test_a_second_address_is_tried_where_nothing_listens_at_the_first(receiver: Receiver) -> None:
    assert receiver.listener
    port = receiver.listener.url.rpartition(":")[2]
    answer = await _sent(f"http://hooks.example:{port}/", allowed=True, resolve=Names(["127.0.0.2", "127.0.0.1"]))
    assert answer.delivered, answer


async def test_a_redirect_is_not_followed_wherever_it_leads(receiver: Receiver) -> None:
    async with receiving() as inner:
        receiver.answers, receiver.headers = [302], {"location": inner.url}
        answer = await _sent(receiver.url, allowed=True)
        assert (answer.status, answer.error) == (302, "answered 302; redirects are not followed")
        assert inner.listener
        assert inner.listener.connections == 0


async def test_no_proxy_of_the_environment_is_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy:
        assert proxy.listener
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.listener.url)
        assert (await _sent(receiver.url, allowed=True)).delivered
        assert proxy.listener.connections == 0


async def test_an_answer_without_end_is_read_no_further_than_needed() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
        except OSError:
            writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    async with server:
        answer = await _sent(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", allowed=True)
    assert answer.delivered
    assert len(answer.excerpt) == LONGEST_EXCERPT


async def test_a_name_server_and_a_receiver_that_are_silent_cost_the_time_of_one_try(receiver: Receiver) -> None:
    async def silent(_: str, __: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    receiver.release = asyncio.Event()
    for resolve in (silent, Names(["127.0.0.1"])):
        answer = await _sent(receiver.url, allowed=True, resolve=resolve, timeout=0.3)
        assert answer.error == "no answer within 0.3 s"
        assert 0.3 <= answer.seconds < 2


@asynccontextmanager
async def _tls_receiver(folder: Path, name: str) -> AsyncIterator[tuple[int, ssl.SSLContext, list[str | None]]]:
    """A server with a certificate for `name`; its port, who believes it, and the names that it was asked for."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    names: list[str | None] = []
    serving.sni_callback = lambda _, wanted, __: names.append(wanted)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving)
    async with server:
        believing = ssl.create_default_context(cafile=folder / "cert.pem")
        yield server.sockets[0].getsockname()[1], believing, names


async def test_tls_verifies_the_name_though_the_address_is_what_is_connected_to(tmp_path: Path) -> None:
    async with _tls_receiver(tmp_path, "hooks.example") as (port, believing, names):
        here = Names(["127.0.0.1"])
        good = await _sent(f"https://hooks.example:{port}/", allowed=True, resolve=here, tls=believing)
        assert (good.status, good.error) == (204, None)
        assert names == ["hooks.example"]
        wrong = await _sent(f"https://other.example:{port}/", allowed=True, resolve=here, tls=believing)
        assert wrong.error == "its TLS was refused (CERTIFICATE_VERIFY_FAILED)"
        unknown = await _sent(f"https://hooks.example:{port}/", allowed=True, resolve=here)
        assert unknown.error == "its TLS was refused (CERTIFICATE_VERIFY_FAILED)"
