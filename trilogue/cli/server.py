"""The server that commands talk to, where there is one, and how: one request, one answer, one kind of error.

It is the one that `TRILOGUE_API_URL` names, else the one of a `trilogue up` that lives under this home.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pydantic import SecretStr

from trilogue.cli.showing import inert
from trilogue.errors import Conflict, Denied, Exhausted, Invalid, NotFound, TrilogueError, Unavailable
from trilogue.settings import Settings
from trilogue.supervision import present

if TYPE_CHECKING:
    import httpx

Document = dict[str, Any]

_CONNECT = 3.0
_ANSWER = 15.0
_LONG_ANSWER = 150.0
"""Seconds for what asks a model endpoint whether it can be used, before it answers."""
_SILENCE = 40.0
"""Seconds without a byte until a stream counts as dead; a heartbeat comes every 15."""
_PATIENCE = 5.0
"""Seconds in which a server that died is started again by its supervisor."""
_PAUSE = 0.2
_LOOPBACK = ("127.", "localhost", "[::1]")
_FAMILIES: Mapping[int, type[TrilogueError]] = {
    400: Invalid,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Exhausted,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where a server is.

    Attributes:
        url: without a slash at its end.
        ours: whether it runs under this home, so that its ledger is within reach of this process, too.
        pages: where people reach its pages, where that is elsewhere.
    """

    url: str
    key: SecretStr | None
    ours: bool
    pages: str | None = None

    def page_of(self, pipeline_id: str) -> str:
        """The page of a pipeline."""
        return f"{self.pages or self.url}/pipelines/{pipeline_id}"


def server_for(settings: Settings) -> Server | None:
    """The server to talk to; None where there is none, and the command does its work itself.

    Raises:
        Invalid: `TRILOGUE_API_URL` or `TRILOGUE_API_KEY` cannot be used.
    """
    key = settings.api_key
    if key and not (key.get_secret_value().isascii() and key.get_secret_value().isprintable()):
        raise Invalid("TRILOGUE_API_KEY: has characters that no header can bear", code="bad_setting")
    if settings.api_url:
        return Server(url=_checked(settings.api_url), key=key, ours=False, pages=settings.dashboard_url)
    up = present(settings.home)
    return Server(url=up.api_url, key=key, ours=True, pages=up.dashboard_url) if up else None


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise Invalid("TRILOGUE_API_URL: must be an address such as http://127.0.0.1:3000", code="bad_setting")
    return url.rstrip("/")


class Connection:
    """A connection to a server, kept open between requests. Use as an async context manager."""

    def __init__(self, server: Server, *, patience: float = _PATIENCE) -> None:
        """
        Args:
            patience: seconds in which a request that reached nobody is made again.
        """
        self.server = server
        self._patience = patience
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        import httpx  # noqa: PLC0415  (not on the way to `--help`)

        key = self.server.key
        self._client = httpx.AsyncClient(
            base_url=self.server.url,
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            timeout=httpx.Timeout(_ANSWER, connect=_CONNECT),
            # A proxy that the environment names for the internet is not on the way to this machine.
            trust_env=not urlsplit(self.server.url).netloc.startswith(_LOOPBACK),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def get(self, path: str, **query: str | int | list[str] | None) -> Document:
        """The document at `path`; a list is a parameter that is given several times.

        Raises:
            Unavailable: the server does not answer, or not as Trilogue does.
            TrilogueError: what the server refused, as it would have been refused here.
        """
        asked = {name: value for name, value in query.items() if value is not None}
        return await self._asked("GET", path, params=asked)

    async def post(self, path: str, body: Mapping[str, Any], *, long: bool = False) -> Document:
        """Ask for a change, once, however often the request has to be made. Raises as `get`.

        Args:
            long: the answer may wait for a model endpoint's.
        """
        # Keys stay the same when the request is repeated, so that a lost answer is only answered again.
        key = {"Idempotency-Key": secrets.token_hex(16)}
        content = json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass")  # what is no text, it refuses
        return await self._asked(
            "POST",
            path,
            content=content,
            headers={"Content-Type": "application/json", **key},
            **({"timeout": _LONG_ANSWER} if long else {}),
        )

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The server-sent events at `path` as bytes, for as long as they come. Raises as `get`."""
        import httpx  # noqa: PLC0415

        headers = {"Accept": "text/event-stream"}
        timeout = httpx.Timeout(_SILENCE, connect=_CONNECT)
        try:
            async with self._open.stream("GET", path, headers=headers, timeout=timeout) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise self._refused(answer)
                yield answer.aiter_bytes()
        except httpx.TransportError as error:
            raise self._away(error) from None

    async def _asked(self, method: str, path: str, **request: Any) -> Document:
        import httpx  # noqa: PLC0415

        until = asyncio.get_running_loop().time() + self._patience
        while True:
            try:
                answer = await self._open.request(method, path, **request)
                if not _under_way(answer):
                    return self._document(answer)
                failed: TrilogueError = self._refused(answer)
            except httpx.TimeoutException as error:
                raise self._away(error) from None
            except httpx.TransportError as error:
                failed = self._away(error)
            if asyncio.get_running_loop().time() > until:
                raise failed
            await asyncio.sleep(_PAUSE)

    @property
    def _open(self) -> "httpx.AsyncClient":
        assert self._client is not None, "used outside its context"
        return self._client

    def _document(self, answer: "httpx.Response") -> Document:
        if not answer.is_success:
            raise self._refused(answer)
        document = _json(answer)
        if document is None:
            raise self._stranger(answer)
        return document

    def _refused(self, answer: "httpx.Response") -> TrilogueError:
        document = _json(answer) or {}
        code, detail = document.get("error"), document.get("detail")
        if not isinstance(code, str) or not isinstance(detail, str):
            return self._stranger(answer)
        said = " ".join(inert(detail).split())
        if answer.status_code == 401:
            what = "needs a key: set TRILOGUE_API_KEY" if self.server.key is None else "refuses TRILOGUE_API_KEY"
            said = f"the server at {self.server.url} {what}"
        if answer.status_code == 500 and isinstance(document.get("request_id"), str):
            said = f"{said} ({inert(document['request_id'])})"
        return _FAMILIES.get(answer.status_code, TrilogueError)(said, code=inert(code))

    def _stranger(self, answer: "httpx.Response") -> Unavailable:
        return Unavailable(
            f"what answers at {self.server.url} (with HTTP {answer.status_code}) is no Trilogue of this version; "
            "TRILOGUE_API_URL names the server to talk to",
            code="no_such_server",
        )

    def _away(self, error: Exception) -> Unavailable:
        advice = "end its `trilogue up` to go on without it" if self.server.ours else "is TRILOGUE_API_URL right?"
        said = " ".join(inert(str(error)).split()) or type(error).__name__
        return Unavailable(f"the server at {self.server.url} does not answer ({said}); {advice}", code="server_away")


def _under_way(answer: "httpx.Response") -> bool:
    """Whether the first of two equal requests is still being worked on."""
    return answer.status_code == 409 and "retry-after" in answer.headers


def _json(answer: "httpx.Response") -> Document | None:
    try:
        document = answer.json()
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
