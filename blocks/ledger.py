"""The block `ledger-database`: where the ledger is kept."""

from typing import Any, Self

from pydantic import Field, HttpUrl, SecretStr, field_validator

from blocks.base import SettingsBlock
from trilogue.settings import Settings


class LedgerDatabase(SettingsBlock):
    """Where the ledger is kept.

    Example:
        ```python
        from blocks import LedgerDatabase

        database = await LedgerDatabase.aload("trilogue")
        ```
    """

    _block_type_name = "Ledger Database"
    _block_type_slug = "ledger-database"
    _description = "The SQL database of Trilogue's ledger, the record of everything that decides: PostgreSQL or SQLite."
    # Prefect's own picture for SQLAlchemy, whose form of URL this is.
    _logo_url = HttpUrl(
        "https://cdn.sanity.io/images/3ugk85nk/production/3c7dff04f70aaf4528e184a3b028f9e40b98d68c-250x250.png"
    )
    _documentation_url = HttpUrl("https://docs.sqlalchemy.org/en/latest/core/engines.html#database-urls")

    url: SecretStr = Field(
        title="URL",
        description="Where the database is, with user and password where it wants them: postgresql://… or sqlite:///….",
        examples=["postgresql://trilogue@db.example/trilogue"],
    )

    @field_validator("url")
    @classmethod
    def _is_known(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(("postgresql", "sqlite")):
            raise ValueError("the URL must begin with postgresql:// or sqlite://")
        return url

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """A block with what the environment says, or None where it names no database."""
        return None if settings.database_url is None else cls(url=settings.database_url)

    def overrides(self) -> dict[str, Any]:
        """The settings that this block replaces."""
        return {"database_url": self.url}
