"""What NVIDIA's Megatron-Bridge prints besides Megatron-LM's step lines (067f987).

- Before each step line, its speed (src/megatron/bridge/training/utils/train_utils.py; without ``MODEL_``
  before November 2025): ``Step Time : 9.09s GPU utilization: 663.5MODEL_TFLOP/s/GPU``. It counts model
  FLOPs over all devices, with half of attention (utils/flop_utils.py).
- Its configuration where it differs from Megatron Core's defaults (config.py: ``log_non_default_values``),
  with Megatron-LM's names: ``  tensor_model_parallel_size: 8  (Mcore default: 1)``. What is not listed has
  its default.
"""

from __future__ import annotations

import re

from frontrunner.analysis.importers.values import decoded, finite, positive

_SPEED = re.compile(r"Step Time : [\d.]+s GPU utilization: ([\d.]+)(?:MODEL_)?TFLOP/s/GPU")
_DIFFERS = re.compile(r"(?:^|[\s:>|\])])([a-z]\w*): (.+?)  \(Mcore default: .*\)\s*$")
#: Keys of the sections that have no defaults of Megatron Core.
_OTHERS = re.compile(
    r"(?:^|[\s:>|\])])"
    r"(global_batch_size|micro_batch_size|seq_length|sequence_length|train_iters|log_interval): (\d+)\s*$"
)


def speed(line: bytes) -> float | None:
    """FLOP/s per device."""
    found = _SPEED.search(decoded(line)) if b"GPU utilization: " in line else None
    return positive(finite(found[1]), 1e6) * 1e12 if found else None


def begins(line: bytes) -> bool:
    return b"Configuration Summary (Non-Default Values vs Megatron Core)" in line


def setting(line: bytes) -> tuple[str, str] | None:
    """Name and value of an argument."""
    if b": " not in line:
        return None
    text = decoded(line)
    found = _DIFFERS.search(text) or _OTHERS.search(text)
    if not found:
        return None
    name = "seq_length" if found[1] == "sequence_length" else found[1]
    return name, found[2].strip("'")
