"""One rank that trains what a run folder's run.yaml says, under the launcher that started it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from frontrunner.launcher.rank import TRAIN, run_rank
from frontrunner.parallelism.rendezvous import from_environment

if __name__ == "__main__":
    place = from_environment(os.environ)
    assert place is not None
    os._exit(run_rank(TRAIN, Path(sys.argv[2]), place))
