"""What devices torch sees on this machine."""

from __future__ import annotations

from typing import Any

import torch


def seen() -> dict[str, Any]:
    """``count`` is 0 without a GPU; all GPUs are taken to be like the first one."""
    count = torch.cuda.device_count()
    if not count:
        return {"count": 0}
    first = torch.cuda.get_device_properties(0)
    return {"count": count, "name": first.name, "memory_bytes": first.total_memory}
