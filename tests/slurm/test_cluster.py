"""Runs on a real Slurm of four nodes: submitted, watched, continued, requeued, cancelled."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from support.slurm_cluster import SlurmCluster
from support.slurm_user import HERE, User, steps, wait_for_step

pytestmark = pytest.mark.timeout(280)


def test_a_run_is_submitted_watched_and_ends(user: User) -> None:
    user.write_run(nodes=4)
    job, run_dir = user.submit()
    row = user.wait("finished")
    assert row["job_id"] == job and row["step"] == row["steps"] == 10
    assert row["loss"] == 0.1 and row["tokens_per_s_per_device"] == 1000.0 and row["eta_s"] == 0
    assert [s["step"] for s in steps(run_dir)] == list(range(1, 11))
    known = user.cluster.job(job)
    assert (known["NumNodes"], known["NumTasks"], known["ExitCode"]) == ("4", "8", "0:0")
    assert f"starts after step 0 in {user.folder}" in user.call("logs", "the run")
    assert user.call("status", "the run").startswith("finished")


def test_a_run_longer_than_a_job_goes_on_in_the_next(user: User) -> None:
    user.write_run(steps=40, hold_at=[10, 20])
    first, run_dir = user.submit("--time", "3m", "-o", "slurm.segment_time=1m")
    wait_for_step(run_dir, 10)
    user.cluster.run("scancel", "--signal=USR1", first)  # as Slurm does before the end of a job
    wait_for_step(run_dir, 20)
    second = user.status()["job_id"]
    user.cluster.run("scancel", "--signal=USR1", second)
    row = user.wait("finished")
    assert (row["segment"], row["segments"]) == (3, 3)
    jobs = list(dict.fromkeys(s["job"] for s in steps(run_dir)))
    assert jobs == [first, second, row["job_id"]]
    assert [s["step"] for s in steps(run_dir)] == list(range(1, 41)), "a step was lost or taken twice"


def test_slurm_itself_tells_the_ranks_before_the_end(user: User) -> None:
    user.write_run(steps=100_000, hold_at=[20])
    job, run_dir = user.submit("--time", "1m")
    assert user.wait("stopped")["reason"] == "the time of its only segment is used up"
    assert int((run_dir / "checkpoint").read_text()) == steps(run_dir)[-1]["step"]
    assert user.cluster.job(job)["ExitCode"] == "75:0"


def test_where_the_site_wants_it_the_same_job_runs_again(user: User) -> None:
    user.write_run(steps=15, hold_at=[5], chain="requeue")
    job, run_dir = user.submit("--time", "3m", "-o", "slurm.segment_time=1m")
    wait_for_step(run_dir, 5)
    user.cluster.run("scancel", "--signal=USR1", job)
    user.cluster.start_again(job)
    row = user.wait("finished")
    assert (row["job_id"], row["segment"]) == (job, 2)
    assert [s["step"] for s in steps(run_dir)] == list(range(1, 16))


def test_a_node_that_fails_is_replaced(user: User) -> None:
    user.write_run(steps=60, hold_at=[6])
    job, run_dir = user.submit()
    wait_for_step(run_dir, 6)
    used = steps(run_dir)[-1]["node"]
    user.cluster.run("scontrol", "update", f"nodename={used}", "state=down", "reason=test")
    user.cluster.start_again(job)
    row = user.wait("finished")
    taken = steps(run_dir)
    assert (row["job_id"], row["segment"]) == (job, 1)
    assert user.cluster.job(job)["Restarts"] == "1"
    assert taken[-1]["node"] != used and {s["step"] for s in taken} == set(range(1, 61))
    again = [s["step"] for s in taken if s["node"] != used]
    assert again[0] > 1, "it did not start from its checkpoint"


def test_a_chain_that_fails_fast_stops(user: User) -> None:
    user.write_run(fail_at=1)
    job, run_dir = user.submit("--time", "10m", "-o", "slurm.segment_time=1m")
    row = user.wait("failed")
    assert (row["segment"], row["segments"]) == (2, 10)
    assert row["reason"] == "segments 1 and 2 ended without a new step (exit code 1)"
    assert "no further segment" in user.call("logs", "the run")
    assert not user.cluster.run("squeue", "-h").strip()


def test_a_cancelled_run_ends_and_can_be_continued(user: User) -> None:
    user.write_run(steps=20, hold_at=[5])
    job, run_dir = user.submit("--time", "10m", "-o", "slurm.segment_time=1m")
    wait_for_step(run_dir, 5)
    assert "this run is running" in user.call("submit", "the run", code=2)
    assert job in user.call("cancel", "the run")
    assert user.cluster.wait(job, "CANCELLED")["JobState"] == "CANCELLED"
    assert user.wait("cancelled")["segment"] == 1
    second = json.loads(user.call("submit", "the run", "--json"))["job_id"]
    assert second != job
    assert user.wait("finished")["step"] == 20
    assert steps(run_dir)[-1]["job"] == second


def test_every_state_on_the_way(user: User) -> None:
    """Queued, starting, running, saving, stopped; then again, to the end."""
    user.write_run(steps=10, hold_at=[3], hold_start=True, hold_saving=True)
    fill = ("sbatch", "--parsable", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 600")
    other = user.cluster.run(*fill).strip()
    user.cluster.wait(other, "RUNNING")
    job, run_dir = user.submit()
    row = user.wait("queued")
    assert row["reason"]
    user.cluster.run("scancel", other)
    user.wait("starting")
    (run_dir / "go-on-starting").touch()
    wait_for_step(run_dir, 3)
    assert user.status()["state"] == "running"
    user.cluster.run("scancel", "--signal=USR1", job)
    user.wait("saving")
    (run_dir / "go-on-saving").touch()
    assert user.wait("stopped")["next"].startswith("frontrunner submit ")
    user.call("submit", "the run")
    assert user.wait("finished")["step"] == 10


def test_follow_ends_with_the_run(user: User) -> None:
    user.write_run(steps=10, pause_s=0.2)
    job, _ = user.submit()
    text = user.call("logs", "--follow", "the run")
    assert text.count(f"job {job} on") == 1 and "the run is complete" in text


EVIL = [
    'it\'s a "name" with $(touch HACKED) `touch HACKED`; touch HACKED & \\ %j é ü',
    "-rf --wrap=x",
    "# not a comment \\",
]


@pytest.mark.parametrize("name", EVIL)
def test_names_are_names(user: User, name: str) -> None:
    user.write_run(name=name)
    job, run_dir = user.submit()
    user.wait("finished")
    shown = user.cluster.run("squeue", "--states=all", "--noheader", "--format=%j", f"--jobs={job}")
    assert shown.rstrip("\n") == name
    assert not list(user.folder.rglob("HACKED"))


@pytest.mark.parametrize(
    "folder",
    [
        "a 'folder' $(touch HACKED) \"of\" é `touch HACKED`",
        "two\nlines\n#SBATCH --comment=HACKED\ntouch HACKED",
        os.fsdecode(b"not \xff unicode"),
    ],
    ids=["quotes", "newline", "bytes"],
)
def test_folders_are_folders(cluster: SlurmCluster, tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    user = User(cluster, tmp_path / folder, tmp_path)
    user.write_run()
    user.call("submit", "run.yaml", "--run-dir", "the run")
    user.wait("finished")
    assert len(steps(user.folder / "the run")) == 10
    assert not [path for path in tmp_path.rglob("HACKED") if path != tmp_path / folder]
    job = user.status()["job_id"]
    assert cluster.job(job).get("Comment") is None
    assert (user.folder / "the run" / "logs" / f"job-{job}.log").exists()


def test_variables_are_values(user: User) -> None:
    value = "a 'b' \"c\" $(touch HACKED) `touch HACKED` \\ $HOME ${SLURM_JOB_ID}"
    user.write_run()
    data = yaml.safe_load((user.folder / "run.yaml").read_text())
    data["slurm"]["environment"]["VALUE"] = value
    (user.programs / "rank").write_text('#!/bin/bash\nprintf "%s\\n" "VALUE=$VALUE"\n')
    (user.folder / "run.yaml").write_text(yaml.safe_dump(data))
    job, _ = user.submit()
    user.wait("finished")
    assert f"VALUE={value.replace('${SLURM_JOB_ID}', job)}\n" in user.call("logs", "the run")
    assert not list(user.folder.rglob("HACKED"))


def test_a_partition_that_does_not_exist_is_refused(user: User) -> None:
    user.write_run()
    error = user.call("submit", "run.yaml", "-o", "slurm.partition=bath", "--run-dir", "the run", code=2)
    assert error.splitlines()[-1].startswith('command line: slurm.partition = "bath": ')
    assert "use one of: batch, short" in error
    assert not (user.folder / "the run").exists()


def test_more_nodes_or_time_than_there_are_is_refused(user: User) -> None:
    user.write_run()
    assert "nodes = 8" in user.call("submit", "run.yaml", "--nodes", "8", code=2)
    options = ("--time", "1h", "-o", "slurm.partition=short")
    assert "slurm.time_limit" in user.call("submit", "run.yaml", *options, code=2)
    assert not (user.folder / "runs").exists() and not user.cluster.run("squeue", "-h").strip()


def test_devices_are_asked_for_where_the_machine_has_them(user: User) -> None:
    user.write_run()
    data = yaml.safe_load((user.folder / "run.yaml").read_text())
    data["machine"]["device"] |= {"kind": "cuda", "memory_bytes": 2**32}  # communicators take some of it
    (user.programs / "rank").write_text('#!/bin/bash\necho "sees $ROCR_VISIBLE_DEVICES"\n')
    (user.folder / "run.yaml").write_text(yaml.safe_dump(data))
    user.submit()
    user.wait("finished")
    assert user.call("logs", "the run").count("sees 0,1\n") == 4


@pytest.mark.long
def test_the_doctor_probes_nodes_in_a_job(user: User) -> None:
    pytest.importorskip("torch")
    user.write_run()
    data = yaml.safe_load((user.folder / "run.yaml").read_text())
    data["slurm"] |= {"executable": None, "environment": HERE}
    for level in ("package", "node", "network"):
        link = data["machine"]["links"][level]
        link["bandwidth_bytes_per_s"] = 1e6  # what any machine reaches
    (user.folder / "run.yaml").write_text(yaml.safe_dump(data))
    answer = json.loads(user.call("doctor", "run.yaml", "--nodes", "2", "--json"))
    assert answer == {"findings": []}
    (folder,) = (user.folder / "runs").iterdir()
    results = json.loads((folder / "probe.json").read_text())["ranks"]
    assert len(results) == 4 and all(len(r["sent_bytes_per_s"]["network"]) == 3 for r in results)
    assert "frontrunner continue" not in (folder / "job.sh").read_text()


@pytest.mark.long
def test_a_first_day_is_a_job_of_one_node(user: User) -> None:
    """Its ranks are srun's, and each part is a process of theirs."""
    pytest.importorskip("torch")
    user.write_run()
    data = yaml.safe_load((user.folder / "run.yaml").read_text())
    data["slurm"] |= {"executable": None, "environment": HERE}
    (user.folder / "run.yaml").write_text(yaml.safe_dump(data))
    answer = json.loads(user.call("doctor", "run.yaml", "--first-day", "--nodes", "1", "--json"))
    assert {part["part"] for part in answer["parts"] if part["verdict"] == "failed"} == set()
    assert {row["engine"] for row in answer["steps"]} >= {"native", "plain", "fsdp"}
    (folder,) = (user.folder / "runs").iterdir()
    assert [str(folder / "measured.yaml")] == answer["outputs"]
    assert "--nodes=1" in (folder / "job.sh").read_text()
