"""Settings come from their own variables only, and a bad one is named without showing a secret."""

from pathlib import Path

import pytest

from trilogue.errors import Invalid
from trilogue.settings import DEFAULT_MODEL, Settings, load_settings

VARIABLES = [str(field.validation_alias) for field in Settings.model_fields.values()]
SECRET = "sk-or-hush-9f8e7d"


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)


def test_what_other_programs_set_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = load_settings()
    for name in Settings.model_fields:
        if name.upper() not in VARIABLES and name.upper() != "HOME":
            monkeypatch.setenv(name.upper(), "12")
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/db")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert load_settings() == bare
    monkeypatch.setenv("HOME", "/elsewhere")
    assert load_settings().home == Path("/elsewhere/.trilogue")  # only by the default's `~`
    monkeypatch.setenv("TRILOGUE_HOME", "/ours")
    assert load_settings().home == Path("/ours")


def test_the_defaults_are_the_designs() -> None:
    settings = load_settings()
    assert settings.openrouter_model == DEFAULT_MODEL == "anthropic/claude-sonnet-4"
    assert (settings.orchestration_timeout, settings.agent_timeout, settings.call_timeout) == (120, 120, 60)
    assert (settings.stuck_threshold, settings.conflict_threshold, settings.complexity_threshold) == (30, 3, 0.8)
    assert (settings.turn_limit, settings.auto_orchestrate, settings.lease_seconds) == (12, True, 15)
    assert not settings.names_a_model


def test_every_variable_counts_and_an_empty_one_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
    assert load_settings() == load_settings()
    assert load_settings().orchestration_timeout == 120
    monkeypatch.setenv("ORCHESTRATION_TIMEOUT", "7.5")
    monkeypatch.setenv("AUTO_ORCHESTRATE", "false")
    monkeypatch.setenv("TRILOGUE_FALLBACK_MODELS", " a/b, ,c/d ")
    settings = load_settings()
    assert (settings.orchestration_timeout, settings.auto_orchestrate) == (7.5, False)
    assert settings.fallbacks == ("a/b", "c/d")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ORCHESTRATION_TIMEOUT", "0"),
        ("ORCHESTRATION_TIMEOUT", "-3"),
        ("ORCHESTRATION_TIMEOUT", "nan"),
        ("TRILOGUE_AGENT_TIMEOUT", "inf"),
        ("TRILOGUE_CALL_TIMEOUT", "soon"),
        ("GAMMA_STUCK_THRESHOLD", "0"),
        ("GAMMA_CONFLICT_THRESHOLD", "0"),
        ("GAMMA_CONFLICT_THRESHOLD", "2.5"),
        ("GAMMA_COMPLEXITY_THRESHOLD", "1.1"),
        ("AUTO_ORCHESTRATE", "perhaps"),
        ("TRILOGUE_CALL_TRIES", "0"),
        ("TRILOGUE_REHEARSAL_LATENCY", "-1"),
    ],
)
def test_a_bad_value_is_one_line_with_variable_and_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Invalid) as refused:
        load_settings()
    assert refused.value.code == "bad_setting"
    assert refused.value.message.startswith(f"{variable}: ")
    assert repr(value) in refused.value.message
    assert "\n" not in refused.value.message


def test_no_secret_shows_in_what_settings_look_like_or_in_a_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENROUTER_API_KEY", "VAULT_TOKEN", "VAULT_SECRET_ID"):
        monkeypatch.setenv(variable, SECRET)
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@localhost")
    monkeypatch.setenv("TRILOGUE_DATABASE_URL", f"postgresql://me:{SECRET}@localhost/db")
    settings = load_settings()
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()
    monkeypatch.setenv("ORCHESTRATION_TIMEOUT", "x")
    with pytest.raises(Invalid) as refused:
        load_settings()
    assert SECRET not in str(refused.value)
    for secret in ("openrouter_api_key", "vault_token", "vault_secret_id", "redis_url", "database_url"):
        with pytest.raises(Invalid) as refused:
            load_settings(**{secret: [SECRET], "orchestration_timeout": 1})
        assert SECRET not in str(refused.value)


def test_an_override_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_MODEL", "a/b")
    assert load_settings(openrouter_model="c/d").openrouter_model == "c/d"
