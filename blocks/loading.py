"""What the blocks named `trilogue` say, laid over the settings of the environment.

This is the one place where blocks are loaded; everything behind it takes plain values.
"""

from typing import Any

from prefect.client.schemas.objects import BlockDocument
from pydantic import ValidationError

from blocks.base import SettingsBlock, problem
from blocks.dragonfly import Dragonfly
from blocks.ledger import LedgerDatabase
from blocks.openrouter import OpenRouter
from blocks.prefect_api import prefect_api
from blocks.vault import VaultSecrets
from trilogue.errors import Invalid
from trilogue.settings import Settings

DOCUMENT = "trilogue"
"""The name under which each block is looked for."""

BLOCKS: dict[str, type[SettingsBlock]] = {
    block.get_block_type_slug(): block for block in (VaultSecrets, Dragonfly, OpenRouter, LedgerDatabase)
}


async def configured(settings: Settings) -> Settings:
    """`settings` with the values of those blocks that exist; where one does not, the environment's stay.

    Raises:
        Invalid: `bad_block`: a document that its block cannot use; the message names document and field.
        Unavailable, Denied: the Prefect API could not be asked.
    """
    found = _overrides(await _documents())
    if isinstance(found, Invalid):
        raise found
    return settings.model_copy(update=found)


async def _documents() -> list[BlockDocument]:
    # One question instead of a `Block.aload` for each: that one also starts a thread and a websocket to
    # tell Prefect's events, and takes any 404, as from an address that is no Prefect API, for "no such block".
    async with prefect_api() as client:
        response = await client.request(
            "POST",
            "/block_documents/filter",
            json={
                "block_documents": {"name": {"any_": [DOCUMENT]}},
                "block_types": {"slug": {"any_": list(BLOCKS)}},
                "include_secrets": True,
            },
        )
        return BlockDocument.model_validate_list(response.json())


def _overrides(documents: list[BlockDocument]) -> dict[str, Any] | Invalid:
    """The settings that `documents` replace, or what is wrong with one of them: returned, since a traceback
    through this frame would show the documents, in which secrets are plain text."""
    found: dict[str, Any] = {}
    for document in documents:
        assert document.block_type is not None
        slug = document.block_type.slug
        try:
            found |= BLOCKS[slug].model_validate(document.data).overrides()
        except ValidationError as error:
            return Invalid(
                f"the Prefect block {f'{slug}/{DOCUMENT}'!r} cannot be used: {problem(error)}; mend or delete it"
                " in the Prefect UI",
                code="bad_block",
            )
    return found
