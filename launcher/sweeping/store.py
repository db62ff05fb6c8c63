"""The trials of a sweep: an Optuna study in a journal file, which works on file systems without locks.

A trial is created in one record, with its point, before anything runs. So a killed controller leaves either
no trial or one that can be resumed. Trials are never deleted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import dump
from frontrunner.configs.load_sweep import SweepDocument
from frontrunner.configs.sweep import OBJECTIVES
from frontrunner.configs.yaml_tree import show_path
from frontrunner.launcher.sweeping.space import Point, Values

FILE = "journal.log"
OUT_OF_MEMORY = "out_of_memory"
EARLY_STOP = "early_stop"
_BEGINNING = b'{"op_code"'
_STATES = {TrialState.RUNNING: "running", TrialState.COMPLETE: "complete", TrialState.FAIL: "failed"}

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Trial:
    """``state`` is running, complete, failed or stopped; ``failure`` is the reason of the last two."""

    number: int
    point: int
    values: Values
    state: str
    objective: float | None
    failure: str | None
    attempt: int
    predicted: float | None
    node_hours: float
    avoid: str = ""
    """Nodes on which an attempt failed."""

    @property
    def open(self) -> bool:
        return self.state == "running"


class Store:
    """The trials in ``folder``; one controller at a time may write."""

    def __init__(self, folder: Path, sweep: SweepDocument, *, create: bool) -> None:
        self._file = folder / FILE
        self._space = distributions(sweep)
        better = OBJECTIVES[sweep.spec.objective]
        known = _check_journal(self._file, sweep.spec.name)
        if not create and not known:
            what = "contains no sweep yet"
            fix = "start it with `frontrunner sweep run`"
            raise SpecError([Violation("--folder", show_path(folder), what, fix)])
        storage = JournalStorage(JournalFileBackend(str(self._file)))
        self._study = (
            optuna.load_study(storage=storage, study_name=sweep.spec.name)
            if known
            else optuna.create_study(
                storage=storage,
                study_name=sweep.spec.name,
                direction="maximize" if better else "minimize",
            )
        )
        self._check_same(sweep)

    def _check_same(self, sweep: SweepDocument) -> None:
        """Raise SpecError if the journal's trials belong to another space, base run or objective."""
        mine = identity(sweep)
        theirs = self._study.user_attrs.get("identity")
        try:
            trials = self.trials()
        except KeyError:
            raise _foreign(self._file, "contains trials that no sweep wrote") from None
        if theirs is None and not trials:  # it is new, or its controller was killed right after creating it
            self._study.set_user_attr("identity", mine)
        elif theirs != mine:
            what = "contains trials of a sweep with another base run, space, steps or objective"
            raise _foreign(self._file, what)

    @property
    def started_s(self) -> float:
        """Seconds since the epoch of the first trial; 0 before."""
        first = next(iter(self._study.get_trials(deepcopy=False)), None)
        return first.datetime_start.timestamp() if first and first.datetime_start else 0.0

    def trials(self) -> list[Trial]:
        """All, by number."""
        return [_trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def begin(self, point: Point, predicted: float | None) -> Trial:
        """A new running trial of a point, in one record."""
        used = {key: self._space[key] for key in point.values}
        attributes = {"point": point.number, "attempt": 1, "predicted": predicted, "node_hours": 0.0}
        self._study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING, params=dict(point.values), distributions=used, user_attrs=attributes
            )
        )
        return self.trials()[-1]

    def again(self, trial: Trial, avoid: str = "") -> Trial:
        """Start another attempt of the same trial, without the nodes in ``avoid``."""
        known = ",".join(nodes for nodes in (trial.avoid, avoid) if nodes)
        self._note(trial, avoid=known, attempt=trial.attempt + 1)
        return self.trials()[trial.number]

    def finish(
        self, trial: Trial, objective: float | None, failure: str | None, node_hours: float, overload: float
    ) -> None:
        """Close a trial; ``overload`` (log of peak over memory, by the planner) becomes its constraint.

        ``node_hours`` covers all attempts. For a trial that ran out of memory, the constraint is positive
        regardless of the planner.
        """
        self._note(trial, failure=failure, node_hours=node_hours)
        mine = next(t for t in self._study.get_trials(deepcopy=False) if t.number == trial.number)
        short = failure == OUT_OF_MEMORY
        limit = max(overload, 1e-3) if short else min(overload, 0.0)
        optuna.trial.Trial(self._study, mine._trial_id).set_constraint("memory", limit)
        if failure is None:
            self._study.tell(trial.number, objective)
        else:
            self._note(trial, reached=objective)
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _note(self, trial: Trial, **attributes: Any) -> None:
        storage, number = self._study._storage, trial.number
        identifier = storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        for key, value in attributes.items():
            storage.set_trial_user_attr(identifier, key, value)


