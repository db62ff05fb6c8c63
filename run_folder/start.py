"""Whether a run can start from the weights that ``checkpoint.start_from`` names, before any rank starts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import RunSpec
from frontrunner.run_folder import checkpoints, files
from frontrunner.run_folder.checkpoints import DamagedCheckpoint, Manifest

_KEY = "checkpoint.start_from"
_OURS = "name a run folder or one of its checkpoints"
_FIRST = "write it as a Hugging Face model first, then use frontrunner convert FOLDER NEW --to checkpoint"
#: Checkpoints of other trainers: what they are, and patterns of which one is in the folder.
_OTHERS = (
    ("a Megatron-LM checkpoint", ("latest_checkpointed_iteration.txt", "mp_rank_*/model_optim_rng.pt")),
    ("a Megatron-LM checkpoint", ("mp_rank_*/model_rng.pt", "common.pt")),
    (
        "a DeepSpeed checkpoint",
        ("latest", "mp_rank_*_model_states.pt", "*zero_pp_rank_*_optim_states.pt", "layer_*-model_states.pt"),
    ),
    ("a checkpoint of torch.distributed (FSDP, torchtitan)", (".metadata", "*.distcp")),
    ("a LoRA adapter, not a whole model", ("adapter_config.json",)),
)
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")


def check_start(spec: RunSpec) -> None:
    """Raise SpecError unless ``checkpoint.start_from`` is unset or names a checkpoint of the run's model.

    Manifests and file sizes are checked; the ranks verify every byte as they read. A checkpoint of another
    trainer is named as what it is.
    """
    if spec.checkpoint.start_from is None:
        return
    place = Path(spec.checkpoint.start_from)
    manifest = _newest(place)
    if manifest is None:
        constraint, fix = _what_it_is(place)
        raise SpecError([Violation(_KEY, str(place), f"{place} {constraint}", fix)])
    checkpoints.check_model(manifest, spec.model)


def _newest(place: Path) -> Manifest | None:
    """The manifest of a checkpoint, or of the newest whole one of a run folder; None if there is none."""
    for path in [place] if (place / files.MANIFEST).exists() else checkpoints.found(place):
        try:
            manifest = checkpoints.read_manifest(path)
        except DamagedCheckpoint:
            continue
        if not list(_short(path, manifest)):
            return manifest
    return None


def _short(path: Path, manifest: Manifest) -> Iterator[str]:
    """Files of a checkpoint that are missing or have another size."""
    for file in manifest.files:
        place = path / file.name
        size = place.stat().st_size if place.is_file() else 0
        if size != file.size:
            yield f"{place} has {size:,} of {file.size:,} bytes"


def _what_it_is(place: Path) -> tuple[str, str]:
    """What a place without a whole checkpoint of ours is, and what to do."""
    if not place.exists():
        where = "" if place.is_absolute() else f" in {Path.cwd()}"
        return f"does not exist{where}", "write the whole path" if str(place)[0] == "~" else _OURS
    if place.is_file():
        return "is a file, not a checkpoint", _FIRST if place.suffix in (".pt", ".bin", ".ckpt") else _OURS
    if (place / files.MANIFEST).exists():
        return f"is damaged: {_damage(place)}", "use another checkpoint"
    foreign = _foreign(place)
    if foreign is not None:
        return foreign
    if place.name == files.CHECKPOINTS and checkpoints.found(place.parent):
        return "holds the checkpoints of a run", f"name the run folder: {place.parent}"
    found = checkpoints.found(place)
    if found:
        return f"holds no whole checkpoint: {_damage(found[0])}", "use another checkpoint"
    if files.holds_run(place):
        return "is a run without a checkpoint", "use another run"
    return "holds no checkpoint", _OURS


def _foreign(place: Path) -> tuple[str, str] | None:
    """What another program wrote here, and what to do."""
    folders = [place, *place.glob("iter_[0-9]*"), *place.glob("global_step[0-9]*")]
    for what, patterns in _OTHERS:
        if any(_has(folder, pattern) for folder in folders for pattern in patterns):
            return f"is {what}, which is not read", _FIRST
    if any(_has(place, pattern) for pattern in _WEIGHTS):
        convert = f"frontrunner convert {shlex.quote(str(place))} NEW --to checkpoint"
        return "is a Hugging Face model, not a checkpoint", f"convert it and name NEW: {convert}"
    if (place / "config.json").is_file():
        return "holds a config.json, but no weights", "put the model's safetensors files beside it"
    return None


def _damage(path: Path) -> str:
    try:
        return next(_short(path, checkpoints.read_manifest(path)))
    except DamagedCheckpoint as error:
        return str(error)


def _has(folder: Path, pattern: str) -> bool:
    return next(folder.glob(pattern), None) is not None
