"""Files of other kinds are named by what they are, with what to do; run files with mistakes are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from frontrunner.configs import foreign, messages, other_trainers, presets
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import examine
from frontrunner.configs.load_sweep import load_sweep

Write = Callable[..., Path]
Wrong = Callable[..., dict[str, Violation]]
SHORTEST = "model: gpt-tiny\nmachine: workstation\ndata: synthetic\n"
GOLDEN = Path(__file__).parents[1] / "slurm" / "golden"

NEOX = """{
  # settings of parallelism
  "pipe-parallel-size": 1,
  "model-parallel-size": 2,
  "num-layers": 12,
  "zero_optimization": {"stage": 1, "overlap_comm": True,},
  "seq-length": 2048,
}
"""
MEGATRON = """#!/bin/bash
#SBATCH --nodes=16
# a comment
srun python pretrain_gpt.py --tensor-model-parallel-size 2 \\
  --pipeline-model-parallel-size=8 --lr 6e-5 --train-iters 1000 --bf16
"""
TORCHTITAN = """# torchtitan Config.toml
[job]
dump_folder = "./outputs"

[training]
local_batch_size = 1
seq_len = 8192
steps = 1000

[parallelism]
tensor_parallel_degree = 8
"""
NEMO = """
trainer: {num_nodes: 8, devices: 8, max_steps: 300, precision: bf16, gradient_clip_val: 1.0}
exp_manager: {name: megatron_gpt}
model: {micro_batch_size: 4, tensor_model_parallel_size: 2, encoder_seq_length: 2048}
"""
CONFIG = '{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64}'
TRAINER = (
    "output_dir: out\nper_device_train_batch_size: 4\nnum_train_epochs: 3\nfp16: true\nlearning_rate: 2e-5\n"
)
MACHINE = "num_nodes: 4\npackages_per_node: 4\ndevices_per_package: 2\n"
SWEEP = "base: quickstart\nspace: {layout.micro_batch_size: [1, 2]}\n"
MEGATRON_LOG = " iteration       10/    1000 | consumed samples:  640 | lm loss: 1.0E+01 |\n"
RECORDS = '{"kind": "header", "version": 1}\n{"kind": "step", "step": 1}\n'


@pytest.mark.parametrize(
    ("content", "kind", "fix"),
    [
        (NEOX, "gpt-neox", "frontrunner import given"),
        (
            '{"train_batch_size": 64, "bf16": {"enabled": true}, "zero_optimization": {"stage": 3}}',
            "deepspeed",
            "frontrunner import given",
        ),
        (MEGATRON, "megatron", "frontrunner import given"),
        (MEGATRON.replace("--bf16", "--deepspeed"), "megatron-deepspeed", "frontrunner import given"),
        (TORCHTITAN, "torchtitan", "frontrunner import given"),
        (NEMO, "nemo", "frontrunner import given"),
        (TRAINER, "transformers", "layout.micro_batch_size: 4, training.precision: float16"),
        (CONFIG, "huggingface", "`model: given`"),
        (SWEEP, "sweep", "frontrunner sweep run given"),
        (MACHINE, "machine", "`machine: given`"),
        ("num_layers: 2\nhidden_size: 64\nnum_heads: 2\nvocab_size: 9\n", "model", "`model: given`"),
        ("- id: a\n  devices: 8\n", "rows", "presets quickstart"),
        (MEGATRON_LOG * 3, "log", "frontrunner analyze given"),
        (RECORDS, "records", "frontrunner analyze given"),
        ((GOLDEN / "lumi.sh").read_text(), "job", "run.yaml"),
        ("#!/bin/sh\necho\n", "script", "presets quickstart"),
        ("import torch\nx = 1\n", "python", "presets quickstart"),
        ("[tool.black]\nline-length = 3\n", "toml", "presets quickstart"),
        ("<!DOCTYPE html>\n<html><body>model: a</body></html>", "page", "download the raw file"),
        ('{"cells": [], "metadata": {}, "nbformat": 4}', "notebook", "presets quickstart"),
        (b"\x7fELF\x02\x01\x01\0\0\0", "binary", "presets quickstart"),
        (b"PK\x03\x04archive/data.pkl", "archive", "presets quickstart"),
        (b"\x10\0\0\0\0\0\0\0" + b'{"a": {}}', "safetensors", "presets quickstart"),
        ("\ufeffname: a\n".encode("utf-16"), "utf16", "save it as UTF-8"),
    ],
)  # fmt: skip
def test_what_is_given_for_a_run_file(write: Write, content: str | bytes, kind: str, fix: str) -> None:
    write(content, "given")
    (violation,) = examine("given").violations
    assert (violation.file, violation.line, violation.path) == ("given", None, "")
    assert violation.constraint == f"is {foreign.LABELS[kind]}, not a run file"
    assert fix in violation.fix
    write("extends: given\n")
    (violation,) = examine("run.yaml").violations
    assert (violation.file, violation.path) == ("given", "extends")


@pytest.mark.parametrize(
    ("held", "kind", "fix"),
    [
        ({"run.yaml": SHORTEST, "records.jsonl": RECORDS}, "run folder", "folder/run.yaml"),
        ({"a/run.yaml": SHORTEST, "a/records.jsonl": RECORDS}, "runs", "name one of the folders in it"),
        ({"manifest.json": '{"step": 5, "spec": {}}'}, "checkpoint", "start_from: folder"),
        ({"latest_checkpointed_iteration.txt": "5"}, "checkpoint", "start_from: folder"),
        ({"config.json": CONFIG, "model.safetensors": ""}, "model folder", "model: folder/config.json"),
    ],
)
def test_folders(write: Write, held: dict[str, str], kind: str, fix: str) -> None:
    for name, text in held.items():
        write(text, f"folder/{name}")
    (violation,) = examine("folder").violations
    assert violation.constraint == f"is {foreign.LABELS[kind]}, not a run file"
    assert fix in violation.fix


@pytest.mark.parametrize(
    "text",
    [
        "train_batch_size: 4\nzero_optimization: {stage: 1}\n",
        "# srun pretrain_gpt.py --tensor-model-parallel-size 2\nnodes: x\n",
        "# step 100: loss 2.3, from model_type: llama\nnum_train_epochs: 3\n",
        "space: 1\nbase: 2\n",
        "links: 1\n",
    ],
)
def test_run_files_with_mistakes_stay_run_files(wrong: Wrong, text: str) -> None:
    assert "" not in wrong(SHORTEST + text)
    assert foreign.recognise("model: gpt-tiny\nlayout: {}\n" + text) is None


@pytest.mark.parametrize("kind", presets.KINDS)
def test_presets_are_what_they_are(kind: presets.Kind) -> None:
    for name in presets.names(kind):
        path = presets.path(kind, name)
        assert path is not None
        assert foreign.instead(path, kind, name) is None, name
        others = [other for other in ("run", "sweep") if other != kind]
        assert all(foreign.instead(path, other, name) for other in others), name


def test_other_kinds_are_named_where_sweeps_machines_and_models_are_wanted(write: Write) -> None:
    write(SHORTEST, "mine.yaml")
    with pytest.raises(SpecError, match="is a run file, not a sweep file; .*`base: mine.yaml`"):
        load_sweep("mine.yaml")
    write(SHORTEST.replace("workstation", "mine.yaml"))
    (violation,) = examine("run.yaml").violations
    assert (
        str(violation)
        == "mine.yaml: machine: is a run file, not a machine file; name the machine in it, a preset or a file"
    )


def test_adversarial_texts_take_no_time() -> None:
    """Each pattern reads a text about once: a megabyte of what it looks for does not stop it."""
    for part in (
        "\n",
        "#\n",
        "--tensor-model-parallel-size ",
        "step 1 ",
        "#!\n",
        "{",
        "- ",
        '"""\n',
        "a: &a [*a]\n",
    ):
        foreign.recognise((part * (1 << 20))[: 1 << 17])


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("tensor-model-parallel-size: 2", "did you mean layout.tensor?"),
        ("bf16: true", "write training.precision: bfloat16"),
        ("fp16: {enabled: true}", "write training.precision: float16"),
        ("zero_optimization: {stage: 2}", "write layout.sharding: zero2"),
        ("zero_stage: 3", "write layout.sharding: zero3"),
        ("num_train_epochs: 3", "did you mean training.steps (steps, not epochs)?"),
        (
            "gradient_accumulation_steps: 8",
            "did you mean training.global_batch_size (sequences of all ranks: micro-batch x accumulation x "
            "data-parallel ranks)?",
        ),
        ("num_attention_heads: 8", "did you mean model.num_heads?"),
        ("optimizer: {adam_eps: 1e-8}", "did you mean optimizer.epsilon?"),
        ("no_weight_tying: true", "did you mean model.tie_embeddings (the opposite)?"),
        ("accumulate_allreduce_grads_in_fp32: true", "did you mean training.gradient_dtype?"),
    ],
)
def test_names_of_other_trainers(wrong: Wrong, line: str, fix: str) -> None:
    (violation,) = wrong(SHORTEST + line + "\n").values()
    assert (violation.constraint, violation.fix) == (messages.UNKNOWN_KEY, fix)


