"""Where the time of ``blkproof check`` goes: events per second of each stage, and the hottest functions.

    .venv/bin/python benchmarks/check.py CAPTURE

Prints the best of several runs for each stage, on the events of CAPTURE.
"""

import cProfile
import pstats
import sys
import time
from collections.abc import Callable
from typing import Any

from blkproof.analysis.check import examine, judge
from blkproof.analysis.facts import Facts
from blkproof.analysis.history import replay
from blkproof.traces.capture import Capture
from blkproof.traces.table import EventTable

ROUNDS = 5
SHOWN = 8


def stage(name: str, events: int, run: Callable[[], Any]) -> None:
    """Print the rate of one stage, after a run that warms it up."""
    run()
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    print(f"{name:<28}{min(times) * 1e3:7.1f} ms  {events / min(times) / 1e6:8.2f} M events/s")


def main() -> None:
    path = sys.argv[1]
    capture = Capture.open(path)
    table, facts = EventTable.build(capture), Facts.of(capture)
    history = replay(table, facts)
    print(f"{len(table):,} events")
    stage("open: hashes of all files", len(table), lambda: Capture.open(path))
    stage("decode and merge", len(table), lambda: EventTable.build(capture))
    stage("rows as named tuples", len(table), lambda: sum(1 for _ in table.rows()))
    stage("replay, rows included", len(table), lambda: replay(table, facts))
    stage("rules and figures", len(table), lambda: judge(history))
    profile = cProfile.Profile()
    profile.runcall(examine, capture)
    pstats.Stats(profile).sort_stats("tottime").print_stats(SHOWN)


if __name__ == "__main__":
    main()
