"""Rules between the values of a run, and the messages for broken ones. Layouts: ``layout_rules.py``.

Each names every key that it involves, and offers one fix that works whichever of them is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

from frontrunner.configs.errors import Violation
from frontrunner.configs.expert_rules import EXPERT_RULES
from frontrunner.configs.facts import Facts, UnknownError, divisors, multiples, use
from frontrunner.configs.layout_rules import LAYOUT_RULES
from frontrunner.configs.presets import suggest
from frontrunner.configs.secrets import holds_secret
from frontrunner.configs.validate import Outcome

_ABSENT = object()


def check(outcome: Outcome) -> list[Violation]:
    """Every rule that a run breaks, without locations; rules on unknown values are skipped."""
    facts = Facts(outcome)
    found: list[Violation] = []
    for rule in RULES:
        try:
            found += rule(facts)
        except UnknownError:
            continue
    return found


def _heads(f: Facts) -> Iterator[Violation]:
    heads, kv_heads = f("model.num_heads"), f("model.num_kv_heads")
    if heads % kv_heads:
        others = {"model.num_heads": f"must be a multiple of num_kv_heads {kv_heads}"}
        fix = use(divisors(heads), kv_heads)
        yield f.broken("model.num_kv_heads", f"must divide num_heads {heads}", fix, others)


def _head_dim(f: Facts) -> Iterator[Violation]:
    hidden, heads = f("model.hidden_size"), f("model.num_heads")
    if hidden % heads and f("model.head_dim") == hidden // heads:
        others = {
            "model.hidden_size": f"must be a multiple of num_heads {heads}",
            "model.head_dim": f"is hidden_size {hidden} / num_heads {heads}, which is not whole",
        }
        fix = use(divisors(hidden), heads)
        yield f.broken("model.num_heads", f"must divide hidden_size {hidden}", fix, others)


def _qkv_bias(f: Facts) -> Iterator[Violation]:
    if f("model.linear_bias") and not f("model.qkv_bias"):
        constraint = "must be true when linear_bias is true"
        fix = "use true, or set model.linear_bias to false"
        others = {"model.linear_bias": "needs qkv_bias, which is false"}
        yield f.broken("model.qkv_bias", constraint, fix, others)


def _norm_position(f: Facts) -> Iterator[Violation]:
    if f("model.norm_position") == "after" and f("model.parallel_residual"):
        constraint = "must be before when parallel_residual is true"
        others = {"model.parallel_residual": "needs norm_position before, but it is after"}
        yield f.broken(
            "model.norm_position",
            constraint,
            "use before, or set model.parallel_residual to false",
            others,
        )


def _qk_norm(f: Facts) -> Iterator[Violation]:
    kind = f("model.qk_norm")
    if kind != "none" and f("model.normalization") != "rmsnorm":
        constraint = "needs normalization rmsnorm, but it is layernorm"
        others = {"model.normalization": f"must be rmsnorm for qk_norm {kind}"}
        yield f.broken("model.qk_norm", constraint, "use none, or set model.normalization to rmsnorm", others)


def _rotary(f: Facts) -> Iterator[Violation]:
    size, fraction = f("model.head_dim"), f("model.rotary_fraction")
    rotated = int(size * fraction)
    if f("model.position_embedding") == "rotary" and (rotated % 2 or not rotated):
        constraint = f"rotates {rotated} of head_dim {size}, which must be even and not 0"
        said = f"rotary_fraction {fraction} {constraint}"
        sides = ("head_dim", "num_heads", "hidden_size", "position_embedding")
        others = {f"model.{side}": said for side in sides}
        fix = f"use {_fraction(size, rotated)}" if size > 1 else "set model.head_dim to 2"
        yield f.broken("model.rotary_fraction", constraint, fix, others)


def _fraction(size: int, rotated: int) -> float:
    """A short fraction of a head of that size that rotates an even number, near ``rotated``."""
    even = min(max(2, rotated - rotated % 2), size - size % 2)
    exact = even / size
    for digits in range(1, 16):
        short = ceil(exact * 10.0**digits) / 10.0**digits
        if short <= 1 and int(size * short) == even:
            return short
    return exact


def _vocabulary(f: Facts) -> Iterator[Violation]:
    size, padded = f("model.vocab_size"), f("model.padded_vocab_size")
    if padded < size:
        fix = f"use {-(-size // 128) * 128}"
        others = {"model.vocab_size": f"must be at most padded_vocab_size {padded}"}
        yield f.broken("model.padded_vocab_size", f"must be at least vocab_size {size}", fix, others)


def _sources(f: Facts) -> Iterator[Violation]:
    for section in ("model", "machine"):
        fields = f(section).model_dump()
        for key in fields["sources"]:
            part: Any = fields
            for word in key.split("."):
                part = part.get(word, _ABSENT) if isinstance(part, dict) else _ABSENT
            if part is _ABSENT:
                fix = suggest(key, fields)
                yield Violation(f"{section}.sources.{key}", None, f"{section} has no key {key}", fix)


def _gradient_dtype(f: Facts) -> Iterator[Violation]:
    precision = f("training.precision")
    if f("training.gradient_dtype") == "bfloat16" and precision != "bfloat16":
        constraint = f"needs precision bfloat16, but it is {precision}"
        others = {"training.precision": "must be bfloat16 for gradient_dtype bfloat16"}
        yield f.broken("training.gradient_dtype", constraint, "use float32", others)


def _compile(f: Facts) -> Iterator[Violation]:
    """Compiled layers draw other masks than the same layers when they are recomputed or cut otherwise."""
    if not f("training.compile"):
        return
    for key in ("hidden_dropout", "attention_dropout"):
        if rate := f(f"model.{key}"):
            others = {f"model.{key}": f"must be 0 to compile layers, but it is {rate}"}
            yield f.broken("training.compile", f"needs model.{key} 0, but it is {rate}", "use false", others)


def _validation(f: Facts) -> Iterator[Violation]:
    samples, every = f("training.validation_samples"), f("training.validate_every_steps")
    if every and not samples:
        constraint = "needs training.validation_samples, but it is 0"
        fix = "use 0, or set training.validation_samples to 128"
        others = {"training.validation_samples": f"must be at least 1 for validate_every_steps {every}"}
        yield f.broken("training.validate_every_steps", constraint, fix, others)
    if samples and f("data") != "synthetic" and not f("data.validation_fraction"):
        constraint = f"must be greater than 0 for {samples} validation_samples"
        fix = "use 0.01, or set training.validation_samples to 0"
        others = {"training.validation_samples": "needs a data.validation_fraction greater than 0"}
        yield f.broken("data.validation_fraction", constraint, fix, others)


def _schedule(f: Facts) -> Iterator[Violation]:
    warmup, steps = f("optimizer.warmup_steps"), f("training.steps")
    if warmup > steps:
        fix = f"use at most {steps}, or set training.steps to at least {warmup}"
        others = {"training.steps": f"must be at least warmup_steps {warmup}"}
        yield f.broken("optimizer.warmup_steps", f"must be at most training.steps {steps}", fix, others)
    decay = f("optimizer.decay_steps")
    if decay is not None and decay < warmup:
        fix = f"use at least {warmup}, or set optimizer.warmup_steps to at most {decay}"
        others = {"optimizer.warmup_steps": f"must be at most decay_steps {decay}"}
        yield f.broken("optimizer.decay_steps", f"must be at least warmup_steps {warmup}", fix, others)


def _learning_rate(f: Facts) -> Iterator[Violation]:
    highest, lowest = f("optimizer.learning_rate"), f("optimizer.min_learning_rate")
    if lowest > highest:
        fix = f"use at most {highest}"
        others = {"optimizer.learning_rate": f"must be at least min_learning_rate {lowest}"}
        yield f.broken("optimizer.min_learning_rate", f"must be at most learning_rate {highest}", fix, others)


def _checkpoints(f: Facts) -> Iterator[Violation]:
    if f("checkpoint.every_minutes") == "auto" and f("machine.reliability") is None:
        constraint = f"needs machine.reliability, which {f('machine.name')}'s machine file lacks"
        others = {"machine.reliability": "is needed for checkpoint.every_minutes auto"}
        yield f.broken("checkpoint.every_minutes", constraint, "use 30", others)
    every, keep_every = f("checkpoint.every_steps"), f("checkpoint.keep_every")
    if keep_every and not f("checkpoint").periodic:
        fix = f"use null, or set checkpoint.every_steps to {keep_every}"
        said = f"keep_every {keep_every} has no effect without an interval"
        others = {"checkpoint.every_steps": said, "checkpoint.every_minutes": said}
        yield f.broken("checkpoint.keep_every", "has no effect without an interval", fix, others)
    if every and keep_every and keep_every % every and f("checkpoint.every_minutes") is None:
        fix = use(multiples(keep_every, every))
        others = {"checkpoint.every_steps": f"must divide keep_every {keep_every}"}
        yield f.broken("checkpoint.keep_every", f"must be a multiple of every_steps {every}", fix, others)


def _secrets(f: Facts) -> Iterator[Violation]:
    for name, value in f("slurm.environment").items():
        if holds_secret(name, value or ""):
            what = "looks like a secret, and would be kept in job scripts and records"
            fix = "remove it, and export it before you submit: jobs inherit it"
            yield Violation(f"slurm.environment.{name}", "***", what, fix)


RULES: tuple[Callable[[Facts], Iterator[Violation]], ...] = (
    _heads,
    _head_dim,
    _qkv_bias,
    _norm_position,
    _qk_norm,
    _rotary,
    _vocabulary,
    _sources,
    *LAYOUT_RULES,
    *EXPERT_RULES,
    _gradient_dtype,
    _compile,
    _validation,
    _schedule,
    _learning_rate,
    _checkpoints,
    _secrets,
)