def test_names_lead_to_keys_that_exist() -> None:
    known = set(messages.dotted_keys())
    assert {ours for ours in other_trainers.KEYS.values() if ours not in known} == set()
    assert set(other_trainers.UNITS) <= set(other_trainers.KEYS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "llama-3-8b",
            "is a model preset, not a run; write `model: llama-3-8b` in a run file, or plan it with "
            "`frontrunner search llama-3-8b`",
        ),
        ("Llama-3.1-8B", "is a model preset, llama-3-8b, not a run; write `model: llama-3-8b` in a run file"),
        (
            "frontier",
            "is a machine preset, not a run; write `machine: frontier` in a run file, or use one that has "
            "it: gpt-175b-frontier, gpt-1t-frontier, gpt-22b-frontier",
        ),
        ("lumi", "is a machine preset, lumi-g, not a run; write `machine: lumi-g` in a run file"),
        ("gpt-175b-dash", "is a sweep preset, not a run; start it with `frontrunner sweep run"),
        ("meta-llama/Meta-Llama-3-8B", "no such file; check the path; write `model: llama-3-8b`"),
        ("gpt-175b-frontir", "is neither a run preset nor a file; did you mean gpt-175b-frontier?"),
        ("GPT_22B_Frontier", "is neither a run preset nor a file; did you mean gpt-22b-frontier?"),
        ("tiny", "is neither a run preset nor a file; use one of: "),
    ],
)  # fmt: skip
def test_names_of_presets_by_meaning(write: Write, name: str, message: str) -> None:
    write("", "unused")
    (violation,) = examine(name).violations
    assert message in str(violation)


def test_models_and_machines_by_meaning(wrong: Wrong) -> None:
    found = wrong("model: meta-llama/Llama-2-7b-chat-hf\nmachine: Lumi\ndata: synthetic\n")
    assert found["model"].fix == "check the path; did you mean llama-2-7b?"
    assert found["machine"].fix == "did you mean lumi-g?"
    assert wrong("model: neox-20b\nmachine: workstation\ndata: synthetic\n")["model"].fix == (
        "did you mean gpt-neox-20b?"
    )
