from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from frontrunner.analysis.importers import records
from frontrunner.analysis.read import read
from frontrunner.analysis.run_log import STEP_SCHEMA, Collection
from frontrunner.configs.errors import SpecError
from support import logs
from support.specs import run_spec

NEOX_LOG = "\n".join(
    [*logs.argument_lines(logs.NEOX, "........updated"), *(logs.neox_step(step, 2.0) for step in range(1, 5))]
)
MEGATRON_LOG = "\n".join(
    [
        *logs.argument_lines(
            logs.MEGATRON | {"checkpoint_activations": None, "recompute_granularity": "selective"}
        ),
        " > padded vocab (size: 500) with 12 dummy tokens (new size: 512)",
        *(logs.megatron_step(step, 2.0) for step in range(1, 5)),
    ]
)
LOGS = {
    "megatron-deepspeed": (logs.deepspeed_log([4.0, 2.0, 2.0, 2.0]), "hardware", "full", "bfloat16"),
    "megatron-lm": (MEGATRON_LOG, "model", "selective", "bfloat16"),
    "gpt-neox": (NEOX_LOG, "hardware", "full", "float16"),
}


def of_text(folder: Path, text: str | bytes, name: str = "log.out") -> Collection:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read([path])


@pytest.mark.parametrize("name", LOGS)
def test_a_text_log_gives_layout_model_and_convention(tmp_path: Path, name: str) -> None:
    text, convention, recompute, precision = LOGS[name]
    found = of_text(tmp_path, text)
    (run,) = found.runs
    assert (run.format, run.flop_convention, run.precision) == (name, convention, precision)
    assert (run.devices, run.global_batch_size, run.seq_len, run.planned_steps) == (8, 16, 128, 100)
    expected = {"tensor": 2, "pipeline": 2, "data": 2, "micro_batch_size": 2, "grad_accum_steps": 4}
    assert {key: run.layout[key] for key in expected} == expected
    assert (run.layout["sharding"], run.layout["recompute"]) == ("zero1", recompute)
    assert run.model
    shape = (run.model.num_layers, run.model.hidden_size, run.model.num_heads, run.model.padded_vocab_size)
    assert shape == (4, 256, 4, 512)
    assert found.steps["step"].to_list() == [1, 2, 3, 4]
    assert found.steps["step_time_s"][-1] == 2.0
    assert run.lost_lines == 0


@pytest.mark.parametrize(
    ("name", "flops"), [("megatron-deepspeed", 1.5e12), ("megatron-lm", 91e12), ("gpt-neox", 51.2e12)]
)
def test_printed_flops_are_per_second(tmp_path: Path, name: str, flops: float) -> None:
    assert of_text(tmp_path, LOGS[name][0]).steps["printed_flops_per_s"].to_list() == [flops] * 4


@pytest.mark.parametrize("name", LOGS)
def test_labels_of_srun_and_gzip_do_not_matter(tmp_path: Path, name: str) -> None:
    plain = of_text(tmp_path, LOGS[name][0])
    labelled = "\n".join(
        f"{index % 2 * 111:3d}: {line}" for index, line in enumerate(LOGS[name][0].split("\n"))
    )
    packed = of_text(tmp_path, gzip.compress(labelled.encode()), "again.out.gz")
    assert packed.steps.equals(plain.steps)
    assert packed.runs[0].layout == plain.runs[0].layout


def test_utf16_is_read(tmp_path: Path) -> None:
    assert of_text(tmp_path, NEOX_LOG.encode("utf-16")).steps.height == 4


@pytest.mark.parametrize(
    "line",
    [
        logs.deepspeed_step(9, 2.0)[:-40],  # cut off
        logs.deepspeed_step(9, 2.0)[:70],  # before the time
        logs.deepspeed_step(9, 2.0)[170:],  # the end of one
        logs.deepspeed_step(9, 2.0)[:-2],  # cut off inside the last number
        logs.deepspeed_step(9, 2.0)[:150] + logs.deepspeed_step(10, 2.0)[40:],  # two ranks at once
        logs.deepspeed_step(9, float("nan")),
        logs.deepspeed_step(9, -1.0),
        logs.deepspeed_step(9, 1e300),
        logs.deepspeed_step(10**20, 2.0),
        logs.deepspeed_step(9, 2.0).replace("learning rate: 6", "learning rate: \ufffd"),
        logs.memory_line(3, 100)[:60],
        logs.memory_line(3, float("inf")),
        logs.message_line("send", 1.0, "14.0 MB")[:-30],
        logs.message_line("send", 1.0, "14.0 XB"),
    ],
)
def test_a_line_that_is_not_whole_is_lost_and_counted(tmp_path: Path, line: str) -> None:
    whole = logs.deepspeed_log([2.0, 2.0])
    found = of_text(tmp_path, f"{whole}{line}\n{logs.deepspeed_step(3, 2.0)}\n")
    assert found.steps["step"].to_list() == [1, 2, 3]
    assert found.runs[0].lost_lines == 1


