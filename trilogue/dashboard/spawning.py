"""What the home page offers to whoever spawns a pipeline: choices, what is configured, and which model would answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args
from urllib.parse import urlsplit

from trilogue.agent import Role
from trilogue.api.bodies import LONGEST_SPAWN
from trilogue.errors import Invalid
from trilogue.models.modes import choose
from trilogue.models.rehearsal import SCENARIOS
from trilogue.settings import Settings
from trilogue.spec import LONGEST_CONTEXT, LONGEST_OBJECTIVE, Mode

MOST_DOCUMENTS: Final = 32


@dataclass(frozen=True, kw_only=True)
class Answering:
    """Which model answers in one mode, in words.

    Attributes:
        mode: as the form has it; empty is "as configured", `rehearsal` any rehearsal that is named as a model.
        tone: a status class.
        model: its name; empty where there is none, or its server is to be asked.
        where: the server; empty where there is none.
        words: instead of both.
    """

    mode: str
    tone: str
    model: str = ""
    where: str = ""
    words: str = ""


def offered(settings: Settings, *, may_rehearse: bool) -> Mapping[str, Any]:
    """What `templates/spawning.html` shows."""
    modes = ("", *get_args(Mode))
    configured = settings.names_a_model
    asked = {settings.openrouter_model, *settings.fallbacks} if configured and not settings.local_model_url else set()
    rehearsal = Answering(mode="rehearsal", tone="held", words="This will be a rehearsal: a script plays the agents.")
    return {
        "modes": get_args(Mode),
        "answering": [*(_answering(settings, mode, may_rehearse=may_rehearse) for mode in modes), rehearsal],
        "models": [*sorted(asked), *SCENARIOS],
        "roles": list(Role),
        "settings": settings,
        "configured": configured,
        "longest_objective": LONGEST_OBJECTIVE,
        "most_documents": MOST_DOCUMENTS,
        "longest_document": LONGEST_CONTEXT,
        "longest_request": LONGEST_SPAWN,
    }


def _answering(settings: Settings, mode: str, *, may_rehearse: bool) -> Answering:
    try:
        choice = choose(settings, mode=mode or None, model=None, may_rehearse=may_rehearse)
    except Invalid as error:
        return Answering(mode=mode, tone="bad", words=f"{error.message[:1].upper()}{error.message[1:]}.")
    if choice.rehearsal:
        why = "No model server is configured" if settings.names_a_model else "No model is configured"
        return Answering(mode=mode, tone="held", words=f"{why}: this will be a rehearsal. A script plays the agents.")
    address = settings.local_model_url if choice.mode == "local" else settings.openrouter_base_url
    return Answering(mode=mode, tone="idle", model=choice.model or "", where=_place(address or ""))


def _place(url: str) -> str:
    """Host and port of an address, without what else may stand in it, such as a password."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "the configured server"
    except ValueError:
        return "the configured server"
