"""The ``site`` section of a machine file: Slurm limits and the environment of jobs."""

from typing import Annotated, Literal

from pydantic import Field

from frontrunner.configs.slurm import Duration, Options, PathText, Variables, Word, Words, seconds
from frontrunner.configs.types import Frozen, PositiveInt


class SizeLimit(Frozen):
    """Wall time limit for a range of job sizes."""

    max_nodes: PositiveInt
    """Largest job, in nodes, under this limit."""
    max_time: Duration
    """Maximum wall time of one job."""
    rule: Annotated[str, Field(min_length=1)]
    """The rule as the site's documentation states it; quoted in messages."""


class QueueSpec(Frozen):
    """A partition, or a QOS in one, and its limits."""

    partition: Word
    """Slurm's name of the partition."""
    qos: Word | None = None
    """Quality of service; null: jobs without one."""
    limits: Annotated[list[SizeLimit], Field(min_length=1)]
    """In order of max_nodes; the last entry is the largest job."""
    max_jobs: PositiveInt | None = None
    """Maximum jobs per user, in any state; null: no limit."""
    jobs_rule: str | None = None
    """The rule behind max_jobs as the site's documentation states it; quoted in messages."""
    chains: bool = True
    """Whether a job may submit the next one."""
    chains_rule: str | None = None
    """The rule that forbids chains; quoted in messages."""

    @property
    def max_nodes(self) -> int:
        return self.limits[-1].max_nodes

    def limit(self, nodes: int) -> SizeLimit | None:
        """The limit for jobs of that size; None if they are too large."""
        return next((limit for limit in self.limits if nodes <= limit.max_nodes), None)


class PlaceSpec(Frozen):
    """Location of one device in a node."""

    cores: Annotated[str, Field(pattern=r"^\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*$")]
    """Cores of its NUMA domain that jobs may use, for example 49-55."""
    numa: Annotated[int, Field(ge=0, lt=1024)]
    """Number of its NUMA domain."""
    nic: Word
    """The nearest network interface."""
    pci_bus: Annotated[str, Field(pattern=r"^[0-9a-f]{2}$")]
    """Number of its PCI bus, hexadecimal."""

    def core_numbers(self) -> tuple[int, ...]:
        numbers: list[int] = []
        for part in self.cores.split(","):
            first, _, last = part.partition("-")
            numbers += range(int(first), int(last or first) + 1)
        return tuple(numbers)


class LargeJobs(Frozen):
    """Extra variables for large jobs."""

    from_nodes: PositiveInt
    """Smallest job, in nodes, that gets them."""
    environment: Variables
    """Overrides the recipe's variables; null unsets one."""


class RecipeSpec(Frozen):
    """Modules, variables and options of jobs, for the software of one date."""

    modules: Words = Field(default_factory=list)
    """Loaded in this order, after a reset."""
    module_paths: list[PathText] = Field(default_factory=list)
    """Extra folders for `module use`."""
    environment: Variables = Field(default_factory=dict)
    """Environment variables; ${NAME} expands to another variable on the node."""
    large_jobs: list[LargeJobs] = Field(default_factory=list)
    """Overrides for jobs above a number of nodes."""
    sbatch: Options = Field(default_factory=dict)
    """Extra sbatch options, without dashes."""
    srun: Options = Field(default_factory=dict)
    """Extra srun options, without dashes."""
    node_disk: PathText | None = None
    """A folder on each node's local disk; null: no local disk."""
    notes: list[str] = Field(default_factory=list)
    """Notes for users, shown in the job script."""


class ContainerSpec(Frozen):
    """How images run on this site."""

    command: Word = "apptainer"
    """Container program: apptainer or singularity."""
    image: PathText | None = None
    """The site's image for training; null: only if the run file names one."""
    binds: list[PathText] = Field(default_factory=list)
    """Host folders to bind, besides the run's own."""
    modules: Words = Field(default_factory=list)
    """Modules for containers; replaces the recipe's."""
    module_paths: list[PathText] = Field(default_factory=list)
    """Extra folders for `module use`, for containers."""
    options: Options = Field(default_factory=dict)
    """Extra options of `exec`, without dashes."""


class SiteSpec(Frozen):
    """Queues, device placement and job environment of a cluster."""

    is_cluster: bool = True
    """false: the file describes a kind of node and no cluster; jobs are refused until another key of site is
    set."""
    queues: dict[str, QueueSpec] = Field(default_factory=dict)
    """Queues by display name; a run that names none gets the first that fits. Empty: limits unknown."""
    account_required: bool = False
    """Whether jobs need an account."""
    chain: Literal["dependency", "requeue"] = "dependency"
    """How the next segment starts: dependency submits a new job, requeue reuses the same one."""
    devices: list[PlaceSpec] = Field(default_factory=list)
    """Devices of a node in order; neighbours share a package. Empty: ranks are not bound."""
    device_request: Word | None = "gpu"
    """Slurm generic resource (GRES) for devices; null: jobs request none."""
    recipes: dict[Annotated[str, Field(pattern=r"^\d{4}(-\d{2}){0,2}$")], RecipeSpec] = Field(
        default_factory=dict
    )
    """Recipes by date of the software."""
    container: ContainerSpec = Field(default_factory=ContainerSpec)
    """Container settings, for runs that use an image."""

    def recipe(self, date: str | None) -> RecipeSpec:
        """The recipe of that date (KeyError if missing), or the newest."""
        if date is not None:
            return self.recipes[date]
        return self.recipes[max(self.recipes)] if self.recipes else RecipeSpec()


def longest_s(limit: SizeLimit) -> int:
    return seconds(limit.max_time)
