"""What must hold between values: each rule fires alone, where it should, with the numbers on both sides."""

from __future__ import annotations

import pytest

from frontrunner.configs import rules
from frontrunner.configs.load import examine, load_run
from support.broken_mixtures import BROKEN_MIXTURES

TINY = "quickstart"  # 4 layers, 4 heads, 256 learned positions; 8 devices of 2 nodes
BIG = "gpt-22b-frontier"  # 48 layers; pipeline 8, batch 640, 16 devices of 2 nodes
LLAMA = "llama-2-7b-lumi"  # 32 layers; tensor 2 with sequence parallelism, sequences of 4096

BROKEN = [
    (
        TINY,
        ["model.qkv_bias=false"],
        "model.qkv_bias",
        "must be true when linear_bias is true",
        "use true, or set",
    ),
    (
        TINY,
        ["checkpoint.every_minutes=auto"],
        "checkpoint.every_minutes",
        "needs machine.reliability",
        "use 30",
    ),
    (
        TINY,
        ["checkpoint.every_steps=null", "checkpoint.keep_every=4"],
        "checkpoint.keep_every",
        "has no effect",
        "use null, or set checkpoint.every_steps to 4",
    ),
    (
        TINY,
        ["checkpoint.every_steps=3", "checkpoint.keep_every=4"],
        "checkpoint.keep_every",
        "must be a multiple of every_steps 3",
        "use 3 or 6",
    ),
    (TINY, ["model.num_kv_heads=3"], "model.num_kv_heads", "must divide num_heads 4", "use 1, 2 or 4"),
    (TINY, ["model.num_heads=6"], "model.num_heads", "must divide hidden_size 128", "use 1, 2, 4, 8, 16"),
    (
        TINY,
        ["model.position_embedding=rotary", "model.rotary_fraction=0.3"],
        "model.rotary_fraction",
        "rotates 9 of head_dim 32",
        "use 0.25",
    ),
    (
        TINY,
        ["model.position_embedding=rotary", "model.rotary_fraction=0.01"],
        "model.rotary_fraction",
        "rotates 0 of head_dim 32",
        "use 0.07",
    ),
    (
        TINY,
        ["model.padded_vocab_size=2047"],
        "model.padded_vocab_size",
        "must be at least vocab_size 2048",
        "use 2048",
    ),
    (
        TINY,
        ["machine.sources.nodez={source: a, date: '2020'}"],
        "machine.sources.nodez",
        "machine has no key nodez",
        "num_nodes",
    ),
    (
        TINY,
        ["machine.sources={num_nodes.x: {source: a, date: '2020'}}"],
        "machine.sources.num_nodes.x",
        "machine has no key num_nodes.x",
        "num_nodes",
    ),
    (
        TINY,
        ["model.sources={num_layer: {source: a, date: '2020'}}"],
        "model.sources.num_layer",
        "model has no key",
        "num_layers",
    ),
    (TINY, ["nodes=17", "training.global_batch_size=272"], "nodes", "workstation has 16", "use at most 16"),
    (
        BIG,
        ["layout.tensor=16", "nodes=16"],
        "layout.tensor",
        "must divide frontier's 8 devices",
        "1, 2, 4 or 8",
    ),
    (
        TINY,
        ["layout.tensor=8"],
        "layout.tensor",
        "must divide num_heads 4 and workstation's 4",
        "use 1, 2 or 4",
    ),
    (
        TINY,
        ["model.qk_norm=head"],
        "model.qk_norm",
        "needs normalization rmsnorm, but it is layernorm",
        "use none, or set model.normalization to rmsnorm",
    ),
    (
        TINY,
        ["model.norm_position=after", "model.parallel_residual=true"],
        "model.norm_position",
        "must be before when parallel_residual is true",
        "use before, or set model.parallel_residual to false",
    ),
    (
        TINY,
        ["layout.tensor=4", "model.num_kv_heads=2", "model.normalization=rmsnorm", "model.qk_norm=full"],
        "layout.tensor",
        "must divide num_kv_heads 2 with qk_norm full",
        "use 1 or 2",
    ),
    (
        TINY,
        ["layout.tensor=4", "model.num_heads=12", "model.head_dim=32", "model.num_kv_heads=6"],
        "layout.tensor",
        "must divide num_kv_heads 6, or be a multiple of it that divides 384 rows of keys",
        "use 1 or 2",
    ),
    (TINY, ["layout.tensor=2", "model.ffn_hidden_size=511"], "layout.tensor", "ffn_hidden_size 511", "use 1"),
    (
        TINY,
        ["layout.tensor=2", "model.padded_vocab_size=2049"],
        "layout.tensor",
        "padded_vocab_size 2049",
        "use 1",
    ),
    (
        TINY,
        ["layout.sequence_parallel=true"],
        "layout.sequence_parallel",
        "needs tensor greater than 1",
        "use false, or set layout.tensor to 2 or 4",
    ),
    (
        LLAMA,
        ["training.seq_len=4095"],
        "training.seq_len",
        "must be a multiple of tensor 2 under sequence_parallel",
        "use 4094 or 4096",
    ),
    (
        BIG,
        ["layout.pipeline=32", "nodes=4"],
        "layout.pipeline",
        "must divide num_layers 48",
        "use 6, 8, 12, 16, 24 or 48",
    ),
    (
        BIG,
        ["layout.virtual_stages=4"],
        "layout.virtual_stages",
        "pipeline 8 x virtual_stages 4 = 32 must divide num_layers 48",
        "use 1, 2, 3 or 6",
    ),
    (
        TINY,
        ["layout.virtual_stages=2"],
        "layout.virtual_stages",
        "needs pipeline greater than 1",
        "use 1, or set layout.pipeline to 2",
    ),
    (
        TINY,
        ["layout.pipeline=2", "layout.virtual_stages=2", "training.global_batch_size=48"],
        "training.global_batch_size",
        "pipeline 2 must divide the 3 micro-batches",
        "use 32 or 64",
    ),
    (
        BIG,
        ["layout.pipeline=3", "nodes=2"],
        "layout.pipeline",
        "tensor 1 x pipeline 3 = 3 must divide the 16 devices of 2 nodes x 8",
        "use 1, 2, 4, 8 or 16, or set nodes to 3",
    ),
    (
        TINY,
        ["training.global_batch_size=60"],
        "training.global_batch_size",
        "must be a multiple of micro_batch_size 4 x 8 data-parallel ranks = 32",
        "use 32 or 64",
    ),
    (
        TINY,
        ["training.global_batch_size=8"],
        "training.global_batch_size",
        "data-parallel ranks = 32",
        "use 32",
    ),
    (TINY, ["training.seq_len=257"], "training.seq_len", "max_position_embeddings 256", "use at most 256"),
    (
        TINY,
        ["training.compile=true", "model.hidden_dropout=0.1"],
        "training.compile",
        "needs model.hidden_dropout 0, but it is 0.1",
        "use false",
    ),
    (
        TINY,
        ["training.gradient_dtype=bfloat16"],
        "training.gradient_dtype",
        "but it is float32",
        "use float32",
    ),
    (
        TINY,
        ["training.gradient_dtype=bfloat16", "training.precision=float16"],
        "training.gradient_dtype",
        "needs precision bfloat16, but it is float16",
        "use float32",
    ),
    (
        TINY,
        ["training.validation_samples=0"],
        "training.validation_samples",
        "must be at least 1 for validate_every_steps 40",
        "set training.validate_every_steps to 0, or set training.validation_samples to 128",
    ),
    (
        TINY,
        ["data.validation_fraction=0"],
        "data.validation_fraction",
        "must be greater than 0 for 128 validation_samples",
        "use 0.01",
    ),
    (
        TINY,
        ["optimizer.warmup_steps=301"],
        "optimizer.warmup_steps",
        "at most training.steps 160",
        "at most 160",
    ),
    (
        TINY,
        ["optimizer.decay_steps=19"],
        "optimizer.decay_steps",
        "at least warmup_steps 20",
        "use at least 20, or set",
    ),
    (
        TINY,
        ["optimizer.min_learning_rate=0.01"],
        "optimizer.min_learning_rate",
        "must be at most learning_rate 0.003",
        "use at most 0.003",
    ),
    (
        BIG,
        ["slurm.environment={HF_TOKEN: abc}"],
        "slurm.environment.HF_TOKEN",
        "looks like a secret",
        "jobs inherit it",
    ),
    *BROKEN_MIXTURES,
]
SOUND = [
    (TINY, ["layout.tensor=4", "layout.sequence_parallel=true"]),
    (TINY, ["layout.pipeline=2", "layout.virtual_stages=2"]),
    (TINY, ["layout.tensor=2", "layout.pipeline=2"]),
    (TINY, ["model.num_heads=3", "model.head_dim=40"]),
    (TINY, ["model.position_embedding=rotary", "training.seq_len=4096"]),
    (TINY, ["model.position_embedding=rotary", "model.rotary_fraction=0.25"]),
    (TINY, ["training.gradient_dtype=bfloat16", "training.precision=bfloat16"]),
    (
        TINY,
        ["training.validation_samples=0", "training.validate_every_steps=0", "data.validation_fraction=0"],
    ),
    (TINY, ["optimizer.warmup_steps=160", "optimizer.decay_steps=160"]),
    (TINY, ["nodes=16", "training.global_batch_size=256"]),
    (BIG, ["layout.tensor=8", "layout.pipeline=2"]),
    (BIG, ["training.global_batch_size=642"]),  # 321 micro-batches over 8 stages: only interleaving minds
    (TINY, ["data=synthetic"]),
]


