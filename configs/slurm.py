"""The ``slurm`` section of a run file."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.config import JsonDict

from frontrunner.configs.types import Frozen, say

_UNITS_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_CLOCK = re.compile(r"(?:(\d{1,3})-)?(\d{1,4}):([0-5]?\d)(?::([0-5]?\d))?")
_PARTS = re.compile(r"(?=\d)(?:(\d{1,3})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?")

#: A plain word or host list, without characters that are special in shells, sbatch or configuration lines.
WORD = r"^[A-Za-z0-9_][A-Za-z0-9_.@,:+=\[\]/-]{0,999}$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
OPTION = r"^[a-z][a-z-]*$"
_TEXT = r"^[^\x00-\x1f\x7f]*$"


def seconds(text: str) -> int:
    """``2:00:00``, ``1-12:00:00``, ``1-12:00``, ``2h``, ``1h30m`` or ``90s`` in seconds; else ValueError.

    Two numbers after days are hours and minutes, as in Slurm. Without days they are ambiguous and refused:
    Slurm reads minutes and seconds, people read hours and minutes.
    """
    if clock := _CLOCK.fullmatch(text):
        days, hours, minutes, rest = clock.groups()
        if days is None and rest is None:
            raise ValueError(f"{text} may be hours and minutes, or minutes and seconds")
        return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + int(rest or 0)
    if parts := _PARTS.fullmatch(text):
        return sum(int(n or 0) * unit for n, unit in zip(parts.groups(), _UNITS_S.values(), strict=True))
    raise ValueError(f"{text} is not a duration")


def clock(duration_s: int) -> str:
    """Seconds as Slurm writes them: ``2:00:00``, ``1-12:00:00``."""
    days, rest = divmod(duration_s, 86400)
    hours, rest = divmod(rest, 3600)
    text = f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text


def _positive(text: str) -> str:
    if not seconds(text):
        raise ValueError("is zero")
    return text


_DURATION_PATTERN = r"^(([0-9]{1,3}-)?[0-9]{1,4}:[0-9]{1,2}(:[0-9]{1,2})?|([0-9]{1,8}[dhms])+)$"
_NO_OTHERS: JsonDict = {"additionalProperties": False}  # pydantic omits it next to key patterns
Duration = Annotated[
    str,
    Field(pattern=_DURATION_PATTERN),
    AfterValidator(_positive),
    say("must be a duration from 1s to 999 days", "write it like 2h, 1h30m, 2:00:00 or 1-12:00:00"),
]
Word = Annotated[
    str,
    Field(pattern=WORD),
    say("must use only letters, digits and . _ @ , : + = [ ] / -", "remove spaces and quotes"),
]
Words = Annotated[
    list[Annotated[str, Field(pattern=WORD)]],
    say("must be a list of words", "write [first, second]"),
]
Options = Annotated[
    dict[Annotated[str, Field(pattern=OPTION)], Annotated[str, Field(pattern=_TEXT)]],
    Field(json_schema_extra=_NO_OTHERS),
    say(
        "must map long option names, without dashes, to one-line strings",
        'write it like {constraint: nvme, exclusive: ""}',
    ),
]
Variables = Annotated[
    dict[Annotated[str, Field(pattern=VARIABLE)], Annotated[str, Field(pattern=_TEXT)] | None],
    Field(json_schema_extra=_NO_OTHERS),
    say(
        "must map environment variables to one-line strings, or to null to unset one",
        'write it like {NCCL_DEBUG: INFO, OMP_NUM_THREADS: "7"}',
    ),
]
PathText = Annotated[
    str,
    Field(min_length=1, pattern=_TEXT),
    say("must be a path on one line", "write it in quotes"),
]


class SlurmSpec(Frozen):
    """How the run is submitted; other settings come from the machine file's site."""

    account: Word | None = None
    """Project to charge; null: your default in Slurm."""
    partition: Word | None = None
    """Partition; null: the site's first one that accepts a job of this size, else Slurm's default."""
    qos: Word | None = None
    """Quality of service, for example debug; null: none."""
    time_limit: Duration | None = None
    """Wall time of the whole run, for example 2h or 1-12:00:00; null: the site's limit for one job. A run
    longer than that limit is split into segments."""
    segment_time: Duration | None = None
    """Wall time of one job (shorter jobs often start sooner); null: the site's limit."""
    signal_before_end: Duration = "5m"
    """Time before the end of a job at which the ranks write a checkpoint and stop."""
    exclude: Word | None = None
    """Nodes to avoid, for example frontier[00012,00345-00347]."""
    reservation: Word | None = None
    """Node reservation; null: none."""
    recipe: Word | None = None
    """Recipe of modules and variables from the machine file; null: the newest."""
    modules: Words | None = None
    """Modules to load in place of the recipe's."""
    environment: Variables = Field(default_factory=dict)
    """Overrides the recipe's variables; ${NAME} expands to another variable on the node."""
    sbatch: Options = Field(default_factory=dict)
    """Extra sbatch options, without dashes."""
    srun: Options = Field(default_factory=dict)
    """Extra srun options, without dashes."""
    executable: PathText | None = None
    """Path of frontrunner in the job (inside the container, if any); null: the one that submits, or the
    container's."""
    environment_archive: PathText | None = None
    """A packed environment (tar.gz from conda-pack) to copy to each node's local disk first."""
    container: PathText | None = None
    """An Apptainer image to run in; null: the machine file's image, if any."""