def test_a_gzip_that_was_cut_off_keeps_what_it_has(tmp_path: Path) -> None:
    text = logs.deepspeed_log([2.0 + step / 1000 for step in range(2000)])
    packed = gzip.compress(text.encode())
    found = of_text(tmp_path, packed[: len(packed) // 2], "cut.gz")
    assert 100 < found.steps.height < 2000
    assert found.runs[0].lost_lines in (1, 2)


def test_a_loss_that_is_no_number_is_null(tmp_path: Path) -> None:
    found = of_text(tmp_path, logs.deepspeed_log([2.0, 2.0], loss="NAN"))
    assert found.steps["loss"].to_list() == [None, None]
    assert found.runs[0].lost_lines == 0


def test_memory_is_by_stage_and_messages_are_of_whole_steps(tmp_path: Path) -> None:
    text = logs.deepspeed_log([2.0], extra=[logs.message_line("send", 900.0, "14.0 MB")])
    text += "\n".join(
        [
            *(logs.memory_line(rank, mib) for rank, mib in ((0, 500), (1, 510.5), (4, 300), (7, 200))),
            *[logs.message_line("send", 10.0, "2.0 MB")] * 3,
            logs.message_line("all_reduce", 100.0, "1.5 GB"),
            logs.deepspeed_step(2, 2.0),
            logs.message_line("send", 900.0, "14.0 MB"),
        ]
    )
    (run,) = of_text(tmp_path, text).runs
    assert [(each.stage, each.peak_bytes / 2**20) for each in run.memory] == [(0, 610.5), (1, 400)]
    told = {each.name: (each.calls, each.bytes, round(each.seconds, 6)) for each in run.communication}
    assert told == {"send": (3, 3 * 2 * 2**20, 0.03), "all_reduce": (1, 1.5 * 2**30, 0.1)}


def test_a_log_that_starts_again_with_another_layout_keeps_both_parts(tmp_path: Path) -> None:
    text = logs.deepspeed_log([2.0] * 3) + logs.deepspeed_log([3.0] * 2, {"micro_batch_size": 4})
    found = of_text(tmp_path, text)
    assert found.steps["step_time_s"].to_list() == [3.0, 3.0, 2.0]
    assert found.steps["segment"].to_list() == [1, 1, 0]
    assert (found.runs[0].current_segment, found.runs[0].layout["micro_batch_size"]) == (1, 4)


def test_memory_of_a_former_layout_does_not_count(tmp_path: Path) -> None:
    first = [logs.deepspeed_log([2.0] * 2, {"micro_batch_size": 4}), logs.memory_line(0, 900)]
    second = [logs.deepspeed_log([3.0] * 2), logs.memory_line(0, 500)]
    (run,) = of_text(tmp_path, "\n".join([*first, *second])).runs
    assert [each.peak_bytes / 2**20 for each in run.memory] == [600]


def test_what_a_log_does_not_say_is_none(tmp_path: Path) -> None:
    (run,) = of_text(tmp_path, logs.megatron_step(1, 2.0)).runs
    assert (run.devices, run.model, run.layout, run.machine) == (None, None, {}, None)


@pytest.mark.parametrize(
    ("line", "machine"),
    [
        ("first= crusher068", "frontier"),
        ("frontier00012: hello", "frontier"),
        ("/lustre/orion/abc123/x", "frontier"),
        ("/pfs/lustrep2/scratch/x", "lumi-g"),
        ("the frontier of science", None),
    ],
)
def test_a_machine_is_known_by_its_names(tmp_path: Path, line: str, machine: str | None) -> None:
    assert of_text(tmp_path, logs.deepspeed_log([1.0], extra=[line])).runs[0].machine == machine


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    spec = run_spec(nodes=2, devices=2, training={"global_batch_size": 8})
    found = read([logs.write_run(tmp_path / "a run", [3.0, 1.0, 1.0], spec)])
    (run,) = found.runs
    assert (run.id, run.format, run.devices, run.nodes) == ("a run", "records", 4, 2)
    assert (run.global_batch_size, run.seq_len, run.layout["data"]) == (8, 16, 4)
    assert run.model == spec.model
    assert found.steps["step_time_s"].to_list() == [3.0, 1.0, 1.0]
    assert found.steps["bytes_network"].to_list() == [3.0] * 3
    assert found.steps.columns == ["run", *STEP_SCHEMA]


def test_records_of_a_continued_run_replace_earlier_ones(tmp_path: Path) -> None:
    folder = logs.write_run(tmp_path / "run", [1.0] * 4)
    again = [logs.header(run_spec(), continued_from=2), logs.step_record(3, 5.0), logs.step_record(4, 6.0)]
    with (folder / "records.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in again)
    found = read([folder])
    assert found.steps["step_time_s"].to_list() == [1.0, 1.0, 5.0, 6.0]
    assert found.steps["segment"].to_list() == [0, 0, 1, 1]
    assert found.runs[0].current_segment == 0, "the layout is the same"


def test_a_run_continued_in_another_layout_says_where_it_begins(tmp_path: Path) -> None:
    folder = logs.write_run(tmp_path / "run", [1.0] * 2, run_spec(devices=2))
    other = run_spec(devices=2, layout={"tensor": 2})
    with (folder / "records.jsonl").open("a") as file:
        file.write(
            json.dumps(logs.header(other, continued_from=2)) + "\n" + json.dumps(logs.step_record(3, 5.0))
        )
    (run,) = read([folder]).runs
    assert (run.current_segment, run.layout["tensor"]) == (1, 2)


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "step", "step": 3, "step_time_s": 1.0, "lo',
        '{"kind": "step", "step": 3, "step_time_s": "soon"}',
        '{"kind": "step", "step": 3, "step_time_s": NaN}',
        '{"kind": "step", "step": 3, "step_time_s": -1}',
        '{"kind": "step", "step": 3, "step_time_s": 1e999}',
        '{"kind": "step", "step": "x", "step_time_s": 1.0}',
        '{"kind": "step", "step": 1e300, "step_time_s": 1.0}',
        '{"kind": "step"}{"kind": "step"}',
        '{"kind": "step", "step": 3}',
        "[1, 2]",
        "{}",
        "garbage",
        "[" * 100_000,
    ],
)
def test_a_damaged_record_is_lost_and_counted(tmp_path: Path, line: str) -> None:
    """The records before and after it, and those of other runs, stay."""
    folder = logs.write_run(tmp_path / "first", [1.0, 2.0])
    with (folder / "records.jsonl").open("a") as file:
        file.write(line + "\n" + json.dumps(logs.step_record(9, 3.0)) + "\n")
    other = logs.write_run(tmp_path / "second", [7.0])
    found = read([folder, other])
    assert found.steps.select("run", "step", "step_time_s").rows() == [
        (0, 1, 1.0),
        (0, 2, 2.0),
        (0, 9, 3.0),
        (1, 1, 7.0),
    ]
    assert [run.lost_lines for run in found.runs] == [1, 0]


def test_batches_do_not_mix_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [logs.write_run(tmp_path / f"run{index}", [float(index)] * index) for index in range(1, 6)]
    whole = read(folders)
    monkeypatch.setattr(records, "BATCH_BYTES", 1)
    assert read(folders).steps.equals(whole.steps)


def test_folders_are_searched_and_names_tell_runs_apart(tmp_path: Path) -> None:
    logs.write_run(tmp_path / "a" / "run", [1.0])
    logs.write_run(tmp_path / "b" / "run", [2.0])
    (tmp_path / "a" / "run" / "logs").mkdir()
    (tmp_path / "a" / "run" / "logs" / "rank0.log").write_text(NEOX_LOG)
    (tmp_path / "c.out").write_text(NEOX_LOG)
    (tmp_path / "empty.log").write_text("nothing")
    found = read([tmp_path, tmp_path / "c.out"])
    assert [run.id for run in found.runs] == ["c", "a/run", "b/run"]
    assert [(Path(path).name, reason) for path, reason in found.unread] == [
        ("empty.log", "holds no line of a training step")
    ]


def test_nothing_to_read_is_a_wrong_request(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="does not exist"):
        read([tmp_path / "missing"])
    with pytest.raises(SpecError, match="hold no log"):
        read([tmp_path])
    (tmp_path / "empty.log").write_text("nothing")
    with pytest.raises(SpecError, match="no line of a training step"):
        read([tmp_path])
