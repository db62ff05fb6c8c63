"""Loads what DeepSpeed's ranks load, ahead of them: seconds of each rank's processor time otherwise."""

from __future__ import annotations

import importlib
import os
from contextlib import suppress

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["LOCAL_SIZE"] = "1"  # or it runs numactl
importlib.import_module("deepspeed.comm.torch")
# It looks for its Muon among the optimizers, whose module loads torch's compiler.
for name in ("runtime.zero.muon.muon_optimizer", "runtime.zero.stage3", "runtime.zero.stage_1_and_2"):
    with suppress(ImportError):  # in another version it is elsewhere, and each rank loads it
        importlib.import_module(f"deepspeed.{name}")
