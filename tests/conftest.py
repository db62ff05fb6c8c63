"""What the processes that tests start inherit.

They import ``support`` by name, as the tests themselves do: pytest's ``pythonpath`` is for its own process
alone, and a fork server does not take over ``sys.path`` before Python 3.13. And signals end them, even where
pytest runs in the background or under nohup, which have some ignored.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(path for path in _paths if path)

for _signal, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)


def pytest_report_header() -> list[str]:
    """What ran with what: a failure that others do not see is often there."""
    from support.machine import described

    return described()
