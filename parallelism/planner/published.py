"""Published runs: the rows of a file. ``published_workload.py`` gives what the planner needs of each."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from frontrunner.configs import foreign
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.plain_files import read_plain
from frontrunner.configs.types import NonNegativeFloat, PositiveFloat, PositiveInt
from frontrunner.configs.yaml_tree import LARGEST_FILE

#: ``usable_for`` of rows that nothing is fitted to: found after the fit, or published to one digit.
CHECK = "check"
#: Keys of a row that are only for human readers.
UNUSED = ("gpu", "model_tflops_per_gcd")


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class PublishedModel(_Row):
    """The shape of a published model; None if the source does not give it."""

    layers: PositiveInt | None
    hidden: PositiveInt | None
    heads: PositiveInt | None
    kv_heads: PositiveInt | None
    vocab: PositiveInt | None
    ffn: PositiveInt | None
    gated: bool | None
    """Llama's form: a gated MLP (SwiGLU), RMSNorm, no biases; with rotary positions and two embeddings unless
    the row says otherwise."""
    head_dim: PositiveInt | None = None
    """None: hidden / heads."""
    positions: Literal["learned", "rotary"] | None = None
    """ALiBi counts as rotary: neither has parameters."""
    tied: bool | None = None
    """Whether the output layer is the embedding."""


class BytesPerParameter(_Row):
    """What an engine keeps per parameter before the data-parallel ranks divide it, and why."""

    weights: NonNegativeFloat
    gradients: NonNegativeFloat
    optimizer: NonNegativeFloat
    reason: str


class LoggedMemory(_Row):
    """MiB [allocated, max allocated, reserved] after a step, by pipeline stage."""

    per_stage_allocated_maxalloc_reserved: dict[
        Annotated[str, StringConstraints(pattern=r"^stage\d+$")],
        Annotated[list[PositiveFloat | None], Field(min_length=2, max_length=3)],
    ] = Field(default_factory=dict)
    bytes_per_parameter: BytesPerParameter | None = None


class PublishedRun(_Row):
    """One published run. Every key is required; None means that the source does not give it."""

    id: str
    source_url: str
    machine: str
    model: PublishedModel
    seq_len: PositiveInt | None
    tp: PositiveInt | None
    pp: PositiveInt | None
    dp: PositiveInt | None
    sp: bool | None
    mbs: PositiveInt | None
    gbs: PositiveInt | None
    zero: str | int | None
    activation_checkpointing: str | None
    flash_attention: bool | None
    precision: str | None
    gcds: PositiveInt | None
    tflops_per_gcd: PositiveFloat | None
    tflops_convention: str | None
    tokens_per_s_per_gcd: PositiveFloat | None
    step_time_s: PositiveFloat | None
    memory_mib: LoggedMemory | None
    software: str
    vpp: PositiveInt | None = None
    sharded: PositiveInt | None = None
    """Ranks over which FSDP cuts weights, gradients and optimizer, if not all (HSDP); copies all-reduce."""
    attention_backward: PositiveFloat | None = None
    confidence: str = "verified"
    usable_for: str = "speed"
    notes: str = ""

    def unknown_keys(self) -> list[str]:
        """A warning for each unknown key."""
        known = [*type(self).model_fields, *UNUSED]
        found = []
        for key in sorted(set(self.model_extra or {}) - set(known)):
            near = difflib.get_close_matches(key, known, 1)
            found.append(f"{self.id}: {key} is unknown" + (f"; did you mean {near[0]}?" if near else ""))
        return found

    @property
    def devices(self) -> int | None:
        """As published, or derived from the layout."""
        if self.gcds or not (self.tp and self.pp and self.dp):
            return self.gcds
        return self.tp * self.pp * self.dp

    @property
    def software_year(self) -> Literal["2023", "2025"]:
        """ROCm 6 and later counts as software of 2025."""
        version = re.search(r"ROCm (\d+)", self.software)
        old = int(version.group(1)) < 6 if version else "2023" in self.software
        return "2023" if old else "2025"


def read(path: Path) -> list[PublishedRun]:
    """Read the rows of a file. Raises SpecError with row and key if one is missing or wrong."""
    if other := foreign.instead(path, "rows", str(path)):
        raise SpecError([other])
    try:
        rows = yaml.load(read_plain(path, LARGEST_FILE).decode("utf-8-sig"), yaml.CSafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SpecError([Violation("", str(path), f"cannot be read: {reason}", "give a rows file")]) from None
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or "it cannot be parsed"
        mark = getattr(error, "problem_mark", None)
        where = None if mark is None else mark.line + 1
        fix = "check indentation, colons and quotes"
        raise SpecError([Violation("", None, f"is not YAML: {reason}", fix, str(path), where)]) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SpecError(
            [
                Violation(
                    "",
                    str(path),
                    "must be a list of rows, each with its keys",
                    "write `- id: NAME` and its other keys under it",
                )
            ]
        )
    found = [_row(path, index, row) for index, row in enumerate(rows)]
    names = [row.id for row in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not found:
        what = f"has duplicate ids: {', '.join(twice)}" if twice else "holds no rows"
        fix = "give each row a unique id" if twice else "give a rows file"
        raise SpecError([Violation("", str(path), what, fix)])
    return found


def _row(path: Path, index: int, row: dict[str, Any]) -> PublishedRun:
    try:
        return PublishedRun.model_validate(row)
    except ValidationError as error:
        name = row.get("id", f"row {index + 1}")
        raise SpecError(
            [
                Violation(
                    f"{name}.{'.'.join(str(part) for part in found['loc'])}",
                    None if found["type"] == "missing" else found["input"],
                    "is missing" if found["type"] == "missing" else _said(found["msg"]),
                    "write null where the source does not give it"
                    if found["type"] == "missing"
                    else "correct the value",
                    str(path),
                )
                for found in error.errors()
            ]
        ) from None


def _said(message: str) -> str:
    """pydantic's message in a user's words."""
    text = re.sub("^(Input|String|List) should", "must", message)
    return re.sub(r"a valid dictionary or (instance|object) .*", "a mapping of keys", text)
