"""Agents at work: what they are offered, their turns, a round and its end, and the mediator's part."""
