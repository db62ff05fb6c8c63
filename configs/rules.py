"""Rules between the values of a run, and the messages for broken ones. Layouts: see ``legal.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import reduce
from typing import Any

from frontrunner.configs import legal
from frontrunner.configs.errors import Violation
from frontrunner.configs.presets import suggest
from frontrunner.configs.secrets import holds_secret
from frontrunner.configs.validate import Outcome

LARGEST_CHOICE = 4096
#: Run file keys of the fields of a :class:`legal.Cut`.
_PLACES = {
    **{
        key: f"model.{key}"
        for key in ("num_layers", "num_heads", "num_kv_heads", "ffn_hidden_size", "padded_vocab_size")
    },
    **{
        key: f"layout.{key}"
        for key in ("tensor", "sequence_parallel", "pipeline", "virtual_stages", "micro_batch_size")
    },
    **{key: f"training.{key}" for key in ("seq_len", "global_batch_size")},
    "nodes": "nodes",
}
_ABSENT = object()


class _UnknownError(Exception):
    """A rule needs a value that could not be read."""


class _Facts:
    """The values of a run by dotted key."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def __call__(self, path: str) -> Any:
        if not self.outcome.knows(path):
            raise _UnknownError(path)
        return reduce(getattr, path.split("."), self.outcome.spec)

    def broken(self, path: str, constraint: str, fix: str) -> Violation:
        return Violation(path, self(path), constraint, fix)

    @property
    def devices_per_node(self) -> int:
        return int(self("machine.packages_per_node") * self("machine.devices_per_package"))

    def cut(self, *keys: str) -> legal.Cut:
        """The layout with only these fields: a rule must read no others. Raises _UnknownError."""
        known = {key: int(self(_PLACES[key])) for key in keys if key != "devices_per_node"}
        if "devices_per_node" in keys:
            known["devices_per_node"] = self.devices_per_node
        return legal.Cut(**{field.name: known.get(field.name) for field in fields(legal.Cut)})


def check(outcome: Outcome) -> list[Violation]:
    """Every rule that a run breaks, without locations; rules on unknown values are skipped."""
    facts = _Facts(outcome)
    found: list[Violation] = []
    for rule in RULES:
        try:
            found += rule(facts)
        except _UnknownError:
            continue
    return found


def _heads(f: _Facts) -> Iterator[Violation]:
    heads, kv_heads = f("model.num_heads"), f("model.num_kv_heads")
    if heads % kv_heads:
        fix = _use(_divisors(heads), kv_heads)
        yield f.broken("model.num_kv_heads", f"must divide num_heads {heads}", fix)


def _head_dim(f: _Facts) -> Iterator[Violation]:
    hidden, heads = f("model.hidden_size"), f("model.num_heads")
    if hidden % heads and f("model.head_dim") == hidden // heads:
        fix = "change one of the two, or set head_dim"
        yield f.broken("model.num_heads", f"must divide hidden_size {hidden}", fix)


def _qkv_bias(f: _Facts) -> Iterator[Violation]:
    if f("model.linear_bias") and not f("model.qkv_bias"):
        constraint = "must be true when linear_bias is true"
        yield f.broken("model.qkv_bias", constraint, "remove it, or set linear_bias to false")


def _rotary(f: _Facts) -> Iterator[Violation]:
    rotated = int(f("model.head_dim") * f("model.rotary_fraction"))
    if f("model.position_embedding") == "rotary" and (rotated % 2 or not rotated):
        constraint = f"rotates {rotated} of head_dim {f('model.head_dim')}, which must be even and not 0"
        yield f.broken("model.rotary_fraction", constraint, "choose a fraction that rotates an even number")


def _vocabulary(f: _Facts) -> Iterator[Violation]:
    size = f("model.vocab_size")
    if f("model.padded_vocab_size") < size:
        fix = f"use {-(-size // 128) * 128}, or remove it"
        yield f.broken("model.padded_vocab_size", f"must be at least vocab_size {size}", fix)


def _sources(f: _Facts) -> Iterator[Violation]:
    for section in ("model", "machine"):
        fields = f(section).model_dump()
        for key in fields["sources"]:
            part: Any = fields
            for word in key.split("."):
                part = part.get(word, _ABSENT) if isinstance(part, dict) else _ABSENT
            if part is _ABSENT:
                fix = suggest(key, fields)
                yield Violation(f"{section}.sources.{key}", None, f"{section} has no key {key}", fix)


