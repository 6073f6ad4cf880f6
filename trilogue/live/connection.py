"""One client per process for Redis, Valkey or Dragonfly, and what its failures are called.

No message made here holds a password, not even a part of one.
"""

from urllib.parse import urlsplit

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, RedisError

from trilogue.errors import Invalid, Unavailable

CONNECT_TIMEOUT = 2.0
ANSWER_TIMEOUT = 2.0
"""Seconds. Redis only carries notice: waiting longer than its callers poll the ledger gains nothing."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds before the next try: doubled each time, up to the longest."""

FAULTS = (RedisError, OSError)
"""What redis-py raises when the server is away, in trouble, or not what it should be."""


def connect(url: str, *, password: SecretStr | None = None) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`; nothing is sent yet.

    Args:
        password: used only where the URL holds none, as with the one from Vault.

    Raises:
        Invalid: the URL cannot be used.
    """
    try:
        _check(url)
        client = Redis.from_url(
            url,
            password=password.get_secret_value() if password else None,
            protocol=2,  # what every server of the family speaks alike
            decode_responses=True,
            encoding_errors="replace",  # anybody may publish anything on our channels
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=ANSWER_TIMEOUT,
        )
        # redis-py looks at the options in the URL only when it makes a connection.
        new_connection(client)
    except (ValueError, TypeError, AttributeError, RedisError):
        # The cause may quote a piece of the password: `redis://:pa/ss@host` has the "port" `pa`.
        raise Invalid(
            "the Redis URL cannot be used; write redis://host:6379/0, rediss://… or unix:///path/to/socket, "
            "and percent-encode special characters in its password",
            code="bad_redis_url",
        ) from None
    return client


def _check(url: str) -> None:
    """Raise `ValueError` for what redis-py would silently replace by a default."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("no path")
    elif parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        raise ValueError("no number of a database")


def new_connection(client: Redis) -> AbstractConnection:
    """A connection of its own, outside the pool and not yet connected, with `client`'s options."""
    connection: AbstractConnection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
    return connection


def pause(failures: int) -> float:
    """Seconds to wait before the next try, after so many that failed before the last."""
    return float(min(FIRST_PAUSE * 2 ** min(failures, 10), LONGEST_PAUSE))


def address(client: Redis) -> str:
    """Where `client` connects to, fit to be shown."""
    options = client.connection_pool.connection_kwargs
    if "path" in options:
        return f"unix://{options['path']}"
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


def unavailable(client: Redis, error: BaseException) -> Unavailable:
    """The error that says that `client`'s server could not be used, and why."""
    reason = str(error) or type(error).__name__
    if isinstance(error, AuthenticationError):
        reason = "it refused the password"
    elif password := client.connection_pool.connection_kwargs.get("password"):
        reason = reason.replace(password, "***")
    return Unavailable(
        f"Redis at {address(client)!r} cannot be used: {reason}; is the server up and REDIS_URL right?",
        code="redis_unavailable",
    )
