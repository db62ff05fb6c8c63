"""Whole scripts, compared line by line with files that people have read.

``UPDATE_GOLDEN=1 pytest tests/slurm/test_script.py`` writes them anew; read the difference before it goes in.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from frontrunner.configs.load import load_run
from frontrunner.slurm import policy
from frontrunner.slurm.job import JobSpec, of_run
from frontrunner.slurm.script import render

GOLDEN = Path(__file__).with_name("golden")
ODD = "a 'run' \"of\" $(touch x) `y`; é\n#SBATCH --comment=z"
CASES: dict[str, tuple[str, list[str]]] = {
    "frontier": ("gpt-22b-frontier", ["slurm.account=abc123"]),
    "frontier-large": (
        "gpt-22b-frontier",
        [
            "nodes=320",
            "layout.pipeline=1",
            "training.global_batch_size=2560",
            "slurm={account: abc123, time_limit: 2-00:00:00, signal_before_end: 10m}",
            "slurm.environment_archive=/lustre/orion/abc123/env.tar.gz",
            "slurm.exclude='frontier[00012,00345]'",
            "slurm.environment={NCCL_CROSS_NIC: null, NCCL_DEBUG: WARN}",
            "slurm.srun={threads-per-core: '1'}",
        ],
    ),
    "frontier-debug": ("gpt-22b-frontier", ["slurm={account: abc123, qos: debug, time_limit: 30m}"]),
    "lumi": ("llama-2-7b-lumi", ["slurm={account: project_465000001, time_limit: 12h}"]),
    "lumi-container": (
        "llama-2-7b-lumi",
        [
            "slurm={account: project_465000001, partition: dev-g, time_limit: 1h}",
            "slurm.container=/scratch/project_465000001/image of mine.sif",
            "machine.site.container.binds=[/pfs, /scratch]",
            "data={train: /flash/project_465000001/corpus/train}",
        ],
    ),
    "odd-names": ("gpt-22b-frontier", ["name='it''s \"odd\" \\ $(touch x)'", "slurm.account=abc123"]),
}


def job(preset: str, overrides: Sequence[str], run_folder: str = "/lustre/runs/a run") -> JobSpec:
    spec = load_run(preset, overrides).spec
    return of_run(
        spec, policy.schedule(spec), Path(run_folder), Path("/home/user/work"), "/env/bin/frontrunner"
    )


@pytest.mark.parametrize("name", CASES)
def test_script_is_the_golden_one(name: str) -> None:
    folder = f"/lustre/{ODD}" if name == "odd-names" else "/lustre/runs/a run"
    text = render(job(*CASES[name], folder))
    golden = GOLDEN / f"{name}.sh"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_golden_file_is_compared() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


def test_no_directive_stands_after_the_first_command() -> None:
    lines = render(job(*CASES["odd-names"], f"/lustre/{ODD}")).splitlines()
    commands = [n for n, line in enumerate(lines) if line and not line.startswith("#")]
    assert not [line for line in lines[commands[0] :] if line.startswith("#SBATCH")]


def test_notes_of_a_machine_file_stay_comments() -> None:
    plain = job(*CASES["frontier"])
    notes = ("first\ntouch HACKED", "\r\n#SBATCH --comment=x")
    text = render(replace(plain, environment=replace(plain.environment, notes=notes, name="a\nb")))
    assert "\n# recipe a b\n# first touch HACKED\n# #SBATCH --comment=x\n" in text


def test_a_script_decides_nothing() -> None:
    words = {"if", "for", "while", "case", "then", "trap", "eval", "source", "||", "&&"}
    for preset, overrides in CASES.values():
        text = render(job(preset, overrides))
        code = [line for line in text.splitlines() if not line.startswith("#")]
        assert not words & {word for line in code for word in line.split()}
        assert text.splitlines()[-1].startswith('exec /env/bin/frontrunner continue --exit-code "$?" -- ')


def test_what_a_job_is_shows_in_its_script() -> None:
    """Each field reaches the text: none is forgotten."""
    plain = job(*CASES["frontier-large"])
    other: dict[str, object] = {
        "name": "n",
        "nodes": 7,
        "ranks_per_node": 3,
        "time_s": 61,
        "signal_s": 62,
        "account": "acc",
        "partition": "par",
        "qos": "qos",
        "exclude": "exc",
        "reservation": "res",
        "device_request": "dev",
        "cores_per_rank": 5,
        "cpu_bind": "cores",
        "working_folder": "/w",
        "run_folder": "/r",
        "executable": "exe",
        "archive": "/arc",
        "command": "doctor",
    }
    unseen = {"environment", "container", "rank_executable"}  # the last is the archive's own here
    assert other.keys() | unseen == set(JobSpec.__dataclass_fields__)
    for key, value in other.items():
        changed = render(replace(plain, **{key: value}))  # type: ignore[arg-type]
        assert changed != render(plain), key