def _tensor(f: _Facts) -> Iterator[Violation]:
    """Checks one size at a time: some may be unknown, and the message names the wrong ones."""
    known = {
        key: f.devices_per_node if key == "devices_per_node" else f(_PLACES[key])
        for key in legal.TENSOR_SIZES
        if f.outcome.knows(_PLACES.get(key, "machine"))
    }
    tensor = f("layout.tensor")
    if known.get("num_kv_heads") == known.get("num_heads"):
        known.pop("num_kv_heads", None)
    wrong = [key for key, size in known.items() if not legal.divides(tensor, size)]
    if wrong:
        legal_ones = [t for t in _divisors(min(known.values())) if legal.divides_all(t, known.values())]
        *others, last = (_size_text(f, key, known[key]) for key in wrong)
        named = f"{', '.join(others)} and {last}" if others else last
        yield f.broken("layout.tensor", f"must divide {named}", _use(legal_ones, tensor))


def _size_text(f: _Facts, key: str, size: int) -> str:
    return f"{f('machine.name')}'s {size} devices per node" if key == "devices_per_node" else f"{key} {size}"


def _sequence_parallel(f: _Facts) -> Iterator[Violation]:
    tensor = f("layout.tensor")
    if not legal.sequence_parallel_has_ranks(f.cut("sequence_parallel", "tensor")):
        fix = "raise layout.tensor or remove sequence_parallel"
        yield f.broken("layout.sequence_parallel", "needs tensor greater than 1, but it is 1", fix)
    elif not legal.tensor_divides_sequence(f.cut("sequence_parallel", "tensor", "seq_len")):
        fix = _use(_multiples(f("training.seq_len"), tensor), None)
        yield f.broken(
            "training.seq_len", f"must be a multiple of tensor {tensor} under sequence_parallel", fix
        )


