"""What viewers are told: every entry as one event, and the text of running turns (DESIGN section 10)."""

from trilogue.events.shapes import DATA
from trilogue.events.telling import Event, connection_event, delta_event, event_of, has_come_to_rest

__all__ = ["DATA", "Event", "connection_event", "delta_event", "event_of", "has_come_to_rest"]
