"""The results of a sweep, for ``--json``, tables and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frontrunner.configs.load import dump
from frontrunner.configs.load_sweep import SweepDocument
from frontrunner.configs.sweep import OBJECTIVES
from frontrunner.launcher.sweeping.space import Point, whole_run
from frontrunner.launcher.sweeping.store import Trial, best


@dataclass(frozen=True)
class Report:
    """``trials`` by rank: complete ones, best first, then the others. ``sensitivity`` has shares from fANOVA,
    ``shap`` from SHAP; both are None if not requested. ``best_run`` is a run file."""

    name: str
    objective: str
    budget: dict[str, Any]
    trials: tuple[Trial, ...]
    best: Trial | None
    best_run: str | None
    sensitivity: dict[str, float] | None
    shap: dict[str, float] | None
    node_hours: float
    prediction_error_pct: float | None
    """Mean absolute error of the planner with the constants of the machine file."""

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": self.name,
            "objective": self.objective,
            "budget": self.budget,
            "trials": [row(trial) for trial in self.trials],
            "best": None if self.best is None else row(self.best) | {"run": self.best_run},
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
        best_run=dump(whole_run(sweep, points[winner.point].values)) if winner else None,
        sensitivity=shares[0],
        shap=shares[1],
        node_hours=sum(trial.node_hours for trial in trials),
        prediction_error_pct=sum(errors) / len(errors) if errors else None,
    )


def _error_pct(trial: Trial) -> float | None:
    """Prediction error, in percent of the measurement."""
    if trial.state != "complete" or not trial.objective or trial.predicted is None:
        return None
    return 100 * (trial.predicted / trial.objective - 1)