def _stages(f: _Facts) -> Iterator[Violation]:
    layers, stages, virtual = f("model.num_layers"), f("layout.pipeline"), f("layout.virtual_stages")
    cut = f.cut("num_layers", "pipeline", "virtual_stages")
    if legal.stages_divide_layers(cut):
        if not legal.interleaving_has_stages(cut):
            fix = "raise layout.pipeline or remove virtual_stages"
            yield f.broken("layout.virtual_stages", "needs pipeline greater than 1, but it is 1", fix)
    elif layers % stages:
        yield f.broken("layout.pipeline", f"must divide num_layers {layers}", _use(_divisors(layers), stages))
    else:
        product = f"pipeline {stages} x virtual_stages {virtual} = {stages * virtual}"
        constraint = f"{product} must divide num_layers {layers}"
        yield f.broken("layout.virtual_stages", constraint, _use(_divisors(layers // stages), virtual))


def _nodes(f: _Facts) -> Iterator[Violation]:
    limit = f("machine.num_nodes")
    if f("nodes") > limit:
        yield f.broken("nodes", f"{f('machine.name')} has {limit}", f"use at most {limit}")


def _world(f: _Facts) -> Iterator[Violation]:
    tensor, stages, nodes = f("layout.tensor"), f("layout.pipeline"), f("nodes")
    world = nodes * f.devices_per_node
    fits = legal.model_ranks_divide_world(f.cut("nodes", "devices_per_node", "tensor", "pipeline"))
    if not fits and f.devices_per_node % tensor == 0:  # else the violation is reported for tensor
        product = f"tensor {tensor} x pipeline {stages} = {tensor * stages}"
        constraint = f"{product} must divide the {world} devices of {nodes} nodes x {f.devices_per_node}"
        yield f.broken("layout.pipeline", constraint, "change a degree or nodes")


def _batch(f: _Facts) -> Iterator[Violation]:
    batch, micro, stages = f("training.global_batch_size"), f("layout.micro_batch_size"), f("layout.pipeline")
    keys = ("nodes", "devices_per_node", "tensor", "pipeline", "micro_batch_size", "global_batch_size")
    cut = f.cut(*keys, "virtual_stages")
    if not legal.model_ranks_divide_world(cut):
        return  # has its own rule
    ranks = legal.data_parallel(cut)
    if not legal.ranks_divide_batch(cut):
        product = f"micro_batch_size {micro} x {ranks} data-parallel ranks = {micro * ranks}"
        fix = _use(_multiples(batch, micro * ranks), None)
        yield f.broken("training.global_batch_size", f"must be a multiple of {product}", fix)
    elif not legal.stages_divide_micro_batches(cut):
        count = legal.micro_batches(cut)
        constraint = f"interleaved stages: pipeline {stages} must divide the {count} micro-batches per step"
        fix = _use(_multiples(batch, micro * ranks * stages), None)
        yield f.broken("training.global_batch_size", constraint, fix)


def _positions(f: _Facts) -> Iterator[Violation]:
    limit = f("model.max_position_embeddings")
    if f("model.position_embedding") == "learned" and f("training.seq_len") > limit:
        constraint = f"exceeds the model's learned positions, max_position_embeddings {limit}"
        yield f.broken("training.seq_len", constraint, f"use at most {limit}")


def _gradient_dtype(f: _Facts) -> Iterator[Violation]:
    precision = f("training.precision")
    if f("training.gradient_dtype") == "bfloat16" and precision != "bfloat16":
        constraint = f"needs precision bfloat16, but it is {precision}"
        yield f.broken("training.gradient_dtype", constraint, "use float32")


def _validation(f: _Facts) -> Iterator[Violation]:
    samples, every = f("training.validation_samples"), f("training.validate_every_steps")
    if every and not samples:
        constraint = "needs training.validation_samples, but it is 0"
        yield f.broken("training.validate_every_steps", constraint, "set validation_samples")
    if samples and f("data") != "synthetic" and not f("data.validation_fraction"):
        constraint = f"must be greater than 0 for {samples} validation_samples"
        yield f.broken("data.validation_fraction", constraint, "use 0.01, or set validation_samples to 0")


def _schedule(f: _Facts) -> Iterator[Violation]:
    warmup, steps = f("optimizer.warmup_steps"), f("training.steps")
    if warmup > steps:
        fix = f"use at most {steps}"
        yield f.broken("optimizer.warmup_steps", f"must be at most training.steps {steps}", fix)
    decay = f("optimizer.decay_steps")
    if decay is not None and decay < warmup:
        fix = "lower warmup_steps or raise decay_steps"
        yield f.broken("optimizer.decay_steps", f"must be at least warmup_steps {warmup}", fix)


def _learning_rate(f: _Facts) -> Iterator[Violation]:
    highest = f("optimizer.learning_rate")
    if f("optimizer.min_learning_rate") > highest:
        fix = f"use at most {highest}"
        yield f.broken("optimizer.min_learning_rate", f"must be at most learning_rate {highest}", fix)


def _checkpoints(f: _Facts) -> Iterator[Violation]:
    if f("checkpoint.every_minutes") == "auto" and f("machine.reliability") is None:
        constraint = f"needs machine.reliability, which {f('machine.name')}'s machine file lacks"
        yield f.broken("checkpoint.every_minutes", constraint, "set minutes, or add machine.reliability")
    if f("checkpoint.keep_every") and not f("checkpoint").periodic:
        fix = "set every_steps or every_minutes"
        yield f.broken("checkpoint.keep_every", "has no effect without an interval", fix)
    every, keep_every = f("checkpoint.every_steps"), f("checkpoint.keep_every")
    if every and keep_every and keep_every % every and f("checkpoint.every_minutes") is None:
        fix = _use(_multiples(keep_every, every), None)
        yield f.broken("checkpoint.keep_every", f"must be a multiple of every_steps {every}", fix)


def _secrets(f: _Facts) -> Iterator[Violation]:
    for name, value in f("slurm.environment").items():
        if holds_secret(name, value or ""):
            what = "looks like a secret, and would be kept in job scripts and records"
            fix = "remove it, and export it before you submit: jobs inherit it"
            yield Violation(f"slurm.environment.{name}", "***", what, fix)


RULES: tuple[Callable[[_Facts], Iterator[Violation]], ...] = (
    _heads,
    _head_dim,
    _qkv_bias,
    _rotary,
    _vocabulary,
    _sources,
    _nodes,
    _tensor,
    _sequence_parallel,
    _stages,
    _world,
    _batch,
    _positions,
    _gradient_dtype,
    _validation,
    _schedule,
    _learning_rate,
    _checkpoints,
    _secrets,
)


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, min(number, LARGEST_CHOICE) + 1) if number % d == 0]


def _multiples(number: int, of: int) -> list[int]:
    """The nearest multiples below and above a number."""
    below = number // of * of
    return [m for m in (below, below + of) if m]


def _use(choices: list[int], near: int | None) -> str:
    """``use 1, 2, 4 or 8``: at most six choices, the nearest ones."""
    shown = choices if near is None else sorted(sorted(choices, key=lambda c: abs(c - near))[:6])
    *others, last = map(str, shown)
    return f"use {', '.join(others)} or {last}" if others else f"use {last}"
