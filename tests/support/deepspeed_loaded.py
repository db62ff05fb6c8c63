"""Loads DeepSpeed as ranks do, ahead of them: seconds of each rank's processor time otherwise."""

from __future__ import annotations

import importlib
import os

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["LOCAL_SIZE"] = "1"  # or it runs numactl
for name in ("deepspeed.comm.torch", "deepspeed.runtime.zero.stage3", "deepspeed.runtime.zero.stage_1_and_2"):
    importlib.import_module(name)
