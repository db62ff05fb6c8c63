"""Predictions at thousands of devices, against AxoNN's weak scaling on Frontier (arXiv 2502.08145).

AxoNN's layouts are not published. The fastest layout without a pipeline stands in, of tensor degrees inside a
node and of weights, gradients and optimizer over some neighbours. The shape at 32,768 devices is not known
either; 96 layers of hidden size 16,384 stand in.
"""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import numpy as np

from frontrunner.configs.load import load_machine, load_run
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.flops import model_flops_per_token
from frontrunner.parallelism.planner.plan import estimate

SEQUENCES = 8192
#: Devices, layers, hidden size, heads, and the published efficiency in percent.
AXONN = [
    (512, 24, 4096, 32, 100.0),
    (8192, 42, 12288, 96, 88.3),
    (16384, 84, 12288, 96, 79.0),
    (32768, 96, 16384, 128, 53.5),
]


def best_flops(devices: int, layers: int, hidden: int, heads: int) -> float:
    """Model FLOP/s of a device under the fastest stand-in that fits."""
    spec = load_run("gpt-22b-frontier").spec
    shape = {"num_layers": layers, "hidden_size": hidden, "num_heads": heads, "num_kv_heads": heads}
    model = spec.model.model_copy(
        update=shape | {"ffn_hidden_size": 4 * hidden, "head_dim": hidden // heads, "tie_embeddings": False}
    )
    workload = replace(Workload.of(spec), model=model, machine=load_machine("frontier"))
    rows = []
    for tensor, cut, size in itertools.product((1, 2, 4, 8), (1, 2, 4, 8, 16, 32, 64, 128), (1, 2, 4)):
        data = devices // tensor
        if SEQUENCES % (data * size) == 0 and cut <= data:
            rows.append((tensor, data, size, SEQUENCES // (data * size), cut))
    tensor_, data_, size_, steps, cut_ = np.array(rows, dtype=float).T
    one = np.ones(len(rows))
    values = {f.name: one for f in fields(Candidates)} | {
        "tensor": tensor_,
        "data": data_,
        "micro_batch_size": size_,
        "grad_accum_steps": steps,
        "recompute": 2 * one,
        "sequence_parallel": 0 * one,
        **dict.fromkeys(("error_feedback", "flat_dispatch", "int8_dispatch"), 0 * one),
        **dict.fromkeys(("weights", "gradients", "optimizer", "secondary"), cut_),
        **dict.fromkeys(("weight_wire", "gradient_wire", "network_wire"), 2 * one),
    }
    found = estimate(workload, Candidates(**values))
    return float((found.tokens_per_s * found.fits).max()) * model_flops_per_token(model, workload.seq_len)


def test_weak_efficiency_falls_with_devices_as_published() -> None:
    speeds = np.array([best_flops(*row[:4]) for row in AXONN])
    efficiencies = 100 * speeds / speeds[0]
    assert all(np.diff(efficiencies) < 0)
    published = np.array([row[4] for row in AXONN])
    assert np.all(abs(efficiencies - published)[:3] <= 8), efficiencies
