"""How much each key of a space matters, from the trials of a sweep.

The explained value is speed: the objective, or its inverse if less is better; 0 for a layout that ran out of
memory. Shares of all keys add up to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
import shap
from optuna.importance import FanovaImportanceEvaluator
from sklearn.ensemble import RandomForestRegressor

from frontrunner.configs.load_sweep import SweepDocument
from frontrunner.configs.sweep import OBJECTIVES
from frontrunner.launcher.sweeping.store import OUT_OF_MEMORY, Trial, distributions, first_choice

#: With fewer trials there is no result.
FEWEST = 6
_TREES = 128


def explained(sweep: SweepDocument, trials: Sequence[Trial]) -> tuple[list[Trial], np.ndarray]:
    """The trials with a known speed, and their speeds relative to the highest."""
    better = OBJECTIVES[sweep.spec.objective]
    kept, speeds = [], []
    for trial in trials:
        if trial.objective is not None and not trial.open:
            speeds.append(trial.objective if better else 1 / trial.objective)
        elif trial.failure == OUT_OF_MEMORY:
            speeds.append(0.0)
        else:
            continue
        kept.append(trial)
    # Scaled to order 1, because explainers compare sums with an absolute tolerance.
    return kept, np.array(speeds) / max(speeds, default=1.0) if any(speeds) else np.array(speeds)


def fanova(sweep: SweepDocument, trials: Sequence[Trial]) -> dict[str, float]:
    """Share of the variance that each key explains alone (Hutter et al. 2014); empty with too few trials."""
    kept, speeds = explained(sweep, trials)
    if len(kept) < FEWEST or np.ptp(speeds) == 0:
        return {}
    space = {key: choices for key, choices in distributions(sweep).items() if _varies(key, kept)}
    study = optuna.create_study()
    for trial, speed in zip(kept, speeds, strict=True):
        params = {key: trial.values.get(key, first_choice(choices)) for key, choices in space.items()}
        study.add_trial(optuna.trial.create_trial(value=float(speed), params=params, distributions=space))
    found = optuna.importance.get_param_importances(
        study, evaluator=FanovaImportanceEvaluator(n_trees=_TREES, seed=0)
    )
    return _all_keys(sweep, dict(found))


def shap_shares(sweep: SweepDocument, trials: Sequence[Trial]) -> dict[str, float]:
    """Mean absolute SHAP value of each key over a random forest, as shares; empty with too few trials."""
    kept, speeds = explained(sweep, trials)
    if len(kept) < FEWEST or np.ptp(speeds) == 0:
        return {}
    orders = {key: axis.values() for key, axis in sweep.spec.space.items()}
    table = np.array(
        [[_place(trial.values.get(key), order) for key, order in orders.items()] for trial in kept],
        dtype=float,
    )
    model = RandomForestRegressor(_TREES, random_state=0).fit(table, speeds)
    values = np.abs(shap.TreeExplainer(model).shap_values(table)).mean(axis=0)
    return _all_keys(sweep, dict(zip(orders, map(float, values), strict=True)))


def _place(value: object, order: Sequence[object]) -> int:
    """Index of a value among those of its key; -1 if the trial does not have the key."""
    return next((place for place, other in enumerate(order) if other == value), -1)


def _varies(key: str, trials: Sequence[Trial]) -> bool:
    return len({repr(trial.values.get(key)) for trial in trials}) > 1


def _all_keys(sweep: SweepDocument, found: dict[str, float]) -> dict[str, float]:
    """Shares of every key, the largest first."""
    total = sum(found.values()) or 1.0
    shares = {key: found.get(key, 0.0) / total for key in sweep.spec.space}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
