"""Making the blocks known to Prefect, and saving what the environment says as their documents."""

from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from blocks.base import SettingsBlock, problem
from blocks.loading import BLOCKS, DOCUMENT
from blocks.prefect_api import prefect_api
from trilogue.errors import Invalid
from trilogue.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What became of one block type.

    Attributes:
        document: the name of the saved document; None where only the type was registered.
    """

    slug: str
    document: str | None
    action: Literal["registered", "saved"]


async def register(*, save: bool, settings: Settings) -> list[Registered]:
    """Register all block types; with `save`, also save as `trilogue` those for which `settings` have something.

    A document that exists is overwritten; one for which `settings` have nothing stays as it is.

    Raises:
        Invalid: `bad_block`: settings that a block cannot use; nothing was registered then.
        Unavailable, Denied: the Prefect API could not be asked.
    """
    filled = {slug: _filled(slug, settings) if save else None for slug in BLOCKS}
    done = []
    async with prefect_api() as client:
        for slug, values in filled.items():
            if values is None:
                await BLOCKS[slug].aregister_type_and_schema(client=client)
                done.append(Registered(slug=slug, document=None, action="registered"))
            else:
                await values.asave(DOCUMENT, overwrite=True, client=client)
                done.append(Registered(slug=slug, document=DOCUMENT, action="saved"))
    return done


def _filled(slug: str, settings: Settings) -> SettingsBlock | None:
    try:
        return BLOCKS[slug].from_settings(settings)
    except ValidationError as error:
        raise Invalid(
            f"the environment's values for the Prefect block {slug!r} cannot be used: {problem(error)}",
            code="bad_block",
        ) from None
