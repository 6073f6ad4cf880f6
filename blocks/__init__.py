"""Prefect blocks: configuration and credentials kept on the Prefect server.

`prefect block register -m blocks` sees exactly what is named here.
"""

from blocks.dragonfly import Dragonfly
from blocks.ledger import LedgerDatabase
from blocks.openrouter import OpenRouter
from blocks.vault import VaultSecrets

__all__ = ["Dragonfly", "LedgerDatabase", "OpenRouter", "VaultSecrets"]
