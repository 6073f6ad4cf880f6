"""Whatever the description allows, and much that it does not, is answered as it says: no 5xx, nothing undescribed."""

import asyncio
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fixtures.api import MakeApi

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 12
STREAMS = "/events$"
"""What has no end has tests of its own."""


async def test_every_operation_answers_as_described(api_of: MakeApi) -> None:
    api = await api_of()
    ended, held = await api.spawn(external_id="known"), await api.spawn(auto_continue=False)
    for pipeline_id in (ended, held):
        await api.carry(pipeline_id)

    def ask_everything() -> dict[str, int]:
        schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json").exclude(path_regex=STREAMS)
        operations = [found.ok() for found in schema.get_all_operations()]
        return {operation.label: _ask(operation, (ended, held, None)) for operation in operations}

    asked = await asyncio.to_thread(ask_everything)
    assert len(asked) >= 16
    assert all(number >= EXAMPLES for label, number in asked.items() if "/api/" in label), asked


def _ask(operation: Any, known: tuple[str | None, ...]) -> int:
    """Ask one operation everything, of pipelines that there are and of others; returns how often."""
    asked = 0
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @seed(4711)
        @settings(
            max_examples=EXAMPLES,
            phases=[Phase.explicit, Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode))
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            if pipeline_id := known[asked % len(known)]:
                for part in (case.path_parameters, case.query, case.body):
                    if isinstance(part, dict) and "pipeline_id" in part:
                        part["pipeline_id"] = pipeline_id
            case.call_and_validate(checks=CHECKS, timeout=20)

        try:
            ask()
        except Exception as error:
            if "NegativeTesting" not in type(error).__name__ and "Unsatisfiable" not in type(error).__name__:
                raise
    return asked
