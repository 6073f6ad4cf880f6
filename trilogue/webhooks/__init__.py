"""Webhooks: a signed POST to the user's own address whenever a pipeline ends, at least once.

What is to be sent is recorded by the ledger in the transaction of the end itself; here it is
signed, guarded against addresses that are none of the receiver's business, and sent.
"""

from trilogue.webhooks.delivering import deliver_due, deliver_for_ever, delivering
from trilogue.webhooks.receivers import settled_receiver

__all__ = ["deliver_due", "deliver_for_ever", "delivering", "settled_receiver"]
