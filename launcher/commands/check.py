"""``frontrunner check``: is a run file valid, and what does it resolve to?"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import Document
from frontrunner.configs.units import levels_text
from frontrunner.launcher.display.terminal import tell
from frontrunner.launcher.verify import verified
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.dispatch import dispatch
from frontrunner.parallelism.planner.parameters import stage_units
from frontrunner.parallelism.planner.traffic import traffic
from frontrunner.run_folder.start import check_start


def check(
    run: Annotated[str, typer.Argument(metavar="RUN.yaml", help="A run file or preset.")],
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override", "-o", metavar="KEY=VALUE", help="Override a key, e.g. layout.tensor=4 (repeatable)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a run file and show what it resolves to, or list everything that is wrong."""
    document, layout = verified(run, override or [])
    try:
        check_start(document.spec)
    except SpecError as error:
        raise document.annotate(error) from None
    if as_json:
        found = {"valid": True, "violations": [], "layout": layout.describe()}
        typer.echo(json.dumps(found | {"bytes_per_step": _sent(document, layout)}))
    else:
        tell(*_summary(run, document, layout))


def _summary(run: str, document: Document, layout: Layout) -> list[str]:
    spec = document.spec
    training, sharding = spec.training, spec.layout.sharding
    micro_batch = f"micro-batch {spec.layout.micro_batch_size}"
    virtual = f" ({layout.virtual_stages} virtual stages)" if layout.virtual_stages > 1 else ""
    lines = {
        "run": f"{spec.model.name} on {spec.nodes} of {spec.machine.num_nodes} nodes of {spec.machine.name}",
        "devices": f"{layout.world_size} = tensor {layout.tensor} x pipeline {layout.pipeline}{virtual} "
        f"x data {layout.data}",
        "sharding": f"{sharding.preset or 'degrees'}: weights over {layout.weights}, gradients over "
        f"{layout.gradients}, optimizer over {layout.optimizer} data-parallel ranks"
        + ("" if spec.engine == "native" else f", by {spec.engine}"),
        "step": f"{training.global_batch_size} sequences of {training.seq_len} tokens = {layout.data} ranks "
        f"x {spec.grad_accum_steps} x {micro_batch}, {training.precision}",
    }
    tokens = training.steps * training.global_batch_size * training.seq_len
    lines["length"] = f"{training.steps:,} steps = {tokens:.4g} tokens"
    if (sent := _sent(document, layout)) is not None:
        lines["sends"] = f"{levels_text(sent)} per rank and step for sharding (first stage, by formula)"
    if spec.engine == "native" and spec.model.experts is not None and layout.expert > 1:
        sparse = spec.model.experts.num_sparse(spec.model.num_layers // layout.pipeline)
        tokens_sent = dispatch(spec, layout, sparse).step(spec.grad_accum_steps)
        lines["tokens"] = f"{levels_text(tokens_sent)} to experts and back (likewise, with even routers)"
    return [f"{run} is valid", *(f"  {name:<10}{text}" for name, text in lines.items())]


def _sent(document: Document, layout: Layout) -> dict[str, float] | None:
    """Bytes that a rank of the first stage sends in a step for sharding, by level; None for other engines."""
    spec = document.spec
    if spec.engine != "native":
        return None
    cut = {"expert": layout.expert, "virtual_stages": layout.virtual_stages}
    units = stage_units(spec.model, layout.tensor, layout.pipeline, **cut)
    return traffic(spec, layout, units).step(spec.grad_accum_steps)
