"""A study whose report has every section: logs of three sizes, a run of ours, and markup in names."""

from __future__ import annotations

import json
from pathlib import Path

from support import logs
from support.specs import run_spec

MARKUP = "<img src=x onerror=window.hacked=1>"
SCRIPT = "</script><script>window.hacked = 2</script>"


def study(folder: Path) -> Path:
    """Write it into ``folder``, which is given back."""
    for data in (1, 2, 4):
        arguments = {"world_size": 4 * data, "data_parallel_size": data}
        extra = [logs.memory_line(rank, 900.0 + rank) for rank in range(0, 4 * data, data)]
        text = logs.deepspeed_log(
            [9.0, *([8 / data + 0.2 + step / 1000 for step in range(8)])], arguments, extra
        )
        text += logs.message_line("all_reduce", 50.0, "1.5 GB") + "\n"
        text += logs.deepspeed_step(10, 8 / data + 0.2) + "\n"
        (folder / f"megatron-{4 * data}.out").write_text(text)
    run = logs.write_run(folder / MARKUP, [3.0, *([2.0] * 9)], run_spec(devices=2))
    with (run / "records.jsonl").open("a") as file:
        file.write(logs.line({"kind": "warning", "step": 9, "message": SCRIPT}))
        file.write("garbage\n")
    (folder / f"{MARKUP}.log").write_text("nothing")
    return folder


def sweep_file(folder: Path) -> Path:
    """A sweep's report as ``frontrunner sweep report --json`` writes it, with markup in its name and a
    value."""
    trials = [
        {
            "number": number,
            "point": number,
            "values": {"layout.tensor": 2**number, "layout.sharding.preset": MARKUP}
            | ({"layout.pipeline": 2} if number else {}),
            "state": "failed" if number == 3 else "complete",
            "objective": None if number == 3 else 1000.0 - 100.5 * number,
            "failure": "out_of_memory" if number == 3 else None,
            "attempt": 1,
            "predicted": 950.25,
            "node_hours": 0.125,
            "avoid": "",
            "error_pct": None if number == 3 else -5.125 + number,
        }
        for number in range(4)
    ]
    found = {
        "name": SCRIPT,
        "objective": "tokens_per_s_per_device",
        "budget": {"trials": 4},
        "trials": trials,
        "best": trials[0] | {"run": "model: gpt-tiny"},
        "node_hours": 0.5,
        "prediction_error_pct": 4.125,
        "sensitivity": {"layout.tensor": 0.75, "layout.pipeline": 0.25},
        "shap": {"layout.tensor": 0.625, "layout.pipeline": 0.375},
    }
    path = folder / "sweep.json"
    path.write_text(json.dumps(found))
    return path
