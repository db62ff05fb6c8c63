"""What the reference says of records and of ``--json`` is what commands write, on real input."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from frontrunner.run_folder import jobs
from generator.commands import json_keys
from generator.records import known
from support.paths import unknown, unseen
from support.program import run
from support.tree import FOLDERS, ROOT, modules

pytest.importorskip("torch")

#: Four CPU ranks, a validation at both ends, a checkpoint.
RUN = """\
model: gpt-tiny
machine: workstation
layout: {micro_batch_size: 2}
training: {seq_len: 32, global_batch_size: 16, steps: 5, precision: float32, validation_samples: 8}
checkpoint: {every_steps: 5}
data: synthetic
slurm: {time_limit: 1h}
"""
SWEEP = """\
base: run.yaml
space: {layout.micro_batch_size: [1, 2]}
budget: {trials: 2}
steps: 3
"""
PROGRAMS = {
    "squeue": "echo '42|RUNNING|None|node[1-2]|1:59:00|1:00'",
    "scancel": "exit 0",
    "sinfo": "exit 1",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has trained, a submitted one, a text, and programs in Slurm's place."""
    folder = tmp_path_factory.mktemp("outputs")
    (folder / "run.yaml").write_text(RUN)
    (folder / "wrong.yaml").write_text(RUN + "nodes: 1000\n")
    (folder / "sweep.yaml").write_text(SWEEP)
    (folder / "text.txt").write_text("a text of a few words\n" * 50)
    (folder / "programs").mkdir()
    for name, code in PROGRAMS.items():
        program = folder / "programs" / name
        program.write_text(f"#!/bin/sh\n{code}\n")
        program.chmod(0o755)
    submitted = folder / "runs" / "submitted"
    submitted.mkdir(parents=True)
    call(folder, "train", "run.yaml", "--run-dir", "runs/trained", "--json")
    (submitted / "run.yaml").write_text((folder / "runs" / "trained" / "run.yaml").read_text())
    jobs.append(submitted, "begun", segments=1, working_folder=str(folder))
    jobs.append(submitted, "submitted", job_id="42", step=0)
    return folder


def call(folder: Path, *words: str, code: int | None = 0) -> Any:
    """The object that a command prints."""
    env = os.environ | {"PATH": f"{folder}/programs:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = run(*words, folder=folder, env=env)
    assert code is None or done.returncode == code, done.stderr
    return json.loads(done.stdout)


CALLS = {
    "init": [
        "init",
        "--model",
        "gpt-tiny",
        "--machine",
        "workstation",
        "--data",
        "synthetic",
        "--output",
        "new",
    ],
    "check": ["check", "run.yaml"],
    "presets": ["presets", "frontier"],
    "plan": ["plan", "gpt-22b-frontier"],
    "search": ["search", "gpt-22b", "--nodes", "2", "--top", "2", "--scale", "2,4"],
    "advise": ["advise", "gpt-22b", "--tokens", "1e9"],
    "validate": ["validate"],
    "export": ["export", "gpt-22b-frontier", "--to", "megatron"],
    "data prepare": ["data", "prepare", "--input", "text.txt", "--output", "corpus/a", "--tokenizer", "byte"],
    "train": ["train", "runs/trained", "-o", "training.steps=6"],
    "convert": ["convert", "runs/trained", "model", "--to", "huggingface"],
    "top": ["top", "runs/trained"],
    "compare": ["compare", "run.yaml", "--engines", "native", "--steps", "2"],
    "submit": ["submit", "gpt-22b-frontier", "--account", "abc123", "--dry-run"],
    "status": ["status"],
    "cancel": ["cancel", "runs/submitted"],
}


@pytest.mark.parametrize("name", CALLS)
def test_keys_of_json(place: Path, name: str) -> None:
    documented = json_keys()[name]
    found = call(place, *CALLS[name], "--json")
    assert (unknown(found, documented), unseen(found, documented)) == ([], [])


def test_keys_of_an_analysis(place: Path) -> None:
    pytest.importorskip("polars")
    documented = json_keys()["analyze"]
    call(place, "train", "run.yaml", "-o", "nodes=2", "--run-dir", "runs/larger", "--json")
    found = call(place, "analyze", "runs/trained", "runs/larger", "--json")
    assert found["scaling"]
    assert (unknown(found, documented), unseen(found, documented)) == ([], [])


def test_keys_of_a_calibration(place: Path) -> None:
    rows = str(ROOT / "configs" / "published" / "mi250x.yaml")
    found = call(place, "calibrate", rows, "--machine", "frontier", "--software", "2023", "--json")
    documented = json_keys()["calibrate"]
    assert (unknown(found, documented), unseen(found, documented)) == ([], [])


def test_keys_of_a_sweep(place: Path) -> None:
    for module in ("optuna", "sklearn", "shap"):
        pytest.importorskip(module)
    for words in (["run", "sweep.yaml", "--on", "local"], ["status", "sweep.yaml"], ["report", "sweep.yaml"]):
        documented = json_keys()[f"sweep {words[0]}"]
        found = call(place, "sweep", *words, "--json")
        assert (unknown(found, documented), unseen(found, documented)) == ([], []), words[0]


def test_keys_of_a_dry_run_of_a_sweep(place: Path) -> None:
    pytest.importorskip("optuna")
    documented = json_keys()["sweep run --dry-run"]
    found = call(place, "sweep", "run", "sweep.yaml", "--dry-run", "--json")
    assert unknown(found, documented) == []
    assert set(unseen(found, documented)) <= {key for key in documented if key.startswith("refused[]")}


def test_keys_of_violations_and_findings(place: Path) -> None:
    found = call(place, "check", "wrong.yaml", "--json", code=2)
    documented = {
        key: text for key, text in json_keys()["check"].items() if key.startswith(("valid", "viol"))
    }
    assert (unknown(found, documented), unseen(found, documented)) == ([], [])
    found = call(place, "doctor", "gpt-22b-frontier", "--json", code=1)
    assert found["findings"]
    assert (unknown(found, json_keys()["doctor"]), unseen(found, json_keys()["doctor"])) == ([], [])


#: Of steps: with float16, and with experts.
OPTIONAL = {"loss_scale", "aux_loss", "z_loss", "expert_load", "idle_experts"}


def test_records(place: Path) -> None:
    records = [json.loads(line) for line in (place / "runs/trained/records.jsonl").read_text().splitlines()]
    kinds = known()["records.jsonl"]
    assert {"header", "step", "validation", "checkpoint", "summary"} <= {record["kind"] for record in records}
    for record in records:
        own = set(record) - {"kind"}
        optional = OPTIONAL if record["kind"] == "step" else set()
        assert own <= set(kinds[record["kind"]]["fields"]) <= own | optional, record["kind"]


def test_kinds_of_records() -> None:
    """All that any module writes, rare ones too."""
    source = "".join((ROOT / path).read_text() for path in modules(*FOLDERS))
    written = set(re.findall(r'\bwrite\(\s*"(\w+)",', source))
    assert written == set(known()["records.jsonl"])
    jobs = dict(re.findall(r'\bappend\(\s*[\w.]+,\s*"(\w+)"((?:,\s*[^()]*(?:\([^()]*\))?[^()]*)?)\)', source))
    assert jobs.keys() == set(known()["jobs.jsonl"])
