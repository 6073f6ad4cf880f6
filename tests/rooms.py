"""Deliberation in memory: a room without ledger, Redis or network, in virtual time.

Only the world is replaced. Entries are sealed by the ledger's own chain and folded by the real
board; rules, offers, prompts and the reading of answers are the product's. Time is virtual: a
sleep costs nothing, and a program in which nobody can ever go on raises `Hang` at once.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from hypothesis import settings

from trilogue import interventions, phases
from trilogue.actions import ActionKind, Offer, read_turn
from trilogue.agent import NEGOTIATORS, Role
from trilogue.board import Agent, Board, OpenTurn, apply, fold
from trilogue.clock import SECOND, Micros, seconds
from trilogue.deliberation.mediating import mediate, next_trigger
from trilogue.deliberation.room import Answer, Rules
from trilogue.deliberation.rounds import negotiate, research, round_end, timed_out
from trilogue.deliberation.turns import lost_turns
from trilogue.entry import GENESIS, Draft, Entry, Kind
from trilogue.errors import Denied, EndpointFault, Malformed, TrilogueError, Violation
from trilogue.governance.budgets import Need
from trilogue.ledger.chain import prepare, seal
from trilogue.mediation import Thresholds, Trigger
from trilogue.models import prompts
from trilogue.models.question import tokens_in
from trilogue.models.rehearsal.script import rehearse
from trilogue.phases import model_of
from trilogue.pipeline import Phase, Status
from trilogue.report import continuation
from trilogue.spec import checked_spec

STEADY = settings(derandomize=True, database=None, deadline=None)
"""For properties: the same examples in every run, however slow the machine is."""

START: Micros = 1_800_000_000 * SECOND
MOST_ENTRIES = 4_000
T = TypeVar("T")


class Hang(AssertionError):
    """Nothing is scheduled and nobody can go on."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0
        self._clock_resolution = 1e-6
        selector: Any = self._selector  # type: ignore[attr-defined]
        ready = selector.select

        def select(timeout: float | None) -> Any:
            if timeout is None:
                raise Hang("every task waits and no timer is set")
            self._virtual += max(0.0, timeout)
            return ready(0)

        selector.select = select

    def time(self) -> float:
        return self._virtual


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """What a model says after `delay` seconds: the JSON value of its answer, or an error of its endpoint."""

    says: Any
    delay: float = 0.1


Model = Callable[["MemoryRoom", Agent, OpenTurn, str, Offer], Spoken]


def rules(*, turn_limit: int = 12, stuck: float = 30.0, conflict: int = 3, agent_timeout: float = 120.0) -> Rules:
    """DESIGN's rules, with what a test changes."""
    thresholds = Thresholds(stuck=stuck, conflict=conflict, complexity=0.8, turn_limit=turn_limit)
    return Rules(thresholds=thresholds, agent_timeout=agent_timeout)


