"""Plays ``frontrunner train RUN_DIR`` in jobs: rank 0 takes steps, writes records and heeds signals.

STAND_IN holds JSON: ``steps`` in all, ``pause_s`` between them, ``fail_at`` a step to fail before,
``hold_at`` steps after which it waits, once each, until it is told to stop: so no test is a race. With
``hold_start`` and ``hold_saving`` it waits before its first word and while it saves, until there is a file
``go-on-starting`` or ``go-on-saving``. The checkpoint is a file with the last step; one is written every 5
steps and on SIGUSR1, which ends with 75.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from frontrunner.run_folder import failures, files, locks
from frontrunner.run_folder.endings import TrainingFailed


def main(run_dir: Path) -> int:
    if os.environ["SLURM_PROCID"] != "0":
        return 0
    asked = json.loads(os.environ["STAND_IN"])
    stops: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: stops.append(number))
    checkpoint = run_dir / "checkpoint"
    start = int(checkpoint.read_text()) if checkpoint.exists() else 0
    node, job = os.environ["SLURMD_NODENAME"], os.environ["SLURM_JOB_ID"]
    print(f"job {job} on {node} starts after step {start} in {Path.cwd()}", flush=True)
    with (run_dir / files.LOCK).open("a") as lock, (run_dir / files.RECORDS).open("a") as records:
        locks.take(lock)
        locks.note_start(lock, job)
        _wait(run_dir / "go-on-starting", asked.get("hold_start"))
        records.write(json.dumps({"kind": "header", "job": job, "time": time.time()}) + "\n")
        for step in range(start + 1, asked["steps"] + 1):
            if step == asked.get("fail_at"):
                failures.record(run_dir, 0, TrainingFailed(f"step {step} cannot be taken"))
                return 1
            time.sleep(asked.get("pause_s", 0.05))
            record = {"kind": "step", "step": step, "loss": 1 / step, "job": job, "node": node}
            record |= {"step_time_s": 0.05, "tokens_per_s_per_device": 1000.0}
            records.write(json.dumps(record) + "\n")
            records.flush()
            if step in asked.get("hold_at", ()) and not (held := run_dir / f"held-{step}").exists():
                held.touch()
                while not stops:
                    time.sleep(0.05)
            if stops and asked.get("hold_saving"):
                records.write(json.dumps({"kind": "saving", "step": step}) + "\n")
                records.flush()
                _wait(run_dir / "go-on-saving", True)
            if stops or step % 5 == 0:
                checkpoint.write_text(str(step))
            if stops:
                records.write(json.dumps({"kind": "stopped", "step": step}) + "\n")
                return 75
        records.write(json.dumps({"kind": "summary"}) + "\n")
    return 0


def _wait(file: Path, wanted: object) -> None:
    while wanted and not file.exists():
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[2])))
