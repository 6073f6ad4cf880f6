"""The API key of a run is nowhere afterwards: ledger, Redis, Prefect, logs, output. Neither is a Vault token."""

import asyncio
import base64
import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from redis import Redis

from tests.fixtures.valkey import OwnServer
from tests.fixtures.vault import TokenRole, VaultServer
from tests.fixtures.vault_attempts import AliveTokens, keep_key
from tests.fixtures.vault_tap import tapped
from tests.terminals import Finished, Installation, until
from trilogue.models.rehearsal.script import rehearse
from trilogue.testing.openrouter import serving
from trilogue.testing.plans import Ok, Seen, Status, Step

T = TypeVar("T")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

OBJECTIVE = "Design a caching strategy"


@dataclass
class Wire:
    """Everything that a Redis server was told to publish, and what it holds."""

    server: OwnServer
    heard: bytearray = field(default_factory=bytearray)

    def listen(self, until_set: threading.Event) -> None:
        with Redis.from_url(self.server.url) as client, client.pubsub() as channel:
            channel.psubscribe("*")
            while not until_set.is_set():
                message = channel.get_message(timeout=0.1)
                if message and message["type"] == "pmessage":
                    self.heard += message["channel"] + message["data"]

    def held(self) -> bytes:
        """All keys with all their values."""
        with Redis.from_url(self.server.url) as client:
            return b"\n".join(key + b" " + _value(client, key) for key in client.scan_iter())


def _value(client: Any, key: bytes) -> bytes:
    match client.type(key):
        case b"string":
            return bytes(client.get(key))
        case b"hash":
            return repr(client.hgetall(key)).encode()
        case b"stream":
            return repr(client.xrange(key)).encode()
        case b"set":
            return repr(client.smembers(key)).encode()
        case b"zset":
            return repr(client.zrange(key, 0, -1)).encode()
        case other:
            raise AssertionError(f"a key of type {other!r} that this test cannot read")


@pytest.fixture
def wire(valkey_server: OwnServer) -> Iterator[Wire]:
    wire, over = Wire(valkey_server), threading.Event()
    listening = threading.Thread(target=wire.listen, args=(over,))
    listening.start()
    yield wire
    over.set()
    listening.join()


@pytest.fixture
def key() -> str:
    return f"sk-or-v1-{secrets.token_hex(24)}"


