"""Silent data corruption: what of it is found, and what the checks cost.

    python benchmarks/corruption.py flips [--each 30] [--seed 1]
    python benchmarks/corruption.py cost [--rounds 5] [--steps 20]

``flips``: on eight ranks of two emulated nodes (three levels, bfloat16), and on four that hold copies (ddp),
random bits are flipped one at a time, ``--each`` per place. Each flip gets two verified steps from the same
clean state. Found of flipped, and how often the rank was among those that are named.

``cost``: two ranks train gpt-tiny side by side with and without checks, a few steps of each in turn; ratios
of processor time at several values of watch.verify_every_steps.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from frontrunner.configs.load import load_run
from frontrunner.configs.schema import RunSpec
from support.flips import PLACES, costs, flips
from support.ranks import run_ranks
from support.specs import run_spec

BFLOAT16 = dict.fromkeys(("weights", "gradients", "network"), "bfloat16")
EVERY = (1, 10)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("flips", "cost"))
    parser.add_argument("--each", type=int, default=30, help="flips per place and layout")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps of each kind in a round")
    args = parser.parse_args()
    if args.what == "flips":
        find_flips(args.each, args.seed)
    else:
        compare_costs(args.rounds, args.steps)


def find_flips(each: int, seed: int) -> None:
    """Print found and named of flipped, by layout and place."""
    training = {"precision": "bfloat16"}
    layouts = {
        "three_level, 8 ranks": run_spec(
            nodes=2, packages=2, devices=2, sharding="three_level", training=training, wire=BFLOAT16
        ),
        "ddp, 4 ranks": run_spec(packages=2, devices=2, sharding="ddp", training=training, wire=BFLOAT16),
    }
    for name, spec in layouts.items():
        found = run_ranks(spec.world_size, flips, verified(spec, 1), PLACES, each, seed, timeout=3600)[0]
        for place in PLACES:
            tried = [flip for flip in found if flip.place == place]
            if tried:
                seen = [flip for flip in tried if flip.message]
                named = sum(f"rank {flip.rank} on " in str(flip.message) for flip in seen)
                alone = sum(str(flip.message).count(" on ") == 1 for flip in seen)
                print(
                    f"{name}, {place}: found {len(seen)} of {len(tried)}, named in {named}, alone in {alone}"
                )


def compare_costs(rounds: int, steps: int) -> None:
    """Print the ratios of a step's processor time with checks to that without."""
    for preset, seq_len, batch in (("zero1", 256, 2), ("ddp", 256, 2), ("zero1", 256, 8)):
        spec = _tiny(preset, seq_len, batch)
        ratios, plain_s = run_ranks(2, costs, spec, EVERY, rounds, steps, timeout=3600)[0]
        for every, found in ratios.items():
            spread = f"{statistics.median(found):.3f} (min {min(found):.3f}, max {max(found):.3f})"
            print(
                f"gpt-tiny, {preset}, {seq_len * batch // 2} tokens per rank and step "
                f"({1e3 * plain_s:.0f} ms): verified every {every}: {spread}"
            )


def verified(spec: RunSpec, every: int) -> RunSpec:
    return spec.model_copy(update={"watch": spec.watch.model_copy(update={"verify_every_steps": every})})


def _tiny(preset: str, seq_len: int, batch: int) -> RunSpec:
    overrides: Sequence[str] = [
        "model=gpt-tiny",
        "machine.packages_per_node=1",
        "nodes=1",
        "layout.micro_batch_size=1",
        f"layout.sharding={preset}",
        f"training.seq_len={seq_len}",
        f"training.global_batch_size={batch}",
        "training.steps=100000",
    ]
    return load_run("quickstart", overrides).spec


if __name__ == "__main__":
    main()
