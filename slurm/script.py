"""Renders the job script.

A pure function of a :class:`JobSpec`. The script makes no decisions: it loads modules, exports variables,
starts the ranks, and passes their exit code to ``frontrunner continue``, which decides what comes next.
Values are quoted for bash or sbatch (``quoting.py``). All paths come after the first command, where sbatch
no longer reads directives.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from frontrunner.configs.slurm import clock
from frontrunner.run_folder.files import job_log
from frontrunner.slurm.job import JobSpec
from frontrunner.slurm.quoting import directive, shell, shell_with_variables

_NODE_ENVIRONMENT = "frontrunner-${SLURM_JOB_ID}"


def render(job: JobSpec) -> str:
    """The whole script, with a newline at its end."""
    parts = (
        ["#!/bin/bash", *_directives(job)],
        [_comment(f"recipe {job.environment.name}"), *map(_comment, job.environment.notes)],
        _environment(job),
        _to_node_disk(job),
        [f"cd -- {shell(job.working_folder)}"],
        [_step(job), *_end(job)],
    )
    return "\n".join("\n".join(lines) + "\n" for part in parts if (lines := list(part)))


def _comment(text: str) -> str:
    """One line, even if the machine file has line breaks."""
    return f"# {' '.join(text.split())}"


def _end(job: JobSpec) -> Iterator[str]:
    if job.command == "train":
        yield f'exec {shell(job.executable)} continue --exit-code "$?" -- {shell(job.run_folder)}'


def _directives(job: JobSpec) -> Iterator[str]:
    words: dict[str, str | None] = {
        "job-name": job.name,
        "account": job.account,
        "partition": job.partition,
        "qos": job.qos,
        "reservation": job.reservation,
        "nodes": str(job.nodes),
        "exclude": job.exclude,
        "ntasks-per-node": str(job.ranks_per_node),
        "cpus-per-task": str(job.cores_per_rank) if job.cores_per_rank else None,
        **_devices(job),
        "time": clock(job.time_s),
        # To the ranks, not to this script: they write a checkpoint and exit with 75.
        "signal": f"USR1@{job.signal_s}",
        "output": str(job_log(Path(), "%j")),
        "open-mode": "append",
        **dict(job.environment.sbatch),
    }
    yield from (directive(option, value) for option, value in words.items() if value is not None)
    yield directive("requeue")


def _devices(job: JobSpec) -> dict[str, str | None]:
    if job.device_request is None:
        return {}
    if job.device_request == "gpu":
        return {"gpus-per-node": str(job.ranks_per_node)}
    return {"gres": f"{job.device_request}:{job.ranks_per_node}"}


def _environment(job: JobSpec) -> Iterator[str]:
    around = job.environment
    if around.modules:
        yield "module reset"
        yield from (f"module use {shell_with_variables(path)}" for path in around.module_paths)
        yield from (f"module load {shell(module)}" for module in around.modules)
    yield from (f"export {name}={shell_with_variables(value)}" for name, value in around.variables)


def _to_node_disk(job: JobSpec) -> Iterator[str]:
    """Copy a packed environment to each node's own disk, as OLCF recommends."""
    if job.archive is None:
        return
    once = f"srun --nodes={job.nodes} --ntasks={job.nodes} --ntasks-per-node=1"
    packed = shell_with_variables(f"{job.environment.node_disk}/{_NODE_ENVIRONMENT}.tar.gz")
    folder = shell_with_variables(_node_folder(job))
    yield f"sbcast --preserve --force {shell(job.archive)} {packed}"
    yield f"{once} mkdir -p {folder}"
    yield f"{once} tar -xzf {packed} -C {folder}"


def _node_folder(job: JobSpec) -> str:
    return f"{job.environment.node_disk}/{_NODE_ENVIRONMENT}"


def _step(job: JobSpec) -> str:
    """The command that starts the ranks."""
    words = [
        "srun",
        f"--nodes={job.nodes}",
        f"--ntasks={job.ranks}",
        f"--ntasks-per-node={job.ranks_per_node}",
        "--distribution=block:block",
        "--kill-on-bad-exit=1",  # otherwise the other ranks would wait for a dead one
    ]
    if job.cores_per_rank:
        words.append(f"--cpus-per-task={job.cores_per_rank}")
    if job.cpu_bind:
        words.append(f"--cpu-bind={job.cpu_bind}")
    words += [_option(option, value) for option, value in job.environment.srun]
    lines = [words, list(_into_container(job)), [*_rank(job), job.command, shell(job.run_folder)]]
    return " \\\n  ".join(" ".join(line) for line in lines if line)


def _rank(job: JobSpec) -> list[str]:
    if job.archive is None:
        return [shell(job.rank_executable)]
    # Use its own interpreter: scripts of a packed environment name their original folder.
    return [
        shell_with_variables(f"{_node_folder(job)}/bin/{program}") for program in ("python", "frontrunner")
    ]


def _into_container(job: JobSpec) -> Iterator[str]:
    if job.container is None:
        return
    yield from (shell(job.container.command), "exec")
    yield from (_option(option, value) for option, value in job.container.options)
    yield from (f"--bind={shell(bind)}" for bind in job.container.binds)
    yield shell(job.container.image)


def _option(option: str, value: str) -> str:
    return f"--{option}={shell(value)}" if value else f"--{option}"
