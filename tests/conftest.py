"""Lets the processes that tests start import ``support`` by name, as the tests themselves do.

pytest's ``pythonpath`` is for its own process alone, and a fork server does not take over ``sys.path``
before Python 3.13.
"""

from __future__ import annotations

import os
from pathlib import Path

_paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(path for path in _paths if path)
