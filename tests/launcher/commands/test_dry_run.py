"""``submit --dry-run``: the script on stdout, what it would take on stderr, and nothing left behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Submit = Callable[..., "subprocess.CompletedProcess[str]"]
FRONTIER = ("gpt-22b-frontier", "--account", "abc123")


def test_a_dry_run_needs_no_slurm_and_leaves_nothing(submit: Submit, tmp_path: Path) -> None:
    done = submit(*FRONTIER, "--dry-run", "--nodes", "4", "--time", "1:00:00")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash\n#SBATCH --job-name=gpt-22b-frontier\n")
    assert "#SBATCH --nodes=4\n" in done.stdout and "#SBATCH --time=01:00:00\n" in done.stdout
    assert "the planner predicts" in done.stderr
    answer = json.loads(submit(*FRONTIER, "--dry-run", "--json").stdout)
    assert answer["job_id"] is None and answer["script"].startswith("#!/bin/bash\n")
    assert not list((tmp_path / "work").iterdir())


def test_a_dry_run_imports_neither_torch_nor_what_it_brings() -> None:
    code = (
        "import sys; sys.argv = 'frontrunner submit gpt-22b-frontier --account a --dry-run'.split()\n"
        "from frontrunner.launcher.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'megatron', 'rich.table', 'mpi4py') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_a_dry_run_sums_up_what_it_would_take(submit: Submit) -> None:
    """On stderr; the script alone is on stdout."""
    done = submit(*FRONTIER, "--dry-run", "--time", "5h", "--run-dir", "mine")
    assert "predicted" not in done.stdout
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert lines[:3] == [
        "queue     batch: 2 nodes, 02:00:00 a job",
        "segments  3 segments, one job after the other; 05:00:00 in all",
        "cost      at most 10.0 node-hours",
    ]
    assert re.fullmatch(r"memory    [\d.]+ GiB of 64.0 GiB per device \(\d+%\), predicted", lines[3])
    assert re.fullmatch(r"time      [\d.]+ days and [\d.]+ node-hours, predicted", lines[4])
    assert re.fullmatch(r"          for 100 steps, 1.31e\+08 tokens, [\d.]+ s a step", lines[5])
    assert lines[6:] == [
        "writes    mine/: run.yaml, job.sh, records.jsonl, logs/",
        "          2 checkpoints of 247 GiB in checkpoints/",
    ]


def test_a_dry_run_needs_neither_the_corpus_nor_an_account(submit: Submit, tmp_path: Path) -> None:
    """A submission does, and a corpus that is there is checked."""
    words = ("gpt-22b-frontier", "-o", "data.train=corpus/train")
    done = submit(*words, "--dry-run")
    assert done.returncode == 0 and done.stdout.startswith("#!/bin/bash\n")
    assert "corpus/train.bin and .idx are not on this machine" in done.stderr
    assert "note: frontier requires an account: give --account PROJECT" in done.stderr
    assert submit(*words).returncode == 2
    (tmp_path / "work" / "corpus").mkdir()
    (tmp_path / "work" / "corpus" / "train.bin").write_bytes(b"")
    assert "data.train" in submit(*words, "--dry-run").stderr.splitlines()[-1]
    assert submit(*words, "--dry-run").returncode == 2
