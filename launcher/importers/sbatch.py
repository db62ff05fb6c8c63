"""Options of sbatch in a script, and the variables that Slurm sets from them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from frontrunner.launcher.importers.bash_expansion import unknown

_DIRECTIVE = re.compile(r"^#SBATCH[ \t]+(\S.*)$", re.MULTILINE)
_VARIABLES = {
    "nodes": ("SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
    "ntasks": ("SLURM_NTASKS", "SLURM_NPROCS"),
    "ntasks_per_node": ("SLURM_NTASKS_PER_NODE",),
    "gpus_per_node": ("SLURM_GPUS_PER_NODE", "SLURM_GPUS_ON_NODE"),
    "cpus_per_task": ("SLURM_CPUS_PER_TASK",),
    "partition": ("SLURM_JOB_PARTITION",),
    "account": ("SLURM_JOB_ACCOUNT",),
    "job_name": ("SLURM_JOB_NAME",),
}
_OF_THE_JOB = (
    "SLURM_JOB_ID",
    "SLURM_JOBID",
    "SLURM_JOB_NODELIST",
    "SLURM_NODELIST",
    "SLURM_SUBMIT_DIR",
    "SLURM_PROCID",
    "SLURM_NODEID",
    "SLURM_LOCALID",
)
_SHORT = {
    "N": "nodes",
    "n": "ntasks",
    "A": "account",
    "p": "partition",
    "t": "time",
    "J": "job_name",
    "q": "qos",
    "c": "cpus_per_task",
    "C": "constraint",
    "G": "gpus",
    "o": "output",
    "e": "error",
    "d": "dependency",
    "w": "nodelist",
    "x": "exclude",
}


def directives(text: str) -> Iterator[tuple[str, str, int]]:
    """Name (long, with underscores), value and line of each option in a script's ``#SBATCH`` lines."""
    for match in _DIRECTIVE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        try:
            words = shlex.split(match[1], comments=True)
        except ValueError:  # a quote without its end
            words = match[1].split()
        yield from ((name, value, line) for name, value in options(words))


def variables(given: Mapping[str, str]) -> dict[str, str]:
    """Slurm's variables in a job with these options."""
    nodes, per_node = given.get("nodes", ""), given.get("ntasks_per_node", "")
    known = dict(given)
    if "ntasks" not in known and nodes.isdigit() and per_node.isdigit():
        known["ntasks"] = str(int(nodes) * int(per_node))
    found = {name: known[option] for option, names in _VARIABLES.items() if option in known for name in names}
    return {name: unknown(f"${name}") for name in _OF_THE_JOB} | found if given else {}


def options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Long names, with underscores, and values; empty for flags."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
        elif word.startswith("-") and word[1:2]:
            name, equals, value = _SHORT.get(word[1], word[1]), word[2:], word[2:].removeprefix("=")
        else:
            continue
        if not equals and rest and not rest[0].startswith("-"):
            value = rest.pop(0)
        yield name.replace("-", "_"), value
