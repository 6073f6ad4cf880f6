"""However agents behave, however long they take, whatever fails: a round ends in one legal way and holds together."""

from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms import (
    PASS,
    MemoryRoom,
    Temper,
    bodies,
    carry,
    in_virtual_time,
    played,
    propose,
    random_action,
    random_model,
    revise,
    rules,
    say,
    scripted,
    spawn,
    vote,
)
from trilogue.actions import ActionKind, Offer
from trilogue.agent import Role
from trilogue.board import Board, fold
from trilogue.deliberation.rounds import RoundEnd, round_end
from trilogue.entry import Kind
from trilogue.ledger.chain import verify
from trilogue.mediation import Trigger
from trilogue.pipeline import LEGAL, Phase, Status

SEEDS = st.integers(0, 2**32)


def random_run(seed: int, temper: Temper) -> tuple[MemoryRoom, list[RoundEnd]]:
    """A pipeline of random agents carried to its end, and each end of the round as it showed after a commit."""
    random = Random(seed)
    ends: list[RoundEnd] = []

    def watch(room: MemoryRoom) -> None:
        check_beginning(room)
        if end := round_end(room.board, room.rules):
            ends.append(end)

    async def run() -> MemoryRoom:
        limits = rules(stuck=random.choice((5.0, 30.0)), turn_limit=random.choice((1, 3, 12)), agent_timeout=60)
        room = MemoryRoom(
            random_model(random, temper),
            rules=limits,
            commit_time=lambda: random.choice((0.0, 0.001, random.random())),
            watch=watch,
        )
        await spawn(room, timeout=random.choice((20.0, 120.0)))
        await carry(room)
        return room

    return in_virtual_time(run()), ends


def check_beginning(room: MemoryRoom) -> None:
    """No turn begins over an agreement, or in a round that has ended: it could undo what was agreed."""
    if room.entries[-1].kind is Kind.TURN_BEGUN and room.board.phase is Phase.ORCHESTRATE:
        before = fold(room.entries[:-1])
        assert round_end(before, room.rules) is None
        assert not before.agreed() or len(before.decided()) > 1


def check_whole(room: MemoryRoom) -> None:
    """What must hold of every pipeline at its end."""
    board = room.board
    assert verify(room.entries) is None
    assert board == fold(room.entries)
    assert board.status.ended
    assert not board.open_turns
    assert board.checkpoints[-1] == board.status.lower()
    assert all(agent.status.settled for agent in board.agents.values())
    assert all(mediation.outcome for mediation in board.mediations)
    triggers = [mediation.trigger for mediation in board.round_mediations()]
    assert len(triggers) == len(set(triggers))
    assert all(board.agents[vote.voter].role is not Role.GAMMA for vote in board.votes.values())
    assert (board.status is Status.COMPLETED) == (board.consensus is not None)
    statuses = [Status.SPAWNED] + [Status(body["status"]) for body in bodies(room, Kind.STATUS)]
    assert all(following in LEGAL[present] for present, following in pairwise(statuses))
    check_turns(room)
    if board.consensus and board.consensus["decided_by"] == "vote":
        check_agreement(board)


def check_turns(room: MemoryRoom) -> None:
    """Each turn begins and ends once, and no agent has two at a time."""
    under_way: dict[str, int] = {}
    for entry in room.entries:
        if entry.kind is Kind.TURN_BEGUN:
            assert entry.body["agent_id"] not in under_way
            under_way[entry.body["agent_id"]] = entry.body["turn"]
        elif entry.kind is Kind.TURN_ENDED:
            assert under_way.pop(entry.body["agent_id"]) == entry.body["turn"]
    begun = [body["turn"] for body in bodies(room, Kind.TURN_BEGUN)]
    assert begun == list(range(1, len(begun) + 1))


def check_agreement(board: Board) -> None:
    """The only agreed proposal, in its latest revision, approved there by everybody but its author."""
    assert board.consensus is not None
    (proposal,) = board.agreed()
    assert board.consensus["text"] == proposal.latest.text
    for voter in board.voters():
        if voter.agent_id != proposal.author:
            assert board.votes[proposal.id, voter.agent_id].approves
            assert board.votes[proposal.id, voter.agent_id].revision == proposal.latest.number


@settings(deadline=20_000, max_examples=100)
@given(seed=SEEDS)
def test_random_agents_that_make_no_mistakes_come_to_a_legal_end(seed: int) -> None:
    room, ends = random_run(seed, Temper())
    check_whole(room)
    by_themselves = {Status.COMPLETED, Status.ORCHESTRATION_FAILED, Status.TIMEOUT}
    assert room.board.status in by_themselves if room.board.findings else room.board.status is Status.FAILED
    assert not any(agent.revoked for agent in room.board.agents.values())
    if ends and ends[0].consensus:  # nothing that comes later changes how it was decided
        assert room.board.consensus is not None
        assert room.board.consensus["text"] == ends[0].consensus["text"]


