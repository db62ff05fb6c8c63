"""What a run can start from is known before any rank starts, and everything else is named as what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.schema import RunSpec
from frontrunner.run_folder import checkpoints, files
from frontrunner.run_folder.checkpoints import File, Manifest
from frontrunner.run_folder.start import check_start
from support.counters import COUNTERS
from support.specs import run_spec, saving


def starting(place: Path | str, spec: RunSpec | None = None) -> RunSpec:
    return saving(spec or run_spec(), start_from=str(place))


def saved(run_dir: Path, step: int = 5, size: int = 3) -> Path:
    path = checkpoints.path_of(run_dir, step)
    path.mkdir(parents=True)
    (path / "rank-0.bin").write_bytes(b"abc"[:size])
    manifest = Manifest(step, run_spec().model_dump(mode="json"), COUNTERS, [File("rank-0.bin", 3, 0)])
    checkpoints.write_manifest(path, manifest)
    return path


def refused(place: Path | str) -> str:
    with pytest.raises(SpecError) as caught:
        check_start(starting(place))
    (violation,) = caught.value.violations
    assert violation.path == "checkpoint.start_from"
    return f"{violation.constraint}; {violation.fix}"


def test_a_run_and_its_checkpoint_are_taken(tmp_path: Path) -> None:
    path = saved(tmp_path / "run")
    for place in (path, tmp_path / "run"):
        check_start(starting(place))
    check_start(run_spec())


def test_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    saved(tmp_path / "run", 5)
    saved(tmp_path / "run", 6, size=2)
    check_start(starting(tmp_path / "run"))
    assert "is damaged: " in (said := refused(checkpoints.path_of(tmp_path / "run", 6)))
    assert "rank-0.bin has 2 of 3 bytes" in said


def test_another_model_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "run")
    with pytest.raises(SpecError, match="the checkpoint's model has"):
        check_start(starting(tmp_path / "run", run_spec(model="llama")))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (["config.json", "model.safetensors"], "is a Hugging Face model, not a checkpoint; convert it"),
        (["config.json", "pytorch_model-00001-of-00002.bin"], "is a Hugging Face model"),
        (["config.json"], "holds a config.json, but no weights"),
        (["latest_checkpointed_iteration.txt"], "is a Megatron-LM checkpoint, which is not read"),
        (["iter_0000100/mp_rank_00/model_optim_rng.pt"], "is a Megatron-LM checkpoint"),
        (["mp_rank_00_001/model_optim_rng.pt"], "is a Megatron-LM checkpoint"),
        (["iter_0000100/common.pt", "iter_0000100/.metadata"], "is a Megatron-LM checkpoint"),
        (["latest", "global_step10/mp_rank_00_model_states.pt"], "is a DeepSpeed checkpoint"),
        (["global_step10/zero_pp_rank_0_mp_rank_00_optim_states.pt"], "is a DeepSpeed checkpoint"),
        ([".metadata", "__0_0.distcp"], "is a checkpoint of torch.distributed (FSDP, torchtitan)"),
        (["adapter_config.json", "adapter_model.safetensors"], "is a LoRA adapter"),
        ([files.SPEC], "is a run without a checkpoint"),
        (["notes.txt"], "holds no checkpoint; name a run folder"),
    ],
)
def test_other_folders_are_named(tmp_path: Path, content: list[str], says: str) -> None:
    for name in content:
        path = tmp_path / "place" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    said = refused(tmp_path / "place")
    assert said.startswith(f"{tmp_path}/place {says}")
    assert says.startswith(("holds", "is a run")) or "frontrunner convert" in said


def test_what_is_no_folder_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("run"))
    Path("model.pt").touch()
    assert refused("nowhere").startswith(f"nowhere does not exist in {tmp_path}; name a run folder")
    assert refused("~/run") == f"~/run does not exist in {tmp_path}; write the whole path"
    assert refused("model.pt").startswith("model.pt is a file, not a checkpoint; write it as a Hugging Face")
    assert (
        refused("run/checkpoints")
        == "run/checkpoints holds the checkpoints of a run; name the run folder: run"
    )
