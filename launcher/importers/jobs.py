"""What a job says about machine, devices and Slurm."""

from __future__ import annotations

import re
from collections.abc import Iterable

from frontrunner.configs import presets
from frontrunner.configs.load import load_machine
from frontrunner.configs.site import QueueSpec
from frontrunner.configs.slurm import WORD, seconds
from frontrunner.launcher.importers.settings import Conversion, Given, Setting, integer

#: Marks of a machine in a script: paths, and names of accounts.
_MARKS = (
    (re.compile(r"/lustre/orion/|\bfrontier\b"), "frontier"),
    (re.compile(r"/pfs/lustre|\bproject_46\d{7}\b|/appl/lumi/"), "lumi-g"),
)
_COMMON = {"batch", "debug", "gpu", "extended", "standard"}  # names of partitions that many sites have
_GPUS = re.compile(r"(?:\w+:)*(\d+)")


def machine(given: Given) -> str | None:
    """The machine preset that files name by a partition, an account or a path."""
    if given.machine:
        return given.machine
    partition = given.job.get("partition")
    for name in presets.names("machine"):
        queues = load_machine(name).site.queues.values() if partition else ()
        if partition and partition.value not in _COMMON and _has(queues, partition):
            return name
    return next((name for mark, name in _MARKS if mark.search(given.text)), None)


def _has(queues: Iterable[QueueSpec], partition: Setting) -> bool:
    return any(queue.partition == partition.value for queue in queues)


def devices(given: Given) -> int | None:
    """The number of devices that files say the run has."""
    direct = given.settings.get("world_size") or given.settings.get("global_num_gpus")
    if direct and (count := integer(direct.value)):
        return count
    nodes = _count(given, "nnodes", "num_nodes", "nodes", "trainer.num_nodes")
    each = _count(given, "nproc_per_node", "num_gpus", "gpus_per_node", "gres", "trainer.devices")
    tasks = _count(given, "ntasks_per_node")
    each = each or (tasks if tasks and tasks > 1 else None)
    if nodes and each:
        return nodes * each
    total = _count(given, "ntasks")
    return total if total and total > 1 else None


def _count(given: Given, *keys: str) -> int | None:
    for key in keys:
        setting = given.job.get(key) or given.settings.get(key)
        if setting is None:
            continue
        found = integer(setting.value)
        gpus = _GPUS.fullmatch(str(setting.value)) if key in ("gpus_per_node", "gres") else None
        if found is None and gpus:
            found = int(gpus[1])
        if found:
            return found
    return None


def put(own: Conversion, given: Given, site: str | None) -> None:
    """The ``slurm`` section and the name; options of another machine's Slurm are listed.

    ``site``: the machine that the job is for, if the run is for it too.
    """
    for key in ("run.name", "trainer.num_nodes", "trainer.devices", "world_size", "global_num_gpus"):
        own.take(key)
    own.put("name", given.name, "the job's or the file's name")
    for option, setting in given.job.items():
        if option in ("job_name", "nodes", "nnodes", "nproc_per_node", "num_nodes", "num_gpus"):
            continue
        if option in ("account", "partition", "time", "exclude", "reservation", "qos"):
            _put_option(own, option, setting, site is not None)
        else:
            own.ignore(setting, "ranks, binding and the files of a job follow from the machine file")


def _put_option(own: Conversion, option: str, setting: Setting, here: bool) -> None:
    key = "time_limit" if option == "time" else option
    value = str(setting.value)
    if not here:
        own.ignore(setting, "of another machine, or of one that the files do not name: see the slurm section")
    elif option == "time" and _whole(value):
        own.put("slurm.time_limit", value, setting)
    elif option != "time" and re.fullmatch(WORD, value):
        own.put(f"slurm.{key}", value, setting)
    else:
        own.ignore(setting, f"set slurm.{key}")


def _whole(value: str) -> bool:
    try:
        return seconds(value) > 0
    except ValueError:
        return False
