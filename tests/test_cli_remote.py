"""Commands talk to a server where one runs, and show, say and exit just as they do without."""

import asyncio
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.command import Command, refusal
from tests.fixtures.served import Served, served_at
from tests.terminals import Finished, Installation, Terminal, until
from tests.test_cli_reading import Outcome
from trilogue.cli.handing_over import Remote
from trilogue.cli.server import Connection, Server, server_for
from trilogue.cli.viewing import View
from trilogue.entry import Entry, Kind
from trilogue.errors import Unavailable
from trilogue.ledger.opening import TENANT
from trilogue.live import Delta
from trilogue.settings import load_settings
from trilogue.supervision import Up, taking

OBJECTIVE = "Design a caching strategy"


@pytest.fixture
def remote(served: Served, command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`trilogue` in a shell that names the server."""
    monkeypatch.setenv("TRILOGUE_API_URL", served.url)
    return command


@pytest.fixture
def local(served: Served, command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`trilogue` on the server's own ledger, past the server."""

    def call(*arguments: str) -> Finished:
        with monkeypatch.context() as shell:
            shell.delenv("TRILOGUE_API_URL", raising=False)
            shell.setenv("TRILOGUE_HOME", str(served.settings.home))
            return command(*arguments)

    return call


def outcome(ended: Finished, code: int = 0) -> Outcome:
    assert ended.code == code, ended
    return Outcome.model_validate_json(ended.out)


def pipeline_id(terminal: Terminal) -> str:
    until(lambda: bool(re.search(r"pipeline p-\w{12}:", terminal.seen)), within=60)
    found = re.search(r"pipeline (p-\w{12}):", terminal.seen)
    assert found
    return found[1]


def test_a_pipeline_is_handed_over_shown_to_its_end_and_read_as_from_the_ledger_itself(
    served: Served, remote: Command, local: Command
) -> None:
    ran = remote("run", OBJECTIVE, "--context", __file__)
    assert (ran.code, ran.err) == (0, "")
    assert "Rehearsal: no language model is used" in ran.out
    assert re.search(r"ALPHA\s+finds f-?1", ran.out) or "finds" in ran.out
    assert "COMPLETED" in ran.out
    found = re.search(r"pipeline (p-\w{12}): Design a caching", ran.out)
    assert found
    pipeline = found[1]
    assert f"watch it at {served.url}/pipelines/{pipeline}\n" in ran.out

    for arguments in (
        ("status", pipeline),
        ("status", pipeline, "--json"),
        ("list",),
        ("list", "--json"),
        ("list", "--status", "completed", "--project", "default", "--limit", "1", "--json"),
        ("list", "--status", "completed", "--status", "STOPPED", "--search", "CACHING", "--json"),
        ("list", "--status", "STOPPED", "--status", "FAILED"),
        ("list", "--search", "100% & #?"),
        ("report", pipeline[:6]),
        ("report", pipeline, "--json"),
        ("result", pipeline),
        ("result", pipeline, "--json"),
        ("checkpoints", "list", pipeline, "--json"),
        ("checkpoints", "show", pipeline, "report", "--json"),
        ("checkpoints", "diff", pipeline, "report", "completed", "--json"),
        ("replay", pipeline, "--json"),
        ("replay", pipeline, "--until", "9"),
    ):
        read = remote(*arguments)
        assert read == local(*arguments), arguments
        assert read.code == 0
    watched = remote("watch", pipeline)
    assert watched.code == 0
    assert "COMPLETED" in watched.out


def test_a_held_pipeline_goes_on_with_guidance(remote: Command, local: Command) -> None:
    held = outcome(remote("run", OBJECTIVE, "--hold", "--json"))
    assert held.status == "REPORT"
    told = remote("status", held.pipeline_id).out
    assert f"`trilogue continue {held.pipeline_id}` goes on" in told
    assert outcome(remote("resume", held.pipeline_id, "--json")).status == "REPORT", "held anew"

    went_on = outcome(remote("continue", held.pipeline_id, "--guidance", "We run on one machine", "--json"))
    assert went_on.status == "COMPLETED"
    assert outcome(local("status", held.pipeline_id, "--json")) == went_on
    watched = remote("watch", held.pipeline_id)
    assert "guidance: We run on one machine" in watched.out, "it watches on beyond where it was held"
    assert "COMPLETED" in watched.out
    assert local("watch", held.pipeline_id).out.count("COMPLETED") == 1


def test_a_stopped_pipeline_is_resumed_with_a_reason_and_goes_on_from_a_checkpoint(
    served: Served, remote: Command
) -> None:
    served.carries = False
    answer: dict[str, Any] = {}

    async def spawned() -> None:
        async with Connection(Server(url=served.url, key=None, ours=False)) as connection:
            answer.update(await connection.post("/api/spawn", {"objective": OBJECTIVE}))

    asyncio.run(spawned())
    pipeline = answer["pipeline_id"]
    assert "waiting for a worker" in remote("status", pipeline).out
    stopped = remote("stop", pipeline, "--reason", "wrong", "--json")
    assert stopped.code == 0
    assert stopped.document["status"] == "STOPPED"
    assert stopped.document["seq"] == json.loads(remote("status", pipeline, "--json").out)["ledger"]["entries"]
    assert "give one with --reason" in refusal(remote("resume", pipeline), 1)
    assert "STOPPED" in refusal(remote("stop", pipeline), 1)
    assert remote("watch", pipeline).code == 1

    served.carries = True
    assert outcome(remote("resume", pipeline, "--reason", "right after all", "--json")).status == "COMPLETED"
    refused = refusal(remote("checkpoints", "resume", pipeline, "report", "--reason", "again"), 1)
    assert "COMPLETED" in refused


def test_a_pipeline_goes_on_from_a_checkpoint_on_the_server(served: Served, remote: Command) -> None:
    held = outcome(remote("run", OBJECTIVE, "--hold", "--json"))
    stopped = remote("stop", held.pipeline_id, "--json")
    assert stopped.code == 0
    again = remote("checkpoints", "resume", held.pipeline_id, "report", "--reason", "another try", "--json")
    assert outcome(again).status == "REPORT"
    assert "no checkpoint 'none'" in refusal(remote("checkpoints", "resume", held.pipeline_id, "none"), 1)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("status", "p-none"), 1, "no pipeline 'p-none'"),
        (("continue", "p-none"), 1, "no pipeline 'p-none'"),
        (("list", "--cursor", "nonsense"), 2, "'nonsense' is no cursor of this list"),
    ],
)
def test_what_the_server_refuses_is_said_with_the_same_words_and_codes(
    remote: Command, local: Command, arguments: tuple[str, ...], code: int, said: str
) -> None:
    refused = remote(*arguments)
    assert said in refusal(refused, code)
    assert refused == local(*arguments)


