"""What the page of a search shows beside the object of ``--json``: other layouts, other numbers of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from frontrunner.launcher.display.search_tables import Answer, layout_text
from frontrunner.parallelism.planner.headroom import usable_bytes, with_margin
from frontrunner.parallelism.planner.search import Ranking, Space
from frontrunner.parallelism.planner.search import search as judge_all

#: Cells of the figure of speed and memory, each way: more points than pixels help nobody.
CELLS = 60
#: Layouts of which the parts of a step are drawn, and those that are followed to other numbers of nodes.
MOST_LEADERS, MOST_CURVES = 8, 4
TOP = 10
#: The fields that make a layout, beside its sharding.
_KEYS = (
    *("tensor", "sequence_parallel", "pipeline", "virtual_stages", "micro_batch_size", "recompute"),
    *("expert", "flat_dispatch"),
)


def report(answer: Answer, counts: Sequence[int] | None = None) -> dict[str, Any]:
    """The object of the page: that of ``--json``, and what :mod:`frontrunner.analysis.report.layouts` adds.

    ``counts`` are numbers of nodes; by default a quarter to eight times as many as were asked for.
    """
    ranking, spec = answer.ranking, answer.spec
    best = leaders(ranking, answer.choice.index)
    named = answer.as_dict(TOP)
    for kind in ("top", "pareto"):
        indices = ranking.order[:TOP] if kind == "top" else ranking.pareto()
        named[kind] = [_named(answer, int(index)) for index in indices]
    named["recommended"] |= {"name": layout_text(ranking, answer.choice.index)}
    return named | {
        "model": spec.model.name,
        "machine": spec.machine.name,
        "nodes": spec.nodes,
        "devices": spec.world_size,
        "seq_len": spec.training.seq_len,
        "why": answer.why(),
        "memory_bytes": float(spec.machine.device.memory_bytes),
        "usable_bytes": float(usable_bytes(spec.machine, answer.margin)),
        "leaders": [_named(answer, index) for index in best],
        "spread": spread(ranking),
        "curves": curves(
            answer, best[:MOST_CURVES], counts or usual_counts(spec.nodes, spec.machine.num_nodes)
        ),
    }


def _named(answer: Answer, index: int) -> dict[str, Any]:
    """The figures of a layout, with its rank, its name, and a short one for figures."""
    return {
        "name": layout_text(answer.ranking, index),
        "short": _short(answer, index),
        "rank": answer.place(index),
    } | answer.entry(index)


def _short(answer: Answer, index: int) -> str:
    layout = answer.ranking.space.layout(index)
    return f"rank {answer.place(index):,}: tp {layout['tensor']}, pp {layout['pipeline']}"


def leaders(ranking: Ranking, recommended: int) -> list[int]:
    """Indices, the fastest first: of the fastest layout of each number of tensor ranks and stages, and of the
    recommended one."""
    c, speed = ranking.space.candidates, ranking.estimated.tokens_per_s
    cuts = np.stack([c.tensor[ranking.order], c.pipeline[ranking.order]])
    _, firsts = np.unique(cuts, axis=1, return_index=True)
    found = {int(ranking.order[place]) for place in np.sort(firsts)[:MOST_LEADERS]}
    return sorted(found | {recommended}, key=lambda index: -speed[index])[:MOST_LEADERS]


def spread(ranking: Ranking) -> list[dict[str, float]]:
    """Speed and memory of the layouts that fit: the fastest one in each cell of a grid over both."""
    order = ranking.order
    speed, peak = ranking.estimated.tokens_per_s[order], ranking.estimated.memory.peak[order]
    cells = [np.floor(CELLS * values / values.max()).astype(int) for values in (speed, peak)]
    _, firsts = np.unique(np.stack(cells), axis=1, return_index=True)
    return [
        {
            "tokens_per_s_per_device": float(speed[place]),
            "peak_memory_bytes_per_device": float(peak[place]),
        }
        for place in np.sort(firsts)
    ]


def usual_counts(nodes: int, most: int) -> list[int]:
    """Numbers of nodes by powers of two around ``nodes``, from a quarter to eight times as many."""
    fewer = [nodes // factor for factor in (4, 2) if nodes % factor == 0]
    return [count for count in (*fewer, *(nodes * factor for factor in (1, 2, 4, 8))) if count <= most]


def curves(answer: Answer, chosen: Sequence[int], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Speeds of the best layout at each number of nodes, and of the ``chosen`` ones, with the same batch."""
    spec, here = answer.spec, answer.ranking.space
    found: list[list[dict[str, float]]] = [[] for _ in range(1 + len(chosen))]
    for count in sorted({*counts, spec.nodes}):
        ranking = answer.ranking
        if count != spec.nodes:
            everything = judge_all(ranking.estimated.workload, count, answer.global_batch_size)
            ranking, _ = with_margin(everything, answer.margin)
        places = [ranking.order[:1], *(_same(ranking, here, index) for index in chosen)]
        for points, indices in zip(found, places, strict=True):
            if len(indices):
                speed = float(ranking.estimated.tokens_per_s[int(indices[0])])
                devices = count * spec.machine.devices_per_node
                points.append({"devices": devices, "tokens_per_s_per_device": speed})
    names = ["the best at each size", *(_short(answer, index) for index in chosen)]
    return [{"name": name, "points": points} for name, points in zip(names, found, strict=True) if points]


def _same(ranking: Ranking, other: Space, index: int) -> Any:
    """Indices of the layout that is layout ``index`` of ``other``, if it is legal and fits."""
    c, order = ranking.space.candidates, ranking.order
    alike = (ranking.space.triple[order] == other.triple[index]) & (
        ranking.space.wires[order] == other.wires[index]
    )
    for key in _KEYS:
        alike &= getattr(c, key)[order] == getattr(other.candidates, key)[index]
    return order[alike]
