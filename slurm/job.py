"""A job as data: everything in its script."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from frontrunner.configs.data import DataSpec
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import RunSpec
from frontrunner.slurm import binding, environment
from frontrunner.slurm.environment import Environment
from frontrunner.slurm.policy import Schedule


@dataclass(frozen=True)
class Container:
    """How the ranks start in an Apptainer image."""

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
    """The frontrunner of the ranks: the same one, or the container's."""
    archive: str | None
    container: Container | None
    command: str = "train"
    """The command of each rank; only ``train`` jobs continue in further segments."""

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node


def of_run(
    spec: RunSpec, schedule: Schedule, run_folder: Path, working_folder: Path, executable: str
) -> JobSpec:
    """The job of a run's first segment; SpecError for an impossible environment.

    ``executable`` is the frontrunner that submits.
    """
    slurm, site = spec.slurm, spec.machine.site
    if set("%\\") & set(str(run_folder)):
        # Slurm expands them in the whole output path, including the folder (sbatch's manual).
        constraint = "Slurm does not support % or \\ in the path of a run folder"
        raise SpecError([Violation("--run-dir", str(run_folder), constraint, "use another folder")])
    around = environment.of_run(spec)
    contained = _container(spec, run_folder, working_folder)
    if slurm.environment_archive and (around.node_disk is None or contained):
        why = (
            "cannot be used in a container"
            if contained
            else f"needs a node disk, which {spec.machine.name} lacks"
        )
        raise SpecError([Violation("slurm.environment_archive", slurm.environment_archive, why, "remove it")])
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
    """None if ranks run on the host. Binds the run's folders and the site's."""
    image = environment.image(spec)
    if image is None:
        return None
    own = [str(run_folder), str(working_folder)]
    if isinstance(spec.data, DataSpec):
        files = [spec.data.train, *([spec.data.tokenizer] if spec.data.tokenizer else [])]
        own += [str((working_folder / file).parent) for file in files]
    site = spec.machine.site.container
    binds = tuple(dict.fromkeys([*site.binds, *own]))
    # Apptainer cannot escape these two characters.
    wrong = [bind for bind in binds if "," in bind or ":" in bind]
    if wrong:
        constraint = "a path bound into a container cannot contain a comma or colon"
        raise SpecError([Violation("slurm.container", wrong[0], constraint, "use another folder")])
    return Container(site.command, image, binds, tuple(site.options.items()))
