"""Money as integers: billionths of a dollar, so that sums are exact on every database."""

USD = 1_000_000_000
"""Billionths of a dollar (`nanousd`) in a dollar."""


def dollars(nanousd: int) -> str:
    """An amount for people, such as `$0.0123`."""
    return f"${nanousd / USD:.4f}"
