"""Modules, variables and options of a job: the site's recipe with the run file's overrides."""

from __future__ import annotations

from dataclasses import dataclass

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.site import RecipeSpec

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Environment:
    """The setup before the ranks start; values may contain ``${NAME}``."""

    module_paths: tuple[str, ...]
    modules: tuple[str, ...]
    variables: Pairs
    sbatch: Pairs
    srun: Pairs
    node_disk: str | None
    notes: tuple[str, ...]
    name: str
    """The recipe's notes for users."""


def of_run(spec: RunSpec) -> Environment:
    """The environment of a run's job; SpecError for an unknown recipe."""
    site, slurm = spec.machine.site, spec.slurm
    try:
        recipe = site.recipe(slurm.recipe)
    except KeyError:
        known = ", ".join(sorted(site.recipes)) or "none"
        constraint = f"{spec.machine.name} has these recipes: {known}"
        fix = "use one of these, or remove it" if site.recipes else "remove it"
        raise SpecError([Violation("slurm.recipe", slurm.recipe, constraint, fix)]) from None
    contained = image(spec) is not None
    modules = list(site.container.modules if contained else recipe.modules)
    return Environment(
        module_paths=tuple(site.container.module_paths if contained else recipe.module_paths),
        modules=tuple(modules if slurm.modules is None else slurm.modules),
        variables=_variables(recipe, spec),
        sbatch=_over(recipe.sbatch, slurm.sbatch),
        srun=_over(recipe.srun, slurm.srun),
        node_disk=recipe.node_disk,
        notes=tuple(recipe.notes),
        name=_name(spec),
    )


def _name(spec: RunSpec) -> str:
    """The recipe's name and source."""
    site = spec.machine.site
    date = spec.slurm.recipe or max(site.recipes, default=None)
    if date is None:
        return f"{spec.machine.name} has no recipe"
    source = spec.machine.sources.get(f"site.recipes.{date}") or spec.machine.sources.get("site.recipes")
    return f"{spec.machine.name}, {date}" + (f": {source.source}" if source else "")


def image(spec: RunSpec) -> str | None:
    """The Apptainer image for the ranks, or None."""
    return spec.slurm.container or spec.machine.site.container.image


def _variables(recipe: RecipeSpec, spec: RunSpec) -> Pairs:
    merged: dict[str, str | None] = dict(recipe.environment)
    for large in sorted(recipe.large_jobs, key=lambda jobs: jobs.from_nodes):
        if spec.nodes >= large.from_nodes:
            merged |= large.environment
    merged |= spec.slurm.environment
    return tuple((name, value) for name, value in merged.items() if value is not None)


def _over(base: dict[str, str], top: dict[str, str]) -> Pairs:
    return tuple((base | top).items())
