"""Choice of the next point: our search or an Optuna sampler, restricted to allowed points."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import TrialState

from frontrunner.configs.load_sweep import SweepDocument
from frontrunner.configs.sweep import OBJECTIVES, Sampler
from frontrunner.launcher.ranks.local import require_torch
from frontrunner.launcher.sweeping.guided import Guided, History, features
from frontrunner.launcher.sweeping.space import Point, Predicted, predict
from frontrunner.launcher.sweeping.store import OUT_OF_MEMORY, Trial, distributions, first_choice

#: Points are excluded if log(predicted peak / memory) exceeds this: the planner's peaks are within 2 % of
#: logged ones.
MARGIN = 0.05


@dataclass(frozen=True)
class Strategy:
    """``choose`` gives the next point for the trials so far, or None; ``removed`` counts what cannot fit."""

    choose: Callable[[Sequence[Trial]], Point | None]
    predicted: Predicted
    removed: int


def strategy(
    sweep: SweepDocument, points: Sequence[Point], sampler: Sampler | None = None, *, planner: bool = True
) -> Strategy:
    """How a sweep chooses. ``planner`` false: nothing is removed beforehand (to measure its benefit)."""
    name = sampler or sweep.spec.sampler
    predicted = predict(points, sweep.spec.objective)
    allowed = predicted.load <= MARGIN if planner else np.ones(len(points), dtype=bool)
    removed = int((~allowed).sum())
    if not allowed.any():  # nothing fits according to the planner: try the nearest points
        allowed = predicted.load <= predicted.load.min() + MARGIN
    if name == "guided":
        guided = Guided(points, allowed, sweep.spec.objective)
        return Strategy(lambda trials: guided.choose(history(trials)), predicted, removed)
    if name == "grid":
        return Strategy(lambda trials: _first(points, allowed, trials), predicted, removed)
    if name == "random":
        random = _shuffled(points, sweep.spec.seed)
        return Strategy(lambda trials: _first(random, allowed, trials), predicted, removed)
    suggest = _Suggest(sweep, points, allowed, name)
    return Strategy(suggest.choose, predicted, removed)


def history(trials: Sequence[Trial]) -> History:
    """The trials for the guided search; one that was stopped early counts with its last value."""
    measured = {t.point: t.objective for t in trials if t.objective is not None and not t.open}
    rest = [t for t in trials if t.point not in measured]
    return History(
        {point: value for point, value in measured.items() if value is not None and value > 0},
        frozenset(t.point for t in rest if t.failure == OUT_OF_MEMORY),
        frozenset(t.point for t in rest if t.open),
        frozenset(t.point for t in rest if not t.open and t.failure != OUT_OF_MEMORY),
    )


def _shuffled(points: Sequence[Point], seed: int) -> list[Point]:
    return [points[place] for place in np.random.default_rng(seed).permutation(len(points))]


def _first(order: Sequence[Point], allowed: np.ndarray, trials: Sequence[Trial]) -> Point | None:
    tried = {trial.point for trial in trials}
    return next((p for p in order if allowed[p.number] and p.number not in tried), None)


class _Suggest:
    """One of Optuna's samplers, in an in-memory study that is rebuilt for each choice.

    If its suggestion is illegal or already tried, the nearest free point is used.
    """

    def __init__(
        self, sweep: SweepDocument, points: Sequence[Point], allowed: np.ndarray, name: Sampler
    ) -> None:
        self._name, self._seed = name, sweep.spec.seed
        self._points, self._allowed = points, allowed
        self._space = distributions(sweep)
        self._better = OBJECTIVES[sweep.spec.objective]
        self._features = features(points)
        self._random = _shuffled(points, sweep.spec.seed)
        if name == "gp":
            require_torch()

    def choose(self, trials: Sequence[Trial]) -> Point | None:
        free = self._allowed.copy()
        free[[trial.point for trial in trials]] = False
        if not free.any():
            return None
        if len(trials) < 10:  # Optuna's samplers draw this many at random
            return _first(self._random, self._allowed, trials)
        study = optuna.create_study(
            direction="maximize" if self._better else "minimize", sampler=self._sampler(len(trials))
        )
        study.add_trials([self._as_optuna(trial, trials) for trial in trials])
        return nearest(study.ask(self._space).params, self._points, free)

    def _sampler(self, count: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if self._name == "gp":
                return GPSampler(seed=self._seed + count)
            return TPESampler(seed=self._seed + count, multivariate=True, constant_liar=True)

    def _as_optuna(self, trial: Trial, trials: Sequence[Trial]) -> optuna.trial.FrozenTrial:
        """A trial with values for all keys; failures count as the worst value, memory as a constraint."""
        params = {key: trial.values.get(key, first_choice(space)) for key, space in self._space.items()}
        if trial.open:
            return optuna.trial.create_trial(
                state=TrialState.RUNNING, params=params, distributions=self._space
            )
        values = [t.objective for t in trials if t.objective is not None and not t.open]
        worst = (min if self._better else max)(values, default=0.0)
        value = trial.objective if trial.objective is not None else worst
        short = trial.failure == OUT_OF_MEMORY
        return optuna.trial.create_trial(
            value=value,
            params=params,
            distributions=self._space,
            constraints={"memory": 1.0 if short else -1.0},
        )


def nearest(asked: Mapping[str, object], points: Sequence[Point], free: np.ndarray) -> Point:
    """The ``free`` point nearest to ``asked``, which has a value for every key."""
    distance = np.array([_distance(asked, point) for point in points])
    return points[int(np.argmin(np.where(free, distance, np.inf)))]


def _distance(asked: Mapping[str, object], point: Point) -> float:
    """Distance: 1 per differing choice, scaled difference per number."""
    total = 0.0
    for key, value in point.values.items():
        other = asked[key]
        if value == other:
            continue
        if isinstance(value, int | float) and isinstance(other, int | float) and value > 0 and other > 0:
            total += min(1.0, abs(float(np.log2(value / other))) / 4)
        else:
            total += 1.0
    return total
