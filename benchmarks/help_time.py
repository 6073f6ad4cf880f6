"""How long `trilogue --help` takes: what every use of the command line waits for at least."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure

_TIMES = 9


def measure() -> Iterator[Figure]:
    """The median of several, after one that fills the caches."""
    command = [str(Path(sys.executable).with_name("trilogue")), "--help"]
    seconds = []
    for _ in range(_TIMES + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    measured = seconds[1:]
    note = f"median of {_TIMES}, slowest {max(measured):.2f} s"
    yield Figure(what="trilogue --help", value=statistics.median(measured), unit="s", aim=0.4, note=note)
