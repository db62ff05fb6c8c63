"""What a run says of itself while it goes on."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("megatron.core")

from frontrunner.parallelism.runtime.watchdog import Watchdog
from support.ranks import run_ranks
from support.runs import records, slow_run, train_run
from support.specs import run_spec


def test_a_rank_that_holds_the_others_up_is_named(tmp_path: Path) -> None:
    spec = run_spec(devices=3, sharding="zero3", training={"steps": 12, "global_batch_size": 3})
    run_ranks(3, slow_run, spec, tmp_path, 2)
    (warning,) = records(tmp_path, "warning")
    assert (warning["about"], warning["step"]) == ("straggler", 10)
    assert warning["message"].startswith("rank 2 slows the others down: it works for ")
    step = records(tmp_path, "step")[-1]
    assert step["slowest_rank"] == 2
    assert step["slowest_busy_s"] > max(0.1, 2 * step["busy_s"]) > 0


def test_a_run_that_is_asked_for_deterministic_kernels_trains(tmp_path: Path) -> None:
    spec = run_spec(devices=2, sharding="zero3", training={"steps": 2, "deterministic": True})
    assert run_ranks(2, train_run, spec, tmp_path) == ["done", "done"]


def test_no_memory_for_the_thread_below_python_ends_no_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("unable to start watchdog thread")

    transport: Any = SimpleNamespace(progress_s=0.0, waiting_for=None)
    watchdog, ended = Watchdog(tmp_path, 0, 0.2, transport), Event()
    monkeypatch.setattr("faulthandler.dump_traceback_later", no_thread)
    monkeypatch.setattr(watchdog, "_end", lambda silent_s: ended.set())
    watchdog.start()
    assert ended.wait(20)
    watchdog.stop()
