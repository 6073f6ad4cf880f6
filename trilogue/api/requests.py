"""What callers send: bodies and parameters, with the very rules and words of `trilogue.spec`."""

from typing import Annotated, Any

from fastapi import Header, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from trilogue.errors import NotFound
from trilogue.spec import KnownPipelineId, MaxCost, MaxTokens, PipelineSpec, RoundSpec

_EXAMPLE_ID = "p-7k3m9q2xw4bd"
_LONGEST_ID = 200


def _examples(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": list(examples)})


class Spawn(PipelineSpec):
    """One objective with its options; what is left out is as configured. Durations are seconds."""

    model_config = _examples(
        {"objective": "Design a caching strategy", "auto_continue": True},
        {
            "objective": "Review this design",
            "mode": "openrouter",
            "model": "anthropic/claude-sonnet-4",
            "timeout": 300,
            "max_cost": 0.5,
            "context": [{"name": "design.md", "text": "# Orders\n\nEvery order is kept for ten years."}],
            "labels": ["review"],
            "external_id": "ticket-4711",
        },
    )


class Continue(RoundSpec):
    """Another round; what is left out stays as in the last one."""

    model_config = _examples({"pipeline_id": _EXAMPLE_ID, "guidance": "We run on one machine."})
    pipeline_id: KnownPipelineId

    @property
    def round(self) -> RoundSpec:
        """What is asked of the round."""
        return RoundSpec(**self.model_dump(exclude={"pipeline_id"}))


_Reason = Annotated[str, Field(max_length=2_000, description="Why; kept on record.")]


class Stop(BaseModel):
    """The emergency stop."""

    model_config = _examples({"reason": "wrong objective"})
    reason: _Reason = ""


class Resume(BaseModel):
    """Take up a pipeline that failed, was stopped (a reason is needed then) or was interrupted."""

    model_config = _examples({"reason": "the key works again"})
    reason: _Reason = ""
    max_tokens: MaxTokens = None
    max_cost: MaxCost = None

    @property
    def round(self) -> RoundSpec:
        return RoundSpec(**self.model_dump())


class Rewind(BaseModel):
    """Go on from a checkpoint."""

    model_config = _examples({"checkpoint": "report", "reason": "another try"})
    checkpoint: Annotated[
        str, Field(min_length=1, max_length=200, description="Its name (the last of it), or its seq.")
    ]
    reason: _Reason = ""


PipelineInPath = Annotated[str, Path(description="The pipeline's id.", examples=[_EXAMPLE_ID])]
PipelineInQuery = Annotated[str, Query(alias="pipeline_id", description="The pipeline's id.", examples=[_EXAMPLE_ID])]
After = Annotated[int, Query(ge=0, le=2**31 - 1, description="Give what has a higher `seq`.")]
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most.")]
Cursor = Annotated[str | None, Query(max_length=1_000, description="`next` of the page before, as it came.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description=(
            "Any text of your own, such as a UUID. The same request under the same key is carried out once: within "
            "a day its answer comes again, with `Idempotent-Replayed: true`. What is refused changes nothing and "
            "leaves the key free."
        ),
        examples=["3f1c1f0e-6f0b-4b0e-9d55-0f0a6a1f5c11"],
    ),
]


def known(pipeline_id: str) -> str:
    """`pipeline_id`, if there can be a pipeline of that id at all. Raises `NotFound`."""
    if not pipeline_id.isprintable() or not 1 <= len(pipeline_id) <= _LONGEST_ID:
        raise NotFound(f"no pipeline {pipeline_id[:_LONGEST_ID]!r}", code="no_pipeline")
    return pipeline_id
