"""Other trainers' files become run files; what is another run is refused, with a fix that works."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from frontrunner.configs.load import load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.cli import build
from support.foreign_files import FILES, MEGATRON, WANTED
from support.logs import argument_lines, megatron_step
from support.trainer_logs import titan_log

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls a command in a folder with one file of each trainer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    for name, text in FILES.items():
        Path(name).write_text(text)

    def run(*words: str) -> Result:
        return CliRunner().invoke(build(words), list(words))

    return run


def value(spec: RunSpec, dotted: str) -> Any:
    found: Any = spec
    for key in dotted.split("."):
        found = getattr(found, key)
    return found


@pytest.mark.parametrize("name", WANTED)
def test_each_trainers_file(call: Call, name: str) -> None:
    more, wanted = WANTED[name]
    done = call("import", name, *more, "--write", "out.yaml")
    assert done.exit_code == 0, done.output
    spec = load_run("out.yaml").spec
    assert {key: value(spec, key) for key in wanted} == pytest.approx(wanted)
    assert len(Path("out.yaml").read_text().splitlines()) <= 45


def test_every_setting_is_accounted_for(call: Call) -> None:
    found = json.loads(call("import", "run.sh", "--json").stdout)
    assert found.keys() == {"run", "understood", "ignored", "outputs"}
    assert yaml.safe_load(yaml.dump(found["run"]))["nodes"] == 8
    origins = {row["key"]: row["from"] for row in found["understood"]}
    assert origins["model.num_heads"] == "--num-attention-heads 32 (run.sh:7)"
    assert origins["optimizer.epsilon"] == "the trainer's default"
    told = {row["key"]: (row["value"], row["consequence"]) for row in found["ignored"]}
    assert told["--invented-option"] == (
        "7",
        "not known here: look whether it changes the model or what it learns",
    )
    assert told["--rampup-batch-size"][1] == "each step has the whole global batch from the start"
    assert "blend" in told["--data-path"][1]
    given = set(re.findall(r"(?<=\s)--[a-z][\w-]+", MEGATRON.split("MODEL=")[1])) - {"--nnodes"}
    understood = {word for text in origins.values() for word in re.findall(r"--[a-z][\w-]+", text)}
    silent = given - understood - told.keys()
    # These say what others say too, or name a tokenizer's file.
    assert silent <= {"--group-query-attention", "--tokenizer-model", "--save", "--bf16"}, silent


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--fp8-format hybrid", "matrix products are in training.precision"),
        ("--context-parallel-size 4", "each holds whole ones"),
        ("--reset-attention-mask", "attention covers a whole sequence"),
        ("--optimizer-cpu-offload", "so look at `plan`"),
        ("--decoupled-lr 1e-3", "weights learn otherwise"),
        ("--lr-warmup-init 1e-5", "weights learn otherwise"),
        ("--recompute-granularity full --recompute-method block", "all layers are recomputed"),
        ("--exit-interval 10", "continues by itself"),
    ],
)
def test_what_follows_from_a_setting(call: Call, option: str, said: str) -> None:
    Path("run.sh").write_text(MEGATRON.replace("--swiglu", f"--swiglu {option}"))
    told = json.loads(call("import", "run.sh", "--json").stdout)["ignored"]
    assert any(said in row["consequence"] and row["key"] in option.split() for row in told), told


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("meta-llama/Meta-Llama-3.1-8B", 128256),
        ("huggyllama/llama-30b", None),
        ("meta-llama/Llama-4-Scout", None),
        ("mistralai/Mistral-7B-v0.1", 32000),
        ("mistralai/Mistral-7B-v0.3", None),
        ("/home/me/gpt-neox/mine/tokenizer.json", None),
    ],
)
def test_only_names_of_tokenizers_are_known(call: Call, name: str, tokens: int | None) -> None:
    text = MEGATRON.replace("Llama2Tokenizer", "HuggingFaceTokenizer")
    Path("run.sh").write_text(text.replace("tokenizer.model", name))
    done = call("import", "run.sh", "--json")
    assert (done.exit_code == 2) is (tokens is None)
    if tokens:
        assert json.loads(done.stdout)["run"]["model"]["vocab_size"] == tokens


def test_variables_of_a_script(call: Call) -> None:
    found = json.loads(call("import", "run.sh", "--set", "SIZE=large", "--json").stdout)
    assert found["run"]["model"]["num_layers"] == 64


def test_text_says_what_is_left_out(call: Call) -> None:
    done = call("import", "run.sh")
    assert "#   --invented-option 7" in done.stderr
    assert done.stderr.index("not known here") < done.stderr.index("kernels follow")
    assert yaml.safe_load(done.stdout)["slurm"]["partition"] == "standard-g"


@pytest.mark.parametrize(
    ("name", "change", "path"),
    [
        (
            "run.sh",
            ("--swiglu", "--swiglu --num-experts 8 --moe-expert-capacity-factor 1.0"),
            "--moe-expert-capacity-factor",
        ),
        ("run.sh", ("--swiglu", "--swiglu --num-experts 8 --moe-layer-freq 40"), "--moe-layer-freq"),
        (
            "run.sh",
            ("--swiglu", "--swiglu --num-experts 8 --moe-router-load-balancing-type sinkhorn"),
            "--moe-router-load-balancing-type",
        ),
        ("run.sh", ("--swiglu", "--squared-relu"), "--squared-relu"),
        ("run.sh", ("--normalization RMSNorm", "--qk-layernorm"), "--qk-layernorm"),
        ("run.sh", ("--swiglu", "--swiglu --multi-latent-attention"), "--multi-latent-attention"),
        ("run.sh", ("--swiglu", "--swiglu --window-size 4096,0"), "--window-size"),
        ("run.sh", ("type rope", "type alibi"), "--position-embedding-type"),
        ("run.sh", ("RMSNorm", "L2Norm"), "--normalization"),
        ("run.sh", ("--bf16", "--bf16 --optimizer muon"), "--optimizer"),
        ("run.sh", ("--num-layers $LAYERS", "--num-layers $DEPTH"), "--num-layers"),
        (
            "run.sh",
            ("--lr 3e-4", "--lr 3e-4 --rotary-seq-len-interpolation-factor 4"),
            "interpolation-factor",
        ),
        ("run.sh", ("--lr 3e-4", "--lr abc"), "--lr"),
        ("run.sh", ("--global-batch-size 256", "--global-batch-size 250"), "training.global_batch_size"),
        ("run.sh", ("Llama2Tokenizer", "HuggingFaceTokenizer"), "model.vocab_size"),
        ("neox.yml", ('"norm": "layernorm"', '"norm": "scalenorm"'), "norm"),
        ("neox.yml", ('"norm": "layernorm"', '"activation": "geglu"'), "activation"),
        ("neox.yml", ('"norm": "layernorm"', '"use_bias_in_attn_linear": false'), "use_bias_in_attn_linear"),
        ("neox.yml", ('"norm": "layernorm"', '"attention_config": [[["mamba"], 12]]'), "attention_config"),
        ("neox.yml", ("20B_tokenizer", "tokens"), "model.vocab_size"),
        ("titan.toml", ('"llama3"', '"deepseek_v3"'), "model.name"),
        ("titan.toml", ('"8B"', '"13B"'), "model.flavor"),
        ("nemo.yaml", ("hidden_size: 4096", "hidden_size: ${oc.env:WIDTH}"), "model.hidden_size"),
        ("nemo.yaml", ("num_layers: 24", "num_layers: 24\n  num_moe_experts: 8"), "model.num_moe_experts"),
        ("ds.json", ('"AdamW"', '"Lamb"'), "optimizer.type"),
        ("ds.json", ('"stage": 3', '"stage": 7'), "zero_optimization.stage"),
    ],
)
def test_another_run_is_refused_and_the_fix_works(
    call: Call, name: str, change: tuple[str, str], path: str
) -> None:
    text = FILES[name]
    assert change[0] in text
    Path(name).write_text(text.replace(*change))
    words = ["import", name, *WANTED[name][0]]
    done = call(*words)
    assert done.exit_code == 2 and "Traceback" not in done.stderr, done.output
    line = next(line for line in done.stderr.splitlines() if f"{path} = " in line or f"{path}: " in line)
    fix = line.rpartition("; ")[2]
    repaired = call(*words, *apply(fix, name, change))
    assert repaired.exit_code == 0, (fix, repaired.stderr)


def apply(fix: str, name: str, change: tuple[str, str]) -> list[str]:
    """The options that a fix asks for; where it asks to correct the file, the file is corrected."""
    named = re.search(r"--set ([\w.]+)=(\S+)|-o ([\w.]+)=VALUE|(--model) (\S+)", fix)
    if named is None:
        assert re.search(r"correct it in the file|use \d+", fix), fix
        number = re.search(r"use (\d+)", fix)
        good = f"--global-batch-size {number[1]}" if number else change[0]
        Path(name).write_text(FILES[name].replace(change[0], good))
        return []
    key, given, ours, model, preset = named.groups()
    if model:
        return [model, preset]
    if ours:
        return ["-o", f"{ours}=50000"]
    return ["--set", f"{key}={given if given != 'VALUE' else '32'}"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["neox.yml"], ("--machine", "--nodes")),
        (["neox.yml", "--machine", "frontier"], ("--nodes",)),
        (["ds.json", "--machine", "frontier", "--nodes", "4"], ("--model",)),
        (["nowhere.sh"], ("no such file",)),
        (["."], ("is a folder",)),
        (["run.sh", "--from", "tensorflow"], ("use one of: megatron",)),
        (["run.sh", "--from", "torchtitan"], ("is not TOML",)),
        (["run.sh", "--set", "SIZE"], ("NAME=VALUE",)),
        (["run.sh", "-o", "layout.tensor"], ("KEY=VALUE",)),
        (["run.sh", "-o", "layout.tensr=2"], ("layout.tensr",)),
        (["run.sh", "--machine", "frontear"], ("frontier",)),
        (["run.sh", "neox.yml"], ("--from",)),
        (["run.sh", "--write", "run.sh"], ("exists already", "--force")),
        (["run.sh", "--write", "no/out.yaml"], ("there is no folder",)),
        (["empty.sh"], ("--from",)),
        (["binary.sh"], ("binary",)),
        (["notes.sh"], ("starts no training",)),
        (["two.sh"], ("starts 2 trainings",)),
        (["ends.sh"], ("ends here", "--set")),
    ],
)
def test_wrong_requests_take_one_line_each(call: Call, words: list[str], said: tuple[str, ...]) -> None:
    Path("empty.sh").write_text("")
    Path("binary.sh").write_bytes(bytes(range(256)) * 9)
    Path("notes.sh").write_text("#!/bin/bash\necho hello\n")
    training = "python pretrain_gpt.py --num-layers $N --hidden-size 64 --micro-batch-size 1"
    Path("two.sh").write_text(f"for N in 2 4; do {training}; done\n")
    Path("ends.sh").write_text("#!/bin/bash\n[ -z $1 ] && exit 1\npython pretrain_gpt.py --num-layers 2\n")
    done = call("import", *words)
    assert done.exit_code == 2, done.output
    assert all(word in done.stderr for word in said), done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 3


def test_a_megatron_log(call: Call) -> None:
    arguments: dict[str, Any] = {
        **{"num_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "seq_length": 1024},
        **{"micro_batch_size": 2, "global_batch_size": 64, "bf16": True, "swiglu": False, "lr": 1e-4},
        **{"add_bias_linear": False, "bias_gelu_fusion": True, "position_embedding_type": "rope"},
        **{"padded_vocab_size": 50304, "train_iters": 500, "group_query_attention": False, "fp8": None},
        **{"max_position_embeddings": 1024, "untie_embeddings_and_output_weights": True, "world_size": 16},
        **{"use_distributed_optimizer": True, "num_experts": None, "tensorboard_dir": "tb"},
    }
    lines = [*argument_lines(arguments), *(megatron_step(step, 1.0) for step in range(1, 6))]
    Path("run.log").write_text("\n".join(lines) + "\n")
    done = call("import", "run.log", "--machine", "frontier", "--write", "out.yaml")
    assert done.exit_code == 0, done.output
    spec = load_run("out.yaml").spec
    assert (spec.nodes, spec.model.padded_vocab_size, spec.model.linear_bias) == (2, 50304, False)
    assert (spec.model.activation, spec.model.tie_embeddings) == ("gelu", False)
    assert spec.layout.sharding.preset == "zero1"


def test_a_torchtitan_log(call: Call) -> None:
    Path("titan.log").write_text("\n".join(titan_log()) + "\n")
    done = call("import", "titan.log", "--machine", "frontier")
    assert done.exit_code == 0, done.output


def test_a_log_without_settings_is_refused(call: Call) -> None:
    Path("bare.log").write_text("\n".join(megatron_step(step, 1.0) for step in range(1, 6)) + "\n")
    done = call("import", "bare.log", "--machine", "frontier", "--nodes", "1")
    assert done.exit_code == 2 and "does not print its trainer's settings" in done.stderr


def test_messages_name_the_command(call: Call) -> None:
    done = call("plan", "neox.yml")
    assert done.exit_code == 2
    command = re.search(r"frontrunner (import .*)", done.stderr)
    assert command is not None, done.stderr
    words = shlex.split(command[1])
    assert call(*words, "--machine", "frontier", "--nodes", "4").exit_code == 0
    assert call("plan", "run.yaml").exit_code == 0
