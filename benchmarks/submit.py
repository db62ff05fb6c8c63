"""Compares the time of ``frontrunner submit --dry-run`` with Python that imports numpy and pydantic.

python benchmarks/submit.py [--repeat 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

FRONTRUNNER = str(Path(sys.executable).parent / "frontrunner")
SUBMIT = [FRONTRUNNER, "submit", "gpt-175b-frontier", "--account", "abc123", "--dry-run"]
BARE = [sys.executable, "-c", "import numpy, pydantic"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=7)
    repeat = parser.parse_args().repeat
    # Side by side: the two take turns.
    pairs = [(_seconds(SUBMIT), _seconds(BARE)) for _ in range(repeat)]
    submit, bare = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"frontrunner submit --dry-run: {submit:.3f} s, {submit / bare:.2f} of Python with numpy and "
        f"pydantic ({bare:.3f} s)"
    )


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
