"""One URL is all that it takes, the password may come from elsewhere, and no error ever shows it."""

import pytest
from pydantic import SecretStr

from tests.fixtures.book import Book
from tests.fixtures.valkey import OwnServer
from trilogue.errors import Invalid, Unavailable
from trilogue.live import Live, connect


def with_password(server: OwnServer, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{server.port}/0"


async def ping(url: str, password: str | None = None) -> None:
    secret = SecretStr(password) if password else None
    async with Live(url, board_ttl=60, backfill=Book().backfill, password=secret) as live:
        await live.ping()


def shown(error: BaseException | None) -> str:
    """Everything that a traceback would show of an error and of what led to it."""
    text = ""
    while error is not None:
        text += f"{error!s} {error!r} {error.args!r}\n"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text


async def test_the_password_is_taken_from_the_argument_only_when_the_url_has_none(
    guarded_valkey: OwnServer, valkey_password: str
) -> None:
    encoded = valkey_password.replace("/", "%2F").replace("@", "%40").replace(":", "%3A").replace("#", "%23")
    await ping(guarded_valkey.url, valkey_password)
    await ping(with_password(guarded_valkey, encoded))
    await ping(with_password(guarded_valkey, encoded), "another")
    with pytest.raises(Unavailable):
        await ping(with_password(guarded_valkey, "another"), valkey_password)
    with pytest.raises(Unavailable):
        await ping(guarded_valkey.url)


async def test_no_error_shows_a_password(guarded_valkey: OwnServer) -> None:
    with pytest.raises(Unavailable) as refused:
        await ping(with_password(guarded_valkey, "hunter2"))
    assert f"127.0.0.1:{guarded_valkey.port}" in str(refused.value)
    with pytest.raises(Unavailable) as refused_by_argument:
        await ping(guarded_valkey.url, "hunter2")
    with pytest.raises(Unavailable) as nobody_there:
        await ping("redis://:hunter2@127.0.0.1:1/0")
    with pytest.raises(Unavailable) as no_socket:
        await ping("unix:///nowhere/hunter2/socket?password=hunter2")
    for caught in (refused, refused_by_argument, nobody_there):
        assert "hunter2" not in shown(caught.value)
    assert "unix:///nowhere/" in str(no_socket.value)
    assert "hunter2" not in repr(connect("redis://:hunter2@localhost"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://:hunter2@localhost",
        "redis://:hunter2/x@localhost:6379",
        "redis://:x@localhost:hunter2",
        "redis://:hunter2@localhost/zero",
        "redis://:hunter2@localhost?no_such_option=1",
        "redis://:hunter2@localhost?socket_timeout=soon",
        "redis://[:hunter2@localhost",
        "unix://?password=hunter2",
    ],
)
def test_a_url_that_cannot_be_used_is_invalid(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        connect(url)
    assert "hunter2" not in shown(caught.value)
    assert "redis://host:6379/0" in str(caught.value)
