"""Seconds until the front door answers: ``--help`` beside bare Python, and ``check`` of a capture.

    .venv/bin/python benchmarks/front_door.py [CAPTURE]

Goals: help below 0.2 s, a small capture below 1 s.  Prints the median of several runs.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 7
PYTHON = Path(sys.executable)
BLKPROOF = PYTHON.with_name("blkproof")


def median_s(*command: str | Path) -> float:
    """Run a command several times after one that warms caches; its exit code does not matter."""
    seconds = []
    for _ in range(RUNS + 1):
        begin = time.perf_counter()
        subprocess.run(command, capture_output=True, check=False)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def main() -> None:
    print(f"python -c pass        {median_s(PYTHON, '-c', 'pass'):6.3f} s")
    print(f"python -c 'import pandas'  {median_s(PYTHON, '-c', 'import pandas'):.3f} s")
    print(f"blkproof --help       {median_s(BLKPROOF, '--help'):6.3f} s")
    for capture in sys.argv[1:]:
        print(f"blkproof check        {median_s(BLKPROOF, 'check', capture):6.3f} s  {capture}")


if __name__ == "__main__":
    main()
