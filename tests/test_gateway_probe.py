"""A probe says quickly whether an endpoint can be used, before any work starts."""

import time

import pytest

from tests.fixtures.model_server import MakeCaller
from trilogue.errors import Denied, EndpointFault, Exhausted, Invalid
from trilogue.testing.openrouter import OpenRouterServer
from trilogue.testing.plans import Hang, Ok, Raw, Seen, Status, Step, always


async def test_a_local_server_names_its_models_and_openrouter_accepts_its_key(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    model_server.models = ["small", "large"]
    assert await caller_of(model_server, mode="local").gateway.probe() == ["small", "large"]
    assert await caller_of(model_server).gateway.probe() == []
    assert [seen.path for seen in model_server.requests] == ["/models", "/key"]


async def test_a_refused_key_and_a_spent_one_are_told_apart(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    with pytest.raises(Denied) as refused:
        await caller_of(model_server, key="sk-or-another").gateway.probe()
    assert refused.value.code == "key_refused"
    model_server.limit_remaining = 0.0
    with pytest.raises(Exhausted) as spent:
        await caller_of(model_server).gateway.probe()
    assert spent.value.code == "credit_spent"
    assert len(model_server.requests) == 2


async def test_a_probe_tries_twice_at_most(
    model_server: OpenRouterServer, caller_of: MakeCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trilogue.models.gateway.PROBE_TIMEOUT", 0.2)

    def plan(seen: Seen) -> Step:
        return Hang() if seen.number == 0 else Status(code=503, headers={"Retry-After": "600"})

    model_server.plan = plan
    began = time.monotonic()
    with pytest.raises(EndpointFault):
        await caller_of(model_server, tries=10).gateway.probe()
    assert len(model_server.requests) == 2
    assert time.monotonic() - began < 2
    model_server.requests.clear()
    model_server.plan = lambda seen: Status(code=503) if seen.number == 0 else Ok()
    assert await caller_of(model_server, tries=10).gateway.probe() == []


async def test_what_is_no_model_server_is_told_so(model_server: OpenRouterServer, caller_of: MakeCaller) -> None:
    model_server.plan = always(Raw(body=b'{"hello": "world"}'))
    with pytest.raises(Invalid, match="/v1"):
        await caller_of(model_server, mode="local").gateway.probe()
    model_server.plan = ()
    with pytest.raises(Invalid, match="check the address"):
        await caller_of(model_server.url + "/nowhere", mode="local").gateway.probe()
    assert await caller_of(model_server.url + "/proxy").gateway.probe() == []  # a gateway that knows no `/key`
