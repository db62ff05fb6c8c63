"""The output of ``frontrunner search``: one JSON object, or tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from frontrunner.configs.units import bytes_text, flops_text, interval_text, seconds_text, share_text

if TYPE_CHECKING:
    from frontrunner.configs.schema import RunSpec
    from frontrunner.parallelism.planner.candidates import Index
    from frontrunner.parallelism.planner.choose import Choice
    from frontrunner.parallelism.planner.search import Ranking
    from frontrunner.parallelism.planner.starvation import Starved

#: In the first table, groups, and rows of a group.
_GROUPS, _LEAST_ROWS = 3, 3


@dataclass(frozen=True)
class Answer:
    """A search and its request; ``scaling`` is empty if not requested."""

    ranking: Ranking
    spec: RunSpec
    global_batch_size: int
    elapsed_s: float
    tokens: float | None
    published: list[dict[str, Any]]
    scaling: list[dict[str, Any]]
    margin: float
    left_out: int
    """Layouts that fit, but not with the margin."""
    choice: Choice
    starved: Starved | None

    def place(self, index: int) -> int:
        """The rank of a layout that fits, from 1."""
        return int((self.ranking.order == index).argmax()) + 1

    def why(self) -> str:
        """Why the recommended layout is recommended."""
        if self.choice.alike == 1:
            return f"no other is {near()} of its speed"
        return (
            f"the simplest of {self.choice.alike:,} {near()} of the fastest, the usual error of such a ratio"
        )

    def groups(self) -> Iterator[tuple[int, Index]]:
        """The simplest of each group of layouts that cannot be told apart, and the group."""
        from frontrunner.parallelism.planner.choose import groups, simplest_of

        for group in groups(self.ranking):
            yield simplest_of(self.ranking, group).index, group

    def warnings(self) -> list[str]:
        from frontrunner.parallelism.planner.uncertainty import caveat

        why = caveat(self.ranking.estimated.workload)
        found = [] if why is None else [why]
        if self.starved is None:
            return found
        devices = f"{self.spec.nodes} nodes"
        return [
            *found,
            f"{self.global_batch_size:,} sequences per step starve {devices}: "
            f"{self.starved.global_batch_size:,} would run {self.starved.gain:.1f} times as fast. "
            "Use a larger batch or fewer nodes",
        ]

    def training_s(self, index: int) -> float | None:
        """Seconds to train on the tokens with that layout."""
        if not self.tokens:
            return None
        return self.tokens / (float(self.ranking.estimated.tokens_per_s[index]) * self.spec.world_size)

    def node_hours(self, index: int) -> float | None:
        seconds = self.training_s(index)
        return None if seconds is None else seconds / 3600 * self.spec.nodes

    def entry(self, index: int) -> dict[str, Any]:
        """The figures of one layout."""
        figures = self.ranking.estimated.as_dict(index) | {"layout": self.ranking.space.layout(index)}
        return figures | {"duration_s": self.training_s(index), "node_hours": self.node_hours(index)}

    def _group(self, simplest: int, group: Index, top: int) -> dict[str, Any]:
        from frontrunner.parallelism.planner.uncertainty import RELATIVE_INTERVAL_PCT

        speed = self.ranking.estimated.tokens_per_s
        return {
            "layouts": [self.place(index) for index in simplest_first(simplest, group, top)],
            "count": len(group),
            "tokens_per_s_per_device_range": [float(speed[group[-1]]), float(speed[group[0]])],
            "relative_interval_pct": RELATIVE_INTERVAL_PCT,
            "simplest": self.entry(simplest),
        }

    def as_dict(self, top: int) -> dict[str, Any]:
        """The contract of ``--json``."""
        ranking = self.ranking
        return {
            "candidates": ranking.space.considered,
            "legal": len(ranking.space.candidates),
            "fitting": len(ranking.order),
            "elapsed_s": self.elapsed_s,
            "global_batch_size": self.global_batch_size,
            "top": [self.entry(int(index)) for index in ranking.order[:top]],
            "groups": [self._group(*found, top) for found in islice(self.groups(), top)],
            "pareto": [self.entry(index) for index in ranking.pareto()],
            "published": self.published,
            "scaling": self.scaling,
            "margin": self.margin,
            "left_out_by_margin": self.left_out,
            "recommended": {"row": self.place(self.choice.index), **self.entry(self.choice.index)},
            "warnings": self.warnings(),
        }


def near() -> str:
    """In words, how close to the fastest a simpler layout must be to be taken instead."""
    from frontrunner.parallelism.planner.uncertainty import RELATIVE_MEDIAN_PCT

    return f"within {RELATIVE_MEDIAN_PCT:.0f} %"


def _legend() -> str:
    from frontrunner.parallelism.planner.uncertainty import RELATIVE_INTERVAL_PCT

    apart = f"speeds within {RELATIVE_INTERVAL_PCT:.0f} %, which cannot be told apart"
    return f"between two rules: {apart}; first the simplest {near()} of the fastest"


def simplest_first(simplest: int, group: Index, most: int) -> list[int]:
    """At most so many layouts of a group: the simplest, then the fastest others."""
    return [simplest, *(int(index) for index in group[:most] if index != simplest)][:most]


def show(answer: Answer, top: int) -> None:
    from frontrunner.launcher.display.model_line import model_lines
    from frontrunner.launcher.display.screen import Screen

    console = Screen()
    spec, ranking = answer.spec, answer.ranking
    console.print(
        f"{spec.model.name} on {spec.nodes} nodes of {spec.machine.name} ({spec.world_size} devices), "
        f"{answer.global_batch_size} sequences of {spec.training.seq_len} tokens per step"
    )
    console.lines(model_lines(spec.model))
    console.print(
        f"{len(ranking.space.candidates):,} legal layouts evaluated in {seconds_text(answer.elapsed_s)}, "
        f"{len(ranking.order):,} fit" + _left_out(answer)
    )
    console.print(_grouped(answer, top))
    console.print(_legend())
    console.print(_table(answer, "Pareto front of speed and memory", ranking.pareto()[:top]))
    recommended = answer.choice.index
    lines = [f"recommended: rank {answer.place(recommended):,}, {layout_text(ranking, recommended)}"]
    lines += [f"  {answer.why()}"]
    lines += [_published_text(entry) for entry in answer.published]
    lines += [_scaling_text(row, kind) for kind in ("weak", "strong") for row in answer.scaling]
    console.lines(lines)


def _left_out(answer: Answer) -> str:
    if not answer.left_out:
        return ""
    return f"; {answer.left_out:,} more do not leave the margin of memory, {share_text(answer.margin)}"


def _published_text(entry: dict[str, Any]) -> str:
    if entry["place"] is None:
        return f"{entry['name']}: not ranked (it is not legal here, or does not fit)"
    place = (
        f"rank {entry['place']:,} of {entry['of']:,} (top {entry['place'] / entry['of']:.1%}), "
        f"{entry['speed_of_best']:.0%} of the best speed"
    )
    words = [
        f"it {verb} by " + ", ".join(f"{part} {share:.0%}" for part, share in entry[key].items())
        for verb, key in (("loses", "loses_by"), ("wins", "wins_by"))
        if entry[key]
    ]
    return "; ".join([f"{entry['name']}: {place}", *words])


def _scaling_text(row: dict[str, Any], kind: str) -> str:
    found = row[kind]
    if not found:
        return f"{kind} scaling, {row['nodes']} nodes: nothing fits"
    layout = found["layout"]
    cut = layout["sharding"].get("preset") or "custom degrees"
    return (
        f"{kind} scaling, {row['nodes']} nodes: {found['tokens_per_s_per_device']:,.1f} tokens/s per device, "
        f"efficiency {found['efficiency']:.2f} (tp {layout['tensor']}, pp {layout['pipeline']}, "
        f"mbs {layout['micro_batch_size']}, {cut})"
    )


def _grouped(answer: Answer, top: int) -> Any:
    """The first groups, each with its simplest and its fastest layouts, in ``top`` rows."""
    indices: list[int] = []
    rules = []
    for simplest, group in answer.groups():
        if len(indices) >= top:
            break
        rules.append(len(indices))
        each = max(_LEAST_ROWS, top // _GROUPS)
        indices += simplest_first(simplest, group, min(each, top - len(indices)))
    return _table(answer, "the fastest that fit", indices, rules)


def _table(answer: Answer, title: str, indices: list[int], rules: Sequence[int] = ()) -> Any:
    """The layouts with their places in the ranking, and rules above some."""
    from frontrunner.launcher.display.tables import Table

    headings = ["rank", "layout", "memory", "step", "tokens/s per device", "model FLOP/s", "MFU"]
    headings += ["node-hours"] if answer.tokens else []
    places = {int(index): place for place, index in enumerate(answer.ranking.order, 1)}
    rows = []
    for index in indices:
        figures = answer.entry(index)
        hours = figures["node_hours"]
        row = [
            f"{places[index]:,}",
            layout_text(answer.ranking, index),
            bytes_text(figures["peak_memory_bytes_per_device"]),
            seconds_text(figures["step_time_s"]),
            f"{figures['tokens_per_s_per_device']:,.1f}" + interval_text(figures["interval_pct"]),
            flops_text(figures["model_flops_per_s_per_device"]),
            "-" if figures["mfu"] is None else f"{figures['mfu']:.1%}",
        ]
        rows.append([*row, *([] if hours is None else [f"{hours:,.0f}"])])
    return Table(title, headings, rows, texts=(1,), rules=rules)


def layout_text(ranking: Ranking, index: int) -> str:
    """A layout in one line."""
    return layout_words(ranking.space.layout(index))


def layout_words(layout: Mapping[str, Any]) -> str:
    """The ``layout`` section of a run file in one line."""
    sharding = layout["sharding"]
    degrees = [str(sharding.get(kind)) for kind in ("weights", "gradients", "optimizer")]
    cut = sharding.get("preset") or "/".join(degrees)
    wires = f" ({'/'.join(sharding['wire'].values())})" if "wire" in sharding else ""
    parts = [
        f"tp {layout['tensor']}{' sp' if layout['sequence_parallel'] else ''}",
        f"pp {layout['pipeline']}",
    ]
    parts += [f"x{layout['virtual_stages']} virtual"] if layout["virtual_stages"] > 1 else []
    if layout.get("expert", 1) > 1:
        parts.append(f"ep {layout['expert']}{' flat' if layout['dispatch'] == 'flat' else ''}")
    parts += [f"mbs {layout['micro_batch_size']}", f"recompute {layout['recompute']}"]
    return ", ".join([*parts, cut + wires])
