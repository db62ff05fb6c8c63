"""What other trainers build from their settings, by their own rules.

The tables in ``tests/launcher/exporters`` hold a trainer's options, defaults and rules as facts. The formulas
here are written from its source, and share nothing with the exporters.
"""

from __future__ import annotations

import math
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support.built import Built, Dropouts, Positions, Stops

FACTS = Path(__file__).parents[1] / "launcher" / "exporters"
TYPES: dict[str, Any] = {"int": int, "float": float, "str": str}


@cache
def facts(trainer: str) -> dict[str, Any]:
    """The table of a trainer."""
    found: dict[str, Any] = yaml.safe_load(Path(FACTS / f"{trainer}.yaml").read_text())
    return found


def first(rows: Iterable[Mapping[str, Any]], values: Mapping[str, Any]) -> Any:
    """What the first row says whose conditions all hold."""
    return next(row["is"] for row in rows if all(values[key] == want for key, want in row["when"].items()))


def megatron_values(text: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """argparse's namespace of the options in the table, after ``validate_args``."""
    options = table["options"]
    values = {o["dest"]: not o["flag"] if "flag" in o else o.get("default") for o in options.values()}
    words = shlex.split(text.replace("\\\n", " "))
    for place, word in enumerate(words):
        option = options.get(word)
        if option is None:
            continue
        if "flag" in option:
            values[option["dest"]] = option["flag"]
        else:
            value = TYPES[option["type"]](words[place + 1])
            if value not in option.get("choices", [value]):
                raise Stops(f"{word} {value}")
            values[option["dest"]] = value
    for rule in table["rules"]:
        if all(values[key] == want for key, want in rule["when"].items()):
            values |= rule["set"]
    if values["max_position_embeddings"] < values["seq_length"]:
        raise Stops("max_position_embeddings must be at least seq_length")
    return values


def megatron(text: str) -> Built:
    """What ``pretrain_gpt.py`` builds from a command line."""
    table = facts("megatron")
    v = megatron_values(text, table)
    multiple = v["make_vocab_size_divisible_by"] * v["tensor_model_parallel_size"]
    # With and without NullTokenizer's own token; both must give the same rows.
    rows = {-(-tokens // multiple) * multiple for tokens in (v["vocab_size"], v["vocab_size"] + 1)}
    assert len(rows) == 1, rows
    rotary = v["position_embedding_type"] == "rope"
    scaling = table["rope_scaling_factor"] if v["use_rope_scaling"] else None
    rotated = int(v["kv_channels"] * v["rotary_percent"])
    return Built(
        layers=v["num_layers"],
        hidden=v["hidden_size"],
        heads=v["num_attention_heads"],
        kv_heads=v["num_query_groups"] if v["group_query_attention"] else v["num_attention_heads"],
        head_dim=v["kv_channels"],
        width=v["ffn_hidden_size"],
        rows=rows.pop(),
        tied=not v["untie_embeddings_and_output_weights"],
        positions=Positions(0, rotated, v["rotary_base"], scaling)
        if rotary
        else Positions(v["max_position_embeddings"]),
        norm=v["normalization"].lower(),
        epsilon=v["layernorm_epsilon"],
        activation=first(table["activation"], v),
        norms_after=False,
        qk_norm="head" if v["qk_layernorm"] else "none",
        parallel=False,
        uses_attention=True,
        qkv_bias=v["add_qkv_bias"],
        output_bias=v["add_bias_linear"],
        mlp_bias=v["add_bias_linear"],
        dropouts=Dropouts(
            v["hidden_dropout"], v["attention_dropout"], v["hidden_dropout"], v["hidden_dropout"]
        ),
        init_std=(v["init_method_std"], v["init_method_std"] / math.sqrt(2 * v["num_layers"])),
        softmax_scale=v["kv_channels"] ** -0.5,
    )


def megatron_deepspeed(text: str) -> Built:
    """What Megatron-DeepSpeed's ``pretrain_gpt.py`` builds from a command line."""
    table = facts("megatron_deepspeed")
    v = megatron_values(text, table)
    multiple = v["make_vocab_size_divisible_by"] * v["tensor_model_parallel_size"]
    tokens = v["vocab_size"] + 1  # NullTokenizer's own
    hidden, std = v["hidden_dropout"], v["init_method_std"]
    return Built(
        layers=v["num_layers"],
        hidden=v["hidden_size"],
        heads=v["num_attention_heads"],
        kv_heads=v["num_key_value_heads"] or v["num_attention_heads"],
        head_dim=v["kv_channels"],
        width=v["ffn_hidden_size"],
        rows=-(-tokens // multiple) * multiple,
        tied=not v["untie_embeddings_and_output_weights"],
        positions=Positions(v["max_position_embeddings"]),
        norm=v["normalization"],
        epsilon=v["layernorm_epsilon"],
        activation=first(table["activation"], v),
        norms_after=False,
        qk_norm="none",
        parallel=False,
        uses_attention=True,
        qkv_bias=v["add_bias_linear"],
        output_bias=v["add_bias_linear"],
        mlp_bias=v["add_bias_linear"],
        dropouts=Dropouts(hidden, v["attention_dropout"], hidden, hidden),
        init_std=(std, std / math.sqrt(2 * v["num_layers"])),
        softmax_scale=v["kv_channels"] ** -0.5,
    )


def neox_values(text: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """NeoXArgs after ``validate_types``, which takes an int for a float and nothing else."""
    given = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    values = {}
    for key, fact in table["keys"].items():
        value = given.get(key, fact.get("default"))
        kind = type(value).__name__
        if kind != fact["type"] and (kind, fact["type"]) != ("int", "float"):
            raise Stops(f"{key}: {value!r} is no {fact['type']}")
        if value not in fact.get("choices", [value]):
            raise Stops(f"{key}: {value!r}")
        values[key] = value
    return values


def neox_widths(values: Mapping[str, Any]) -> tuple[int, int]:
    """ParallelMLP: outputs of linear1, inputs of linear2."""
    multiple = values["mlp_multiple_of"]
    first = second = values["intermediate_size"]
    if values["activation"] == "swiglu":
        first = int(first * 2 / 3)
        second = first // 2
    twice = 2 * multiple
    return int(twice * ((first + twice - 1) // twice)), int(multiple * ((second + multiple - 1) // multiple))


def neox(text: str) -> Built:
    """What GPT-NeoX builds from a configuration file."""
    table = facts("gpt_neox")
    v = neox_values(text, table)
    gated, biased = v["activation"] == "swiglu", v["use_bias_in_mlp"]
    first_width, second_width = neox_widths(v)
    if first_width != second_width * (2 if gated else 1):
        raise Stops(f"linear1 gives {first_width} values, linear2 takes {second_width}")
    if not gated and not biased:
        raise Stops("intermediate_parallel + None")
    if v["hidden_size"] % v["num_attention_heads"]:
        raise Stops("hidden_size must be divisible by num_attention_heads")
    if v["max_position_embeddings"] < v["seq_length"]:
        raise Stops("max_position_embeddings must be bigger or equal seq_length")
    if v["precision"] == "fp32" and "flash" in v["attention_config"][0][0]:
        raise Stops("flash attention takes 16-bit values")
    head = v["hidden_size"] // v["num_attention_heads"]
    multiple = v["make_vocab_size_divisible_by"] * v["model_parallel_size"]
    hidden, std = v["hidden_dropout"], v["init_method_std"]
    # gpt_j_residual drops where there is a bias to add, the other branch always after attention.
    after_attention = hidden if v["use_bias_in_attn_linear"] or not v["gpt_j_residual"] else 0.0
    return Built(
        layers=v["num_layers"],
        hidden=v["hidden_size"],
        heads=v["num_attention_heads"],
        kv_heads=v["num_kv_heads"] or v["num_attention_heads"],
        head_dim=head,
        width=second_width,
        rows=multiple,  # of any vocabulary that is not larger
        tied=not v["no_weight_tying"],
        positions=Positions(0, int(head * v["rotary_pct"]), v["rotary_emb_base"])
        if v["pos_emb"] == "rotary"
        else Positions(v["max_position_embeddings"]),
        norm=v["norm"],
        epsilon=v[table["epsilon"][v["norm"]]],
        activation=first(table["activation"], v),
        norms_after=False,
        qk_norm="none",
        parallel=v["gpt_j_residual"],
        uses_attention=not v["gpt_j_residual"] or biased,
        qkv_bias=v["use_bias_in_attn_linear"],
        output_bias=v["use_bias_in_attn_linear"],
        mlp_bias=biased,
        dropouts=Dropouts(hidden, v["attention_dropout"], after_attention, hidden if biased else 0.0),
        init_std=(std, std / math.sqrt(2 * v["num_layers"])),
        softmax_scale=head**-0.5,
    )


def torchtitan_width(args: Mapping[str, Any]) -> int:
    """FeedForward: two thirds of 4 * dim, times the multiplier, rounded up."""
    width = int(2 * 4 * args["dim"] / 3)
    if args["ffn_dim_multiplier"] is not None:
        width = int(args["ffn_dim_multiplier"] * width)
    multiple = args["multiple_of"]
    return int(multiple * ((width + multiple - 1) // multiple))


def torchtitan(text: str) -> Built:
    """What torchtitan builds from a configuration file."""
    table, given = facts("torchtitan"), tomllib.loads(text)
    for section, keys in given.items():
        if unknown := set(keys) - set(table["keys"].get(section, [])):
            raise Stops(f"{section}: no {unknown}")
    a = table["defaults"] | table["flavors"][given["model"]["flavor"]]
    head = a["dim"] // a["n_heads"]
    return Built(
        layers=a["n_layers"],
        hidden=a["dim"],
        heads=a["n_heads"],
        kv_heads=a["n_kv_heads"] or a["n_heads"],
        head_dim=head,
        width=torchtitan_width(a),
        rows=a["vocab_size"],
        tied=False,
        positions=Positions(0, head, a["rope_theta"], a["scaling_factor"]),
        norm="rmsnorm",
        epsilon=a["norm_eps"],
        activation="swiglu",
        norms_after=False,
        qk_norm="none",
        parallel=False,
        uses_attention=True,
        qkv_bias=False,
        output_bias=False,
        mlp_bias=False,
        dropouts=Dropouts(0.0, 0.0, 0.0, 0.0),
        init_std=None,
        softmax_scale=head**-0.5,
    )
