"""The ``site`` section of a machine file: what its Slurm allows and what its nodes need."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from frontrunner.configs.slurm import Duration, Options, PathText, Variables, Word, Words, seconds
from frontrunner.configs.types import Frozen, PositiveInt


class SizeLimit(Frozen):
    """Wall time of jobs of some size."""

    max_nodes: PositiveInt
    """Jobs of up to so many nodes (and more than the limit before)."""
    max_time: Duration
    """Longest wall time of such a job."""
    rule: Annotated[str, Field(min_length=1)]
    """What the site's documentation says, to be quoted."""


class QueueSpec(Frozen):
    """A partition, or a quality of service in one, and what it refuses."""

    partition: Word
    """Slurm's name of the partition."""
    qos: Word | None = None
    """null: jobs without one."""
    limits: Annotated[list[SizeLimit], Field(min_length=1)]
    """By increasing max_nodes; the last one's is the largest job."""
    max_jobs: PositiveInt | None = None
    """Jobs of one user in any state; null: no such rule."""
    jobs_rule: str | None = None
    """What the site's documentation says about max_jobs, to be quoted."""
    chains: bool = True
    """Whether a job may submit the next."""
    chains_rule: str | None = None
    """What forbids it."""

    @property
    def max_nodes(self) -> int:
        return self.limits[-1].max_nodes

    def limit(self, nodes: int) -> SizeLimit | None:
        """The limit of jobs of that size; None where they are too large."""
        return next((limit for limit in self.limits if nodes <= limit.max_nodes), None)


class PlaceSpec(Frozen):
    """Where one device of a node is."""

    cores: Annotated[str, Field(pattern=r"^\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*$")]
    """Cores of its NUMA domain that a job may use, as in 49-55."""
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
    """What only large jobs need."""

    from_nodes: PositiveInt
    """Jobs of so many nodes or more."""
    environment: Variables
    """Variables over the recipe's; null leaves one out."""


class RecipeSpec(Frozen):
    """What a job needs on this site with the software of one date."""

    modules: Words = Field(default_factory=list)
    """Loaded in this order, after a reset."""
    module_paths: list[PathText] = Field(default_factory=list)
    """Where more modules are found."""
    environment: Variables = Field(default_factory=dict)
    """${NAME} stands for another variable on the node."""
    large_jobs: list[LargeJobs] = Field(default_factory=list)
    """Variables over those above, from some number of nodes on."""
    sbatch: Options = Field(default_factory=dict)
    """More options of sbatch, without dashes."""
    srun: Options = Field(default_factory=dict)
    """More options of srun, without dashes."""
    node_disk: PathText | None = None
    """A folder on each node's own disk; null: nodes have none."""
    notes: list[str] = Field(default_factory=list)
    """What a user should know, shown with the script."""


class ContainerSpec(Frozen):
    """How images run on this site."""

    command: Word = "apptainer"
    """singularity where the site calls it so."""
    image: PathText | None = None
    """The site's image for training; null: the run file names one."""
    binds: list[PathText] = Field(default_factory=list)
    """Host folders that the image needs, beside the run's own."""
    modules: Words = Field(default_factory=list)
    """Loaded instead of the recipe's, most of which an image brings itself."""
    module_paths: list[PathText] = Field(default_factory=list)
    """Where they are found."""
    options: Options = Field(default_factory=dict)
    """More options of exec, without dashes."""


class SiteSpec(Frozen):
    """How a cluster is used."""

    queues: dict[str, QueueSpec] = Field(default_factory=dict)
    """By a name for people; the first that fits is taken where a run names none. Empty: limits unknown."""
    account_required: bool = False
    """Whether the site refuses a job without an account."""
    chain: Literal["dependency", "requeue"] = "dependency"
    """How a segment is followed by the next: a new job that waits for its end, or the same one again."""
    devices: list[PlaceSpec] = Field(default_factory=list)
    """The devices of a node by number; neighbours share a package. Empty: ranks are not bound."""
    device_request: Word | None = "gpu"
    """The generic resource that stands for devices; null: jobs ask for none."""
    recipes: dict[Annotated[str, Field(pattern=r"^\d{4}(-\d{2}){0,2}$")], RecipeSpec] = Field(
        default_factory=dict
    )
    """By date of the software."""
    container: ContainerSpec = Field(default_factory=ContainerSpec)
    """How images run here, for runs that use one."""

    def recipe(self, date: str | None) -> RecipeSpec:
        """The recipe of that date (KeyError where there is none), or the newest."""
        if date is not None:
            return self.recipes[date]
        return self.recipes[max(self.recipes)] if self.recipes else RecipeSpec()


def longest_s(limit: SizeLimit) -> int:
    return seconds(limit.max_time)
