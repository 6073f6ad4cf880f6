"""The built-in rehearsal: a scripted, deterministic stand-in for a language model.

It speaks the same protocol over an in-process transport and answers from the objective and the
board that it is shown. Everything it writes says that no language model was used.
"""

from trilogue.models.rehearsal.script import SCENARIOS, rehearse
from trilogue.models.rehearsal.transport import RehearsalTransport

__all__ = ["SCENARIOS", "RehearsalTransport", "rehearse"]
