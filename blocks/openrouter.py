"""The block `openrouter`: which models are called, where, and with which key."""

from typing import Any, Self

from pydantic import Field, HttpUrl, SecretStr, field_validator

from blocks.base import SettingsBlock
from trilogue.settings import DEFAULT_MODEL, OPENROUTER_URL, Settings


class OpenRouter(SettingsBlock):
    """Which models are called, where, and with which key.

    Example:
        ```python
        from blocks import OpenRouter

        openrouter = await OpenRouter.aload("trilogue")
        ```
    """

    _block_type_name = "OpenRouter"
    _block_type_slug = "openrouter"
    _description = (
        "The model endpoint of Trilogue's agents. A field left empty keeps what the environment of the process says;"
        " a key in Vault (api-keys/openrouter, field api_key) comes before one given here."
    )
    # The vendor's own mark, pinned.
    _logo_url = HttpUrl(
        "https://raw.githubusercontent.com/OpenRouterTeam/docs/3e058657142d94ad966ed37c7523c0fba0718aa9/assets/favicon-v2.svg"
    )
    _documentation_url = HttpUrl("https://openrouter.ai/docs/quickstart")

    api_key: SecretStr | None = Field(
        default=None,
        title="API key",
        description="Used where Vault has none.",
    )
    model: str | None = Field(
        default=None,
        title="Model",
        description="The model that agents call unless a pipeline names another.",
        examples=[DEFAULT_MODEL],
    )
    base_url: str | None = Field(
        default=None,
        title="Base URL",
        description="Address of the API, when it is not OpenRouter's own.",
        examples=[OPENROUTER_URL],
    )

    @field_validator("base_url")
    @classmethod
    def _is_a_web_address(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("the base URL must begin with http:// or https://")
        return url

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """A block with what the environment says, or None where it says nothing that is not the default."""
        model = settings.openrouter_model if settings.openrouter_model != DEFAULT_MODEL else None
        base_url = settings.openrouter_base_url if settings.openrouter_base_url != OPENROUTER_URL else None
        if settings.openrouter_api_key is None and model is None and base_url is None:
            return None
        return cls(api_key=settings.openrouter_api_key, model=model, base_url=base_url)

    def overrides(self) -> dict[str, Any]:
        """The settings that this block replaces: those that it gives."""
        given = {
            "openrouter_api_key": self.api_key,
            "openrouter_model": self.model,
            "openrouter_base_url": self.base_url,
        }
        return {name: value for name, value in given.items() if value is not None}
