"""A study whose report has every section: logs of three sizes, a run of ours, and markup in names."""

from __future__ import annotations

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
