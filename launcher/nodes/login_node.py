"""Checks on a login node before a run starts: Slurm, packages, variables, disk."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from frontrunner.configs.errors import SpecError
from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.nodes.diagnosis import Finding
from frontrunner.parallelism import versions
from frontrunner.parallelism.planner.parameters import total_parameters
from frontrunner.slurm import environment, policy
from frontrunner.slurm.client import Slurm
from frontrunner.slurm.errors import SlurmFailed

_BYTES_PER_PARAMETER = 14  # a checkpoint: bfloat16 weights, float32 master and two moments
_CHECKPOINTS = 2
_MODULE_LIMIT_S = 30.0


def look_around(spec: RunSpec, env: Mapping[str, str]) -> list[Finding]:
    """All problems found here; empty if a run could be submitted."""
    checks = (_slurm, _policy, _packages, _variables, _modules, _disk)
    return [finding for check in checks for finding in check(spec, env)]


def _slurm(spec: RunSpec, env: Mapping[str, str]) -> Iterator[Finding]:
    try:
        have = Slurm(env).partitions()
    except SpecError as error:
        violation = error.violations[0]
        yield Finding("", "slurm", "error", violation.constraint, violation.fix)
        return
    except SlurmFailed as error:
        yield Finding("", "slurm", "error", str(error), "try again later")
        return
    wanted = {queue.partition for queue in spec.machine.site.queues.values()}
    if not have:
        yield Finding(
            "", "slurm", "error", "the controller does not answer", "check `sinfo`, and try again later"
        )
    elif missing := sorted(wanted - set(have)):
        message = f"the machine file lists partitions that Slurm does not have: {', '.join(missing)}"
        fix = f"correct site.queues in the machine file; Slurm has {', '.join(have)}"
        yield Finding("", "slurm", "warning", message, fix)


def _policy(spec: RunSpec, env: Mapping[str, str]) -> Iterator[Finding]:
    try:
        policy.schedule(spec)
    except SpecError as error:
        for violation in error.violations:
            yield Finding("", "policy", "error", f"{violation.path}: {violation.constraint}", violation.fix)


def _packages(spec: RunSpec, env: Mapping[str, str]) -> Iterator[Finding]:
    if environment.image(spec) or spec.slurm.environment_archive or spec.slurm.executable:
        return
    for package in ("torch", "megatron"):
        if importlib.util.find_spec(package) is None:
            fix = "pip install 'frontrunner[train]' next to the site's torch"
            yield Finding("", "packages", "error", f"{package} is missing from the jobs' environment", fix)
    for wrong in versions.unsupported():
        severity: Literal["warning", "error"] = "error" if wrong.too_old else "warning"
        yield Finding("", "packages", severity, f"{wrong.name} {wrong.found}: {wrong.constraint}", wrong.fix)


def _variables(spec: RunSpec, env: Mapping[str, str]) -> Iterator[Finding]:
    ours = dict(environment.of_run(spec).variables)
    monitor = ours.get("FI_MR_CACHE_MONITOR") or env.get("FI_MR_CACHE_MONITOR")
    if monitor == "memhooks":
        # olcf/olcf-user-docs, pytorch_frontier.rst; olcf/olcf-user-docs#947.
        fix = "remove it, or use kdreg2 or userfaultfd"
        yield Finding("", "environment", "error", "FI_MR_CACHE_MONITOR=memhooks can deadlock", fix)
    for name in sorted(ours.keys() & env.keys() - {"LD_LIBRARY_PATH", "PATH"}):
        if name not in spec.slurm.environment and env[name] != ours[name] and "${" not in ours[name]:
            message = f"your {name}={env[name]} does not apply in jobs: the recipe sets {ours[name]}"
            fix = f"set it in slurm.environment if you need it: {{{name}: {env[name]}}}"
            yield Finding("", "environment", "warning", message, fix)


def _modules(spec: RunSpec, env: Mapping[str, str]) -> Iterator[Finding]:
    """Checks each module of the recipe in a shell like the job's."""
    around = environment.of_run(spec)
    if not around.modules:
        return
    use = [word for path in around.module_paths for word in ("use", path)]
    for module in around.modules:
        code = 'for path in "${@:2}"; do [ "$path" = use ] || module use "$path"; done; module show "$1"'
        command = ["bash", "--login", "-c", code, "bash", module, *use]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_MODULE_LIMIT_S, env=dict(env))
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode:
            fix = f"run `module spider {module.partition('/')[0]}`, then set slurm.modules or another recipe"
            yield Finding("", "modules", "error", f"{module} cannot be loaded here", fix)


def _disk(spec: RunSpec, env: Mapping[str, str]) -> Iterator[Finding]:
    """Space for two checkpoints in the runs folder."""
    folder = Path("runs").absolute()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    needed = _CHECKPOINTS * _BYTES_PER_PARAMETER * total_parameters(spec.model)
    free = shutil.disk_usage(place).free
    if free < needed:
        message = f"{free / 2**30:,.0f} GiB are free at {place}; two checkpoints need {needed / 2**30:,.0f}"
        yield Finding("", "disk", "error", message, "use a larger file system, or remove old runs")
