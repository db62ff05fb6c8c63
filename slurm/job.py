"""A job as data: everything that its script says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import DataSpec, RunSpec
from frontrunner.slurm import binding, environment
from frontrunner.slurm.environment import Environment
from frontrunner.slurm.policy import Schedule


@dataclass(frozen=True)
class Container:
    """How the ranks get into an Apptainer image."""

    command: str
    image: str
    binds: tuple[str, ...]
    options: environment.Pairs


@dataclass(frozen=True)
class JobSpec:
    """One job: a segment of a run, or all of it. Times in seconds, folders absolute."""

    name: str
    nodes: int
    ranks_per_node: int
    time_s: int
    signal_s: int
    account: str | None
    partition: str | None
    qos: str | None
    exclude: str | None
    reservation: str | None
    device_request: str | None
    cores_per_rank: int | None
    cpu_bind: str | None
    environment: Environment
    working_folder: str
    run_folder: str
    executable: str
    """The frontrunner that continues the chain, on the host."""
    rank_executable: str
    """The frontrunner that is a rank: the same, or the container's."""
    archive: str | None
    container: Container | None
    command: str = "train"
    """What each rank does; nothing follows a job that does something else."""

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node


def of_run(
    spec: RunSpec, schedule: Schedule, run_folder: Path, working_folder: Path, executable: str
) -> JobSpec:
    """The job of a run's first segment; SpecError for what its node environment cannot be.

    ``executable`` is the frontrunner that submits.
    """
    slurm, site = spec.slurm, spec.machine.site
    if set("%\\") & set(str(run_folder)):
        # It expands them in the whole path of a job's output, the folder too (sbatch's manual).
        constraint = "Slurm does not take a % or \\ in the path of a run folder as it is"
        raise SpecError([Violation("--run-dir", str(run_folder), constraint, "use another folder")])
    around = environment.of_run(spec)
    contained = _container(spec, run_folder, working_folder)
    if slurm.environment_archive and (around.node_disk is None or contained):
        why = "its ranks run in a container" if contained else f"nodes of {spec.machine.name} have no disk"
        raise SpecError(
            [Violation("slurm.environment_archive", slurm.environment_archive, why, "leave it out")]
        )
    inside = "frontrunner" if contained else executable
    return JobSpec(
        name=spec.name,
        nodes=spec.nodes,
        ranks_per_node=spec.machine.devices_per_node,
        time_s=schedule.segment_s,
        signal_s=schedule.signal_s,
        account=slurm.account,
        partition=schedule.partition,
        qos=schedule.qos,
        exclude=slurm.exclude,
        reservation=slurm.reservation,
        device_request=site.device_request if spec.machine.device.kind != "cpu" else None,
        cores_per_rank=binding.cores_per_rank(site.devices),
        cpu_bind=binding.cpu_bind(site.devices),
        environment=around,
        working_folder=str(working_folder),
        run_folder=str(run_folder),
        executable=executable,
        rank_executable=slurm.executable or inside,
        archive=slurm.environment_archive,
        container=contained,
    )


def _container(spec: RunSpec, run_folder: Path, working_folder: Path) -> Container | None:
    """None where ranks run on the host. The run's own folders are bound beside the site's."""
    image = environment.image(spec)
    if image is None:
        return None
    own = [str(run_folder), str(working_folder)]
    if isinstance(spec.data, DataSpec):
        files = [spec.data.train, *([spec.data.tokenizer] if spec.data.tokenizer else [])]
        own += [str((working_folder / file).parent) for file in files]
    site = spec.machine.site.container
    binds = tuple(dict.fromkeys([*site.binds, *own]))
    # Apptainer has no way to write these two characters of a path.
    wrong = [bind for bind in binds if "," in bind or ":" in bind]
    if wrong:
        constraint = "a path that is bound into a container cannot hold a comma or colon"
        raise SpecError([Violation("slurm.container", wrong[0], constraint, "use another folder")])
    return Container(site.command, image, binds, tuple(site.options.items()))
