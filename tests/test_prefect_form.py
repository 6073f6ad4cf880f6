"""The form that the Prefect UI makes of a flow's parameters: described, with choices and bounds, the needed first."""

from typing import Any

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.continuation import continue_pipeline
from flows.pipeline import pipeline

Form = dict[str, Any]


def form(flow: Flow[..., Any]) -> Form:
    """What `prefect deploy` gives to the server."""
    return parameter_schema(flow).model_dump_for_openapi()


@pytest.mark.parametrize("flow", [pipeline, continue_pipeline])
def test_every_field_is_described_and_every_choice_of_one_is_named(flow: Flow[..., Any]) -> None:
    for name, field in form(flow)["properties"].items():
        assert len(field.get("description", "")) > 20, name
        assert all(choice.get("title") for choice in field.get("anyOf", [])), name


@pytest.mark.parametrize(
    ("flow", "first", "last"), [(pipeline, "objective", "pipeline_id"), (continue_pipeline, "pipeline_id", "guidance")]
)
def test_only_what_is_needed_is_required_and_comes_first(flow: Flow[..., Any], first: str, last: str) -> None:
    shown = form(flow)
    assert shown["required"] == [first]
    order = sorted(shown["properties"], key=lambda name: shown["properties"][name]["position"])
    assert (order[0], order[-1]) == (first, last)


def test_modes_are_choices_and_lengths_and_times_have_bounds() -> None:
    fields = form(pipeline)["properties"]
    assert fields["mode"]["anyOf"][0]["enum"] == ["openrouter", "local"]
    for name in ("timeout", "agent_timeout"):
        seconds = fields[name]["anyOf"][0]
        assert (seconds["title"], seconds["exclusiveMinimum"], seconds["maximum"]) == ("seconds", 0, 86_400)
    assert (fields["objective"]["minLength"], fields["objective"]["maxLength"]) == (1, 32_768)
    assert fields["context"]["maxItems"] == 32


@pytest.mark.parametrize(
    ("flow", "parameters"),
    [
        (pipeline, {}),
        (pipeline, {"objective": " \n"}),
        (pipeline, {"objective": "x" * 32_769}),
        (pipeline, {"objective": "ok", "mode": "telepathy"}),
        (pipeline, {"objective": "ok", "timeout": 0}),
        (pipeline, {"objective": "ok", "agent_timeout": 86_401}),
        (pipeline, {"objective": "ok", "labels": [""]}),
        (pipeline, {"objective": "ok", "context": [{"name": "a"}]}),
        (pipeline, {"objective": "ok", "models": {"DELTA": "a/b"}}),
        (continue_pipeline, {}),
        (continue_pipeline, {"pipeline_id": "p-1", "reason": "x" * 2_001}),
    ],
)
def test_the_server_refuses_what_the_form_forbids(flow: Flow[..., Any], parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        validate(parameters, form(flow), raise_on_error=True)


@pytest.mark.parametrize(
    ("flow", "parameters"),
    [
        (pipeline, {"objective": "first line\nsecond"}),
        (pipeline, {"objective": "ok", "mode": None, "model": None, "timeout": None, "models": None}),
        (pipeline, {"objective": "ok", "mode": "local", "timeout": 0.5, "models": {"GAMMA": "a/b"}, "labels": ["a"]}),
        (pipeline, {"objective": "ok", "context": [{"name": "notes.md", "text": "facts"}], "pipeline_id": "p-1"}),
        (continue_pipeline, {"pipeline_id": "p-1", "timeout": 60, "reason": "", "guidance": ""}),
    ],
)
def test_the_server_takes_what_the_form_allows(flow: Flow[..., Any], parameters: dict[str, Any]) -> None:
    validate(parameters, form(flow), raise_on_error=True)
