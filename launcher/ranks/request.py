"""What the user asked ``train`` for, and the run that it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.display.trackers import TrackerName
from frontrunner.launcher.verify import verified
from frontrunner.parallelism.corpus import check_data
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.run_folder import files


@dataclass(frozen=True)
class Request:
    """The arguments of the command; ``run_dir`` is None where the folder's name is left to us.

    ``run`` is a run file, a preset, or the folder of a run that is to be continued.
    """

    run: str
    overrides: Sequence[str] = ()
    run_dir: Path | None = None
    trackers: Sequence[TrackerName] = ()
    as_json: bool = False

    @property
    def continues(self) -> bool:
        """The request names the folder of an earlier run."""
        return Path(self.run).is_dir()

    @property
    def folder(self) -> Path | None:
        """The run's folder, as far as the request names it."""
        return Path(self.run) if self.continues else self.run_dir

    def resolve(self, place: Rendezvous | None = None) -> RunSpec:
        """The resolved run; SpecError with all that is wrong with it, its data or the number of ranks.

        ``place`` is this process's among ranks that are started already, of which only the first looks at
        the data.
        """
        document, _ = verified(self._run_file(), self.overrides)
        spec = document.spec
        violations: list[Violation] = []
        if place is None or place.rank == 0:
            try:
                check_data(spec)
            except SpecError as error:
                violations.extend(document.annotate(error).violations)
        if place is not None and place.world_size != spec.world_size:
            constraint = (
                f"{spec.nodes} nodes x {spec.machine.devices_per_node} devices of {spec.machine.name} are "
                f"{spec.world_size} ranks, but there are {place.world_size} according to {place.source}"
            )
            fix = f"start {spec.world_size} ranks, or change nodes"
            if place.world_size == 1 and "SLURM_PROCID" in place.source:  # such as `srun --pty bash`
                fix += "; in a shell inside a step, `env -u SLURM_STEP_ID frontrunner ...` starts all of them"
            violations.append(Violation("nodes", spec.nodes, constraint, fix, *document.locate("nodes")))
        if violations:
            raise SpecError(violations)
        return spec

    def _run_file(self) -> str:
        if not self.continues:
            return self.run
        if self.run_dir is not None:
            constraint = f"{self.run} is the folder of a run already, which is continued in it"
            raise SpecError([Violation("--run-dir", str(self.run_dir), constraint, "leave it out")])
        file = Path(self.run) / files.SPEC
        if not file.exists():
            constraint = f"is a folder without {files.SPEC}, so that there is no run to continue"
            raise SpecError(
                [Violation("", self.run, constraint, "name a run file, a preset or a run's folder")]
            )
        return str(file)
