"""What the planner predicts for a measured run, and where prediction and measurement differ.

Our runs are planned from the specification in their header. Runs of other engines are planned like published
runs, from what their engine keeps and sends (``planner/engine_profile.py``).
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from frontrunner.analysis.roofline import roofline
from frontrunner.analysis.run_log import RunLog
from frontrunner.configs.errors import SpecError
from frontrunner.configs.schema import MachineSpec, ModelSpec, RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.advise import advise
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.plan import assumptions, estimate
from frontrunner.parallelism.planner.published import PublishedModel, PublishedRun
from frontrunner.parallelism.planner.published_workload import Unusable, prepare

Figures = dict[str, Any]

#: Plan at most this many distinct runs; more would delay the answer.
MOST = 300
_SOFTWARE = {"megatron-deepspeed": "Megatron-DeepSpeed", "megatron-lm": "Megatron-LM", "gpt-neox": "GPT-NeoX"}
for _same in ("primus", "megatron-bridge"):  # they run Megatron-LM, or its core
    _SOFTWARE[_same] = _SOFTWARE["megatron-lm"]


class Predictor:
    """Plans runs; runs that are equal to the planner share one plan."""

    def __init__(self) -> None:
        self._keys: dict[bytes, bytes] = {}
        self._known: dict[bytes, tuple[Figures | None, str | None]] = {}

    def __call__(self, run: RunLog, machine: MachineSpec | None) -> tuple[Figures | None, str | None]:
        """The prediction, or None and the reason."""
        name = run.spec_key or run.path.encode(errors="surrogateescape")
        if name not in self._keys:
            self._keys[name] = _what_matters(run.spec) if run.spec else name
        key = self._keys[name]
        if key not in self._known:
            if len(self._known) >= MOST:
                return None, f"only the first {MOST} different runs are planned"
            self._known[key] = _predict(run, machine)
        return self._known[key]


def _what_matters(spec: Figures) -> bytes:
    """A specification without the keys that do not change a plan."""
    training = spec.get("training")
    if isinstance(training, dict):
        training = {key: value for key, value in training.items() if key not in ("steps", "seed")}
    return to_json([[spec.get(key) for key in ("model", "machine", "nodes", "engine", "layout")], training])


def _predict(run: RunLog, machine: MachineSpec | None) -> tuple[Figures | None, str | None]:
    try:
        if run.unsupported:
            raise Unusable(run.unsupported[0].reason)
        spec = None
        if run.spec is not None:
            spec, workload, candidates = _own(run)
        else:
            workload, candidates = _published(run, machine)
    except Unusable as reason:
        return None, str(reason)
    estimated = estimate(workload, candidates)
    found = estimated.as_dict(0)
    keys = (
        "step_time_s",
        "step_time_parts_s",
        "tokens_per_s_per_device",
        "peak_memory_bytes_per_device",
        "memory",
        "fits",
    )
    figures: Figures = {key: found[key] for key in keys}
    figures["roofline"] = roofline(workload, candidates)
    figures["assumptions"] = assumptions(workload)
    figures["changes"] = [asdict(advice) for advice in advise(spec, estimated)] if spec else []
    return figures, None


def _own(run: RunLog) -> tuple[RunSpec, Workload, Candidates]:
    try:
        spec = RunSpec.model_validate(run.spec)
        if spec.engine != "native":
            raise Unusable(f"the planner does not know how {spec.engine} spends its time")
        return spec, Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec))
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(str(part) for part in wrong["loc"])
        raise Unusable(
            f"the header's specification does not match this version: {key}: {wrong['msg']}"
        ) from None
    except SpecError as error:
        raise Unusable(f"the header's layout does not match this version: {error.violations[0]}") from None


def _published(run: RunLog, machine: MachineSpec | None) -> tuple[Workload, Candidates]:
    """The run as a row of published runs, with the log's own model."""
    model, layout = run.model, run.layout
    if run.format not in _SOFTWARE:
        raise Unusable(f"the planner does not know how {run.format} spends its time")
    if machine is None or not machine.software:
        raise Unusable("its machine is unknown or has no measured rates")
    if model is None:
        raise Unusable("the log does not give the model")
    if run.precision not in ("bfloat16", "float16"):
        raise Unusable(
            f"no published run of that engine computes in {run.precision or 'an unknown precision'}"
        )
    if layout.get("virtual_stages", 1) > 1 and _SOFTWARE[run.format] != "Megatron-LM":
        raise Unusable("virtual stages of that engine were never validated")
    row = _row(run, model, machine)
    if row.software_year not in machine.software:
        raise Unusable(f"{machine.name} has no measured rates for software of {row.software_year}")
    workload, candidates = prepare(row, machine)
    return replace(workload, model=model), candidates