def test_what_cannot_be_begun_or_gone_on_with_is_refused_alike(remote: Command, local: Command) -> None:
    done = outcome(remote("run", OBJECTIVE, "--external-id", "ticket-1", "--json"))
    assert f"'ticket-1' belongs to pipeline '{done.pipeline_id}'" in refusal(
        remote("run", OBJECTIVE, "--external-id", "ticket-1"), 1
    )
    for arguments in (("continue", done.pipeline_id), ("resume", done.pipeline_id)):
        there, here = remote(*arguments, "--json"), local(*arguments, "--json")
        assert there.code == here.code == 1
        assert there.document["error"] == here.document["error"]
        assert there.document["detail"] == here.document["detail"]


def test_a_key_is_shown_and_a_wrong_one_is_refused(
    tmp_path: Path, valkey_socket: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = SecretStr("right-key-right-key-right-key-0001")
    with served_at(tmp_path / "keyed", valkey_socket, api_key=key) as server:
        monkeypatch.setenv("TRILOGUE_API_URL", server.url)
        assert "needs a key: set TRILOGUE_API_KEY" in refusal(command("list"), 1)
        monkeypatch.setenv("TRILOGUE_API_KEY", "wrong-key-wrong-key-wrong-key-0002")
        said = refusal(command("list"), 1)
        assert "refuses TRILOGUE_API_KEY" in said
        assert "wrong-key" not in said
        monkeypatch.setenv("TRILOGUE_API_KEY", key.get_secret_value())
        assert outcome(command("run", OBJECTIVE, "--json")).status == "COMPLETED"


@contextmanager
def up(home: Path, url: str) -> Iterator[None]:
    """What a living `trilogue up` leaves for others under its home."""
    with taking(home) as taken:
        taken.show(Up(pid=1, api_url=url, dashboard_url=url, prefect_url="", started_at=""))
        yield


def test_an_up_under_this_home_is_found_and_a_stale_one_is_not(
    served: Served, command: Command, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with up(home, served.url):
        done = outcome(command("run", OBJECTIVE, "--json"))
        assert done.status == "COMPLETED"
        left_behind = (home / "run" / "up.json").read_bytes()
        assert server_for(load_settings()) == Server(url=served.url, key=None, ours=True, pages=served.url)
    (home / "run" / "up.json").write_bytes(left_behind)
    assert server_for(load_settings()) is None
    assert "no pipeline" in refusal(command("status", done.pipeline_id), 1), "it is in the server's ledger, not here"


def test_a_server_that_is_away_is_an_error_except_for_a_stop_under_its_own_home(
    served: Served, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with up(served.settings.home, served.url):
        monkeypatch.setenv("TRILOGUE_HOME", str(served.settings.home))
        held = outcome(command("run", OBJECTIVE, "--hold", "--json"))
        served.stop()
        with pytest.raises(Unavailable, match=f"the server at {served.url} does not answer .*; end its `trilogue up`"):
            asyncio.run(_listed(Server(url=served.url, key=None, ours=True)))
        stopped = command("stop", held.pipeline_id, "--json")
        assert (stopped.code, stopped.document["status"]) == (0, "STOPPED")
        assert "stopping it in the ledger" in stopped.err


@pytest.mark.parametrize("address", ["ftp://127.0.0.1", "127.0.0.1:3000", "http://", "http://me:secret@127.0.0.1:1"])
def test_an_address_that_cannot_be_one_is_refused_and_not_shown(
    command: Command, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("TRILOGUE_API_URL", address)
    said = refusal(command("list"))
    assert said.startswith("TRILOGUE_API_URL: ")
    assert "secret" not in said


@contextmanager
def stranger(answer: bytes) -> Iterator[str]:
    """Something else that listens, and gives everybody the same answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    caller, _ = listening.accept()
                except OSError:
                    return
                with caller:
                    caller.recv(65_536)
                    caller.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n<html",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ],
)
def test_what_is_no_trilogue_is_called_so(command: Command, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    with stranger(answer) as url:
        monkeypatch.setenv("TRILOGUE_API_URL", url)
        assert "Trilogue" in refusal(command("status", "p-1"), 1)


def test_a_server_that_comes_back_is_gone_on_with(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    async def watched() -> None:
        async with Connection(Server(url=served.url, key=None, ours=False), patience=0.2) as connection:
            served.carries = False
            pipeline = (await connection.post("/api/spawn", {"objective": OBJECTIVE}))["pipeline_id"]
            view = View(patience=30)
            showing = asyncio.create_task(view.follow(Remote(connection), TENANT, pipeline))
            await _seen(lambda: view.board.seq > 0)
            await asyncio.to_thread(served.stop)
            await _seen(lambda: "trying again" in capsys.readouterr().out)
            served.carries = True
            await asyncio.to_thread(served.start)
            board = await asyncio.wait_for(showing, 30)
            assert board.status == "COMPLETED"

    asyncio.run(watched())


def test_a_server_that_stays_away_is_an_error_after_a_while(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    async def watched() -> None:
        async with Connection(Server(url=served.url, key=None, ours=False), patience=0.1) as connection:
            served.carries = False
            pipeline = (await connection.post("/api/spawn", {"objective": OBJECTIVE}))["pipeline_id"]
            view = View(patience=1)
            showing = asyncio.create_task(view.follow(Remote(connection), TENANT, pipeline))
            await _seen(lambda: view.board.seq > 0)
            await asyncio.to_thread(served.stop)
            with pytest.raises(Unavailable, match="does not answer"):
                await asyncio.wait_for(showing, 30)

    asyncio.run(watched())
    assert capsys.readouterr().out.count("trying again") == 1


async def _listed(server: Server) -> None:
    async with Connection(server, patience=0.3) as connection:
        await connection.get("/api/pipelines")


async def _seen(condition: Callable[[], bool], within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def test_ctrl_c_detaches_and_the_pipeline_goes_on_as_another_terminal_sees(served: Served, tmp_path: Path) -> None:
    variables = {"TRILOGUE_API_URL": served.url, "TRILOGUE_HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}
    shell = Installation(root=tmp_path, environment=variables)
    served.carries = False
    began = time.monotonic()
    first = shell.start("run", OBJECTIVE, columns=100)
    pipeline = pipeline_id(first)
    assert time.monotonic() - began < 5, "nothing is booted; half a second where nothing else runs"
    second = shell.start("watch", pipeline)
    third = shell.start("run", OBJECTIVE)
    first.shows("SPAWN")
    assert pipeline_id(second) == pipeline
    terminated = pipeline_id(third)
    detached = first.press_ctrl_c().ended(within=20)
    assert detached.code == 130
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", detached.out).replace("\r\n", " ")
    assert f"detached; the pipeline goes on: `trilogue watch {pipeline}`" in plain
    assert "Traceback" not in plain
    ended = third.send(signal.SIGTERM).ended(within=20)
    assert (ended.code, ended.err) == (130, "")
    assert f"`trilogue watch {terminated}`" in ended.out

    served.carries = True
    watched = second.ended(within=60)
    assert (watched.code, watched.err) == (0, "")
    assert "COMPLETED" in watched.out
    assert shell.run("status", terminated).code == 0
    assert not (shell.home / "ledger.db").exists(), "the server did all of it"


def test_text_of_running_turns_comes_while_they_run(tmp_path: Path, valkey_socket: Path) -> None:
    async def followed(url: str) -> None:
        async with Connection(Server(url=url, key=None, ours=False)) as connection:
            pipeline = (await connection.post("/api/spawn", {"objective": OBJECTIVE}))["pipeline_id"]
            remote = Remote(connection)
            ended: set[int] = set()
            streamed: dict[int, str] = {}

            async def read(after: int) -> list[Entry]:
                return await remote.ledger.entries(TENANT, pipeline, after=after)

            async with aclosing(remote.live.follow(TENANT, pipeline, read)) as happening:
                async for item in happening:
                    if isinstance(item, Delta):
                        assert item.turn not in ended
                        streamed[item.turn] = streamed.get(item.turn, "")[: item.offset] + item.text
                    elif item.kind is Kind.TURN_ENDED:
                        ended.add(item.body["turn"])
                    elif item.kind is Kind.CONSENSUS:
                        break
            assert any("ALPHA states who depends on it" in text for text in streamed.values()), streamed

    with served_at(tmp_path / "served", valkey_socket, rehearsal_latency=0.3) as server:
        asyncio.run(followed(server.url))
