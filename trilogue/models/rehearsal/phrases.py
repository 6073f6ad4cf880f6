"""The rehearsal's words: sentences about the objective, chosen by a hash of it."""

import hashlib
import re
from collections.abc import Sequence

MARK = "[rehearsal: no language model was used]"

_STOP = frozenset(
    "a an the and or of for to in on with by from at as is are be that this which how what why our your my their we "
    "it its into without within between und der die das ein eine mit von".split()
)
_VERBS = frozenset(
    "design plan choose decide write draft compare evaluate assess define describe propose build create improve "
    "reduce find research analyse analyze develop select prepare outline".split()
)
_ANGLES = (
    ("what it has to achieve", "states who depends on it, the load it must bear and what counts as good enough"),
    ("where it breaks", "lists the failures that hurt most and how each would be noticed"),
    ("which options exist", "sets three ways against each other: the simplest, the usual and the thorough one"),
    ("what it costs to run", "counts effort to build, effort to operate and the price of being wrong"),
    ("how it will be verified", "names one measurement before, one after, and the date on which both are compared"),
    ("who has to agree", "names the people whose work changes and the decision each of them can veto"),
)
_CRITERIA = (
    "a number for success, an owner, and a way back",
    "the first step, the risk it removes, and a date to review it",
    "what is left out, why, and what would change that decision",
    "limits that can be measured, a fallback, and the cost of both",
)


def subject(objective: str) -> str:
    """The objective without its leading verb and final stop, shortened to a phrase."""
    words = " ".join(objective.split()).rstrip(".!?").split(" ")
    if len(words) > 1 and words[0].lower() in _VERBS:
        words = words[1:]
    phrase = " ".join(words)
    return phrase if len(phrase) <= 90 else phrase[:89].rstrip() + "…"


def keywords(objective: str) -> list[str]:
    """The objective's longest telling words, in the order in which they stand."""
    words = [w for w in re.findall(r"\w[\w-]+", objective) if w.lower() not in _STOP | _VERBS]
    telling = sorted(dict.fromkeys(words), key=len, reverse=True)[:4]
    return [word for word in dict.fromkeys(words) if word in telling] or ["the objective"]


def pick(options: Sequence[str], *parts: str) -> str:
    """One of the options, the same for the same parts."""
    return options[_number(*parts) % len(options)]


def angles(objective: str, role: str) -> list[tuple[str, str]]:
    """Two angles on the objective; ALPHA's and BETA's differ."""
    start = _number(objective) % len(_ANGLES)
    shift = 0 if role == "ALPHA" else 3
    return [_ANGLES[(start + shift + step) % len(_ANGLES)] for step in range(2)]


def criteria(objective: str) -> str:
    """What BETA asks of every proposal on this objective."""
    return pick(_CRITERIA, objective)


def plan(objective: str, findings: Sequence[str], answered: Sequence[str]) -> str:
    """A proposal's text in Markdown: what it rests on, its steps, and which remarks it answers."""
    about = subject(objective)
    words = keywords(objective)
    lines = [f"**Proposal for {about}** {MARK}", ""]
    if findings:
        lines += ["It rests on:", *(f"- {title}" for title in findings[:4]), ""]
    lines += [
        "Steps:",
        f"1. Write down what {about} has to achieve, in numbers.",
        f"2. Build the smallest version around {words[0]} and measure it for a week.",
        f"3. Extend it to {words[-1]} only where the measurement asks for it.",
        "4. Review after a month; keep, change or withdraw.",
    ]
    if answered:
        lines += ["", "Answers to remarks:", *(f"- {remark}" for remark in answered)]
    return "\n".join(lines)


def _number(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:4], "big")
