from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import faulty_ranks
import pytest

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from frontrunner.launcher.display.trackers import TrackerName
from frontrunner.launcher.display.watch import Watch
from frontrunner.launcher.errors import RunFailed
from support.specs import run_spec


def track(run_dir: Path, *names: TrackerName) -> None:
    with Watch(run_dir, 10, names, io.StringIO(), live=False) as watch:
        faulty_ranks.write_records(run_spec(devices=3), run_dir, watch.record)


def test_tensorboard(tmp_path: Path) -> None:
    track(tmp_path, TrackerName.TENSORBOARD)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()

    def series(tag: str) -> dict[int, float]:
        points = events.Tensors(tag)
        return {point.step: float(tensor_util.make_ndarray(point.tensor_proto)) for point in points}

    assert series("train/loss") == pytest.approx({step: 5.0 - 0.1 * step for step in range(1, 11)})
    assert series("validation/loss") == {0: 5.5, 10: 3.5}
    assert series("train/bytes_sent/network") == dict.fromkeys(range(1, 11), 512.0)
    assert 2 not in series("train/gradient_norm")  # it was not a number


class FakeWandb(types.ModuleType):
    def __init__(self) -> None:
        super().__init__("wandb")
        self.config: dict[str, Any] = {}
        self.logged: dict[int, dict[str, float]] = {}
        self.finished = False

    def init(self, *, project: str, name: str, dir: str, config: dict[str, Any]) -> FakeWandb:
        self.config = config
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.setdefault(step, {}).update(values)

    def finish(self) -> None:
        self.finished = True


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    track(tmp_path, TrackerName.WANDB)
    assert wandb.config["spec"]["name"] == "test"
    assert sorted(wandb.logged) == list(range(11))
    assert wandb.logged[10]["train/loss"] == 4.0
    assert wandb.logged[10]["validation/loss"] == 3.5
    assert wandb.finished


@pytest.mark.parametrize("name", TrackerName)
def test_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: TrackerName) -> None:
    for module in (name.value, f"{name.value}.summary"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RunFailed, match=rf"pip install 'frontrunner\[{name.value}\]'"):
        track(tmp_path, name)
