"""The request to ``train``, and the run it resolves to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.display.trackers import TrackerName
from frontrunner.launcher.verify import verified
from frontrunner.parallelism import profile_request
from frontrunner.parallelism.corpus import check_data
from frontrunner.parallelism.profile_request import ProfileRequest
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.run_folder import checkpoints, files
from frontrunner.run_folder.start import check_start


@dataclass(frozen=True)
class Request:
    """The arguments of the command; ``run_dir`` is None for the default name.

    ``run`` is a run file, a preset, or the folder of a run to continue.
    """

    run: str
    overrides: Sequence[str] = ()
    run_dir: Path | None = None
    trackers: Sequence[TrackerName] = ()
    as_json: bool = False
    profile: ProfileRequest | None = None

    @property
    def continues(self) -> bool:
        """The request names the folder of an earlier run."""
        return Path(self.run).is_dir()

    @property
    def folder(self) -> Path | None:
        """The run folder, if the request names one."""
        return Path(self.run) if self.continues else self.run_dir

    def resolve(self, place: Rendezvous | None = None) -> RunSpec:
        """The resolved run; SpecError lists problems with it, its data and the number of ranks.

        ``place`` is this process's place among ranks that are already started. Only the first one checks the
        data.
        """
        document, _ = verified(self._run_file(), self.overrides)
        spec = document.spec
        violations: list[Violation] = []
        if place is None or place.rank == 0:
            for check in (check_data, self._check_start):
                try:
                    check(spec)
                except SpecError as error:
                    violations.extend(document.annotate(error).violations)
        if self.profile is not None:
            violations += profile_request.violations(self.profile, spec)
            violations += self._check_profile(self.profile, place)
        if place is not None and place.world_size != spec.world_size:
            constraint = (
                f"{spec.nodes} nodes x {spec.machine.devices_per_node} devices of {spec.machine.name} are "
                f"{spec.world_size} ranks, but {place.world_size} are running ({place.source})"
            )
            fix = f"start {spec.world_size} ranks, or change nodes"
            if place.world_size == 1 and "SLURM_PROCID" in place.source:  # for example `srun --pty bash`
                fix += "; in a shell inside a step, use `env -u SLURM_STEP_ID frontrunner ...` to start all"
            violations.append(Violation("nodes", spec.nodes, constraint, fix, *document.locate("nodes")))
        if violations:
            raise SpecError(violations)
        return spec

    def _check_profile(self, profile: ProfileRequest, place: Rendezvous | None) -> list[Violation]:
        """What an earlier run in the folder has to say: one measured it, or went past it."""
        if self.folder is None or (place is not None and place.rank > 0):
            return []
        file = files.profile_file(self.folder, profile.steps, profile.rank)
        if file.exists():
            fix = "move it, or name other steps"
            return [Violation("--profile", profile.steps, f"{file} exists already", fix)]
        newest = next(iter(checkpoints.found(self.folder)), None) if self.continues else None
        done = checkpoints.step_of(newest) if newest else 0
        if done >= profile.first:
            fix = f"name steps after {done}"
            what = f"the run continues after step {done}"
            return [Violation("--profile", profile.steps, what, fix)]
        return []

    def _check_start(self, spec: RunSpec) -> None:
        if not (self.continues and checkpoints.found(Path(self.run))):  # else it goes on from its own
            check_start(spec)

    def _run_file(self) -> str:
        if not self.continues:
            return self.run
        if self.run_dir is not None:
            constraint = f"cannot be combined with {self.run}, which is already a run folder"
            raise SpecError([Violation("--run-dir", str(self.run_dir), constraint, "omit --run-dir")])
        file = Path(self.run) / files.SPEC
        if not file.exists():
            constraint = f"is a folder without {files.SPEC}: there is no run to continue"
            raise SpecError(
                [Violation("", self.run, constraint, "name a run file, a preset or a run folder")]
            )
        return str(file)
