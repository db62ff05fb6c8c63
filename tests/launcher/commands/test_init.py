"""``init`` writes a short run file that the other commands take at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from frontrunner.configs.brief import brief
from frontrunner.configs.load import load_run
from frontrunner.launcher.cli import build
from frontrunner.launcher.commands import init

Call = Callable[..., Result]
LLAMA = ("--model", "llama-3-8b", "--machine", "lumi-g", "--data", "corpus/train")
CONFIG = {"model_type": "gpt2", "n_layer": 4, "n_embd": 256, "n_head": 4, "vocab_size": 500}


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls a command in an empty folder, without a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)

    def run(*words: str, answers: str | None = None) -> Result:
        return CliRunner().invoke(build(words), list(words), input=answers)

    return run


@pytest.mark.parametrize(
    "words",
    [
        (*LLAMA, "--nodes", "4", "--tokens", "300e9"),
        LLAMA,
        ("--model", "gpt-22b", "--machine", "frontier", "--data", "synthetic", "--tokens", "1e6"),
        ("--model", "gpt-tiny", "--machine", "workstation", "--data", "corpus/mine"),
        ("--model", "gpt-tiny", "--machine", "emulated", "--data", "synthetic"),
    ],
)
def test_others_take_the_file_at_once(call: Call, words: tuple[str, ...]) -> None:
    done = call("init", *words)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "wrote run.yaml\n"
    for command in (["check", "run.yaml"], ["plan", "run.yaml"], ["submit", "run.yaml", "--dry-run"]):
        after = call(*command)
        assert after.exit_code == 0, after.stderr
    text = Path("run.yaml").read_text()
    assert len(text.splitlines()) <= 30 and max(map(len, text.splitlines())) <= 80


def test_tokens_and_time(call: Call) -> None:
    call("init", *LLAMA, "--nodes", "4", "--tokens", "300e9")
    spec = load_run("run.yaml").spec
    training = spec.training
    step = training.seq_len * training.global_batch_size
    assert (training.steps - 1) * step < 300e9 <= training.steps * step
    assert spec.optimizer.warmup_steps == training.steps // 100
    text = Path("run.yaml").read_text()
    assert "  tokens: 300e9\n" in text and f"# {training.steps:,} steps." in text
    found = json.loads(call("plan", "run.yaml", "--json").stdout)
    days = found["duration_s"] / 86400
    assert spec.slurm.time_limit == f"{-(-int(100 * (1.1 * days + 0.25 / 24)) // 100)}d"


def test_a_preset_of_this_model_here_is_extended(call: Call) -> None:
    call("init", "--model", "llama-2-7b", "--machine", "lumi-g", "--data", "corpus/train", "--nodes", "8")
    data = yaml.safe_load(Path("run.yaml").read_text())
    assert data["extends"] == "llama-2-7b-lumi" and data["nodes"] == 8
    assert not {"model", "machine", "optimizer"} & data.keys()
    assert load_run("run.yaml").spec.training.seq_len == 4096


def test_a_presets_tokenizer_is_not_taken_for_another_corpus(call: Call) -> None:
    call("init", "--model", "gpt-tiny", "--machine", "workstation", "--data", "corpus/mine")
    data = load_run("run.yaml").spec.data
    assert data != "synthetic" and (data.train, data.tokenizer) == ("corpus/mine", None)


def test_json(call: Call) -> None:
    done = call("init", *LLAMA, "--output", "mine.yaml", "--json")
    assert json.loads(done.stdout) == {"outputs": ["mine.yaml"]}
    assert "corpus/train.bin and .idx are not here" in done.stderr


def test_a_models_folder_is_named_from_where_the_file_is(call: Call) -> None:
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps(CONFIG))
    Path("runs").mkdir()
    done = call(
        *("init", "--model", "model", "--machine", "frontier", "--data", "synthetic"),
        *("--output", "runs/mine.yaml"),
    )
    assert done.exit_code == 0, done.stderr
    assert "model: ../model\n" in Path("runs/mine.yaml").read_text()
    assert load_run("runs/mine.yaml").spec.model.name == "model"


def test_missing_options_are_named(call: Call) -> None:
    done = call("init", "--machine", "lumi-g")
    assert done.exit_code == 2
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["--model", "--data"]
    assert not Path("run.yaml").exists()


def test_a_terminal_is_asked(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is asked again; empty answers are the defaults."""
    monkeypatch.setattr(init, "_on_a_terminal", lambda: True)
    done = call("init", "--machine", "lumi-g", answers="lama-3-8b\nllama-3-8b\nsynthetic\nfour\n4\n20e9\n")
    assert done.exit_code == 0, done.stderr
    assert "did you mean llama-3-8b?" in done.stderr and "four: not a number" in done.stderr
    assert done.stdout.splitlines()[-1] == "wrote run.yaml"
    spec = load_run("run.yaml").spec
    assert (spec.model.name, spec.nodes, spec.data) == ("llama-3-8b", 4, "synthetic")
    assert spec.training.steps == -(-(20 * 10**9) // (2048 * spec.training.global_batch_size))


def test_no_file_is_replaced_unless_forced(call: Call) -> None:
    Path("run.yaml").write_text("mine")
    done = call("init", *LLAMA)
    assert done.exit_code == 2 and "exists already" in done.stderr
    assert Path("run.yaml").read_text() == "mine"
    assert call("init", *LLAMA, "--force").exit_code == 0
    assert load_run("run.yaml").spec.model.name == "llama-3-8b"
    assert [path.name for path in Path().iterdir()] == ["run.yaml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--nodes", "0"), "nodes = 0"),
        (("--nodes", "10000"), "lumi-g has 2978"),
        (("--tokens", "0"), "--tokens"),
        (("--data", "."), "is a folder, not the prefix of a corpus"),
        (("--output", "."), "is a folder"),
        (("--output", "none/run.yaml"), "there is no folder none"),
        (("--model", "lama"), "is neither a model preset nor a file"),
        (("--machine", "lumi"), "did you mean lumi-g?"),
        (("--model", "gpt-1t", "--nodes", "1"), "layouts of gpt-1t fits"),
    ],
)
def test_mistakes(call: Call, words: tuple[str, ...], said: str) -> None:
    done = call("init", *LLAMA, *words)
    assert done.exit_code == 2 and said in done.stderr, done.output
    assert not list(Path().iterdir())


def test_short_files_have_notes_and_quotes() -> None:
    keys = {"a": "yes, no", "b": {"c": {"d": [1, "6e-5"]}, "e": None}, "f": {"tokens": 1_500_000_000}}
    text = brief(keys, {"a": ["first"], "f.tokens": ["how many"]})
    assert text == (
        '# first\na: "yes, no"\nb: {c: {d: [1, "6e-5"]}, e: null}\nf:\n  # how many\n  tokens: 1.5e9\n'
    ).replace('a: "yes, no"', "a: 'yes, no'")
