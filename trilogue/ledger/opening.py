"""Where this installation's ledger is, and how it is opened: all that a command which only reads needs."""

from trilogue.errors import Invalid
from trilogue.ledger.engine import sqlite_url
from trilogue.ledger.ledger import Ledger
from trilogue.ledger.rows import TENANT
from trilogue.settings import Settings

__all__ = ["TENANT", "ledger_url", "open_ledger"]


def ledger_url(settings: Settings) -> str:
    """The ledger's address: as configured, else SQLite under `TRILOGUE_HOME`."""
    if settings.database_url:
        return settings.database_url.get_secret_value()
    return sqlite_url(settings.home / "ledger.db")


async def open_ledger(settings: Settings) -> Ledger:
    """The ledger; the embedded one is created and migrated on first use.

    Raises:
        Invalid: `TRILOGUE_HOME` cannot be written.
        RevisionMismatch, Unavailable: as `Ledger.open`.
    """
    if not settings.database_url:
        try:
            settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Invalid(
                f"TRILOGUE_HOME {str(settings.home)!r} cannot be used: {error.strerror or error}; "
                "set it to a folder that can be written",
                code="bad_home",
            ) from None
    return await Ledger.open(ledger_url(settings), migrate=settings.database_url is None)
