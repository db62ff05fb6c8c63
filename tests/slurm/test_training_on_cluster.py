"""Training on a real Slurm of four nodes: on text, through segments, over the failure of a node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from support.slurm_user import HERE, User, steps, wait_for_step
from support.tree import ROOT

#: Three starts of a segment take 8 or more steps each; a node fails after 12.
STEPS = 60
pytestmark = pytest.mark.timeout(900)  # a busy machine takes minutes to import torch in all ranks


def write_training(user: User, nodes: int) -> None:
    """A run of two ranks a node that trains on text, with a checkpoint now and then."""
    (user.folder / "texts").mkdir()
    for name in ("README.md", "CONTRIBUTING.md"):
        (user.folder / "texts" / name).write_text((ROOT / name).read_text())
    prepare = ["data", "prepare", "--input", "texts", "--output", "corpus/train", "--tokenizer", "byte"]
    user.call(*prepare)
    user.write_run(nodes=nodes)
    data = yaml.safe_load((user.folder / "run.yaml").read_text())
    data["slurm"] |= {"executable": None, "environment": HERE}
    data["data"] = {"train": "corpus/train"}
    data["model"] |= {"attention_dropout": 0.1, "hidden_dropout": 0.1}
    data["model"] |= {"vocab_size": 257, "padded_vocab_size": 384}
    data["layout"]["sharding"] = {"preset": "three_level", "wire": {"block": 32, "error_feedback": True}}
    data["training"] |= {"steps": STEPS, "precision": "bfloat16", "validation_samples": 8}
    data["training"] |= {"global_batch_size": 4 * nodes}  # two micro-batches a rank
    data["checkpoint"] |= {"every_steps": 10}
    (user.folder / "run.yaml").write_text(yaml.safe_dump(data))


def curve(run_dir: Path) -> dict[int, float]:
    """Loss by step, by the last record of each."""
    return {record["step"]: record["loss"] for record in steps(run_dir)}


@pytest.mark.long
def test_three_segments_of_training_are_one_run(user: User) -> None:
    """Its curve equals that of the run that nobody interrupts, bit for bit."""
    pytest.importorskip("torch")
    write_training(user, nodes=1)
    user.call("train", "run.yaml", "--run-dir", "whole")
    job, run_dir = user.submit("--time", "9m", "-o", "slurm.segment_time=3m")
    for _ in range(2):
        wait_for_step(run_dir, (max(curve(run_dir)) if (run_dir / "records.jsonl").exists() else 0) + 8)
        user.cluster.run("scancel", "--signal=USR1", user.status()["job_id"])
        user.cluster.wait(job, "COMPLETED", limit_s=300)  # and the next one is in the queue
        job = user.status()["job_id"]
    user.cluster.wait(job, "COMPLETED", limit_s=400)
    row = user.status()
    assert (row["state"], row["segment"], row["segments"], row["step"]) == ("finished", 3, 3, STEPS)
    records = [json.loads(line) for line in (run_dir / "records.jsonl").read_text().splitlines()]
    assert len({r["continued_from"] for r in records if r["kind"] == "header"}) == 3
    assert curve(run_dir) == curve(user.folder / "whole")


@pytest.mark.long
def test_training_goes_on_without_a_node_that_failed(user: User) -> None:
    """It learns, and its curve is that of one machine."""
    pytest.importorskip("torch")
    write_training(user, nodes=2)
    job, run_dir = user.submit()
    wait_for_step(run_dir, 12)
    used = user.cluster.job(job)["BatchHost"]
    user.cluster.run("scontrol", "update", f"nodename={used}", "state=down", "reason=test")
    user.cluster.start_again(job)
    user.cluster.wait(job, "COMPLETED", limit_s=400)
    row, taken = user.status(), curve(run_dir)
    assert row["tokens_per_s_per_device"] > 0
    assert taken[STEPS] < taken[1] - 0.5
    assert (row["step"], user.cluster.job(job)["Restarts"]) == (STEPS, "1")
    assert user.cluster.job(job)["BatchHost"] != used
    headers = [json.loads(line) for line in (run_dir / "records.jsonl").read_text().splitlines()]
    first, second = [record["continued_from"] for record in headers if record["kind"] == "header"]
    assert first == 0 < second
    user.call("train", "run.yaml", "--run-dir", "whole")
    assert curve(run_dir) == curve(user.folder / "whole")
