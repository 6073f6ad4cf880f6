"""Redis, the present: what was committed is posted there, and may be lost there at any moment."""

from trilogue.live.breaker_state import BreakerState
from trilogue.live.bus import Bus, Subscription
from trilogue.live.connection import connect
from trilogue.live.follow import follow
from trilogue.live.live import Live
from trilogue.live.notice import Delta, Notice, Signal
from trilogue.live.poster import Poster

__all__ = ["BreakerState", "Bus", "Delta", "Live", "Notice", "Poster", "Signal", "Subscription", "connect", "follow"]
