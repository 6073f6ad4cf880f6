"""The two Lua scripts, the arguments that they take, and how they are called.

Scripts are called by their SHA-1; a server that was restarted has forgotten them, says
NOSCRIPT, and is taught again.
"""

import hashlib
from collections.abc import Container, Iterator, Sequence
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from trilogue.clock import Micros
from trilogue.entry import Entry, Kind
from trilogue.live import keys
from trilogue.live.notice import Delta, delta_message, dumps, entry_message
from trilogue.live.projection import project, standing

STREAM_LENGTH = 1000
"""About how many entries a pipeline's stream keeps; older ones are in the ledger."""
TURN_TTL_MS = 300_000
"""How long streamed text outlives its last delta; no model call may be silent for longer."""
PORTION = 128
"""Entries per call. A script blocks the server while it runs, and Lua unpacks 8,000 arguments at most."""

_TURNS = 7
"""The number of the hash `turns` among the script's KEYS."""

Command = tuple[str | int, ...]


def _source(name: str) -> str:
    return files("trilogue.live").joinpath(name).read_text(encoding="utf-8")


_POST = _source("post.lua")
_DELTA = _source("delta.lua")
_POST_SHA = hashlib.sha1(_POST.encode(), usedforsecurity=False).hexdigest()
_DELTA_SHA = hashlib.sha1(_DELTA.encode(), usedforsecurity=False).hexdigest()


async def execute(client: Redis, commands: Sequence[Command]) -> list[Any]:
    """Carry out `commands` in one round trip; an error of a single one comes back as its reply."""
    replies = await _execute(client, commands)
    if any(isinstance(reply, NoScriptError) for reply in replies):
        for source in (_POST, _DELTA):
            await client.script_load(source)
        # All of them again: what was posted is skipped, and streamed text may be repeated.
        replies = await _execute(client, commands)
    return replies


async def _execute(client: Redis, commands: Sequence[Command]) -> list[Any]:
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        return list(await pipe.execute(raise_on_error=False))


def posts(entries: Sequence[Entry], *, ttl_ms: int) -> Iterator[Command]:
    """The commands that post entries of one pipeline, in order.

    Where several workers commit, what this one committed has gaps; each command is without.
    What a rewinding undid is told, but leaves no trace on the board: where there is one, give all entries.
    """
    undone: set[int] = set()
    if any(entry.kind is Kind.REWOUND for entry in entries):
        undone = {entry.seq for entry in entries} - standing(entries)
    start = 0
    for end in range(1, len(entries) + 1):
        goes_on = end < len(entries) and entries[end].seq == entries[end - 1].seq + 1
        if not goes_on or end - start == PORTION:
            yield _post(entries[start:end], ttl_ms, undone)
            start = end


def _post(entries: Sequence[Entry], ttl_ms: int, undone: Container[int]) -> Command:
    first = entries[0]
    place = keys.of_pipeline(first.tenant, first.pipeline_id)
    declared = place.declared
    arguments: list[str | int] = ["EVALSHA", _POST_SHA, len(declared), *declared]
    arguments += [ttl_ms, STREAM_LENGTH, place.channel, place.tenant_channel, first.seq, len(entries)]
    arguments += map(entry_message, entries)
    changes = project(entry for entry in entries if entry.seq not in undone)
    for number, fields in enumerate(changes.hashes, start=1):
        if fields:
            arguments += [number, 2 * len(fields)]
            for name, value in fields.items():
                arguments += [name, value]
    if changes.ended_turns:
        arguments += [_TURNS, len(changes.ended_turns), *changes.ended_turns]
    return tuple(arguments)


def streamed(tenant: str, pipeline_id: str, delta: Delta, at: Micros) -> Command:
    """The command that publishes and buffers streamed text."""
    place = keys.of_pipeline(tenant, pipeline_id)
    message = delta_message(pipeline_id, delta, at)
    # Escaped but without its quotes, text can be appended to in Lua and stays JSON.
    text = dumps(delta.text)[1:-1]
    turn = keys.of_turn(delta.turn, delta.agent_id)
    where = (place.turns, TURN_TTL_MS, place.channel, place.tenant_channel)
    return ("EVALSHA", _DELTA_SHA, 1, *where, message, turn, delta.offset, len(delta.text), text)