class MemoryRoom:
    """A `trilogue.deliberation.room.Room` over a list of entries.

    Args:
        entries: what earlier attempts committed.
        commit_time: seconds that the next commit takes; commits wait for each other.
        watch: called with the room after each commit.
    """

    def __init__(
        self,
        model: Model,
        *,
        entries: Sequence[Entry] = (),
        attempt: int = 1,
        rules: Rules,
        commit_time: Callable[[], float] = lambda: 0.001,
        watch: Callable[["MemoryRoom"], None] = lambda _: None,
    ) -> None:
        self.entries = list(entries)
        self.board = fold(self.entries)
        self.rules = rules
        self.attempt = attempt
        self.asked: list[tuple[str, int, Offer]] = []
        self._model = model
        self._commit_time = commit_time
        self._watch = watch
        self._start = self.entries[-1].at if self.entries else START
        self._lock = asyncio.Lock()
        self._news = asyncio.Event()

    def sleep(self, duration: float) -> None:
        """Let so many seconds pass before the first commit."""
        self._start += seconds(duration)

    def now(self) -> Micros:
        return self._start + seconds(asyncio.get_running_loop().time())

    def stood_still(self, _: Micros) -> Micros:
        return 0

    def fault(self) -> str | None:
        return None

    async def ready(self) -> None:
        pass

    def needs(self, agent: Agent, prompt: str, _: Offer) -> Sequence[Need]:
        return [Need(models=(agent.model,), input_tokens=tokens_in(prompt), answer_tokens=1_000)]

    async def append(self, build: Callable[[Board], Sequence[Draft]]) -> None:
        await asyncio.shield(asyncio.ensure_future(self._append(build)))

    async def _append(self, build: Callable[[Board], Sequence[Draft]]) -> None:
        async with self._lock:
            if not (drafts := list(build(self.board))):
                return
            await asyncio.sleep(self._commit_time())
            self._commit(drafts)
            self._news.set()
            self._news = asyncio.Event()

    def _commit(self, drafts: Sequence[Draft]) -> None:
        sealed = seal(
            [prepare(draft) for draft in drafts],
            tenant="default",
            pipeline_id="p-test",
            attempt=self.attempt,
            at=self.now(),
            after=self.board.seq,
            prev_hash=self.entries[-1].hash if self.entries else GENESIS,
        )
        for entry in sealed:
            self.entries.append(entry)
            apply(self.board, entry)
        assert len(self.entries) < MOST_ENTRIES, "the deliberation runs away"
        self._watch(self)

    async def changed(self, after: int, until: Micros | None = None) -> None:
        while self.board.seq <= after:
            try:
                async with asyncio.timeout(None if until is None else max(0.0, (until - self.now()) / SECOND)):
                    await self._news.wait()
            except TimeoutError:
                return

    def model_for(self, role: Role) -> str:
        return model_of(self.board, role)

    def compose(self, agent: Agent, phase: Phase, offer: Offer, trigger: Trigger | None) -> str:
        return prompts.prompt(self.board, agent, phase, offer, trigger)

    async def ask(self, agent: Agent, turn: OpenTurn, prompt: str, offer: Offer) -> Answer:
        self.asked.append((agent.agent_id, turn.turn, offer))
        spoken = self._model(self, agent, turn, prompt, offer)
        await asyncio.sleep(spoken.delay)
        if isinstance(spoken.says, TrilogueError):
            return Answer(error=spoken.says)
        try:
            return Answer(actions=read_turn(spoken.says, offer))
        except (Malformed, Violation) as error:
            return Answer(error=error)

    def cut_off(self, _: OpenTurn) -> Answer:
        return Answer(spent={"calls": 1})


def rehearsal(delay: Callable[[], float] = lambda: 0.4) -> Model:
    """The built-in rehearsal, without its protocol."""

    def speak(room: MemoryRoom, agent: Agent, turn: OpenTurn, prompt: str, offer: Offer) -> Spoken:
        request = {"model": agent.model, "messages": [{"role": "user", "content": prompt}]}
        return Spoken(says=json.loads(rehearse(request)), delay=delay())

    return speak


async def spawn(room: MemoryRoom, *, model: str = "a-model", timeout: float = 120.0, **options: Any) -> None:
    """Record a new pipeline in an empty room."""
    asked = checked_spec(**{"objective": "Design a caching strategy", **options})
    rehearsing = model.startswith("rehearsal")
    agent_timeout = room.rules.agent_timeout
    await room.append(
        lambda _: phases.spawned(
            asked, mode="local", rehearsal=rehearsing, model=model, timeout=timeout, agent_timeout=agent_timeout
        )
    )


async def carry(room: MemoryRoom) -> Board:
    """Carry a recorded pipeline to where it ends or is held, from wherever it stands; as `flows.pipeline` does."""
    try:
        await room.append(lost_turns)
        await _carry(room)
    except TrilogueError as error:
        reason = error
        await room.append(lambda board: lost_turns(board) + phases.failed(board, reason))
    return room.board


async def _carry(room: MemoryRoom) -> None:
    await to_the_round(room)
    if room.board.status is Status.ORCHESTRATING:
        await _side_by_side(*(negotiate(room, role) for role in NEGOTIATORS), _mediation(room))
        await room.append(lambda board: phases.concluded(board, round_end(board, room.rules) or timed_out(board)))


