"""Checking afterwards that a record was not changed, from what is stored and nothing else.

These modules import the standard library and, for signatures, `cryptography`; nothing of
Trilogue. Whoever does not trust us reads them in a quarter of an hour, or writes them
again in another language from what they say: `chain` of a pipeline's entries, `anchors`
of a tenant's heads, `bundle` for the file in which one pipeline's proof travels.
"""
