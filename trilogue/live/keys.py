"""Every Redis key and channel of Trilogue is named here, and nowhere else.

All keys of one pipeline share the tag `{tenant:pipeline}`, so that one script may touch
them together on a cluster. Whoever writes a key gives it a TTL in the same script.
"""

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

BUS = "trilogue:bus"
"""A channel on which nothing is ever published: it keeps the bus's connection in subscribed state."""


@dataclass(frozen=True, kw_only=True)
class PipelineKeys:
    """The keys and channels of one pipeline."""

    state: str
    proposals: str
    solutions: str
    votes: str
    consensus: str
    failures: str
    turns: str
    entries: str
    channel: str
    tenant_channel: str

    @property
    def board(self) -> tuple[str, ...]:
        """The hashes of the board, in the order in which the scripts know them."""
        return (self.state, self.proposals, self.solutions, self.votes, self.consensus, self.failures)

    @property
    def declared(self) -> tuple[str, ...]:
        """All keys, in the order of `post.lua`'s KEYS."""
        return (*self.board, self.turns, self.entries)


@lru_cache(maxsize=4096)
def of_pipeline(tenant: str, pipeline_id: str) -> PipelineKeys:
    """The keys of a pipeline. Names are percent-quoted, so no two pipelines can share a key."""
    stem = f"trilogue:{{{quote(tenant, safe='')}:{quote(pipeline_id, safe='')}}}"
    return PipelineKeys(
        state=f"{stem}:state",
        proposals=f"{stem}:proposals",
        solutions=f"{stem}:solutions",
        votes=f"{stem}:votes",
        consensus=f"{stem}:consensus",
        failures=f"{stem}:failures",
        turns=f"{stem}:turns",
        entries=f"{stem}:entries",
        channel=f"{stem}:notices",
        tenant_channel=of_tenant(tenant),
    )


def of_turn(turn: int, agent_id: str) -> str:
    """The field of the hash `turns` that buffers what a running turn has streamed."""
    return f"{turn}/{agent_id}"


def of_tenant(tenant: str) -> str:
    """The channel on which the notices of all pipelines of `tenant` are published."""
    return f"trilogue:{{{quote(tenant, safe='')}}}:notices"


def of_breaker(endpoint: str) -> str:
    """The circuit breaker of a model endpoint; shared by all tenants, as the endpoint is."""
    return f"trilogue:{{breaker:{quote(endpoint, safe='')}}}"
