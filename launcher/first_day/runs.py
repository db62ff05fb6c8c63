"""Which run each part of a first day measures: the user's on one node, or the nearest that fits there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import examine_keys
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.units import bytes_text
from frontrunner.launcher.errors import RunFailed
from frontrunner.launcher.first_day.parts import ENGINES, NATIVE, PARTS, PLAIN, Part
from frontrunner.launcher.proposal import propose
from frontrunner.launcher.verify import judged, verified
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.plan import estimate

#: Models for devices, and for CPU ranks: the first that fits.
_MODELS = {"cuda": ("gpt-1.4b", "gpt-tiny"), "cpu": ("gpt-tiny",)}
#: The first step is warm-up.
_STEPS = 4
_MOST_CPU_RANKS = 4
_INTERVALS = ("every_steps", "every_minutes")
_LOOK_S = 120.0
_LOOK = """\
import sys
sys.path[:] = sys.argv[1:]
import json
from frontrunner.parallelism.runtime.first_day.devices import seen
print(json.dumps(seen()))
"""
Keys = dict[str, Any]


@dataclass(frozen=True)
class Day:
    """The parts, the run that each measures (none where it is not started), and remarks."""

    parts: tuple[Part, ...]
    runs: dict[str, RunSpec]
    notes: tuple[str, ...]

    @property
    def spec(self) -> RunSpec:
        return self.runs[NATIVE]


def plan(run: str | None, overrides: Sequence[str], as_job: bool) -> Day:
    """The first day of a run's machine, with the run's model; SpecError if the request is wrong."""
    if run is None:
        given, kind = _without_run(overrides, as_job)
    else:
        given = verified(run, overrides)[0].spec
        kind = _kind(given, as_job)
    spec, notes = _chosen(given, kind)
    runs, parts = {NATIVE: spec}, []
    runs["kernels"] = runs["collectives"] = spec
    runs["rates"] = _rates_run(given, kind) or spec
    runs["streams"] = _small_run(spec)
    for engine in ENGINES[1:]:
        found, why = _peer(spec, engine)
        parts.append(Part(engine, *PARTS[engine], why_not=why))
        if found is not None:
            runs[engine] = found
    peers = {part.name: part for part in parts}
    return Day(tuple(peers.get(name, Part(name, *PARTS[name])) for name in PARTS), runs, notes)


def _without_run(overrides: Sequence[str], as_job: bool) -> tuple[RunSpec, str]:
    """A run of the first model that fits, on the machine of the overrides or on what is seen here."""
    named = any(text.partition("=")[0].strip() == "machine" for text in overrides)
    if as_job and not named:
        fix = "name one, or give -o machine=NAME"
        raise SpecError([Violation("RUN", None, "is required with --nodes", fix)])
    keys: Keys = {"data": "synthetic", "nodes": 1}
    if not named:
        keys["machine"] = _machine_here()
    probe = examine_keys({**keys, "model": "gpt-tiny"}, overrides, name="first-day")
    if probe.document is None or probe.violations:
        raise SpecError(probe.violations)
    kind = _kind(probe.document.spec, as_job)
    if kind == "cpu":
        keys["training"] = {"precision": "float32"}
    for model in _MODELS[kind]:
        document, _ = judged(examine_keys({**keys, "model": model}, overrides, name="first-day"))
        if _peak(document.spec) <= document.spec.machine.device.memory_bytes:
            break
    return document.spec, kind


def _own_steps(given: RunSpec, own: dict[str, Any], memory: float) -> tuple[RunSpec, tuple[str, ...]] | None:
    """Steps of the run's own model on one node, in its layout or in another; None if it does not fit."""
    notes = []
    spec = _legal({**own, "layout": _layout(given)})
    if spec is not None and _peak(spec) <= memory:
        return spec, ()
    if spec is None:
        notes.append(f"layout: {given.name}'s needs more than one node, so another one is measured")
    else:
        notes.append(
            f"layout: {given.name}'s needs {bytes_text(_peak(spec))} a device on one node, which has "
            f"{bytes_text(memory)}, so another one is measured"
        )
    try:
        training = own["training"] | {"global_batch_size": given.machine.devices_per_node}
        found = propose({**own, "training": training}).document.spec
        if _peak(found) <= memory:
            return found, tuple(notes)
    except SpecError:
        pass
    return None


def _machine_here() -> Keys:
    """A machine of one node with what torch sees on this one; its links are assumed."""
    seen = _seen()
    keys: Keys = {"extends": "workstation", "name": "this-machine", "devices_per_package": 1}
    if not seen["count"]:
        return keys | {"packages_per_node": max(2, min(_MOST_CPU_RANKS, len(os.sched_getaffinity(0))))}
    device = {"name": seen["name"], "kind": "cuda", "memory_bytes": seen["memory_bytes"]}
    return keys | {"packages_per_node": seen["count"], "device": device}


