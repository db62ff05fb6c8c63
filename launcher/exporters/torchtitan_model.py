"""torchtitan's built-in Llama 3 models, as keys of ours.

From ``llama3_args`` and ``TransformerModelArgs`` (torchtitan/models/llama3 of v0.2.2): a file names one of
them and can change nothing in it. The MLP's width is two thirds of 4 * hidden_size, times a factor,
rounded up.
"""

from __future__ import annotations

from frontrunner.configs.errors import show_value
from frontrunner.configs.schema import ModelSpec
from frontrunner.launcher.exporters.combinations import rotary_scaling
from frontrunner.launcher.exporters.target import Refusals

#: What all of them share: ``Transformer`` has no option for it.
SHARED: dict[str, object] = {
    "position_embedding": "rotary",
    "rotary_base": 500000.0,
    "rotary_fraction": 1.0,
    "rotary_scaling_factor": 8.0,
    "normalization": "rmsnorm",
    "norm_epsilon": 1e-5,
    "norm_position": "before",
    "qk_norm": "none",
    "activation": "swiglu",
    "parallel_residual": False,
    "linear_bias": False,
    "qkv_bias": False,
    "tie_embeddings": False,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
}
SHAPE = ("num_layers", "hidden_size", "num_heads")
_SIZES = (*SHAPE, "num_kv_heads", "head_dim", "ffn_hidden_size", "padded_vocab_size")
FLAVORS: dict[str, dict[str, object]] = {
    name: dict(zip(_SIZES, sizes, strict=True)) | SHARED
    for name, sizes in {
        "debugmodel": (6, 256, 16, 16, 16, 768, 2048),
        "8B": (32, 4096, 32, 8, 128, 14336, 128256),
        "70B": (80, 8192, 64, 8, 128, 28672, 128256),
        "405B": (126, 16384, 128, 8, 128, 53248, 128256),
    }.items()
}


def flavor(refusals: Refusals, model: ModelSpec) -> str:
    """The built-in model with the run's layers, width and heads; its other differences are refused."""
    for name, keys in FLAVORS.items():
        if all(getattr(model, key) == keys[key] for key in SHAPE):
            _compare(refusals, model, name, keys)
            return name
    shapes = ", ".join(
        f"{name} with {' x '.join(str(k[key]) for key in SHAPE)}" for name, k in FLAVORS.items()
    )
    refusals.unless(
        False,
        "model",
        model.name,
        f"it builds its own models only, none with num_layers {model.num_layers} x hidden_size "
        f"{model.hidden_size} x num_heads {model.num_heads}; of Llama 3: {shapes}",
        "use llama-3-405b, or llama-3-8b or llama-3-70b with model.rotary_scaling_factor 8",
    )
    return ""


def _compare(refusals: Refusals, model: ModelSpec, name: str, keys: dict[str, object]) -> None:
    for key, value in keys.items():
        own = getattr(model, key)
        same = rotary_scaling(model) == value if key == "rotary_scaling_factor" else own == value
        # Without rotary embeddings that key alone is the difference.
        if not same and (model.position_embedding == "rotary" or not key.startswith("rotary_")):
            reason = f"its {name} has {show_value(value)}, and no option for it"
            refusals.unless(False, f"model.{key}", own, reason, f"use {show_value(value)}")
