"""``frontrunner convert``: a run's weights to a Hugging Face model, and back."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer

from frontrunner.launcher.display.terminal import tell

FORMS = ("huggingface", "checkpoint")


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A run folder, a checkpoint, or a Hugging Face folder.")
    ],
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to create.")],
    to: Annotated[str, typer.Option(metavar="FORM", help=f"One of: {', '.join(FORMS)}.")],
    dtype: Annotated[
        str, typer.Option(help="Type of the Hugging Face weights: float32, bfloat16 or float16.")
    ] = "bfloat16",
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json to include [default: the run's].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert a run's weights to a Hugging Face model, or a Hugging Face model to a checkpoint.

    A run folder stands for its newest complete checkpoint.
    """
    from frontrunner.configs.errors import SpecError, Violation
    from frontrunner.launcher.ranks.local import require_torch

    if to not in FORMS:
        raise SpecError([Violation("--to", to, "is not a known format", f"use one of: {', '.join(FORMS)}")])
    if not source.is_dir():
        fix = "name a run folder, a checkpoint, or a Hugging Face folder"
        raise SpecError([Violation("", str(source), "is not a folder", fix)])
    require_torch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # megatron-core warns about missing optional packages
        outputs = (
            _to_huggingface(source, output, dtype, tokenizer) if to == FORMS[0] else _from(source, output)
        )
    if as_json:
        typer.echo(json.dumps({"outputs": [str(path) for path in outputs]}))
        return
    for path in outputs:
        tell(f"wrote {path}")
    if to == "checkpoint":
        tell(f"to train from it: -o model={source / 'config.json'} -o checkpoint.start_from={output}")


def _to_huggingface(source: Path, output: Path, dtype: str, tokenizer: Path | None) -> list[Path]:
    from frontrunner.configs.errors import SpecError, Violation
    from frontrunner.parallelism.runtime.checkpoint.weights import read_weights
    from frontrunner.parallelism.runtime.device import DTYPES
    from frontrunner.parallelism.runtime.huggingface.write import write_folder
    from frontrunner.run_folder import checkpoints as files

    names: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16", "float16")
    chosen = next((name for name in names if name == dtype), None)
    if chosen is None:
        raise SpecError(
            [Violation("--dtype", dtype, "is not a supported type", f"use one of: {', '.join(names)}")]
        )
    path = files.locate(source, "")
    model, get = read_weights(path)
    data = files.read_manifest(path).spec.get("data")
    if tokenizer is None and isinstance(data, dict) and data.get("tokenizer"):
        known = Path(data["tokenizer"])
        tokenizer = known if known.exists() else None
    return write_folder(model, get, output, DTYPES[chosen], tokenizer=tokenizer)


def _from(source: Path, output: Path) -> list[Path]:
    from frontrunner.parallelism.runtime.checkpoint.weights import write_weights
    from frontrunner.parallelism.runtime.huggingface.mapping import from_huggingface
    from frontrunner.parallelism.runtime.huggingface.read import read_folder
    from frontrunner.run_folder.folder import check_unused

    check_unused(output, "FOLDER")
    model, get = read_folder(source)
    return [write_weights(output, model, from_huggingface(model, get))]