@cache
def _seen() -> dict[str, Any]:
    """What torch sees here, by a process of its own. Raises RunFailed if it does not load."""
    command = [sys.executable, "-c", _LOOK, *sys.path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LOOK_S)
    except subprocess.TimeoutExpired:
        raise RunFailed(f"torch does not load within {_LOOK_S:g} s") from None
    if done.returncode:
        raise RunFailed(f"torch does not load:\n{done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _kind(spec: RunSpec, as_job: bool) -> str:
    """``cuda`` or ``cpu``; of other nodes only the machine file tells, and ``auto`` is taken for ``cpu``."""
    kind = spec.machine.device.kind
    if kind != "auto":
        return kind
    return "cuda" if not as_job and _seen()["count"] else "cpu"


def _chosen(given: RunSpec, kind: str) -> tuple[RunSpec, tuple[str, ...]]:
    """The run whose step is measured, and why it is not the given one."""
    memory = given.machine.device.memory_bytes
    own = _keys(given)
    reason = "has experts, which only our own engine trains"
    if given.model.experts is None:
        own_steps = _own_steps(given, own, memory)
        if own_steps is not None:
            return own_steps
        reason = "does not fit on one node"
    for model in _MODELS[kind]:
        training = _training(given, None)
        if training["precision"] == "float16":  # which the other engines do not have
            training["precision"] = "bfloat16"
        spec = _legal({**own, "model": model, "training": training})
        if spec is not None and _peak(spec) <= memory:
            return spec, (f"model: {given.model.name} {reason}, so the steps are {model}'s",)
    what = f"has too little memory for a step of {_MODELS[kind][-1]}"
    raise SpecError([Violation("machine.device.memory_bytes", memory, what, "correct the machine file")])


def _keys(spec: RunSpec) -> Keys:
    """The keys of a run of this model and machine on one node, without a layout."""
    whole = spec.model_dump(mode="json")
    kept = {key: whole[key] for key in ("name", "model", "machine", "slurm")}
    kept |= {"nodes": 1, "data": "synthetic", "checkpoint": dict.fromkeys(_INTERVALS) | {"at_end": False}}
    return kept | {"training": _training(spec, spec.training.seq_len)}


def _training(spec: RunSpec, seq_len: int | None) -> Keys:
    keys: Keys = {"steps": _STEPS, "precision": spec.training.precision, "seed": spec.training.seed}
    keys["gradient_dtype"] = spec.training.gradient_dtype
    return keys | ({"seq_len": seq_len} if seq_len else {})


def _layout(spec: RunSpec) -> Keys:
    return spec.layout.model_dump(mode="json")


def _legal(keys: Keys) -> RunSpec | None:
    """The run of these keys; a batch that each device has a share of, if none is given."""
    devices = 1
    for key in ("packages_per_node", "devices_per_package"):
        devices *= keys["machine"][key]
    training = {"global_batch_size": devices * keys.get("layout", {}).get("micro_batch_size", 1)}
    asked = {**keys, "training": training | keys["training"]}
    try:
        return judged(examine_keys(asked, name=keys["name"]))[0].spec
    except SpecError:
        return None


def _peak(spec: RunSpec) -> float:
    """Bytes of a device, by the planner."""
    return float(estimate(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec))).memory.peak[0])


def _rates_run(given: RunSpec, kind: str) -> RunSpec | None:
    """The given model, however large, on devices: a layer's products need little memory."""
    if kind == "cpu":
        return None
    layout = {key: getattr(given.layout, key) for key in ("tensor", "micro_batch_size")}
    return _legal({**_keys(given), "layout": layout})


def _small_run(spec: RunSpec) -> RunSpec:
    """What the sanitizer watches: it takes far longer than the step itself."""
    keys = {**_keys(spec), "model": "gpt-tiny", "training": _training(spec, None)}
    own = {**keys, "layout": {"sharding": _layout(spec)["sharding"]}}
    found = _legal(own) or _legal(keys)
    return found or spec


def _peer(spec: RunSpec, engine: str) -> tuple[RunSpec | None, str | None]:
    """The same model and batch with another engine, or why not."""
    if engine == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        return None, "deepspeed is not installed"
    last: SpecError | None = None
    for changes in _shardings(spec, engine):
        layout: Keys = {"micro_batch_size": spec.layout.micro_batch_size}
        layout["sharding"] = {"preset": changes["preset"]}
        keys = {**_keys(spec), "layout": layout}
        if engine != PLAIN:
            keys["engine"] = engine
            layout["recompute"] = spec.layout.recompute
        keys["training"] = keys["training"] | changes["training"]
        keys["training"]["global_batch_size"] = spec.training.global_batch_size
        try:
            found = judged(examine_keys(keys, name=spec.name))[0].spec
        except SpecError as error:
            last = error
            continue
        peak, memory = _peak(found), spec.machine.device.memory_bytes
        if peak > memory:
            return None, f"needs {bytes_text(peak)} a device, which has {bytes_text(memory)}"
        return found, None
    assert last is not None
    return None, last.violations[0].constraint


def _shardings(spec: RunSpec, engine: str) -> Iterator[Keys]:
    """The best sharding of an engine first, then what it can do on a single device."""
    if engine == PLAIN:
        yield {"preset": "ddp", "training": {}}
        return
    if spec.world_size > 1:
        yield {"preset": "zero3", "training": {}}
    narrow = {"gradient_dtype": "bfloat16"} if spec.training.precision == "bfloat16" else {}
    yield {"preset": "zero2", "training": {} if engine == "fsdp" else narrow}
