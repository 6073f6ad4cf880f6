"""What can be configured, from the environment; read once per process.

Prefect blocks named `trilogue` override these values where they exist (`blocks`);
both end as the plain values that `trilogue.services` takes.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from trilogue.errors import Invalid

DEFAULT_MODEL = "anthropic/claude-sonnet-4"
OPENROUTER_URL = "https://openrouter.ai/api/v1"

_PAGES = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d+)?(/[A-Za-z0-9._~/-]*)?")

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class Settings(BaseSettings):
    """All settings; each field's alias is its environment variable. Durations are seconds.

    An empty variable counts as not set. Build it with `load_settings`, which turns a bad
    value into one clear `Invalid`.
    """

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore")

    home: Path = Field(Path("~/.trilogue"), validation_alias="TRILOGUE_HOME")
    database_url: SecretStr | None = Field(None, validation_alias="TRILOGUE_DATABASE_URL")
    redis_url: SecretStr | None = Field(None, validation_alias="REDIS_URL")
    api_url: str | None = Field(None, validation_alias="TRILOGUE_API_URL")
    api_key: SecretStr | None = Field(None, validation_alias="TRILOGUE_API_KEY")
    allowed_hosts: str = Field("", validation_alias="TRILOGUE_ALLOWED_HOSTS")
    allowed_origins: str = Field("", validation_alias="TRILOGUE_ALLOWED_ORIGINS")
    dashboard_url: str | None = Field(None, validation_alias="TRILOGUE_DASHBOARD_URL")

    vault_addr: str | None = Field(None, validation_alias="VAULT_ADDR")
    vault_token: SecretStr | None = Field(None, validation_alias="VAULT_TOKEN")
    vault_role_id: str | None = Field(None, validation_alias="VAULT_ROLE_ID")
    vault_secret_id: SecretStr | None = Field(None, validation_alias="VAULT_SECRET_ID")
    vault_token_role: str | None = Field(None, validation_alias="TRILOGUE_VAULT_TOKEN_ROLE")
    vault_namespace: str | None = Field(None, validation_alias="VAULT_NAMESPACE")
    vault_mount: str = Field("secret", validation_alias="TRILOGUE_VAULT_MOUNT")
    vault_verify: bool = Field(True, validation_alias="TRILOGUE_VAULT_VERIFY")
    vault_cacert: str | None = Field(None, validation_alias="VAULT_CACERT")

    openrouter_model: str = Field(DEFAULT_MODEL, validation_alias="OPENROUTER_MODEL")
    openrouter_base_url: str = Field(OPENROUTER_URL, validation_alias="OPENROUTER_BASE_URL")
    openrouter_api_key: SecretStr | None = Field(None, validation_alias="OPENROUTER_API_KEY")
    fallback_models: str = Field("", validation_alias="TRILOGUE_FALLBACK_MODELS")
    local_model_url: str | None = Field(None, validation_alias="LOCAL_MODEL_URL")

    auto_orchestrate: bool = Field(True, validation_alias="AUTO_ORCHESTRATE")
    orchestration_timeout: Seconds = Field(120.0, validation_alias="ORCHESTRATION_TIMEOUT")
    agent_timeout: Seconds = Field(120.0, validation_alias="TRILOGUE_AGENT_TIMEOUT")
    call_timeout: Seconds = Field(60.0, validation_alias="TRILOGUE_CALL_TIMEOUT")
    call_tries: int = Field(4, ge=1, le=20, validation_alias="TRILOGUE_CALL_TRIES")
    retry_wait: Seconds = Field(0.5, validation_alias="TRILOGUE_RETRY_WAIT")
    breaker_failures: int = Field(5, ge=1, le=1000, validation_alias="TRILOGUE_BREAKER_FAILURES")
    breaker_seconds: Seconds = Field(30.0, validation_alias="TRILOGUE_BREAKER_SECONDS")
    answer_tokens: int = Field(4096, ge=64, le=131_072, validation_alias="TRILOGUE_ANSWER_TOKENS")
    turn_limit: int = Field(12, ge=1, le=1000, validation_alias="TRILOGUE_TURN_LIMIT")
    stuck_threshold: Seconds = Field(30.0, validation_alias="GAMMA_STUCK_THRESHOLD")
    conflict_threshold: int = Field(3, ge=1, le=1000, validation_alias="GAMMA_CONFLICT_THRESHOLD")
    complexity_threshold: float = Field(0.8, ge=0, le=1, validation_alias="GAMMA_COMPLEXITY_THRESHOLD")
    max_tokens: int = Field(200_000, ge=1, le=1_000_000_000, validation_alias="TRILOGUE_MAX_TOKENS")
    max_cost: float = Field(2.0, gt=0, le=1_000_000, allow_inf_nan=False, validation_alias="TRILOGUE_MAX_COST")
    errors: str = Field("8/2/1", pattern=r"^[1-9]\d{0,2}(/[1-9]\d{0,2}){2}$", validation_alias="TRILOGUE_ERRORS")
    replacements: int = Field(0, ge=0, le=10, validation_alias="TRILOGUE_REPLACEMENTS")
    tenant_max_tokens: Annotated[int, Field(ge=1, le=10**15)] | Literal["none"] | None = Field(
        None, validation_alias="TRILOGUE_TENANT_MAX_TOKENS"
    )
    tenant_max_cost: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | Literal["none"] | None = Field(
        None, validation_alias="TRILOGUE_TENANT_MAX_COST"
    )
    rehearsal_latency: float = Field(0.4, ge=0, le=3600, validation_alias="TRILOGUE_REHEARSAL_LATENCY")

    launcher: Literal["worker", "deployment"] = Field("worker", validation_alias="TRILOGUE_LAUNCHER")
    concurrency: int = Field(16, ge=1, le=1000, validation_alias="TRILOGUE_CONCURRENCY")
    grace: float = Field(30.0, ge=0, le=86_400, allow_inf_nan=False, validation_alias="TRILOGUE_GRACE")
    webhook_url: str | None = Field(None, validation_alias="TRILOGUE_WEBHOOK_URL")
    webhook_secret: SecretStr | None = Field(None, validation_alias="TRILOGUE_WEBHOOK_SECRET")
    webhook_allow_private: bool = Field(False, validation_alias="TRILOGUE_WEBHOOK_ALLOW_PRIVATE")
    webhook_timeout: Seconds = Field(10.0, validation_alias="TRILOGUE_WEBHOOK_TIMEOUT")

    anchor_key: str | None = Field(None, validation_alias="TRILOGUE_ANCHOR_KEY")
    anchor_every: Seconds = Field(60.0, validation_alias="TRILOGUE_ANCHOR_EVERY")
    anchor_file: Path | None = Field(None, validation_alias="TRILOGUE_ANCHOR_FILE")
    anchor_url: str | None = Field(None, validation_alias="TRILOGUE_ANCHOR_URL")

    lease_seconds: Seconds = Field(15.0, validation_alias="TRILOGUE_LEASE_SECONDS")
    heartbeat_seconds: Seconds = Field(15.0, validation_alias="TRILOGUE_HEARTBEAT")
    board_ttl: Seconds = Field(86_400.0, validation_alias="TRILOGUE_BOARD_TTL")
    checkpoint_retention: float = Field(
        30 * 86_400.0, gt=0, le=3.2e9, allow_inf_nan=False, validation_alias="TRILOGUE_CHECKPOINT_RETENTION"
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("dashboard_url")
    @classmethod
    def _reachable(cls, value: str | None) -> str | None:
        """Where people reach the pages: it stands in links that others see, so that it holds no credential."""
        if value is None:
            return None
        if not _PAGES.fullmatch(value) or not _has_good_port(value):
            raise PydanticCustomError("address", "must be an address such as http://127.0.0.1:3000")
        return value.rstrip("/")

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The fallback models, in order."""
        return tuple(name.strip() for name in self.fallback_models.split(",") if name.strip())

    @property
    def names_a_model(self) -> bool:
        """Whether anything at all says which model to use; where nothing does, a one-shot rehearses."""
        return bool(
            self.openrouter_api_key
            or self.vault_addr
            or self.local_model_url
            or self.openrouter_base_url != OPENROUTER_URL
        )


def _has_good_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _variable(field: str) -> str:
    alias = Settings.model_fields[field].validation_alias
    assert isinstance(alias, str)
    return alias


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process, with `overrides` by field name.

    Raises:
        Invalid: a variable holds a value that cannot be used; the message names variable and value.
    """
    by_variable = {_variable(name): value for name, value in overrides.items()}
    try:
        return Settings(**by_variable)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        secret = any(word in name for word in ("KEY", "TOKEN", "SECRET", "URL")) and not name.endswith("_TOKENS")
        shown = "" if secret else f", not {first['input']!r}"
        raise Invalid(f"{name}: {first['msg'][0].lower()}{first['msg'][1:]}{shown}", code="bad_setting") from None
