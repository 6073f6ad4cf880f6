"""The phases as task runs: `spawn`, `report`, `orchestrate`, `complete`. Each is idempotent on the ledger."""

from prefect import task

from tasks.options import OPTIONS
from tasks.session import session
from trilogue import interventions, phases
from trilogue.deliberation.rounds import round_end, timed_out
from trilogue.pipeline import Status
from trilogue.report import continuation


@task(name="spawn", task_run_name="spawn", **OPTIONS)
async def spawn() -> None:
    """Agents with their models, secrets resolved, the endpoint known to be usable; then RUN begins."""
    current = session()
    attempt = current.attempt
    if attempt.board.status is Status.SPAWNED:
        models = await current.services.models_for(attempt)
        await attempt.append(lambda board: phases.enlisted(board, models, attempt.now()) + phases.running(board))
        current.tell()


@task(name="report", task_run_name="report", **OPTIONS)
async def report() -> bool:
    """Join the findings; whether the pipeline goes on to ORCHESTRATE by itself."""
    current = session()
    attempt, auto = current.attempt, current.services.settings.auto_orchestrate
    if attempt.board.status is Status.RUNNING:
        phases.check_run(attempt.board)
        await attempt.append(lambda board: phases.reported(board, auto_orchestrate=auto))
        current.tell()
        current.exhibits.show_report(attempt.board)
    if attempt.board.status is Status.REPORT:
        return continuation(attempt.board, auto_orchestrate=auto).auto
    return attempt.board.status is Status.ORCHESTRATING


@task(name="orchestrate", task_run_name="orchestrate", **OPTIONS)
async def begin_round() -> None:
    """Begin the first round, unless this attempt took up one that is under way."""
    current = session()
    attempt = current.attempt
    if attempt.board.status is Status.REPORT:
        await attempt.append(lambda board: interventions.first_round(board, attempt.now()))
        current.tell()


@task(name="complete", task_run_name="complete", **OPTIONS)
async def complete() -> None:
    """Result and audit into the ledger, with the final checkpoint."""
    attempt = session().attempt
    await attempt.append(lambda board: phases.concluded(board, round_end(board, attempt.rules) or timed_out(board)))