def _row(run: RunLog, model: ModelSpec, machine: MachineSpec) -> PublishedRun:
    layout = run.layout
    return PublishedRun(
        id=run.id,
        source_url="",
        machine=machine.name,
        model=PublishedModel(
            layers=model.num_layers,
            hidden=model.hidden_size,
            heads=model.num_heads,
            kv_heads=model.num_kv_heads,
            vocab=model.padded_vocab_size,
            ffn=model.ffn_hidden_size,
            gated=model.activation == "swiglu",
            head_dim=model.head_dim,
        ),
        seq_len=run.seq_len,
        tp=layout.get("tensor"),
        pp=layout.get("pipeline"),
        dp=layout.get("data"),
        sp=layout.get("sequence_parallel"),
        mbs=layout.get("micro_batch_size"),
        gbs=run.global_batch_size,
        zero=str(layout.get("sharding", "")).removeprefix("zero"),
        activation_checkpointing=layout.get("recompute"),
        flash_attention=run.facts.get("flash_attention"),
        precision="bf16" if run.precision == "bfloat16" else "fp16",
        gcds=run.devices,
        tflops_per_gcd=None,
        tflops_convention=None,
        tokens_per_s_per_gcd=None,
        step_time_s=None,
        memory_mib=None,
        software=f"{_SOFTWARE[run.format]} ROCm {run.facts.get('rocm', '')}",
        vpp=layout.get("virtual_stages"),
    )


def compare(measured: Figures, predicted: Figures) -> Figures:
    """Differences in percent, and the seconds of parts that both sides give.

    Errors are those of the prediction; ``against_plan`` is how much more the run took than planned.
    """
    planned = (predicted["step_time_s"], predicted["peak_memory_bytes_per_device"])
    seen = (measured["step_time_s"], measured["memory_bytes"])
    found: Figures = {
        "step_time_error_pct": _difference(planned[0], seen[0]),
        "memory_error_pct": _difference(planned[1], seen[1]),
        "step_time_against_plan_pct": _difference(seen[0], planned[0]),
        "memory_against_plan_pct": _difference(seen[1], planned[1]),
        "parts": [],
    }
    parts, own = predicted["step_time_parts_s"], measured["parts_s"]
    if not parts:
        return found
    groups = {
        "computing and bubble": ("compute", "recompute", "bubble", "stragglers"),
        "communication not hidden": ("tensor", "dispatch", "pipeline", "weights", "gradients", "update"),
        "optimizer": ("optimizer",),
    }
    known = dict.fromkeys(groups, None) | own
    operations = {
        each["operation"]: each["seconds_per_step"] for each in measured["communication"]["operations"]
    }
    found["parts"] = [
        {"part": name, "predicted_s": sum(parts.get(key, 0.0) for key in keys), "measured_s": known[name]}
        for name, keys in groups.items()
    ]
    if "all_reduce" in operations:
        found["parts"].append(
            {
                "part": "reduction of gradients, part of the above (measured: all_reduce of one rank)",
                "predicted_s": parts["gradients"],
                "measured_s": operations["all_reduce"],
            }
        )
    return found


def _difference(value: float | None, base: float | None) -> float | None:
    return (value / base - 1) * 100 if value and base else None