async def to_the_round(room: MemoryRoom) -> None:
    """Carry a recorded pipeline to the beginning of its round, or to where it is held."""
    if room.board.status is Status.SPAWNED:
        models = dict.fromkeys(Role, str(room.board.spec["model"]))
        await room.append(lambda board: phases.enlisted(board, models, room.now()) + phases.running(board))
    if room.board.status is Status.RUNNING:
        await _side_by_side(*(research(room, role) for role in NEGOTIATORS))
        phases.check_run(room.board)
        await room.append(lambda board: phases.reported(board, auto_orchestrate=True))
    if room.board.status is Status.REPORT and continuation(room.board, auto_orchestrate=True).auto:
        await room.append(lambda board: interventions.first_round(board, room.now()))


async def _mediation(room: MemoryRoom) -> None:
    while struck := await next_trigger(room):
        await mediate(room, struck)


async def _side_by_side(*parts: Coroutine[Any, Any, Any]) -> None:
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part)


@dataclass(frozen=True, kw_only=True)
class Temper:
    """How often a random agent goes wrong, and how long it takes at most. Shares from 0 to 1, seconds."""

    malformed: float = 0.0
    violates: float = 0.0
    faults: float = 0.0
    refused: float = 0.0
    wilful: float = 0.1
    confused: float = 0.0
    longest: float = 5.0


def random_model(random: Random, temper: Temper) -> Model:
    """An agent that does anything it may, in any order and time, and goes wrong as its temper has it."""

    def speak(room: MemoryRoom, agent: Agent, turn: OpenTurn, prompt: str, offer: Offer) -> Spoken:
        delay = random.choice((0.0, 0.01, random.uniform(0, temper.longest)))
        if random.random() < temper.faults:
            return Spoken(says=EndpointFault("the endpoint answered 503"), delay=delay)
        if random.random() < temper.refused:
            return Spoken(says=Denied("the key was refused", code="key_refused"), delay=delay)
        if random.random() < temper.malformed:
            return Spoken(says=random.choice(({}, {"actions": []}, "words", {"action": "dance"})), delay=delay)
        kinds = sorted(offer.actions)
        if random.random() < temper.wilful:  # allowed, though it was not offered
            possible = {kind for kind in offer.mandate if offer.ids_for(kind) or kind not in _NEEDS_ID}
            kinds = sorted(possible | offer.actions)
        if random.random() < temper.violates:
            kinds = sorted(set(ActionKind) - offer.mandate)
        actions = [random_action(random, random.choice(kinds), offer) for _ in range(random.randint(1, 3))]
        if random.random() < temper.confused:
            actions = [confused(random, action) for action in actions]
        return Spoken(says={"actions": actions}, delay=delay)

    return speak


NONSENSE: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**400,
    float("nan"),
    "",
    "p1",
    "p999",
    "GAMMA",
    "\ud800",
    "x" * 100_000,
    [],
    [[]],
    {},
    {"a": 1},
)


def confused(random: Random, action: dict[str, Any]) -> Any:
    """An action in which a field is missing or holds anything at all, or which is none."""
    field = random.choice((*action, "something"))
    match random.randrange(6):
        case 0:
            return random.choice(NONSENSE)
        case 1:
            return {name: value for name, value in action.items() if name != field}
        case _:
            return {**action, field: random.choice(NONSENSE)}


_NEEDS_ID = {ActionKind.VOTE, ActionKind.CRITIQUE, ActionKind.REVISE, ActionKind.RULE, ActionKind.SOLVE}


