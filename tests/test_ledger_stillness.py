"""Since when nobody acts for a pipeline: by the database's clock, and also after a stop only once the worker let go."""

import pytest
from alembic import command
from sqlalchemy import create_engine, text

from tests.fixtures.book import until
from trilogue import clock
from trilogue.entry import Draft, Kind
from trilogue.ledger import Claim, Ledger, PipelineRow, schema
from trilogue.ledger.engine import parse_url
from trilogue.ledger.identities import AT_THE_TERMINAL
from trilogue.ledger.stopping import stop
from trilogue.pipeline import Status

SPAWNED = Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree"})
RUNNING = Draft(kind=Kind.STATUS, body={"status": "RUNNING", "error": None})
RESUMED = Draft(kind=Kind.STATUS, body={"status": "RUNNING", "error": None, "resumed": True})


async def _row(ledger: Ledger, pipeline_id: str = "p-1") -> PipelineRow:
    return await ledger.get_pipeline("default", pipeline_id)


async def _claimed(ledger: Ledger, owner: str = "w-1", lease_seconds: float = 60) -> Claim:
    return await ledger.claim("default", "p-1", owner=owner, lease_seconds=lease_seconds, flow_run_id=None)


@pytest.fixture
async def claim(ledger: Ledger) -> Claim:
    """The lease of a pipeline that runs."""
    await ledger.spawn("default", "p-1", [SPAWNED], at=clock.now())
    claim = await _claimed(ledger)
    await ledger.append(claim.fence, [RUNNING], at=clock.now())
    return claim


async def test_what_nobody_took_stands_still_since_it_was_made_and_what_is_leased_does_not(ledger: Ledger) -> None:
    await ledger.spawn("default", "p-1", [SPAWNED], at=7)
    assert (await _row(ledger)).still_since == 7
    claim = await _claimed(ledger)
    assert (claim.pipeline.still_since, (await _row(ledger)).still_since) == (None, None)


async def test_a_lease_given_back_begins_the_stillness_and_the_next_one_ends_it(ledger: Ledger, claim: Claim) -> None:
    before = (await _row(ledger)).read_at
    await ledger.release(claim.fence, owner="w-1")
    still = await _row(ledger)
    assert still.still_since
    assert before <= still.still_since == still.released_at <= still.read_at
    again = await _claimed(ledger, "w-2")
    assert (again.pipeline.released_at, (await _row(ledger)).still_since) == (None, None)


async def test_a_lease_that_ran_out_tells_since_when(ledger: Ledger) -> None:
    await ledger.spawn("default", "p-1", [SPAWNED], at=clock.now())
    claim = await _claimed(ledger, lease_seconds=0.0)
    assert (await _row(ledger)).still_since == claim.pipeline.lease_until
    await stop(ledger, "default", "p-1", "", by=AT_THE_TERMINAL)
    assert (await _row(ledger)).still_since == claim.pipeline.lease_until


async def test_a_stopped_pipeline_stands_still_only_once_its_worker_let_go(ledger: Ledger, claim: Claim) -> None:
    await stop(ledger, "default", "p-1", "enough", by=AT_THE_TERMINAL)
    stopped = await _row(ledger)
    assert (stopped.status, stopped.leased, stopped.still_since) == (Status.STOPPED, False, None)
    assert await ledger.renew("w-1", {("default", "p-1")}, lease_seconds=60) == set()
    await ledger.release(claim.fence, owner="somebody else")
    assert (await _row(ledger)).still_since is None
    await ledger.release(claim.fence, owner="w-1", queued=True)
    still = await _row(ledger)
    assert still.still_since
    assert stopped.read_at <= still.still_since <= still.read_at
    assert still.queued_at is None, "a stopped pipeline is nobody's to draw"


async def test_a_worker_that_never_lets_go_counts_until_its_lease_would_have_run_out(ledger: Ledger) -> None:
    await ledger.spawn("default", "p-1", [SPAWNED], at=clock.now())
    dead = await _claimed(ledger, "dead", lease_seconds=0.3)
    await stop(ledger, "default", "p-1", "enough", by=AT_THE_TERMINAL)
    assert (await _row(ledger)).still_since is None

    async def still() -> bool:
        return (await _row(ledger)).still_since is not None

    await until(still)
    assert (await _row(ledger)).still_since == dead.pipeline.lease_until


async def test_one_that_lets_go_after_a_resume_takes_nothing_from_whoever_is_next(ledger: Ledger, claim: Claim) -> None:
    await stop(ledger, "default", "p-1", "enough", by=AT_THE_TERMINAL)
    await ledger.append_outside("default", "p-1", lambda _: [RESUMED], at=clock.now(), queued=True)
    assert (await _row(ledger)).still_since is None
    await ledger.release(claim.fence, owner="w-1")
    waiting = await _row(ledger)
    assert waiting.queued_at is not None
    assert waiting.still_since is not None

    again = await _claimed(ledger, "w-1")  # the same process
    await ledger.release(claim.fence, owner="w-1")
    assert (await _row(ledger)).leased
    await ledger.release(again.fence, owner="w-1")
    assert (await _row(ledger)).still_since is not None


async def test_the_column_comes_and_goes_and_what_was_there_stays(empty_url: str) -> None:
    schema.upgrade(empty_url, "0003")
    engine = create_engine(parse_url(empty_url))
    columns = "tenant, id, spec, status, phase, round, attempt, head_seq, head_hash, created_at, updated_at"
    rows = {
        "p-new": "0, 1, 'h', 10, 10, NULL, NULL",
        "p-ended": "2, 1, 'h', 10, 20, 30, NULL",
        "p-held": "1, 1, 'h', 10, 20, NULL, NULL",
        "p-leased": "1, 1, 'h', 10, 20, NULL, 40",
    }
    with engine.begin() as connection:
        for pipeline_id, values in rows.items():
            connection.execute(
                text(
                    f"INSERT INTO pipelines ({columns}, ended_at, lease_until) "
                    f"VALUES ('default', '{pipeline_id}', '{{}}', 'RUNNING', 'RUN', 0, {values})"
                )
            )
    before = _all(empty_url)
    assert schema.upgrade(empty_url) == schema.head()
    ledger = await Ledger.open(empty_url, migrate=False)
    still = {pipeline_id: (await _row(ledger, pipeline_id)).still_since for pipeline_id in rows}
    await ledger.close()
    assert still == {"p-new": 10, "p-ended": 30, "p-held": 20, "p-leased": 40}
    with engine.connect() as connection, connection.begin():
        command.downgrade(schema._config(connection), "0003")
    engine.dispose()
    assert schema.current(empty_url) == "0003"
    assert _all(empty_url) == before


def _all(url: str) -> list[dict[str, object]]:
    engine = create_engine(parse_url(url))
    with engine.connect() as connection:
        found = [dict(row) for row in connection.execute(text("SELECT * FROM pipelines ORDER BY id")).mappings()]
    engine.dispose()
    return found
