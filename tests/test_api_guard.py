"""A web page elsewhere cannot drive a local Trilogue, and with a key configured nobody can who does not show it."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.fixtures.api import OBJECTIVE, Api, MakeApi, assert_problem
from trilogue.api.serving import check_exposure, listen, serve
from trilogue.errors import Conflict, Invalid

KEY = "correct-horse/battery+staple="
PLAIN_KEY = "correct-horse-battery-staple"


async def handshake(api: Api, **headers: str) -> int:
    """The status with which a WebSocket's handshake ends."""
    protocols = headers.pop("protocols", "")
    offered = [Subprotocol(one) for one in protocols.split()] or None
    given: Any = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        url = api.url.replace("http", "ws") + "/ws"
        async with connect(url, additional_headers=given, subprotocols=offered, proxy=None) as socket:
            assert socket.subprotocol == (Subprotocol("trilogue") if "trilogue" in protocols else None)
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_a_host_that_is_none_of_ours_is_refused(api_of: MakeApi) -> None:
    api = await api_of(allowed_hosts="trilogue.example.com, other.example.com:8443")
    port = httpx.URL(api.url).port
    ours = [f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", f"127.1.2.3:{port}", f"LOCALHOST:{port}"]
    ours += ["trilogue.example.com", "trilogue.example.com:443", "other.example.com:8443"]
    for host in ours:
        assert (await api.client.get("/healthz", headers={"Host": host})).status_code == 200, host
    evil = ["evil.example.com", f"evil.example.com:{port}", f"localhost.evil.com:{port}", "localhost", "127.0.0.1:1"]
    evil += [
        f"10.0.0.1:{port}",
        "other.example.com",
        "",
        f"user@localhost:{port}",
        f"localhost:{port}/x",
        "[::1",
        "a:b",
    ]
    for host in evil:
        answer = await api.client.get("/healthz", headers={"Host": host})
        if answer.status_code != 400:  # what is no host at all
            assert "TRILOGUE_ALLOWED_HOSTS" in assert_problem(answer, 421, "unknown_host")
    spawned = await api.client.post("/api/spawn", json={"objective": OBJECTIVE}, headers={"Host": "evil.example.com"})
    assert_problem(spawned, 421, "unknown_host")
    assert await api.services.ledger.waiting(1) == []


async def test_a_page_of_another_origin_is_refused_and_given_no_cors_headers(api: Api) -> None:
    port = httpx.URL(api.url).port
    for origin in (
        f"http://127.0.0.1:{port + 1}",
        "https://evil.example.com",
        "null",
        "file://",
        f"http://localhost:{port}",
    ):
        answer = await api.client.post("/api/spawn", json={"objective": OBJECTIVE}, headers={"Origin": origin})
        assert_problem(answer, 403, "unknown_origin")
        before = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        for got in (answer, await api.client.options("/api/spawn", headers=before)):
            assert got.status_code == 403
            assert not [name for name in got.headers if name.startswith("access-control")]
    own = await api.client.post("/api/spawn", json={"objective": OBJECTIVE}, headers={"Origin": api.url})
    assert own.status_code == 202


async def test_an_allowed_origin_may_ask_first_and_then_do(api_of: MakeApi) -> None:
    api = await api_of(allowed_origins="https://tools.example.com/", api_key=KEY)
    page = {"Origin": "https://tools.example.com"}
    first = await api.client.options("/api/spawn", headers={**page, "Access-Control-Request-Method": "POST"})
    assert first.status_code == 204
    assert first.headers["access-control-allow-origin"] == "https://tools.example.com"
    assert "Idempotency-Key" in first.headers["access-control-allow-headers"]
    without = await api.client.get("/api/pipelines", headers=page)
    assert_problem(without, 401, "unauthenticated")
    then = await api.client.get("/api/pipelines", headers={**page, "X-API-Key": KEY})
    assert then.status_code == 200
    assert then.headers["access-control-allow-origin"] == "https://tools.example.com"


async def test_the_key_is_needed_everywhere_but_for_the_sign_of_life(api_of: MakeApi) -> None:
    api = await api_of(api_key=KEY)
    assert (await api.client.get("/healthz")).status_code == 200
    for path in ("/api/pipelines", "/readyz", "/docs", "/openapi.json", "/api/nothing", "/nowhere"):
        answer = await api.client.get(path)
        assert_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in ("", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", "Bearer é"):
        answer = await api.client.get("/api/pipelines", headers={"Authorization": wrong.encode()})
        assert_problem(answer, 401, "unauthenticated")
    for right in ({"Authorization": f"Bearer {KEY}"}, {"Authorization": f"bearer {KEY}"}, {"X-API-Key": KEY}):
        assert (await api.client.get("/api/pipelines", headers=right)).status_code == 200


async def test_the_key_is_in_no_log_line_and_no_error(api_of: MakeApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "trilogue")
    api = await api_of(api_key=PLAIN_KEY)
    told = [
        (await api.client.get("/api/x", headers={"Authorization": f"Bearer {PLAIN_KEY}{more}"})).text
        for more in ("", "x")
    ]
    await handshake(api, protocols=f"trilogue bearer.{PLAIN_KEY}")
    api.app.state.services = None
    told.append((await api.client.get("/api/pipelines", headers={"X-API-Key": PLAIN_KEY})).text)
    assert PLAIN_KEY not in caplog.text + "".join(told)
    assert "/api/x" in caplog.text


async def test_what_lies_behind_the_guard_never_sees_the_key(api_of: MakeApi) -> None:
    api = await api_of(api_key=PLAIN_KEY)

    async def seen(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(repr(scope))(scope, receive, send)

    api.app.router.routes.insert(0, Mount("/seen", seen))
    for headers in ({"Authorization": f"Bearer {PLAIN_KEY}"}, {"X-API-Key": PLAIN_KEY}):
        answer = await api.client.get("/seen/", headers=headers)
        assert answer.status_code == 200
        assert "user-agent" in answer.text
        assert PLAIN_KEY not in answer.text


async def test_a_websocket_is_guarded_like_everything_else(api_of: MakeApi) -> None:
    api = await api_of()
    assert await handshake(api) == 101
    assert await handshake(api, Origin=api.url) == 101
    assert await handshake(api, Origin="https://evil.example.com") == 403
    guarded = await api_of(api_key=PLAIN_KEY)
    assert await handshake(guarded) == 401
    assert await handshake(guarded, protocols="trilogue bearer.wrong") == 401
    assert await handshake(guarded, Authorization=f"Bearer {PLAIN_KEY}") == 101
    assert await handshake(guarded, protocols=f"trilogue bearer.{PLAIN_KEY}") == 101


async def test_without_a_key_others_than_this_machine_are_not_served(api: Api) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.com", ""):
        with pytest.raises(Invalid, match="TRILOGUE_API_KEY") as refused:
            await serve(api.app, host=host, port=0)
        assert refused.value.code == "exposed"
        check_exposure(host, has_key=True)


async def test_a_taken_port_is_named(api: Api) -> None:
    port = httpx.URL(api.url).port
    with pytest.raises(Conflict, match=f"port {port} of '127.0.0.1' is taken"):
        listen("127.0.0.1", port or 0)
    for host, bad in (("no.such.host.invalid", 3000), ("127.0.0.1", 70_000)):
        with pytest.raises(Invalid, match="cannot listen"):
            await asyncio.to_thread(listen, host, bad)
