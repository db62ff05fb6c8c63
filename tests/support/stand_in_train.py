"""Plays ``frontrunner train RUN.yaml --run-dir DIR`` for sweeps: steps at once, by what the run file says.

Each start is a line in ``starts.txt`` beside the sweep's folder of trials. Micro-batch 5 runs out of memory,
tensor 2 with micro-batch 4 crashes; PAUSE_S is how long a step takes.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path


def main(run_file: Path, run_dir: Path) -> int:
    with (run_dir.parent.parent / "starts.txt").open("a") as starts:
        starts.write(f"{run_dir.name}\n")
    found = dict(
        re.findall(r"^ *(tensor|pipeline|micro_batch_size|steps): (\d+)$", run_file.read_text(), re.MULTILINE)
    )
    tensor, pipeline, micro, steps = (
        int(found[key]) for key in ("tensor", "pipeline", "micro_batch_size", "steps")
    )
    if micro == 5:
        print("RuntimeError: HIP out of memory. Tried to allocate 20.00 GiB")
        return 1
    run_dir.mkdir()
    with (run_dir / "records.jsonl").open("a") as records:
        for step in range(1, steps + 1):
            if (tensor, micro) == (2, 4) and step == 2:
                print("RuntimeError: wrong")
                return 1
            time.sleep(float(os.environ.get("PAUSE_S", "0.005")))
            speed = 100.0 * micro + 10 * pipeline + tensor
            speed = speed if step > 3 else 1.0  # the first steps warm up
            record = {
                "kind": "step",
                "step": step,
                "step_time_s": 10 / speed,
                "tokens_per_s_per_device": speed,
            }
            records.write(json.dumps(record) + "\n")
            records.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[2]), Path(sys.argv[4])))