@contextmanager
def aside(serving_it: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """What serves in an event loop, in a thread of its own."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    over = asyncio.Event()
    made: list[T] = []

    async def serve() -> None:
        async with serving_it as server:
            made.append(server)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield made[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


@dataclass(frozen=True, kw_only=True)
class Given:
    """The variables by which a run finds the key, and what must not be found afterwards."""

    variables: dict[str, str]
    secrets: Callable[[], list[str]]


@pytest.fixture(params=["environment", "vault"])
def given(request: pytest.FixtureRequest, key: str) -> Iterator[Given]:
    """The key itself, or a Vault that has it and gives each attempt a token of its own to read it with."""
    if request.param == "environment":
        yield Given(variables={"OPENROUTER_API_KEY": key}, secrets=lambda: [key])
        return
    server: VaultServer = request.getfixturevalue("vault_server")
    role: TokenRole = request.getfixturevalue("vault_role")
    alive: AliveTokens = request.getfixturevalue("alive_tokens")
    keep_key(request.getfixturevalue("vault_root"), key)
    with aside(tapped(server.address)) as tap:
        named = {"VAULT_ADDR": tap.address, "VAULT_TOKEN": role.login, "TRILOGUE_VAULT_TOKEN_ROLE": role.name}
        yield Given(variables=named, secrets=lambda: [key, *{asked.token for asked in tap.asked}])
        assert len(set(tap.tokens("secret/data/api-keys"))) >= 3
        assert role.login in {asked.token for asked in tap.asked}
        assert alive() == []


def forms(secret: str) -> list[bytes]:
    """The secret as it could lie somewhere: plain, without its well-known beginning, in base64 at any offset."""
    plain = secret.encode()
    shifted = [base64.b64encode(b"x" * shift + plain)[4:-4] for shift in range(3)]
    return [plain, plain[-24:], plain[-24:].hex().encode(), *shifted]


def found_in(haystack: bytes, secrets_: list[str]) -> bool:
    return any(form in haystack for secret in secrets_ for form in forms(secret))


def places_with(installation: Installation, ended: list[Finished], wire: Wire, secrets_: list[str]) -> list[str]:
    """The places in which one of the secrets lies."""
    places = {f"{path}": path.read_bytes() for path in installation.root.rglob("*") if path.is_file()}
    assert any(path.endswith("ledger.db") for path in places)
    assert any(path.endswith("prefect.db") for path in places)
    assert any(path.endswith(".log") for path in places)
    places |= {f"stdout {number}": one.out.encode() for number, one in enumerate(ended)}
    places |= {f"stderr {number}": one.err.encode() for number, one in enumerate(ended)}
    places |= {"Redis": wire.held(), "what Redis published": bytes(wire.heard)}
    assert len(places["Redis"]) > 1000
    assert len(places["what Redis published"]) > 1000
    return [place for place, content in places.items() if found_in(content, secrets_)]


def servers_with(installation: Installation, terminal_pid: int, secrets_: list[str]) -> list[int]:
    found = []
    for pid in installation.pids() - {terminal_pid}:
        with contextlib.suppress(OSError):
            process = Path(f"/proc/{pid}")
            if found_in((process / "environ").read_bytes() + (process / "cmdline").read_bytes(), secrets_):
                found.append(pid)
    return found


def test_neither_key_nor_vault_token_is_anywhere_after_runs_that_complete_and_fail(
    installation: Installation, wire: Wire, key: str, given: Given
) -> None:
    echo = Status(code=401, message=f"Incorrect API key provided: {key}", metadata={"raw": f"Bearer {key}"})
    failing = False

    def plan(seen: Seen) -> Step:
        return echo if failing and seen.path == "/chat/completions" else Ok()

    with aside(serving(rehearse, key=key, plan=plan, latency=0.2)) as server:
        variables = given.variables | {"REDIS_URL": wire.server.url, "OPENROUTER_BASE_URL": server.url}
        terminal = installation.start("run", OBJECTIVE, env=variables).shows("ORCHESTRATE")
        assert len(installation.pids()) > 1
        assert servers_with(installation, terminal.pid, given.secrets()) == []
        completed = terminal.ended()
        assert completed.code == 0, completed
        assert "COMPLETED" in completed.out
        assert "rehearsal: no" in completed.out
        assert all(seen.key == "right" for seen in server.requests)

        failing = True
        failed = installation.run("run", OBJECTIVE, "--json", env=variables)
        assert (failed.code, failed.document["status"]) == (1, "FAILED")
        assert "401" in failed.err or "refused" in failed.err or "key" in failed.err
        debugged = installation.run("run", OBJECTIVE, "--debug", env=variables)
        wrong = installation.run(
            "run", OBJECTIVE, "--debug", env=variables | {"REDIS_URL": f"redis://:{key}@nowhere:x"}
        )
        assert (debugged.code, wrong.code) == (1, 2)
        looks = [installation.run(*look) for look in (("list", "--json"), ("status", failed.document["pipeline_id"]))]

    secrets_ = given.secrets()
    before_end = places_with(installation, [completed, failed, debugged, wrong, *looks], wire, secrets_)
    until(lambda: not installation.pids(), within=15)
    assert before_end == places_with(installation, [], wire, secrets_) == []


def test_the_search_would_find_a_key_that_lies_anywhere(key: str) -> None:
    for hidden in (key, f"Bearer {key}!", base64.b64encode(f"ab{key}cdef".encode()).decode(), key[9:]):
        assert found_in(b"\0" + hidden.encode() + b"\0", [key])
    assert not found_in(b"sk-or-v1-0123456789", [key])
