"""``frontrunner data prepare``: convert text to a corpus for training."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from frontrunner.launcher.display.screen import Screen
from frontrunner.launcher.display.tables import pairs
from frontrunner.launcher.display.terminal import say, tell
from frontrunner.launcher.errors import try_import

if TYPE_CHECKING:
    from frontrunner.parallelism.runtime.data import prepare as preparing

app = typer.Typer(no_args_is_help=True, help="Prepare corpora for training.")


@app.callback()
def _group() -> None:
    """Prepare corpora for training."""  # with a callback, the only command keeps its name


@app.command()
def prepare(
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="PATHS...",
            help="Text files, JSON lines or folders of them, plain or compressed (gzip, bzip2, xz, zstd); or "
            "python-stdlib, the source text of Python's standard library. The last documents in this order "
            "become the validation split.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(metavar="PREFIX", help="Write PREFIX.bin, PREFIX.idx, PREFIX.json and tokenizer.json."),
    ],
    more_inputs: Annotated[list[str] | None, typer.Argument(metavar="MORE_PATHS", hidden=True)] = None,
    tokenizer: Annotated[
        str,
        typer.Option(
            metavar="FILE|byte|train:N",
            help="A Hugging Face tokenizer.json; byte: one token per byte; train:N: train a byte-level BPE "
            "with N tokens on the input.",
        ),
    ] = "train:8192",
    json_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Key of the text in a JSON record [default: text, else content]."),
    ] = None,
    suffixes: Annotated[
        list[str] | None,
        typer.Option(
            "--suffix",
            metavar=".EXT",
            help="Files to read from folders (repeatable) "
            "[default: .txt, .md, .rst, .py, .jsonl, .ndjson and .json].",
        ),
    ] = None,
    end_token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="End-of-document token, if its name in FILE is unusual."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a corpus with this prefix.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tokenise text into a corpus in Megatron's format.

    Each JSON record or text file is one document, followed by an end token. Text files above 262,144
    characters are split into several documents. The same input gives the same bytes. Files of other kinds
    are refused, and what a folder holds besides is counted.
    """
    try_import("tokenizers", "train")
    from frontrunner.parallelism.runtime.data import prepare as preparing

    start = time.perf_counter()
    with _progress(Screen(sys.stderr)) as on_progress:
        prepared = preparing.prepare(
            [*inputs, *(more_inputs or [])],
            output,
            tokenizer=tokenizer,
            json_key=json_key,
            suffixes=suffixes,
            end_token=end_token,
            replace=force,
            on_progress=on_progress,
        )
    elapsed_s = time.perf_counter() - start
    for warning in prepared.warnings:
        say(f"note: {warning}")
    if as_json:
        typer.echo(json.dumps(_figures(prepared, elapsed_s)))
    else:
        _show(prepared, output, elapsed_s)


@contextmanager
def _progress(console: Screen) -> Iterator[preparing.Progress]:
    """One progress bar per stage, on a terminal only."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), DownloadColumn())
    bars = Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
    tasks = {}

    def on_progress(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done)

    with bars:
        yield on_progress


def _figures(prepared: preparing.Prepared, elapsed_s: float) -> dict[str, object]:
    return {
        "outputs": [str(path) for path in prepared.outputs],
        **prepared.info.model_dump(),
        "elapsed_s": elapsed_s,
        "tokens_per_s": prepared.info.tokens / elapsed_s,
        "warnings": prepared.warnings,
    }


def _show(prepared: preparing.Prepared, prefix: str, elapsed_s: float) -> None:
    info = prepared.info
    rows = [
        ("documents", f"{info.documents:,}"),
        ("tokens", f"{info.tokens:,}"),
        ("bytes of input per token", f"{info.input_bytes / info.tokens:.2f}"),
        ("type of a token", info.dtype),
        ("vocabulary", f"{info.vocab_size:,} tokens ({info.tokenizer_source})"),
    ]
    Screen().print(pairs(rows))
    files = ", ".join(str(path) for path in prepared.outputs)
    rate = info.tokens / elapsed_s
    tell(f"wrote {files} in {elapsed_s:.1f} s ({rate:,.0f} tokens/s)")
    tell(f"in a run file: data: {{train: {prefix}, tokenizer: {prepared.outputs[-1]}}}")
