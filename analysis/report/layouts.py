"""The page of a search: speed against memory, where the time of layouts goes, and more nodes.

Sections are made from the object of ``frontrunner search --json`` with the keys that
``launcher/layout_report.py`` adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frontrunner.analysis.report.chart import Chart, Limit, Series
from frontrunner.analysis.report.page import whole
from frontrunner.analysis.report.table import Column, Remarks, Section, Tile, table
from frontrunner.configs.units import bytes_text, count_text, interval_text, quantity, share_text

Figures = dict[str, Any]

#: Parts of a step as the bars show them, with their keys in ``step_time_parts_s``; eight colours are there.
PARTS = {
    "computing": ("compute",),
    "recomputation": ("recompute",),
    "tensor messages": ("tensor",),
    "tokens to experts": ("dispatch",),
    "stages: messages and bubble": ("pipeline", "bubble"),
    "weights, gradients, update": ("weights", "gradients", "update"),
    "optimizer": ("optimizer",),
    "stragglers": ("stragglers",),
}
LAYOUT_COLUMNS = (
    Column("rank", "rank", "count"),
    Column("layout", "name"),
    Column("tokens/s per device", "tokens_per_s_per_device", "number"),
    Column("+- %", "interval_pct", "count"),
    Column("memory", "peak_memory_bytes_per_device", "bytes"),
    Column("step", "step_time_s", "seconds"),
    Column("model FLOP/s", "model_flops_per_s_per_device", "flops"),
    Column("MFU", "mfu", "share"),
    Column("node-hours", "node_hours", "number"),
)
PART_COLUMNS = (
    Column("rank", "rank", "count"),
    Column("layout", "name"),
    Column("step", "step_time_s", "seconds"),
    *(Column(part, f"step_time_parts_s.{part}", "seconds") for keys in PARTS.values() for part in keys),
)


def write(found: Figures, path: Path) -> None:
    """Write the page. Needs plotly: the page includes its script."""
    path.write_text("".join(page(found)), encoding="utf-8")


def page(found: Figures) -> Iterator[str]:
    """The page, piece by piece."""
    nodes = f"{found['nodes']:,} {'node' if found['nodes'] == 1 else 'nodes'}"
    note = (
        f"{nodes} of {found['machine']}, {found['devices']:,} devices; {found['global_batch_size']:,} "
        f"sequences of {found['seq_len']:,} tokens per step; predicted, not measured"
    )
    title = f"Layouts of {found['model']} on {found['machine']}"
    yield from whole(title, note, sections(found), found, "search")


def sections(found: Figures) -> list[Section]:
    return [_summary(found), _memory(found), _parts(found), *_nodes(found)]


def _summary(found: Figures) -> Section:
    chosen, best = found["recommended"], found["top"][0]
    speed = quantity(chosen["tokens_per_s_per_device"], "tokens")
    sure = interval_text(chosen["interval_pct"]).strip()
    tiles = [
        Tile("recommended", f"rank {chosen['row']:,}", f"{chosen['name']}: {found['why']}"),
        Tile("speed of a device", speed, f"{sure}; {_slower(chosen, best)}"),
        Tile(
            "memory of a device",
            bytes_text(chosen["peak_memory_bytes_per_device"]),
            f"of {bytes_text(found['memory_bytes'])}",
        ),
        Tile("legal layouts", f"{found['legal']:,}", f"{found['fitting']:,} fit"),
    ]
    if chosen["mfu"] is not None:
        flops = quantity(chosen["model_flops_per_s_per_device"], "flops")
        tiles.append(Tile("model FLOP/s of a device", flops, f"MFU {share_text(chosen['mfu'])}"))
    if chosen["node_hours"] is not None:
        tiles.append(Tile("node-hours", f"{chosen['node_hours']:,.0f}", "of the whole training"))
    warned = [Remarks("Warnings", [("", text) for text in found["warnings"]], True, "warnings")]
    places = [f"top.{n}" for n in range(len(found["top"]))]
    return Section(
        "summary",
        "Summary",
        tables=[table(found, "The fastest that fit", LAYOUT_COLUMNS, places)],
        tiles=tiles,
        remarks=warned if found["warnings"] else [],
    )


def _slower(chosen: Figures, best: Figures) -> str:
    ratio = chosen["tokens_per_s_per_device"] / best["tokens_per_s_per_device"]
    return "none is faster" if ratio >= 1 else f"{share_text(ratio)} of the fastest"


def _memory(found: Figures) -> Section:
    front = found["pareto"]
    places = [f"pareto.{n}" for n in range(len(front))]
    chosen = found["recommended"]
    ends = f"from {_told(front[0])} to {_told(front[-1])}"
    chart = Chart(
        "pareto",
        "Speed against memory",
        "tokens/s per device",
        "memory of a device",
        [
            Series(
                "other layouts that fit",
                [point["tokens_per_s_per_device"] for point in found["spread"]],
                [point["peak_memory_bytes_per_device"] for point in found["spread"]],
                "markers",
                color=7,
                faint=True,
            ),
            Series(
                "Pareto front",
                [entry["tokens_per_s_per_device"] for entry in front],
                [entry["peak_memory_bytes_per_device"] for entry in front],
                labels=[f"rank {entry['rank']:,}: {entry['name']}" for entry in front],
                color=0,
            ),
            Series(
                "recommended",
                [chosen["tokens_per_s_per_device"]],
                [chosen["peak_memory_bytes_per_device"]],
                "markers",
                labels=[chosen["name"]],
                color=1,
            ),
        ],
        f"Memory of a device against its speed. The Pareto front goes {ends}: no other layout is faster and "
        "takes no more memory.",
        x_kind="tokens",
        y_kind="bytes",
        y_from_zero=True,
        limits=[
            Limit("memory of a device", found["memory_bytes"]),
            Limit("with the margin", found["usable_bytes"]),
        ],
        notes=[f"Of {found['fitting']:,} layouts, each place of the figure shows the fastest."],
    )
    tables = [table(found, "The Pareto front of speed and memory", LAYOUT_COLUMNS, places)]
    return Section("memory", "Speed and memory", tables=tables, charts=[chart], figures_first=True)


def _told(entry: Figures) -> str:
    speed = quantity(entry["tokens_per_s_per_device"], "tokens")
    return f"{speed} with {bytes_text(entry['peak_memory_bytes_per_device'])}"


def _parts(found: Figures) -> Section:
    leaders = found["leaders"]
    names = [entry["short"] for entry in leaders]
    losses = [_loss(entry, leaders[0]) for entry in leaders[1:]]
    chart = Chart(
        "parts",
        "Where a step's time goes",
        "",
        "step",
        [
            Series(title, names, [_seconds(entry, title) for entry in leaders], "bar", color=number)
            for number, title in enumerate(PARTS)
        ],
        "Seconds of a step by part, the fastest layout first. "
        + " ".join(f"{name} {text}." for name, text in losses),
        y_kind="seconds",
        stacked=True,
        notes=["Of each number of tensor ranks and stages, the fastest layout. All have the same batch."],
    )
    places = [f"leaders.{n}" for n in range(len(leaders))]
    tables = [table(found, "Parts of a step", PART_COLUMNS, places)]
    remarks = [Remarks(f"Against {names[0]}", losses)] if losses else []
    return Section(
        "parts", "What layouts lose by", tables=tables, charts=[chart], remarks=remarks, figures_first=True
    )


def _seconds(entry: Figures, title: str) -> float:
    return sum(float(entry["step_time_parts_s"][key]) for key in PARTS[title])


def _loss(entry: Figures, best: Figures) -> tuple[str, str]:
    """A layout, and which part costs it most against the fastest, in words."""
    more = entry["step_time_s"] / best["step_time_s"] - 1
    worst = max(PARTS, key=lambda title: _seconds(entry, title) - _seconds(best, title))
    return entry["short"], f"takes {share_text(more)} longer, most of it for {worst}"


def _nodes(found: Figures) -> list[Section]:
    """The same layouts, and the best ones, on other numbers of nodes."""
    curves = found["curves"]
    if len({point["devices"] for curve in curves for point in curve["points"]}) < 2:
        return []
    first = max(curves[0]["points"], key=lambda point: point["tokens_per_s_per_device"])
    last = curves[0]["points"][-1]
    kept = last["tokens_per_s_per_device"] / first["tokens_per_s_per_device"]
    chart = Chart(
        "nodes",
        "Speed of a device on more nodes, same batch",
        "devices",
        "tokens/s per device",
        [
            Series(
                curve["name"],
                [point["devices"] for point in curve["points"]],
                [point["tokens_per_s_per_device"] for point in curve["points"]],
                dashed=number == 0,
                color=number,
            )
            for number, curve in enumerate(curves)
        ],
        f"Tokens per second and device against devices, with {found['global_batch_size']:,} sequences per "
        f"step. The best layout at each size keeps {share_text(kept)} of its speed at "
        f"{count_text(last['devices'])} devices.",
        y_kind="tokens",
        log_x=True,
        y_from_zero=True,
        notes=["A layout has no point where it does not divide, or does not fit."],
    )
    charts = [chart, *_weak(found)]
    return [Section("nodes", "More nodes", charts=charts)]


def _weak(found: Figures) -> list[Chart]:
    """The best layouts of ``--scale``: with a batch that grows, and with a fixed one."""
    rows = found["scaling"]
    if len(rows) < 2:
        return []
    series = []
    for kind, said in (("weak", "batch grows along"), ("strong", "batch fixed")):
        known = [row for row in rows if row[kind]]
        series.append(
            Series(said, [row["nodes"] for row in known], [row[kind]["efficiency"] for row in known])
        )
    return [
        Chart(
            "scale",
            "Efficiency of the best layout",
            "nodes",
            "efficiency",
            series,
            "Speed of a device over that on the fewest nodes, with a batch that grows along and with a fixed "
            "one.",
            y_kind="share",
            log_x=True,
            y_from_zero=True,
        )
    ]
