"""Which mode answers, and where: OpenRouter, a local server, or the built-in rehearsal."""

from dataclasses import dataclass

from pydantic import SecretStr

from trilogue.errors import Invalid
from trilogue.models.endpoint import Endpoint, Mode
from trilogue.models.rehearsal import SCENARIOS
from trilogue.models.rehearsal.transport import BASE_URL
from trilogue.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A settled mode. `model` is `None` where the local server is to be asked what it serves."""

    mode: Mode
    rehearsal: bool
    model: str | None


def choose(settings: Settings, *, mode: str | None, model: str | None, may_rehearse: bool) -> Choice:
    """Settle mode and model (DESIGN section 7).

    Args:
        mode, model: what the user asked for; `None` means "as configured".
        may_rehearse: whether rehearsing without being asked to is allowed, as for a one-shot; even
            then only where nothing at all is configured.

    Raises:
        Invalid: mode and model do not go together, or nothing says which model to use.
    """
    rehearsed = model is not None and model.split("/")[0] == "rehearsal"
    if rehearsed:
        if model not in SCENARIOS:
            raise Invalid(f"no rehearsal is called {model!r}; there are: {', '.join(SCENARIOS)}", code="invalid_model")
        if mode == "openrouter":
            raise Invalid(f"model {model!r} is a rehearsal; it goes with mode 'local'", code="invalid_mode")
        return Choice(mode="local", rehearsal=True, model=model)
    if mode == "local" or (mode is None and settings.local_model_url):
        if settings.local_model_url:
            return Choice(mode="local", rehearsal=False, model=model)
        if model is not None:
            raise Invalid(
                f"mode 'local' with model {model!r} needs LOCAL_MODEL_URL, the address of an OpenAI-compatible server",
                code="no_local_server",
            )
        return Choice(mode="local", rehearsal=True, model=SCENARIOS[0])
    if mode == "openrouter" or settings.names_a_model:
        return Choice(mode="openrouter", rehearsal=False, model=model or settings.openrouter_model)
    if may_rehearse and model is None:
        return Choice(mode="local", rehearsal=True, model=SCENARIOS[0])
    raise Invalid(
        "nothing says which model to use: set OPENROUTER_API_KEY, VAULT_ADDR or LOCAL_MODEL_URL, register a block, "
        "or ask for --mode local to rehearse without a model",
        code="no_model_configured",
    )


def endpoint(settings: Settings, *, mode: Mode, rehearsal: bool, key: SecretStr | None) -> Endpoint:
    """Where the models of a settled mode are called."""
    if rehearsal:
        return Endpoint(mode="local", base_url=BASE_URL, rehearsal=True)
    if mode == "local":
        if not settings.local_model_url:
            raise Invalid("mode 'local' needs LOCAL_MODEL_URL here, which is not set", code="no_local_server")
        return Endpoint(mode="local", base_url=settings.local_model_url)
    return Endpoint(mode="openrouter", base_url=settings.openrouter_base_url, api_key=key)
