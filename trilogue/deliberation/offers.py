"""What an agent may do in its next turn: its mandate, narrowed to what makes sense on the board."""

from trilogue.actions import ActionKind, Offer
from trilogue.agent import NEGOTIATORS, Role
from trilogue.board import Agent, Board
from trilogue.governance.policy import permitted
from trilogue.pipeline import Phase


def alone(board: Board) -> bool:
    """Whether one negotiator has to go on without its partner."""
    return len(board.voters()) == 1


def offer(board: Board, agent: Agent, phase: Phase) -> Offer:
    """The offer for the agent's next turn."""
    mandate = permitted(board.mandates[agent.agent_id], phase)
    if phase is Phase.RUN:
        return Offer(mandate=mandate, actions=frozenset({ActionKind.FIND}))
    if agent.role is Role.GAMMA:
        proposals = tuple(proposal.id for proposal in board.open_proposals())
        return Offer(mandate=mandate, actions=mandate, rulable=proposals, recipients=NEGOTIATORS)
    if alone(board):
        return Offer(mandate=mandate, actions=frozenset({ActionKind.SOLVE}))
    return _negotiation(board, agent, mandate)


def _negotiation(board: Board, agent: Agent, mandate: frozenset[ActionKind]) -> Offer:
    own = tuple(p.id for p in board.open_proposals() if p.author == agent.agent_id)
    others = tuple(p.id for p in board.open_proposals() if p.author != agent.agent_id)
    subtasks = tuple(subtask.id for subtask in board.open_subtasks() if subtask.assignee is agent.role)
    sensible = {ActionKind.PROPOSE, ActionKind.MESSAGE, ActionKind.PASS}
    if agent.role is Role.ALPHA:
        sensible.add(ActionKind.FIND)
    if own:
        sensible.add(ActionKind.REVISE)
    if others:
        sensible |= {ActionKind.VOTE, ActionKind.CRITIQUE}
    if subtasks:
        sensible.add(ActionKind.SOLVE)
    return Offer(
        mandate=mandate,
        actions=mandate & sensible,
        votable=others,
        criticisable=others,
        revisable=own,
        subtasks=subtasks,
        recipients=tuple(role for role in NEGOTIATORS if role is not agent.role),
    )
