"""What is measured, with what is aimed at: `python -m benchmarks [help|turns|posts|pipelines …] [--json]`.

Everything runs on real servers under a temporary home that is removed afterwards. Nothing here
is a test: a figure that misses its aim is shown as such, and the exit code stays 0.
"""
