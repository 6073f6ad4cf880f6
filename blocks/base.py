"""What Trilogue's blocks have in common: each stands for some of the settings."""

from abc import ABC, abstractmethod
from typing import Any, Self

from prefect.blocks.core import Block
from pydantic import ConfigDict, ValidationError, field_validator

from trilogue.settings import Settings


class SettingsBlock(Block, ABC):
    """A block whose values come from, and go into, `Settings`."""

    # The message of a bad value would otherwise quote all that was given, secrets in plain text too.
    model_config = ConfigDict(hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value  # a field that was cleared in a form

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """A block with what `settings` say, or None where they say nothing for it."""

    @abstractmethod
    def overrides(self) -> dict[str, Any]:
        """The settings that this block replaces, by field name."""


def problem(error: ValidationError) -> str:
    """The first thing that is wrong, as `field: what`, without the value."""
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    what = first["msg"].removeprefix("Value error, ")
    return f"{field}: {what}" if field else what
