"""One try to send one webhook: resolve, judge, connect to what was judged, POST, look at the answer.

Nothing of it comes from the environment, no redirect is followed, little of the answer is read,
and all of it together has one time limit.
"""

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address
from typing import Self

import httpx2

from trilogue import __version__, clock
from trilogue.errors import TrilogueError
from trilogue.webhooks.addresses import check_address, read_url
from trilogue.webhooks.signing import signed

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a name and a port to addresses, as text."""

LONGEST_EXCERPT = 1_000
"""Bytes of an answer's body that are read: enough for a person who tests a receiver."""

_RESOLVERS = 8  # threads of their own, so that a name server which is silent holds nothing else up


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one try.

    Attributes:
        status: the HTTP status; None where there was no answer.
        error: why it was not delivered, for people; None where it was.
        excerpt: the beginning of the answer's body, as it came from the network.
    """

    status: int | None
    error: str | None
    seconds: float
    excerpt: bytes = b""

    @property
    def delivered(self) -> bool:
        return self.error is None

    @property
    def unwanted(self) -> bool:
        """Whether the receiver says that it wants no more of it."""
        return self.status == HTTPStatus.GONE


class Sender:
    """Sends webhooks; an async context manager.

    Args:
        secrets: at least one; each makes a signature.
        timeout: seconds for a whole try.
        resolve: how names are resolved, by default as the system does.
        tls: whose certificates are believed, by default as the system does.
    """

    def __init__(
        self,
        secrets: Sequence[bytes],
        *,
        allow_private: bool,
        timeout: float,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._secrets = secrets
        self._allow_private = allow_private
        self._timeout = timeout
        self._resolve = resolve or self._resolved
        self._tls = tls or httpx2.create_ssl_context()
        self._resolvers = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="webhook-names")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    async def send(self, url: str, webhook_id: str, body: bytes) -> Answer:
        """Try once. Whatever keeps it from being delivered is in the answer, never raised."""
        began = time.monotonic()
        status: int | None = None
        excerpt = b""
        try:
            async with asyncio.timeout(self._timeout):
                status, excerpt = await self._post(url, webhook_id, body)
            error = None if 200 <= status < 300 else _said(status)
        except TimeoutError:
            error = f"no answer within {self._timeout:g} s"
        except TrilogueError as refused:
            error = refused.message
        except Exception as fault:  # noqa: BLE001 - what a stranger's server sets off must not stop the others' webhooks
            error = _named(fault)
        return Answer(status=status, error=error, seconds=time.monotonic() - began, excerpt=excerpt)

    async def _post(self, url: str, webhook_id: str, body: bytes) -> tuple[int, bytes]:
        receiver = read_url(url, allow_private=self._allow_private)
        addresses = await self._judged(receiver)
        headers = {
            "host": receiver.netloc.decode("ascii"),
            "content-type": "application/json",
            "accept-encoding": "identity",
            "connection": "close",
            "user-agent": f"Trilogue/{__version__}",
            **signed(self._secrets, webhook_id, clock.now(), body),
        }
        async with httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False) as transport:
            for address in addresses[:-1]:
                try:
                    return await self._post_to(transport, receiver, address, headers, body)
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    continue  # nothing was sent yet
            return await self._post_to(transport, receiver, addresses[-1], headers, body)

    async def _post_to(
        self,
        transport: httpx2.AsyncHTTPTransport,
        receiver: httpx2.URL,
        address: IPv4Address | IPv6Address,
        headers: Mapping[str, str],
        body: bytes,
    ) -> tuple[int, bytes]:
        """To the address, while Host, SNI and the certificate's check are the name's."""
        connect = self._timeout / 3  # where one of several addresses is silent, there is time for another
        request = httpx2.Request(
            "POST",
            receiver.copy_with(host=str(address)),
            headers=headers,
            content=body,
            extensions={"timeout": {"connect": connect}, "sni_hostname": receiver.raw_host.decode("ascii").rstrip(".")},
        )
        # The transport itself, without a client around it, which would write whole URLs into the log.
        response = await transport.handle_async_request(request)
        try:
            return response.status_code, await _beginning(response)
        finally:
            await response.aclose()

    async def _judged(self, receiver: httpx2.URL) -> list[IPv4Address | IPv6Address]:
        """The receiver's addresses, all of which may be sent to: one that may not makes the others suspect, too."""
        port = receiver.port or (443 if receiver.scheme == "https" else 80)
        found = [ipaddress.ip_address(text) for text in await self._resolve(receiver.raw_host.decode("ascii"), port)]
        for address in found:
            check_address(address, receiver, allow_private=self._allow_private)
        if not found:
            raise OSError("the name has no address")
        return found

    async def _resolved(self, host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._resolvers, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _beginning(response: httpx2.Response) -> bytes:
    piece = b""
    async for more in response.aiter_raw():
        piece += more[: LONGEST_EXCERPT - len(piece)]
        if len(piece) >= LONGEST_EXCERPT:
            break
    return piece


def _said(status: int) -> str:
    redirect = "; redirects are not followed" if 300 <= status < 400 else ""
    return f"answered {status}{redirect}"


def _named(fault: Exception) -> str:
    """A fault in a few words; what libraries say of it can hold the URL."""
    if isinstance(fault, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(fault, httpx2.ConnectError):
        tls = next((cause for cause in _causes(fault) if isinstance(cause, ssl.SSLError)), None)
        return f"its TLS was refused ({tls.reason or type(tls).__name__})" if tls else "cannot be connected to"
    if isinstance(fault, httpx2.ConnectTimeout):
        return "cannot be connected to in time"
    if isinstance(fault, httpx2.HTTPError):
        return f"broke off ({type(fault).__name__})"
    return f"cannot be reached ({type(fault).__name__})"


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and len(causes) < 10:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes
