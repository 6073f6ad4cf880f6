"""The block `dragonfly`: the server of the live board and the bus."""

from typing import Any, Self

from pydantic import Field, HttpUrl, SecretStr, field_validator

from blocks.base import SettingsBlock
from trilogue.settings import Settings

_SCHEMES = ("redis://", "rediss://", "unix://")


class Dragonfly(SettingsBlock):
    """The server of the live board and the bus.

    Example:
        ```python
        from blocks import Dragonfly

        dragonfly = await Dragonfly.aload("trilogue")
        ```
    """

    _block_type_slug = "dragonfly"
    _description = (
        "A Dragonfly, Valkey or Redis server, on which Trilogue keeps the live boards and through which it announces"
        " what was committed. Its password may also lie in Vault (services/dragonfly, field password)."
    )
    # Prefect's own pinned picture for Redis, whose protocol this is.
    _logo_url = HttpUrl(
        "https://raw.githubusercontent.com/PrefectHQ/prefect/420d0d6a78bb6df1fc18bcf188fdad43c1d22ea9/assets/block-logos/redis.png"
    )
    _documentation_url = HttpUrl("https://www.dragonflydb.io/docs")

    url: SecretStr = Field(
        title="URL",
        description="Where the server is, with user and password where it wants them: redis://, rediss:// or unix://.",
        examples=["redis://dragonfly.example:6379/0"],
    )

    @field_validator("url")
    @classmethod
    def _speaks_redis(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(_SCHEMES):
            raise ValueError(f"the URL must begin with {', '.join(_SCHEMES)}")
        return url

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """A block with what the environment says, or None where it names no server."""
        return None if settings.redis_url is None else cls(url=settings.redis_url)

    def overrides(self) -> dict[str, Any]:
        """The settings that this block replaces."""
        return {"redis_url": self.url}
