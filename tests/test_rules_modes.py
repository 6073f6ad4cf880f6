"""A rehearsal happens where it is asked for, or where nothing at all is configured and the user is told: never else."""

from itertools import product
from typing import Any

import pytest
from pydantic import SecretStr

from trilogue.errors import Invalid
from trilogue.models.modes import choose, endpoint
from trilogue.models.rehearsal import SCENARIOS
from trilogue.settings import Settings, load_settings

CONFIGURED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a key": {"openrouter_api_key": "sk-x"},
    "Vault": {"vault_addr": "http://127.0.0.1:8200"},
    "another OpenRouter": {"openrouter_base_url": "https://gateway.example/v1"},
    "a local server": {"local_model_url": "http://127.0.0.1:11434/v1"},
    "a key and a local server": {"openrouter_api_key": "sk-x", "local_model_url": "http://127.0.0.1:11434/v1"},
}
LOCAL = {"a local server", "a key and a local server"}


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)


def expected(what: str, mode: str | None, model: str | None, *, may_rehearse: bool) -> tuple[str, bool] | None:
    """Mode and whether it rehearses, as DESIGN section 7 has it; None where it must be refused."""
    if model == "rehearsal/opera":
        return None
    if model == "rehearsal/stuck":
        return None if mode == "openrouter" else ("local", True)
    if mode == "openrouter":
        return ("openrouter", False)
    if what in LOCAL:
        return ("local", False)
    if mode == "local":
        return ("local", True) if model is None else None
    if what != "nothing":
        return ("openrouter", False)
    return ("local", True) if may_rehearse and model is None else None


MODES = (None, "local", "openrouter")
MODELS = (None, "a/b", "rehearsal/stuck", "rehearsal/opera")


@pytest.mark.parametrize("what", CONFIGURED)
def test_every_combination_is_settled_as_the_design_has_it(what: str) -> None:
    for mode, model, may_rehearse in product(MODES, MODELS, (True, False)):
        check_choice(what, mode, model, may_rehearse=may_rehearse)


def check_choice(what: str, mode: str | None, model: str | None, *, may_rehearse: bool) -> None:
    settings = load_settings(**CONFIGURED[what])
    wanted = expected(what, mode, model, may_rehearse=may_rehearse)
    if wanted is None:
        with pytest.raises(Invalid) as refused:
            choose(settings, mode=mode, model=model, may_rehearse=may_rehearse)
        assert refused.value.code in {"invalid_model", "invalid_mode", "no_local_server", "no_model_configured"}
        return
    choice = choose(settings, mode=mode, model=model, may_rehearse=may_rehearse)
    assert (choice.mode, choice.rehearsal) == wanted
    if choice.rehearsal:
        asked_for = model == "rehearsal/stuck" or (mode == "local" and what not in LOCAL)
        assert asked_for or (what == "nothing" and may_rehearse)
        assert choice.model in SCENARIOS
    elif choice.mode == "openrouter":
        assert choice.model == (model or settings.openrouter_model)
    else:
        assert choice.model == model


def test_the_address_is_that_of_the_mode_and_only_openrouter_is_given_the_key() -> None:
    key = SecretStr("sk-x")
    settings = load_settings(local_model_url="http://127.0.0.1:11434/v1", openrouter_base_url="https://or.example/v1")
    remote = endpoint(settings, mode="openrouter", rehearsal=False, key=key)
    assert (remote.base_url, remote.key) == ("https://or.example/v1", "sk-x")
    local = endpoint(settings, mode="local", rehearsal=False, key=key)
    assert (local.base_url, local.key) == ("http://127.0.0.1:11434/v1", None)
    rehearsed = endpoint(settings, mode="local", rehearsal=True, key=key)
    assert (rehearsed.rehearsal, rehearsed.key) == (True, None)
    assert rehearsed.base_url.startswith("http://rehearsal.invalid")


def test_a_local_pipeline_taken_up_where_no_local_server_is_configured_is_an_error_and_no_rehearsal() -> None:
    with pytest.raises(Invalid, match="LOCAL_MODEL_URL"):
        endpoint(load_settings(), mode="local", rehearsal=False, key=None)
