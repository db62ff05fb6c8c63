"""DeepHyper's search on a sweep's space, which Dash et al. (arXiv 2312.12705) searched with it.

frontrunner does not depend on DeepHyper: ``pip install deephyper`` (0.13).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from deephyper.hpo import CBO, HpProblem

from frontrunner.configs.load_sweep import SweepDocument
from frontrunner.configs.sweep import OBJECTIVES, Scalar
from frontrunner.launcher.sweeping.samplers import nearest
from frontrunner.launcher.sweeping.space import Point
from frontrunner.launcher.sweeping.store import Trial, distributions, first_choice


class DeepHyper:
    """Centralised Bayesian optimisation with random forests, as in the paper; ``jobs`` points at a time.

    Forests and a sampled acquisition function were DeepHyper's defaults then, from memory. Today's defaults
    make no clear difference on the paper's space; 10,000 samples hold nearly all of it (see README.md).

    Failures are reported as ``F_...``, DeepHyper's convention: they count as the worst objective so far.
    DeepHyper does not know which layouts are legal, and must not suffer from it. If it asks for an illegal or
    repeated point, the nearest free point that ``allowed`` marks is tried and reported, as for Optuna's TPE.
    By default it would also draw at random until ``2 keys + 1`` trials have succeeded, and give up after 100
    failures. If 3 % of a space fit, that is a random search to the end. So here its model starts with the
    first success, and failures are not limited.
    """

    def __init__(self, sweep: SweepDocument, points: Sequence[Point], allowed: np.ndarray, jobs: int) -> None:
        problem = HpProblem(seed=sweep.spec.seed)
        for key, axis in sweep.spec.space.items():
            problem.add_hyperparameter(axis.values(), key)
        self._search = CBO(
            problem,
            random_state=sweep.spec.seed,
            checkpoint_history_to_csv=False,
            surrogate_model="RF",
            acq_optimizer="sampling",
            acq_optimizer_kwargs={"max_total_failures": -1},
            n_initial_points=1,
        )
        self._points, self._allowed, self._jobs = points, allowed, jobs
        self._first = {key: first_choice(space) for key, space in distributions(sweep).items()}
        self._sign = 1.0 if OBJECTIVES[sweep.spec.objective] else -1.0
        self._told = 0
        self._asked: list[dict[str, Scalar]] = []

    def choose(self, trials: Sequence[Trial]) -> Point | None:
        """The next point of the batch; a new batch is asked for once all of the last have ended."""
        free = self._allowed.copy()
        free[[trial.point for trial in trials]] = False
        if not free.any():
            return None
        if not self._asked:
            self._tell([trial for trial in trials[self._told :] if not trial.open])
            self._asked = [_plain(asked) for asked in self._search.ask(self._jobs)]
        return nearest(self._asked.pop(0), self._points, free)

    def _tell(self, trials: Sequence[Trial]) -> None:
        if trials:
            self._search.tell([(self._first | trial.values, self._outcome(trial)) for trial in trials])
        self._told += len(trials)

    def _outcome(self, trial: Trial) -> float | str:
        return f"F_{trial.failure}" if trial.objective is None else self._sign * trial.objective


def _plain(asked: dict[str, object]) -> dict[str, Scalar]:
    """Without numpy's types."""
    return {key: getattr(value, "item", lambda value=value: value)() for key, value in asked.items()}
