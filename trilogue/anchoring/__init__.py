"""Anchoring: signing the heads of pipelines, and keeping the signed statements outside the database.

Any process that carries pipelines does this beside them. The ledger says what is due and takes each anchor once; here
it is signed, and brought to a file or an address that whoever changes the database does not reach.
"""

from trilogue.anchoring.keeping import Keeper, anchor_at_end, anchor_due, keep_anchored

__all__ = ["Keeper", "anchor_at_end", "anchor_due", "keep_anchored"]