def random_action(random: Random, kind: ActionKind, offer: Offer) -> dict[str, Any]:
    """Any action of a kind, as a model would write it, with ids from the offer."""
    ids = offer.ids_for(kind)
    words = f"{random.choice(('small', 'large', 'quick', 'slow'))} {random.randrange(1000)}"
    fields: dict[str, Any] = {"action": kind.value}
    match kind:
        case ActionKind.FIND:
            share = random.choice((0.0, 0.3, 0.9, 1.0))
            fields |= {"title": words, "text": words, "evidence": "", "confidence": 0.5, "complexity": share}
        case ActionKind.PROPOSE:
            fields |= {"title": words, "text": words}
        case ActionKind.CRITIQUE:
            fields |= {"proposal": random.choice(ids or ("p1",)), "text": words}
        case ActionKind.REVISE:
            fields |= {"proposal": random.choice(ids or ("p1",)), "title": words, "text": words}
        case ActionKind.VOTE:
            verdict = random.choice(("approve", "reject"))
            fields |= {"proposal": random.choice(ids or ("p1",)), "verdict": verdict, "reason": words}
        case ActionKind.SOLVE:
            fields |= {"title": words, "text": words, "subtask": random.choice(ids) if ids else None}
        case ActionKind.MESSAGE:
            fields |= {"to": "ALL", "content": words}
        case ActionKind.RULE:
            outcome = random.choice(("choose", "merge"))
            fields |= {"outcome": outcome, "proposal": random.choice(ids or ("p1",)), "reason": words}
            fields |= {"title": words, "text": words} if outcome == "merge" else {"title": "", "text": ""}
        case ActionKind.DECOMPOSE:
            part = {"title": words, "text": words}
            fields["subtasks"] = [{**part, "assignee": role} for role in ("ALPHA", "BETA")]
        case ActionKind.PASS:
            fields["reason"] = words
    return fields


FINDING = {"action": "find", "title": "a finding", "text": "found", "confidence": 0.5, "complexity": 0.5}
PASS = {"action": "pass", "reason": "nothing to add"}
WORD = {"action": "message", "to": "ALL", "content": "a word"}


def propose(text: str) -> dict[str, str]:
    return {"action": "propose", "title": text, "text": text}


def revise(proposal: str, text: str) -> dict[str, str]:
    return {"action": "revise", "proposal": proposal, "title": text, "text": text}


def vote(proposal: str, verdict: str = "approve") -> dict[str, str]:
    return {"action": "vote", "proposal": proposal, "verdict": verdict, "reason": "so it seems"}


def solve(text: str) -> dict[str, str]:
    return {"action": "solve", "title": text, "text": text}


def say(*actions: Any, after: float = 0.1) -> Spoken:
    """An answer with these actions, or an endpoint's error, after that many seconds."""
    if len(actions) == 1 and isinstance(actions[0], TrilogueError):
        return Spoken(says=actions[0], delay=after)
    return Spoken(says={"actions": list(actions)}, delay=after)


def scripted(lines: Mapping[str, Sequence[Spoken]], *, then: Spoken | None = None) -> Model:
    """Agents that say their role's lines in ORCHESTRATE one after the other, and then always the same.

    In RUN they say what is written for `run-ALPHA` and `run-BETA`, and then a finding.
    """
    left = {role: list(said) for role, said in lines.items()}

    def speak(room: MemoryRoom, agent: Agent, turn: OpenTurn, prompt: str, offer: Offer) -> Spoken:
        in_run = turn.phase is Phase.RUN
        if mine := left.get(f"run-{agent.role}" if in_run else agent.role.value):
            return mine.pop(0)
        if in_run:
            return say(FINDING)
        return then or (say(WORD) if agent.role is Role.GAMMA else say(PASS))

    return speak


def played(model: Model, /, *, limits: Rules | None = None, timeout: float = 120.0, **options: Any) -> MemoryRoom:
    """The room after a new pipeline was carried to its end in it."""

    async def play() -> MemoryRoom:
        room = MemoryRoom(model, rules=limits or rules())
        await spawn(room, timeout=timeout, **options)
        await carry(room)
        return room

    return in_virtual_time(play())


def commits(entries: Sequence[Entry]) -> list[int]:
    """The `seq` of each commit's last entry, of commits that took time: where a pipeline can be cut off."""
    following = [*(entry.at for entry in entries[1:]), None]
    return [entry.seq for entry, at in zip(entries, following, strict=True) if entry.at != at]


def bodies(room: MemoryRoom, kind: Kind) -> list[dict[str, Any]]:
    """The bodies of all entries of a kind, in order."""
    return [dict(entry.body) for entry in room.entries if entry.kind is kind]
