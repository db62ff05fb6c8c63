"""Reads a Hugging Face ``config.json`` as the fields of a model.

Supports the families gpt2, gpt_neox, llama, mistral, qwen2, qwen3 and olmo2. Missing keys get the defaults of
the library transformers (5.0, ``models/*/configuration_*.py``). Unsupported values are violations and are
never approximated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from frontrunner.configs.errors import Violation
from frontrunner.configs.yaml_tree import Node, Scalar

_TANH = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")
ACTIVATIONS = {"gelu": "gelu"} | dict.fromkeys(_TANH, "gelu_tanh")
GATED = {"silu": "swiglu", "swish": "swiglu"}
#: Built into megatron-core's rotary scaling (Llama 3.1; ``rotary_pos_embedding.py``).
LLAMA_3_SCALING = {"low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}
ROPE_KEYS = {*LLAMA_3_SCALING, "factor", "rope_type", "type", "rope_theta", "partial_rotary_factor"}
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
#: Files that we write keep fields without a key in their family under this key. transformers ignores it: none
#: of these fields changes what a trained model computes.
OWN_KEY = "frontrunner"
OWN = ("padded_vocab_size", "hidden_dropout")


@dataclass(frozen=True)
class Family:
    """How one ``model_type`` is read and written.

    ``architecture``: transformers' class. ``keys``: our field to their key. ``defaults``: transformers'
    values for missing keys. ``implied``: fields fixed by the family. ``only``: keys with a single supported
    value. ``equal``: pairs of keys that must agree, because both are one field here. ``whole_heads``:
    transformers requires num_heads to divide hidden_size.
    """

    architecture: str
    keys: Mapping[str, str]
    activations: Mapping[str, str]
    defaults: Mapping[str, Scalar]
    implied: Mapping[str, Scalar]
    only: Mapping[str, Scalar] = field(default_factory=dict)
    equal: Mapping[str, str] = field(default_factory=dict)
    whole_heads: bool = False


_SHARED = {
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "num_heads": "num_attention_heads",
    "ffn_hidden_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_position_embeddings",
    "tie_embeddings": "tie_word_embeddings",
    "attention_dropout": "attention_dropout",
    "init_std": "initializer_range",
    "activation": "hidden_act",
}
_LLAMA_KEYS = _SHARED | {
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "norm_epsilon": "rms_norm_eps",
    "rotary_base": "rope_theta",
}
_LLAMA_DEFAULTS: dict[str, Scalar] = {
    "hidden_act": "silu",
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
#: The window of Qwen's families only counts where its switch is on.
_SWITCHED_WINDOW: dict[str, Scalar] = {"use_sliding_window": False, "sliding_window": 4096}
_LLAMA_IMPLIED: dict[str, Scalar] = {
    "position_embedding": "rotary",
    "normalization": "rmsnorm",
    "linear_bias": False,
}

FAMILIES = {
    "gpt2": Family(
        "GPT2LMHeadModel",
        keys={
            "num_layers": "n_layer",
            "hidden_size": "n_embd",
            "num_heads": "n_head",
            "ffn_hidden_size": "n_inner",
            "vocab_size": "vocab_size",
            "max_position_embeddings": "n_positions",
            "norm_epsilon": "layer_norm_epsilon",
            "activation": "activation_function",
            "tie_embeddings": "tie_word_embeddings",
            "attention_dropout": "attn_pdrop",
            "hidden_dropout": "resid_pdrop",
            "init_std": "initializer_range",
        },
        activations=ACTIVATIONS,
        defaults={
            "n_positions": 1024,
            "activation_function": "gelu_new",
            "attn_pdrop": 0.1,
            "resid_pdrop": 0.1,
            "embd_pdrop": 0.1,
        },
        implied={"position_embedding": "learned", "normalization": "layernorm", "linear_bias": True},
        only={
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        equal={"embd_pdrop": "resid_pdrop"},
    ),
    "gpt_neox": Family(
        "GPTNeoXForCausalLM",
        keys=_SHARED
        | {
            "norm_epsilon": "layer_norm_eps",
            "rotary_base": "rotary_emb_base",
            "rotary_fraction": "rotary_pct",
            "parallel_residual": "use_parallel_residual",
            "hidden_dropout": "hidden_dropout",
        },
        activations=ACTIVATIONS,
        defaults={
            "hidden_act": "gelu",
            "intermediate_size": 24576,
            "rotary_pct": 0.25,
            "tie_word_embeddings": False,
            "use_parallel_residual": True,
        },
        implied={"position_embedding": "rotary", "normalization": "layernorm", "linear_bias": True},
        only={"attention_bias": True},
    ),
    "llama": Family(
        "LlamaForCausalLM",
        _LLAMA_KEYS | {"linear_bias": "attention_bias"},
        GATED,
        _LLAMA_DEFAULTS | {"attention_bias": False, "mlp_bias": False},
        _LLAMA_IMPLIED,
        equal={"attention_bias": "mlp_bias"},
        whole_heads=True,
    ),
    "mistral": Family(
        "MistralForCausalLM",
        _LLAMA_KEYS,
        GATED,
        _LLAMA_DEFAULTS
        | {
            "intermediate_size": 14336,
            "max_position_embeddings": 131072,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
        },
        _LLAMA_IMPLIED,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        _LLAMA_KEYS,
        GATED,
        _LLAMA_DEFAULTS
        | {
            "intermediate_size": 22016,
            "max_position_embeddings": 32768,
            "num_key_value_heads": 32,
        }
        | _SWITCHED_WINDOW,
        _LLAMA_IMPLIED | {"qkv_bias": True},
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        _LLAMA_KEYS,
        GATED,
        _LLAMA_DEFAULTS
        | {
            "intermediate_size": 22016,
            "max_position_embeddings": 32768,
            "num_key_value_heads": 32,
            "head_dim": 128,
            "attention_bias": False,
        }
        | _SWITCHED_WINDOW,
        _LLAMA_IMPLIED | {"qk_norm": "head"},
        only={"attention_bias": False},
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        _LLAMA_KEYS,
        GATED,
        _LLAMA_DEFAULTS | {"rms_norm_eps": 1e-5, "attention_bias": False},
        _LLAMA_IMPLIED | {"qk_norm": "full", "norm_position": "after"},
        only={"attention_bias": False},
    ),
}


def recognises(tree: Node) -> bool:
    """Whether a mapping is a Hugging Face configuration rather than the fields of a model."""
    return "model_type" in tree.entries or "architectures" in tree.entries


def convert(config: Node, seq_len: int | None, problems: list[Violation]) -> Node:
    """The fields of a model, each at the location of the key it was read from.

    ``seq_len``: the run's sequence length (None: the default), which an attention window must cover.
    """
    kind = config.entries.get("model_type", config.moved(None))
    family = FAMILIES.get(kind.value) if isinstance(kind.value, str) else None
    if family is None:
        constraint = f"model_type must be one of {', '.join(FAMILIES)}"
        problems.append(
            kind.violation("model", constraint, "write the model's fields instead (num_layers, ...)")
        )
        return config.moved({})
    reading = _Reading(config, family, problems)
    reading.check_values()
    reading.check_window(seq_len)
    fields = {name: config.moved(value) for name, value in family.implied.items()}
    own = config.entries.get(OWN_KEY, config.moved({})).entries
    fields |= {name: own[name] for name in OWN if name in own}
    fields |= {ours: node for ours, theirs in family.keys.items() if (node := reading.get(theirs))}
    fields |= reading.activation(fields.get("activation", config.moved(None)))
    return config.moved(fields | reading.rope())


class _Reading:
    """One configuration with its family's defaults."""

    def __init__(self, config: Node, family: Family, problems: list[Violation]) -> None:
        self.config, self.family, self.problems = config, family, problems

    def get(self, key: str) -> Node | None:
        """A key's node, or transformers' default; None if there is neither (or null)."""
        node = self.config.entries.get(key)
        if node is None and key in self.family.defaults:
            node = self.config.moved(self.family.defaults[key])
        return node if node and node.value is not None else None

    def refuse(self, key: str, node: Node, constraint: str, fix: str) -> None:
        self.problems.append(node.violation(f"model.{key}", constraint, fix))

    def check_values(self) -> None:
        for key, value in self.family.only.items():
            node = self.get(key)
            if node and node.value is not value:
                self.refuse(key, node, f"only {str(value).lower()} is supported", "choose another model")
        for key in EXPERTS:
            node = self.get(key)
            if node and node.value not in (0, 1):
                self.refuse(key, node, "mixtures of experts are not supported", "choose a dense model")
        for key, other in self.family.equal.items():
            node, twin = self.get(key), self.get(other)
            if node and twin and node.value != twin.value:
                what = f"must equal {other} {twin.plain()}"
                self.refuse(key, node, what, "choose another model")

    def check_window(self, seq_len: int | None) -> None:
        """Attention here covers the whole sequence, like any window of at least that length."""
        switch, window = self.get("use_sliding_window"), self.get("sliding_window")
        if switch and not self._all_layers_are_full(windows=switch.value is not False):
            return
        if window is None or switch and switch.value is False:
            return
        longest = self.get("max_position_embeddings")
        limit = longest.value if longest and isinstance(longest.value, int) else 2048
        length = seq_len or min(2048, limit)
        if not isinstance(window.value, int) or window.value < length:
            what = f"a window shorter than training.seq_len {length} is not supported"
            fix = "choose another model"
            if isinstance(window.value, int) and window.value > 0:
                fix = f"set training.seq_len to at most {window.value}"
            self.refuse("sliding_window", window, what, fix)

    def _all_layers_are_full(self, windows: bool) -> bool:
        """Checks ``layer_types``, which transformers believes whatever the window's switch says."""
        node = self.config.entries.get("layer_types")
        kinds = {"full_attention"} | ({"sliding_attention"} if windows else set())
        types = node.plain() if node else None
        if node is None or types is None or isinstance(types, list) and all(t in kinds for t in types):
            return True
        self.refuse("layer_types", node, "all must be full_attention", "choose another model")
        return False

    def activation(self, node: Node) -> dict[str, Node]:
        name = self.family.activations.get(node.value) if isinstance(node.value, str) else None
        if name is None:
            known = ", ".join(self.family.activations)
            self.refuse("activation", node, f"must be one of {known} in this family", "choose another model")
        return {"activation": node.moved(name)}

    def rope(self) -> dict[str, Node]:
        """Rotary base, share and scaling; ``rope_parameters`` holds them all since transformers 5."""
        node = self.get("rope_parameters") or self.get("rope_scaling")
        if node is None:
            return {}
        given = {key: child.value for key, child in node.entries.items()}
        kind = given.get("rope_type", given.get("type", "default"))
        fields = {
            ours: node.entries[theirs]
            for ours, theirs in (("rotary_base", "rope_theta"), ("rotary_fraction", "partial_rotary_factor"))
            if ours in self.family.keys and theirs in node.entries
        }
        if "rotary_fraction" not in fields and given.get("partial_rotary_factor", 1) != 1:
            what = "transformers ignores partial_rotary_factor in this family and rotates whole heads"
            self.refuse("rope_scaling", node, what, "set partial_rotary_factor to 1, or remove it")
        as_llama = all(given.get(key) == value for key, value in LLAMA_3_SCALING.items())
        if kind == "llama3" and as_llama and "factor" in given:
            fields["rotary_scaling_factor"] = node.entries["factor"]
        elif kind != "default" or not given.keys() <= ROPE_KEYS or not given:
            what = "only llama3 rotary scaling with factors 1 and 4 from 8192 positions is supported"
            self.refuse("rope_scaling", node, what, "choose another model, or remove the scaling")
        return fields
