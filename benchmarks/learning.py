"""What quantised messages and experts do to learning: validation loss on real text, paired by seed.

    python benchmarks/learning.py [wires | experts] [--steps 300] [--seeds 1 2 3] [--output FOLDER]

Eight ranks stand for 2 nodes x 2 packages x 2 devices, with degrees (package, node, all). Runs of one seed
see the same batches, and start from the same weights where they have the same. The noise floor next to their
differences is how far runs of the first row with different seeds lie apart. ``experts``: moe-tiny with its
experts cut over all ranks, tokens between the nodes as they are or in int8, and the dense model in which a
token uses as many parameters. Runs already in FOLDER are read, not repeated. Needs the corpus that
`make train` prepares, and matplotlib.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


class Study(NamedTuple):
    """Variants of one run preset; the others are compared with the first."""

    preset: str
    variants: dict[str, dict[str, object]]

    @property
    def reference(self) -> str:
        return next(iter(self.variants))


def _wires(*formats: str, **others: str) -> dict[str, object]:
    keys = dict(zip(("weights", "gradients", "network"), formats, strict=True)) | others
    return {f"layout.sharding.wire.{key}": value for key, value in keys.items()}


STUDIES = {
    "wires": Study(
        "quickstart",
        {
            "bfloat16 wires": _wires("bfloat16", "bfloat16", "bfloat16"),
            "int8/int4": _wires("int8", "int4", "bfloat16"),
            "int8/int4, int8 network": _wires("int8", "int4", "int8"),
            "int8/int4, error feedback": _wires("int8", "int4", "bfloat16", error_feedback="true"),
        },
    ),
    "experts": Study(
        "moe-quickstart",
        {
            "experts": {"layout.expert": 8},
            "experts, int8 tokens": {"layout.expert": 8, "layout.dispatch_wire": "int8"},
            "dense, as many active": {
                "model.experts": "null",
                "layout.expert": 1,
                "model.ffn_hidden_size": 256,
            },
        },
    ),
}


class Curve(NamedTuple):
    """Training loss of each step, validation loss by step."""

    training: list[float]
    validation: dict[int, float]

    @property
    def final(self) -> float:
        return self.validation[max(self.validation)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=STUDIES, default="wires")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path, default=Path("runs/learning"))
    args = parser.parse_args()
    study = STUDIES[args.what]
    curves = {
        name: [train(args.output, study, name, seed, args.steps) for seed in args.seeds]
        for name in study.variants
    }
    print_table(curves, args.seeds)
    draw(curves, args.seeds, args.output / f"{args.what}.png")


def train(folder: Path, study: Study, variant: str, seed: int, steps: int) -> Curve:
    """One run's curve, read from its records."""
    name = f"{variant.replace('/', '-').replace(', ', '-').replace(' ', '-')}-{steps}-{seed}"
    if not (folder / name / "records.jsonl").exists():
        settings = {
            "layout.micro_batch_size": 2,
            "training.global_batch_size": 32,
            "training.precision": "bfloat16",
            "training.validation_samples": 512,
            "training.steps": steps,
            "training.seed": seed,
            **study.variants[variant],
        }
        chosen = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        frontrunner = Path(sys.executable).with_name("frontrunner")
        command = [str(frontrunner), "train", study.preset, "--run-dir", str(folder / name), *chosen]
        subprocess.run(command, check=True)
    records = [json.loads(line) for line in (folder / name / "records.jsonl").read_text().splitlines()]
    return Curve(
        [record["loss"] for record in records if record["kind"] == "step"],
        {record["step"]: record["loss"] for record in records if record["kind"] == "validation"},
    )


def print_table(curves: dict[str, list[Curve]], seeds: list[int]) -> None:
    first = next(iter(curves))
    table = Table("run", *(f"seed {seed}" for seed in seeds), "mean", "to the first, by seed", "mean")
    reference = [curve.final for curve in curves[first]]
    for name, runs in curves.items():
        finals = [curve.final for curve in runs]
        differences = [100 * (own / other - 1) for own, other in zip(finals, reference, strict=True)]
        table.add_row(
            name,
            *(f"{loss:.4f}" for loss in finals),
            f"{statistics.mean(finals):.4f}",
            "  ".join(f"{difference:+.2f} %" for difference in differences),
            f"{statistics.mean(differences):+.2f} %",
        )
    console = Console()
    console.print("final validation loss, nats a token")
    console.print(table)
    if len(reference) > 1:
        pairs = [abs(100 * (a / b - 1)) for a, b in itertools.combinations(reference, 2)]
        console.print(
            f"noise floor, {first} with another seed: {statistics.mean(pairs):.2f} % on average, "
            f"{max(pairs):.2f} % at most"
        )


def draw(curves: dict[str, list[Curve]], seeds: list[int], path: Path) -> None:
    """Training and validation loss of the first seed, and the validation's distance to the reference."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for number, (name, runs) in enumerate(curves.items()):
        color = f"C{number}"
        left.plot(range(1, len(runs[0].training) + 1), runs[0].training, color=color, alpha=0.35, lw=0.8)
        left.plot(*zip(*runs[0].validation.items(), strict=True), color=color, marker="o", ms=3, label=name)
        for index in range(len(seeds)):
            reference = next(iter(curves.values()))[index].validation
            distance = {s: 100 * (loss / reference[s] - 1) for s, loss in runs[index].validation.items()}
            right.plot(
                *zip(*distance.items(), strict=True), color=color, alpha=0.8, lw=1, marker=".", label=name
            )
    left.set(
        xlabel="step", ylabel="loss (nats a token)", title=f"seed {seeds[0]}: training, validation (dots)"
    )
    right.set(
        xlabel="step",
        ylabel=f"validation loss to {next(iter(curves))} (%)",
        title=f"seeds {seeds}",
        ylim=(-2, 2),
    )
    right.axhspan(-0.5, 0.5, color="0.9", zorder=0)
    left.legend()
    figure.savefig(path, dpi=120)
    print(f"curves: {path}")


if __name__ == "__main__":
    main()
