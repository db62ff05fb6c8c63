"""What commands show on terminals of some widths: everything, whole, in lines that fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frontrunner.configs.units import bytes_text, digits, flops_text, number_text, seconds_text, share_text
from support import logs, reports
from support.specs import run_spec
from support.sweeps import small_sweep
from support.terminal import in_pipe, on_terminal

#: Other text than the tables and lines of a command: how long it took.
_TIMES = re.compile(r"(?:in|,) [\d.]+ m?s(?=[ ,]|$)|\([\d,]+ tokens/s\)|\d+ GiB are free")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with logs, run folders with a long name and with one in the way, a text and a sweep."""
    folder = tmp_path_factory.mktemp("widths")
    (folder / "logs").mkdir()
    reports.study(folder / "logs")
    for name in ("gpt-22b-frontier-20261125-101500", "b" * 50):
        spec = run_spec(training={"steps": 1000})
        run = logs.write_run(
            folder / "runs" / name, [2.0] * 30, spec, slowest_rank=3, slowest_busy_s=1.5, busy_s=1.25
        )
        (run / "errors").mkdir()
    (folder / "text.txt").write_text("a text of a few words\n" * 50)
    sweep = small_sweep(folder)
    try:
        from frontrunner.launcher.sweeping.space import points
        from frontrunner.launcher.sweeping.store import OUT_OF_MEMORY, Store
    except ImportError:
        return folder
    (folder / "sweeps" / "small").mkdir(parents=True)
    store = Store(folder / "sweeps" / "small", sweep, create=True)
    for point in points(sweep):
        fails = point.values["layout.micro_batch_size"] == 5
        speed = None if fails else 1000.125 + point.number
        store.finish(store.begin(point, 999.5), speed, OUT_OF_MEMORY if fails else None, 2.0, 0.0)
    return folder


def of_layouts(answer: Any) -> Iterator[str]:
    # Four rows: of the first group its simplest and its two fastest, then the simplest of the second.
    simplest = [group["simplest"] for group in answer["groups"][:2]]
    for each in [*simplest, *answer["top"][:2], *answer["pareto"][:4]]:
        yield bytes_text(each["peak_memory_bytes_per_device"])
        yield seconds_text(each["step_time_s"])
        yield f"{each['tokens_per_s_per_device']:,.1f}"
        yield flops_text(each["model_flops_per_s_per_device"])
        yield f"{each['mfu']:.1%}"
        yield f"{each['node_hours']:,.0f}"


def of_options(answer: Any) -> Iterator[str]:
    for option in answer["options"]:
        yield f"{option['node_hours']:,.0f}"
        yield digits(option["days"])
        yield share_text(option["mfu"])
        yield digits(option["failures_expected"])


def of_plan(answer: Any) -> Iterator[str]:
    yield from map(bytes_text, answer["memory"].values())
    yield seconds_text(answer["step_time_s"])
    yield f"{answer['tokens_per_s_per_device']:,.1f}"
    yield from (f"{each['gain']:+.1%}" for each in answer["advice"])


def of_validation(answer: Any) -> Iterator[str]:
    for kind, scale in (("speed", 1.0), ("memory", 2**30), ("at_rest", 2**30)):
        for row in answer[kind]["rows"]:
            yield from (f"{row[key] / scale:,.1f}" for key in ("published", "predicted"))
            yield from (
                f"{row[key]:+.1f} %" for key in ("error_pct", "left_out_error_pct") if row[key] is not None
            )


def of_analysis(answer: Any) -> Iterator[str]:
    for run in answer["runs"]:
        yield from (seconds_text(run[f"step_time_{key}s"]) for key in ("", "p5_", "p95_"))
        yield flops_text(run["model_flops_per_s_per_device"])
        yield flops_text(run["hardware_flops_per_s_per_device"])
        yield bytes_text(run["memory_bytes"])
        yield f"{run['steady']['steady']} of {run['steps']}"
    for group in answer["scaling"]:
        for point in group["points"]:
            yield from (digits(point["speedup"]), share_text(point["efficiency"]))


def of_trials(answer: Any) -> Iterator[str]:
    for trial in answer["trials"]:
        yield number_text(trial["objective"], ",.5g")
        yield number_text(trial["predicted"], ",.5g")
        yield f"{trial['error_pct']:+.1f} %" if trial["error_pct"] is not None else "-"
    for shares in (answer.get("sensitivity"), answer.get("shap")):
        yield from (f"{share:.1%}" for share in (shares or {}).values())


def of_runs(answer: Any) -> Iterator[str]:
    for run in answer["runs"]:
        yield f"step {run['step']} of"
        yield f"loss {run['loss']:.4f}"


def of_corpus(answer: Any) -> Iterator[str]:
    yield from (f"{answer[key]:,}" for key in ("documents", "tokens", "vocab_size"))


COMMANDS: dict[str, tuple[list[str], Any]] = {
    "search": (["search", "gpt-22b", "--nodes", "2", "--top", "4", "--tokens", "3e11"], of_layouts),
    "advise": (["advise", "llama-3-8b", "--tokens", "3e11", "--days", "9"], of_options),
    "plan": (["plan", "gpt-22b-frontier"], of_plan),
    "validate": (["validate"], of_validation),
    "analyze": (["analyze", "logs", "runs"], of_analysis),
    "sweep status": (["sweep", "status", "small.yaml"], of_trials),
    "sweep report": (["sweep", "report", "small.yaml"], of_trials),
    "status": (["status"], of_runs),
    "top": (["top", "--once"], of_runs),
    "data prepare": (
        ["data", "prepare", "--input", "text.txt", "--output", "corpus/a", "--tokenizer", "byte", "--force"],
        of_corpus,
    ),
    "check": (["check", "gpt-22b-frontier"], lambda answer: ()),
    "doctor": (
        ["doctor", "gpt-22b-frontier"],
        lambda answer: (each["message"] for each in answer["findings"]),
    ),
    "presets": (["presets"], lambda answer: (each["name"] for each in answer["presets"])),
}


def needed(name: str) -> tuple[str, ...]:
    return {"analyze": ("polars",), "data prepare": ("tokenizers", "torch")}.get(
        name, ("optuna", "shap", "torch") if name.startswith("sweep") else ()
    )


def squeezed(text: str) -> str:
    """Without what only breaks lines: a name that is folded is still whole."""
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_figures_and_names_are_whole(place: Path, name: str) -> None:
    for module in needed(name):
        pytest.importorskip(module)
    words, figures = COMMANDS[name]
    answer = json.loads(in_pipe(*words, "--json", folder=place).stdout)
    piped = in_pipe(*words, folder=place)
    whole = _TIMES.sub("", piped.stdout + piped.stderr)
    assert "\x1b" not in whole and "…" not in whole
    for columns in (60, 80) if name == "analyze" else (80,):
        shown = on_terminal(*words, columns=columns, folder=place)
        text = "\n".join(shown.lines)
        assert "…" not in text
        assert [line for line in shown.lines if len(line) > columns and " " in line.strip()] == []
        missing = [figure for figure in figures(answer) if squeezed(figure) not in squeezed(text)]
        assert missing == [], columns
        numbers = set(re.findall(r"\d[\d,.]*\d|\d", whole)) - set(re.findall(r"\d[\d,.]*\d|\d", text))
        assert numbers == set(), columns