def distributions(sweep: SweepDocument) -> dict[str, BaseDistribution]:
    """Optuna's view of the space: every key a choice among its values."""
    return {key: CategoricalDistribution(axis.values()) for key, axis in sweep.spec.space.items()}


def first_choice(space: BaseDistribution) -> object:
    """A placeholder for a conditional key that is inactive in a trial."""
    assert isinstance(space, CategoricalDistribution)
    return space.choices[0]


def identity(sweep: SweepDocument) -> str:
    """A fingerprint; different fingerprints mean that trials are not comparable."""
    spec = sweep.spec.model_dump(mode="json", include={"space", "objective", "steps"})
    text = json.dumps(spec, sort_keys=True) + dump(sweep.base.spec)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def repair(folder: Path) -> None:
    """Remove leftovers of a killed controller: its lock, and a truncated record.

    Requires the sweep's own lock. Raises SpecError, before removing anything, if the file is not a journal.
    """
    file = folder / FILE
    data = file.read_bytes() if file.exists() else b""
    if not data.startswith(_BEGINNING[: len(data)]):
        raise _foreign(file, "is not a journal of trials")
    for left in folder.glob(f"{FILE}.lock*"):
        left.unlink(missing_ok=True)
    if data and not data.endswith(b"\n"):
        with file.open("r+b") as journal:
            journal.truncate(data.rfind(b"\n") + 1)


def _check_journal(file: Path, name: str) -> bool:
    """Whether the file has the study; SpecError if it is no Optuna journal, or has other studies."""
    if not file.exists() or not file.stat().st_size:
        return False
    try:
        with file.open(encoding="utf-8") as lines:
            if not isinstance(json.loads(next(lines))["op_code"], int):
                raise ValueError
        storage = JournalStorage(JournalFileBackend(str(file)))
        names = optuna.get_all_study_names(storage)
    except (ValueError, KeyError, TypeError, AssertionError, StopIteration):
        raise _foreign(file, "is not a journal of trials") from None
    if names and names != [name]:
        raise _foreign(file, f"contains trials of {', '.join(names)}, not of {name}")
    return bool(names)


def _foreign(file: Path, what: str) -> SpecError:
    return SpecError(
        # The whole folder: its trials would be mistaken for those of the next journal.
        [Violation("", None, what, "choose another --folder, or move the whole folder away", show_path(file))]
    )


def _trial(frozen: FrozenTrial) -> Trial:
    attributes: Mapping[str, Any] = frozen.user_attrs
    failure = attributes.get("failure")
    done = frozen.state.is_finished()
    state = "stopped" if done and failure == EARLY_STOP else _STATES[frozen.state]
    return Trial(
        number=frozen.number,
        point=attributes["point"],
        values=dict(frozen.params),
        state=state,
        objective=frozen.value if frozen.state == TrialState.COMPLETE else attributes.get("reached"),
        failure=failure if done else None,
        attempt=attributes["attempt"],
        predicted=attributes["predicted"],
        node_hours=attributes["node_hours"],
        avoid=attributes.get("avoid", ""),
    )


def best(trials: Sequence[Trial], objective: str) -> Trial | None:
    """The complete trial with the best objective; None before the first."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.objective is not None]
    sign = 1 if OBJECTIVES[objective] else -1
    return max(complete, key=lambda trial: sign * (trial.objective or 0.0), default=None)
