"""The ``slurm`` section of a run file: how a run is submitted as a job."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.config import JsonDict

from frontrunner.configs.types import Frozen, say

_UNITS_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_CLOCK = re.compile(r"(?:(\d{1,3})-)?(\d{1,4}):([0-5]?\d)(?::([0-5]?\d))?")
_PARTS = re.compile(r"(?=\d)(?:(\d{1,3})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?")

#: A plain word or list of hosts: nothing that a shell, sbatch or a configuration line could read otherwise.
WORD = r"^[A-Za-z0-9_][A-Za-z0-9_.@,:+=\[\]/-]{0,999}$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
OPTION = r"^[a-z][a-z-]*$"
_TEXT = r"^[^\x00-\x1f\x7f]*$"


def seconds(text: str) -> int:
    """``2:00:00``, ``1-12:00:00``, ``1-12:00``, ``2h``, ``1h30m`` or ``90s`` in seconds; else ValueError.

    Two numbers are hours and minutes, as in Slurm after days; without days they are refused, because
    Slurm reads them as minutes and seconds and people do not.
    """
    if clock := _CLOCK.fullmatch(text):
        days, hours, minutes, rest = clock.groups()
        if days is None and rest is None:
            raise ValueError(f"{text} may be hours and minutes, or minutes and seconds")
        return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + int(rest or 0)
    if parts := _PARTS.fullmatch(text):
        return sum(int(n or 0) * unit for n, unit in zip(parts.groups(), _UNITS_S.values(), strict=True))
    raise ValueError(f"{text} is no duration")


def clock(duration_s: int) -> str:
    """Seconds as Slurm writes them: ``2:00:00``, ``1-12:00:00``."""
    days, rest = divmod(duration_s, 86400)
    hours, rest = divmod(rest, 3600)
    text = f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text


def _positive(text: str) -> str:
    if not seconds(text):
        raise ValueError("is nothing")
    return text


_DURATION_PATTERN = r"^(([0-9]{1,3}-)?[0-9]{1,4}:[0-9]{1,2}(:[0-9]{1,2})?|([0-9]{1,8}[dhms])+)$"
_NO_OTHERS: JsonDict = {"additionalProperties": False}  # pydantic leaves it out beside patterns of keys
Duration = Annotated[
    str,
    Field(pattern=_DURATION_PATTERN),
    AfterValidator(_positive),
    say("must be a duration greater than 0", "write it as 2h, 1h30m, 2:00:00 or 1-12:00:00"),
]
Word = Annotated[
    str,
    Field(pattern=WORD),
    say("must be a word of letters, digits and . _ @ , : + = [ ] / -", "write it without blanks and quotes"),
]
Words = Annotated[
    list[Annotated[str, Field(pattern=WORD)]],
    say("must be a list of words", "write [first, second]"),
]
Options = Annotated[
    dict[Annotated[str, Field(pattern=OPTION)], Annotated[str, Field(pattern=_TEXT)]],
    Field(json_schema_extra=_NO_OTHERS),
    say(
        "must map names of long options, without dashes, to texts on one line",
        'write it as in {constraint: nvme, exclusive: ""}',
    ),
]
Variables = Annotated[
    dict[Annotated[str, Field(pattern=VARIABLE)], Annotated[str, Field(pattern=_TEXT)] | None],
    Field(json_schema_extra=_NO_OTHERS),
    say(
        "must map names of environment variables to texts on one line, or to null to leave one out",
        'write it as in {NCCL_DEBUG: INFO, OMP_NUM_THREADS: "7"}',
    ),
]
PathText = Annotated[
    str,
    Field(min_length=1, pattern=_TEXT),
    say("must be a path on one line", "write it in quotes"),
]


class SlurmSpec(Frozen):
    """How the run is submitted; the rest is the site's, from the machine file."""

    account: Word | None = None
    """Who pays: the project's name at the site; null: Slurm's default for you."""
    partition: Word | None = None
    """null: the site's first that takes a job of this size, or Slurm's default."""
    qos: Word | None = None
    """Quality of service, such as debug; null: none."""
    time_limit: Duration | None = None
    """Wall time of the whole run, as in 2h or 1-12:00:00; beyond what the site gives one job, the run becomes
    segments. null: what the site gives one job."""
    segment_time: Duration | None = None
    """Wall time of one job, where shorter ones start sooner; null: as long as the site allows."""
    signal_before_end: Duration = "5m"
    """How long before the end of a job the ranks are told to write a checkpoint and stop."""
    exclude: Word | None = None
    """Nodes to avoid, as in frontier[00012,00345-00347]."""
    reservation: Word | None = None
    """A reservation of nodes; null: none."""
    recipe: Word | None = None
    """Which of the machine file's recipes of modules and variables; null: the newest."""
    modules: Words | None = None
    """Instead of the recipe's modules."""
    environment: Variables = Field(default_factory=dict)
    """Variables over the recipe's; ${NAME} stands for another variable on the node."""
    sbatch: Options = Field(default_factory=dict)
    """More options of sbatch, without dashes."""
    srun: Options = Field(default_factory=dict)
    """More options of srun, without dashes."""
    executable: PathText | None = None
    """The frontrunner that runs in the job, of the container if there is one; null: the one that submits, or
    the container's."""
    environment_archive: PathText | None = None
    """A packed environment (tar.gz, as conda-pack makes it) that is copied to each node's own disk first."""
    container: PathText | None = None
    """An Apptainer image to run in; null: the machine file's, if it has one."""
