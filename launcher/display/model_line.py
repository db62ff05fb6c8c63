"""The size of a model whose tokens use a part of it, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frontrunner.configs.schema import ModelSpec


def model_lines(model: ModelSpec) -> list[str]:
    """Total and active parameters of a model with experts; nothing for a dense one."""
    from frontrunner.parallelism.planner.parameters import active_parameters, total_parameters

    if (experts := model.experts) is None:
        return []
    total, active = total_parameters(model), active_parameters(model)
    shared = f" and {experts.shared_experts} shared" if experts.shared_experts else ""
    chosen = f"{experts.experts_per_token} of {experts.num_experts} experts{shared}"
    return [f"model   {_number(total)} parameters, {_number(active)} active ({chosen})"]


def _number(count: int) -> str:
    """46702792704 -> ``46.7 billion``."""
    return f"{count / 1e9:,.1f} billion" if count >= 1e9 else f"{count / 1e6:,.1f} million"
