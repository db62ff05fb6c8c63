"""What the headers of our own records say about a run. Keys of another version give None, not errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from frontrunner.analysis.run_log import LARGEST_COUNT, RunLog, current_segment
from frontrunner.configs.schema import ModelSpec


def run_log(
    path: str,
    run_id: str,
    headers: Sequence[dict[str, Any]],
    events: Sequence[dict[str, Any]],
    lost_lines: int,
) -> RunLog:
    """A run's facts, from its last header. ``events`` are the records that are not steps."""
    header = headers[-1] if headers else {}
    shared = _shared(_mapping(header.get("spec")))
    spec = shared.given
    training, cut = _mapping(spec.get("training")), _mapping(header.get("layout"))
    machine = _mapping(spec.get("machine"))
    nodes = _count(spec.get("nodes"))
    a_node = _count(cut.get("devices_per_node"))
    return RunLog(
        id=run_id,
        path=path,
        format="records",
        devices=nodes * a_node if nodes and a_node else None,
        nodes=nodes,
        machine=machine.get("name") if isinstance(machine.get("name"), str) else None,
        machine_reason="the run's own header" if machine else None,
        model=shared.model,
        layout=_layout(_mapping(spec.get("layout")), training, cut),
        global_batch_size=_count(training.get("global_batch_size")),
        seq_len=_count(training.get("seq_len")),
        precision=training.get("precision") if isinstance(training.get("precision"), str) else None,
        flop_convention="model",
        planned_steps=_count(training.get("steps")),
        current_segment=current_segment([_cut(each) for each in headers]),
        lost_lines=lost_lines,
        events=[str(event.get("message")) for event in events if event["kind"] == "warning"],
        facts={
            "validation": [
                (event["step"], event["loss"])
                for event in events
                if event["kind"] == "validation" and _is_step(event.get("step")) and number(event.get("loss"))
            ],
            "engine": spec.get("engine"),
            "starts": len(headers),
        },
        spec=spec or None,
        spec_key=shared.key if spec else None,
    )


def _layout(layout: dict[str, Any], training: dict[str, Any], cut: dict[str, Any]) -> dict[str, Any]:
    """The layout as written (``layout``) and as resolved on the devices (``cut``)."""
    sharding = _mapping(layout.get("sharding"))
    degrees = ("weights", "gradients", "optimizer")
    described: dict[str, Any] = {
        key: cut.get(key) for key in ("tensor", "pipeline", "data", "virtual_stages", *degrees)
    }
    described |= {key: layout.get(key) for key in ("micro_batch_size", "recompute", "sequence_parallel")}
    described["grad_accum_steps"] = _accumulation(training, layout, cut)
    described["sharding"] = sharding.get("preset") or "/".join(str(sharding.get(kind)) for kind in degrees)
    return {key: value for key, value in described.items() if isinstance(value, int | str)}


def _cut(header: dict[str, Any]) -> object:
    """What must be equal for steps to be comparable. Continuing a run may change it."""
    spec = _mapping(header.get("spec"))
    return [spec.get(key) for key in ("model", "machine", "nodes", "engine", "layout")], _mapping(
        spec.get("training")
    ).get("global_batch_size")


def _accumulation(training: dict[str, Any], layout: dict[str, Any], cut: dict[str, Any]) -> int | None:
    batch, micro = _count(training.get("global_batch_size")), _count(layout.get("micro_batch_size"))
    data = _count(cut.get("data"))
    return batch // (micro * data) if batch and micro and data else None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST_COUNT
        else None
    )


def _is_step(value: object) -> bool:
    """Whether it is a step; 0 is the validation before the first."""
    return value == 0 and value is not False or _count(value) is not None


@dataclass(frozen=True)
class _Spec:
    key: bytes
    given: dict[str, Any]
    model: ModelSpec | None


_specs: dict[bytes, _Spec] = {}


def _shared(given: dict[str, Any]) -> _Spec:
    """The specification, shared by all runs of a study: thousands of copies would fill the memory."""
    key = to_json(given)
    if key not in _specs:
        try:
            model = ModelSpec.model_validate(given.get("model"))
        except ValidationError:
            model = None
        _specs[key] = _Spec(key, given, model)
    return _specs[key]


def number(value: object) -> Any:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
