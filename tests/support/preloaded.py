"""What the ranks of tests find imported, in the process that they are forked from.

Whatever a rank would import itself, all ranks of all tests would import again. And what is here is for good:
the collector would go through it in each rank, and copy the pages that ranks share.
"""

import gc
from contextlib import suppress
from importlib import import_module

#: Besides modules with functions of ranks: what torch, numpy, and the first step import late, and pytest,
#: because each rank imports the script that runs the tests again as its main module.
_MODULES = (
    *(f"support.{name}" for name in ("engines", "flips", "flops", "huggingface", "megatron_model")),
    *(f"support.{name}" for name in ("parameters", "peaks", "profiles", "rounding", "runs", "sockets")),
    *(f"support.{name}" for name in ("stream_runs", "traffic", "training")),
    *("numpy.ma", "torch._dynamo", "torch.profiler._cupti_monitor", "pytest"),
)

for _module in _MODULES:
    with suppress(ImportError):  # an extra that is missing, or a private module of another torch
        import_module(_module)
gc.collect()
gc.freeze()
