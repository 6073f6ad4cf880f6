"""Runs the benchmarks, all or those named, and prints one table or one JSON document."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from rich.console import Console

from benchmarks import api, events, governance, help_time, pages, pipelines, posts, turns, warm
from benchmarks.figures import Figure, as_json, table

BENCHMARKS: Mapping[str, Callable[[], Iterable[Figure]]] = {
    "help": help_time.measure,
    "turns": turns.measure,
    "governance": governance.measure,
    "posts": posts.measure,
    "api": api.measure,
    "events": events.measure,
    "pages": pages.measure,
    "pipelines": pipelines.measure,
    "warm": warm.measure,
}

_WIDTH = 150
"""Columns where no terminal says how many it has."""


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and size, beside their aims.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    quick = "fewer and shorter repetitions of `pages`: to see that it runs"
    parser.add_argument("--quick", action="store_true", help=quick)
    arguments = parser.parse_args()
    benchmarks = {**BENCHMARKS} | ({"pages": partial(pages.measure, quick=True)} if arguments.quick else {})
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
    began, load_before = time.monotonic(), os.getloadavg()[0]
    figures: list[Figure] = []
    for name in arguments.names or BENCHMARKS:
        print(f"measuring {name} …", file=sys.stderr)
        figures.extend(benchmarks[name]())
    machine = {
        "cpus": os.cpu_count(),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "seconds": round(time.monotonic() - began),
    }
    if arguments.json:
        print(json.dumps({"machine": machine, "figures": as_json(figures)}, indent=2))
    else:
        Console(width=None if sys.stdout.isatty() else _WIDTH).print(table(figures, machine))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
