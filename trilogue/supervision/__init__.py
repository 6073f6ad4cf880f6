"""Several programs under one command: kept alive together, ended together, also when the command is killed.

    up ── api, worker, deployments      each in a session of its own, so that Ctrl-C reaches only `up`
     │         └── flow runs
     └─ reaper                          ends all of the above when `up` is gone, however it went

`state` says whether an `up` runs under a home, `child` keeps one program alive, `supervisor` all of them.

Nothing ready-made fits: circus brings ZeroMQ, Tornado and a control socket; honcho never restarts and ends
all when one ends; mirakuru waits for a program but does not keep it alive; and none of them ends what it
started when it is killed itself.
"""

from trilogue.supervision.announcing import announce, announce_ready
from trilogue.supervision.child import ABOUT, GaveUp, Program, Say
from trilogue.supervision.state import Up, present, taking
from trilogue.supervision.supervisor import supervise

__all__ = ["ABOUT", "GaveUp", "Program", "Say", "Up", "announce", "announce_ready", "present", "supervise", "taking"]
