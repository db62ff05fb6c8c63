"""What a first day measures with: the plain loop's model, the check of wire formats, the shapes of rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from frontrunner.configs import presets
from frontrunner.configs.load import load_model, load_run
from frontrunner.configs.schema import ModelSpec
from frontrunner.parallelism.planner.flops import attention_core_flops_per_token, model_flops_per_token
from frontrunner.parallelism.planner.parameters import total_parameters
from frontrunner.parallelism.runtime.first_day.kernels import INTEGERS, differences, rounded
from frontrunner.parallelism.runtime.first_day.plain import PlainGPT, lacks
from frontrunner.parallelism.runtime.first_day.rates import products
from frontrunner.parallelism.runtime.streams import races_raise
from frontrunner.parallelism.runtime.wire import block_quantize
from frontrunner.parallelism.runtime.wire.formats import wire_format

CPU = torch.device("cpu")
SMALL = {"num_layers": 2, "hidden_size": 32, "num_heads": 4, "vocab_size": 100, "max_position_embeddings": 16}
LLAMA = {
    "num_kv_heads": 2,
    "position_embedding": "rotary",
    "normalization": "rmsnorm",
    "activation": "swiglu",
    "linear_bias": False,
    "tie_embeddings": False,
}


@pytest.mark.parametrize("name", presets.names("model"))
def test_the_plain_model_has_as_many_parameters(name: str) -> None:
    """Counted on its own, of every preset that it can express."""
    model = load_model(name)
    with torch.device("meta"):
        plain = PlainGPT(model)
    same = sum(parameter.numel() for parameter in plain.parameters()) == total_parameters(model)
    assert same or lacks(model)


def test_what_the_plain_loop_lacks_is_said() -> None:
    assert [bool(lacks(load_model(name))) for name in ("gpt-1.4b", "llama-2-7b", "qwen3-8b")] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("keys", [{}, LLAMA], ids=["gpt", "llama"])
def test_the_plain_model_is_causal_and_uses_all_of_itself(keys: dict[str, Any]) -> None:
    """The loss of the first tokens does not change with the last one, and every parameter has a gradient."""
    torch.manual_seed(1)
    plain = PlainGPT(ModelSpec.model_validate(SMALL | keys))
    seen: list[torch.Tensor] = []
    plain.norm.register_forward_hook(lambda _module, _given, out: seen.append(out.detach()))
    tokens = torch.arange(9).view(1, 9)
    plain(tokens).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in plain.parameters())
    other = tokens.clone()
    other[0, 7] = 50  # the last input; its label is the ninth
    plain(other)
    assert torch.equal(seen[0][:, :7], seen[1][:, :7]) and not torch.equal(seen[0][:, 7], seen[1][:, 7])


@pytest.mark.parametrize("name", INTEGERS)
def test_the_cpu_path_follows_the_definition(name: Any) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert differences(wire_format(name, 64), dtype, 1000, CPU) == []


@pytest.mark.parametrize("function", ["dequantize", "dequantize_sum"])
def test_a_kernel_that_is_off_by_one_bit_is_found(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right: Callable[..., None] = getattr(block_quantize, function)

    def off(encoded: torch.Tensor, out: torch.Tensor, *rest: Any) -> None:
        right(encoded, out, *rest)
        last = out.view(-1)[-1:]
        last.copy_(torch.nextafter(last, torch.tensor(torch.inf)))

    monkeypatch.setattr(block_quantize, function, off)
    (found,) = differences(wire_format("int8", 64), torch.float32, 1000, CPU)
    kind = "decoded" if function == "dequantize" else "the sum of rows of"
    assert found == f"{kind} int8 of 1000 elements of float32"


def test_a_wrong_scale_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = block_quantize.quantize

    def narrow(x: torch.Tensor, encoded: torch.Tensor, *rest: int) -> None:
        right(x * 0.5, encoded, *rest)

    monkeypatch.setattr(block_quantize, "quantize", narrow)
    assert "decoded int4 of 1000 elements of float32" in differences(
        wire_format("int4", 64), torch.float32, 1000, CPU
    )


def test_what_comes_back_by_hand() -> None:
    """A scale of 7 / 7, and halves to even."""
    x = torch.tensor([[7.0, 2.5, -1.5, 0.4]])
    assert rounded(x, 7, 4).tolist() == [[7.0, 2.0, -2.0, 0.0]]


@pytest.mark.parametrize("tensor", [1, 2])
def test_products_are_the_models(tensor: int) -> None:
    """With the core of attention they are all that the model computes in a forward, on all ranks."""
    keys = ["model=gpt-1.4b", "machine=frontier", "nodes=1", f"layout={{tensor: {tensor}}}", "data=synthetic"]
    spec = load_run("quickstart", [*keys, "training={seq_len: 2048, global_batch_size: 32}"]).spec
    *layer, logits = [2 * m * n * k * tensor for _, m, n, k in products(spec)]
    tokens = spec.layout.micro_batch_size * 2048
    core = spec.model.num_layers * attention_core_flops_per_token(spec.model, 2048)
    forward = spec.model.num_layers * sum(layer) + logits
    assert 3 * (forward + tokens * core) == tokens * model_flops_per_token(spec.model, 2048)


def test_torch_still_has_its_sanitizer() -> None:
    """It is private to torch. Without a GPU it can only be entered and left."""
    with races_raise():
        pass