@settings(deadline=20_000, max_examples=100)
@given(
    seed=SEEDS,
    temper=st.builds(
        Temper,
        malformed=st.sampled_from((0.0, 0.05, 0.3, 1.0)),
        violates=st.sampled_from((0.0, 0.05)),
        faults=st.sampled_from((0.0, 0.2, 1.0)),
        refused=st.sampled_from((0.0, 0.0, 0.02)),
        longest=st.sampled_from((1.0, 40.0)),
    ),
)
def test_random_agents_come_to_a_legal_end_whatever_fails(seed: int, temper: Temper) -> None:
    room, _ = random_run(seed, temper)
    check_whole(room)
    revoked = {agent.agent_id for agent in room.board.agents.values() if agent.revoked}
    assert revoked == {handoff["agent_id"] for handoff in room.board.handoffs}
    for agent in room.board.agents.values():
        assert bool(agent.violations) <= agent.revoked
        assert agent.revoked or len(agent.faults) < 8


@settings(deadline=20_000, max_examples=60)
@given(seed=SEEDS)
def test_what_two_turns_at_once_decide_does_not_depend_on_which_is_committed_first(seed: int) -> None:
    outcomes = []
    for alpha_takes, beta_takes in ((1.0, 2.0), (2.0, 1.0)):
        random = Random(seed)
        alpha, beta = (
            [random_action(random, random.choice(kinds), offer) for _ in range(random.randint(1, 3))]
            for kinds, offer in ((KINDS, AS_ALPHA), (KINDS, AS_BETA))
        )
        room = played(
            scripted(
                {
                    "ALPHA": [say(propose("one")), say(*alpha, after=alpha_takes), say(PASS)],
                    "BETA": [say(propose("two"), after=0.2), say(*beta, after=beta_takes), say(PASS)],
                    "GAMMA": [say({**RULING}, after=0.5)] * 2,
                },
            )
        )
        check_whole(room)
        consensus = room.board.consensus or {}
        outcomes.append((room.board.status, consensus.get("text"), consensus.get("revision")))
    assert outcomes[0] == outcomes[1]


KINDS = (ActionKind.VOTE, ActionKind.VOTE, ActionKind.REVISE, ActionKind.CRITIQUE, ActionKind.PASS)
_ALL = frozenset(ActionKind)
AS_ALPHA = Offer(mandate=_ALL, actions=_ALL, votable=("p2",), criticisable=("p2",), revisable=("p1",))
AS_BETA = Offer(mandate=_ALL, actions=_ALL, votable=("p1",), criticisable=("p1",), revisable=("p2",))
RULING = {"action": "rule", "outcome": "merge", "proposal": "p1", "title": "ruled", "text": "ruled", "reason": "both"}


def test_no_agreement_is_decided_while_a_turn_begun_before_it_is_open() -> None:
    """BETA approves while ALPHA, the author, is at work on a new revision: its revision counts, the vote does not."""
    room = played(
        scripted(
            {
                "ALPHA": [say(propose("first")), say(revise("p1", "second"), after=5)],
                "BETA": [say(WORD_TO_ALPHA, after=0.2), say(vote("p1"), after=1), say(vote("p1"), after=1)],
            }
        )
    )
    first_vote = next(entry.seq for entry in room.entries if entry.kind is Kind.VOTE)
    then = fold(room.entries[: first_vote + 1])
    assert [p.id for p in then.agreed()] == ["p1"]
    assert then.decided() == ()
    assert room.board.consensus is not None
    assert (room.board.consensus["text"], room.board.consensus["revision"]) == ("second", 2)
    assert len(bodies(room, Kind.VOTE)) == 2


WORD_TO_ALPHA = {"action": "message", "to": "ALPHA", "content": "and the costs?"}


def test_a_vote_on_a_revision_that_is_no_longer_the_latest_counts_nothing() -> None:
    room = played(
        scripted(
            {
                "ALPHA": [say(propose("first")), say(revise("p1", "second"), after=1)],
                "BETA": [say(WORD_TO_ALPHA, after=0.2), say(vote("p1"), after=5), say(vote("p1", "reject"))],
            }
        )
    )
    stale, fresh = bodies(room, Kind.VOTE)
    assert (stale["revision"], fresh["revision"]) == (1, 2)
    ended = next(body for body in bodies(room, Kind.TURN_ENDED) if body["notes"])
    assert "revision 1" in ended["notes"][0]
    assert room.board.status is Status.ORCHESTRATION_FAILED


def test_two_proposals_agreed_at_once_are_a_conflict_for_the_mediator() -> None:
    lines = {
        "ALPHA": [say(propose("one")), say(vote("p2"), after=1)],
        "BETA": [say(propose("two"), after=0.2), say(vote("p1"), after=2)],
    }
    ruled = played(scripted({**lines, "GAMMA": [say(RULING)]}))
    (mediation,) = ruled.board.mediations
    assert mediation.trigger == Trigger.CONFLICT
    assert mediation.evidence["agreed_at_once"] == ["p1", "p2"]
    assert ruled.board.consensus is not None
    assert ruled.board.consensus["text"] == "ruled"
    silent = played(scripted(lines, then=say({"action": "dance"})))
    assert silent.board.status is Status.ORCHESTRATION_FAILED
    assert silent.board.error is not None
    assert silent.board.error["code"] == "rival_agreements"


def test_two_proposals_agreed_with_the_last_turns_are_still_ruled_on() -> None:
    lines = {
        "ALPHA": [say(propose("one")), say(vote("p2"), after=1)],
        "BETA": [say(propose("two"), after=0.2), say(vote("p1"), after=2)],
        "GAMMA": [say(RULING)],
    }
    room = played(scripted(lines), limits=rules(turn_limit=2))
    assert [agent.turns for agent in room.board.voters()] == [2, 2]
    assert room.board.status is Status.COMPLETED
