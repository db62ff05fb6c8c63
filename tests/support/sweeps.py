"""A small sweep for tests: 22B on 16 nodes, 24 combinations."""

from __future__ import annotations

from pathlib import Path

from frontrunner.configs.load_sweep import SweepDocument, load_sweep

SMALL = """\
base: gpt-22b-frontier
space:
  layout.pipeline: [2, 4, 8]
  layout.tensor: [1, 2]
  layout.micro_batch_size: [1, 2, 4, 5]
budget: {trials: 8}
"""


def small_sweep(folder: Path, text: str = SMALL, name: str = "small") -> SweepDocument:
    file = folder / f"{name}.yaml"
    file.write_text(text)
    return load_sweep(str(file))
