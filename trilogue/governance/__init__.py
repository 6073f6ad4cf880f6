"""What agents may do and spend, and what happens when they do otherwise."""