@pytest.mark.parametrize(("run", "overrides", "path", "constraint", "fix"), BROKEN)
def test_broken_rules(run: str, overrides: list[str], path: str, constraint: str, fix: str) -> None:
    (violation,) = examine(run, overrides).violations
    assert violation.path == path
    assert constraint in violation.constraint
    assert fix in violation.fix
    assert violation.file is not None
    assert violation.value is not None or "sources" in path


@pytest.mark.parametrize(("run", "overrides"), SOUND)
def test_sound_runs(run: str, overrides: list[str]) -> None:
    assert examine(run, overrides).violations == ()


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__.strip("_"))
def test_no_rule_is_idle(rule: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, one of the broken runs above would pass."""
    monkeypatch.setattr(rules, "RULES", tuple(other for other in rules.RULES if other is not rule))
    assert any(not examine(run, overrides).violations for run, overrides, *_ in BROKEN)


def test_fixes_work() -> None:
    """The numbers that a fix proposes are right ones."""
    for value in (1, 2, 4, 8):
        batch = 640 * 8
        assert not examine(
            BIG, [f"layout.tensor={value}", "nodes=16", f"training.global_batch_size={batch}"]
        ).violations
    for value in (32, 64):
        assert not examine(TINY, [f"training.global_batch_size={value}"]).violations


def test_defaults_stay_within_bounds() -> None:
    most = 2**53
    found = examine("gpt-22b-frontier", [f"nodes={most}", "training.global_batch_size=0"]).violations
    assert {violation.path for violation in found} == {"nodes", "training.global_batch_size"}
    document = load_run(TINY, [f"model.hidden_size={most // 4}"])
    assert document.spec.model.ffn_hidden_size == most
    (violation,) = examine(TINY, [f"model.hidden_size={most}"]).violations
    assert violation.path == "model.hidden_size"


def test_huge_numbers_take_no_time() -> None:
    most = 2**53
    found = examine(
        TINY,
        [f"model.num_layers={most}", f"layout.pipeline={most}", f"layout.tensor={most}", f"nodes={most}"],
    ).violations
    assert {violation.path for violation in found} >= {"layout.tensor", "nodes"}


def test_nothing_is_known_of_a_tensor_degree() -> None:
    """Neither the model nor the machine can be read: the rule proposes no degree."""
    found = examine(TINY, ["layout.sequence_parallel=true", "model=null", "machine=null"]).violations
    assert {violation.path for violation in found} == {"model", "machine", "layout.sequence_parallel"}
    assert [violation.fix for violation in found if violation.path.startswith("layout")] == ["use false"]
