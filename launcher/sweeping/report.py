"""The results of a sweep, for ``--json``, tables and CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frontrunner.configs import presets
from frontrunner.configs.brief import brief
from frontrunner.configs.load_sweep import SweepDocument
from frontrunner.configs.sweep import OBJECTIVES
from frontrunner.launcher.sweeping.space import Point, whole_run
from frontrunner.launcher.sweeping.store import Trial, best


@dataclass(frozen=True)
class Report:
    """``trials`` by rank: complete ones, best first, then the others. ``sensitivity`` has shares from fANOVA,
    ``shap`` from SHAP; both are None if not requested. ``base`` is the run preset or file that the sweep
    varies (an absolute path), and ``best_keys`` are what the best trial changes in it."""

    name: str
    objective: str
    budget: dict[str, Any]
    trials: tuple[Trial, ...]
    best: Trial | None
    base: str
    best_keys: dict[str, Any] | None
    sensitivity: dict[str, float] | None
    shap: dict[str, float] | None
    node_hours: float
    prediction_error_pct: float | None
    """Mean absolute error of the planner with the constants of the machine file."""

    def best_run(self, folder: Path | None = None) -> str | None:
        """The best layout as a short run file for ``folder`` (None: any folder); None without a trial."""
        if self.best is None or self.best_keys is None:
            return None
        path = presets.path("run", self.base) is None
        extends = os.path.relpath(self.base, folder) if path and folder is not None else self.base
        trials, figure = len(self.trials), f"{self.objective} {self.best.objective:,.4g}"
        said = f"The best of {trials} trials of {self.name}: {figure}."
        return brief({"extends": extends, **self.best_keys}, {"extends": [said]})

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": self.name,
            "objective": self.objective,
            "budget": self.budget,
            "trials": [row(trial) for trial in self.trials],
            "best": None if self.best is None else row(self.best) | {"run": self.best_run()},
            "node_hours": self.node_hours,
            "prediction_error_pct": self.prediction_error_pct,
        }
        if self.sensitivity is not None:
            found |= {"sensitivity": self.sensitivity, "shap": self.shap}
        return found


def row(trial: Trial) -> dict[str, Any]:
    """One trial of ``trials[]``."""
    return asdict(trial) | {"error_pct": _error_pct(trial)}


def build(
    sweep: SweepDocument, points: Sequence[Point], trials: Sequence[Trial], *, sensitivity: bool = False
) -> Report:
    """The report of the trials so far."""
    key = sweep.spec.objective
    sign = -1 if OBJECTIVES[key] else 1
    ranked = sorted(trials, key=lambda t: (t.state != "complete", sign * (t.objective or 0.0), t.number))
    winner = best(trials, key)
    errors = [abs(error) for trial in trials if (error := _error_pct(trial)) is not None]
    shares: tuple[dict[str, float] | None, dict[str, float] | None] = (None, None)
    if sensitivity:
        from frontrunner.launcher.sweeping.sensitivity import fanova, shap_shares

        shares = fanova(sweep, trials), shap_shares(sweep, trials)
    return Report(
        name=sweep.spec.name,
        objective=key,
        budget=sweep.spec.budget.model_dump(mode="json"),
        trials=tuple(ranked),
        best=winner,
        base=_base(sweep),
        best_keys=whole_run(sweep, points[winner.point].values) if winner else None,
        sensitivity=shares[0],
        shap=shares[1],
        node_hours=sum(trial.node_hours for trial in trials),
        prediction_error_pct=sum(errors) / len(errors) if errors else None,
    )


def _base(sweep: SweepDocument) -> str:
    if presets.path("run", sweep.spec.base):
        return sweep.spec.base
    return str((sweep.tree.entries["base"].source.folder / sweep.spec.base).resolve())


def _error_pct(trial: Trial) -> float | None:
    """Prediction error, in percent of the measurement."""
    if trial.state != "complete" or not trial.objective or trial.predicted is None:
        return None
    return 100 * (trial.predicted / trial.objective - 1)
