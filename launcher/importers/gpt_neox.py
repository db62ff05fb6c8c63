"""GPT-NeoX's configuration as a run (megatron/neox_arguments at ea7aefd). The inverse of the exporter."""

from __future__ import annotations

import math

from frontrunner.launcher.importers import schedule, vocabularies
from frontrunner.launcher.importers.megatron import put_sequence_parallel
from frontrunner.launcher.importers.settings import DEFAULT, Conversion, integer, number

_STAGES = {"0": "ddp", "1": "zero1", "2": "zero2", "3": "zero3"}
_POSITIONS = {"learned": "learned", "rotary": "rotary"}
_NORMS = {
    "layernorm": "layernorm",
    "rmsnorm": "rmsnorm",
    "te_layernorm": "layernorm",
    "te_rmsnorm": "rmsnorm",
}
_GATED = {"swiglu", "silu"}
_OPTIMIZERS = dict.fromkeys(("adam", "adamw", "cpu_adam", "fusedadam"), "adamw")
_LLAMA_WIDTHS = 256


def convert(own: Conversion, world: int | None) -> None:
    """Fill in what a configuration says; ``world``: devices of the run, if they are known."""
    stages = own.take("pipe_parallel_size")
    if stages and integer(stages.value):
        own.whole("layout.pipeline", "pipe_parallel_size")  # 0: without the pipeline's module
    own.whole("layout.tensor", "model_parallel_size")
    own.whole("layout.micro_batch_size", "train_micro_batch_size_per_gpu")
    put_sequence_parallel(own, "sequence_parallel")
    if own.switch("checkpoint_activations"):
        own.put("layout.recompute", "full", own.settings["checkpoint_activations"])
    layers = own.take("checkpoint_num_layers")
    if layers and own.got("layout.recompute") and integer(layers.value) != 1:
        own.ignore(layers, "each layer is recomputed alone, which takes less memory in the backward")
    own.choose("layout.sharding", _STAGES, "zero_optimization.stage", "zero_stage", default="ddp")
    accumulate = own.take("gradient_accumulation_steps")
    if own.whole("training.global_batch_size", "train_batch_size") is None and world:
        schedule.put_batch(own, world, own.value(accumulate, integer, "a whole number") or 1)
    own.whole("training.seq_len", "seq_length")
    with own.of_model():
        _convert_model(own)
    _convert_training(own)
    _convert_optimizer(own)
    if "save" in own.settings:
        own.whole("checkpoint.every_steps", "checkpoint_factor", "save_interval")
        own.whole("checkpoint.keep", "keep_last_n_checkpoints")
    own.take("checkpoint_factor", "save_interval", "keep_last_n_checkpoints")


def _convert_model(own: Conversion) -> None:
    own.whole("model.num_layers", "num_layers")
    own.whole("model.hidden_size", "hidden_size")
    own.whole("model.num_heads", "num_attention_heads")
    own.whole("model.num_kv_heads", "num_kv_heads")
    own.whole("model.max_position_embeddings", "max_position_embeddings")
    kind = own.choose("model.position_embedding", _POSITIONS, "pos_emb", default="learned")
    own.take("rotary_pct", "rotary_emb_base")
    if kind == "rotary":
        own.real("model.rotary_fraction", "rotary_pct")
        own.real("model.rotary_base", "rotary_emb_base")
    norm = own.choose("model.normalization", _NORMS, "norm", default="layernorm")
    own.take("rms_norm_epsilon", "layernorm_epsilon", "use_bias_in_norms")
    name, epsilon = ("rms_norm_epsilon", 1e-8) if norm == "rmsnorm" else ("layernorm_epsilon", 1e-5)
    own.real("model.norm_epsilon", name, default=epsilon)
    bias_in_norms = own.settings.get("use_bias_in_norms")
    if norm == "layernorm" and bias_in_norms and bias_in_norms.value is False:
        own.refuse(bias_in_norms, "makes layer norms without biases")
    _convert_mlp(own)
    _convert_biases(own)
    if own.switch("gpt_j_residual"):
        own.put("model.parallel_residual", True, own.settings["gpt_j_residual"])
        if own.switch("gpt_j_tied"):
            own.refuse(
                own.settings["gpt_j_tied"], "makes one norm for attention and MLP", "import it with false"
            )
    own.take("gpt_j_tied")
    untied = own.switch("no_weight_tying")
    own.put("model.tie_embeddings", not untied, own.take("no_weight_tying") or DEFAULT)
    own.real("model.hidden_dropout", "hidden_dropout")
    own.real("model.attention_dropout", "attention_dropout")
    _convert_init(own)
    _check_attention(own)
    vocabularies.put(own, 128)


def _convert_mlp(own: Conversion) -> None:
    """``intermediate_size`` of a gated MLP is three times its width (``ParallelMLP``)."""
    kind, activation = own.take("mlp_type"), own.take("activation")
    hidden = own.got("model.hidden_size")
    name = str(activation.value).lower() if activation and activation.value is not None else "gelu"
    width = own.value(own.take("intermediate_size"), integer, "a whole number, at least 1")
    multiple = own.value(own.take("mlp_multiple_of"), integer, "a whole number, at least 1") or 1
    origin = own.take("intermediate_size") or DEFAULT
    factor = own.value(own.take("expansion_factor"), number, "a number")
    if factor and hidden and width is None:
        width = int(factor * hidden)
    fused = own.switch("bias_gelu_fusion")
    if name in _GATED and activation or kind and kind.value == "llama":
        llama = kind is not None and kind.value == "llama"
        own.put("model.activation", "swiglu", (kind if llama else activation) or DEFAULT)
        if hidden:
            gate = (width or int(8 * hidden / 3)) if llama else int((width or 4 * hidden) * 2 / 3) // 2
            step = _LLAMA_WIDTHS if llama else multiple
            own.put("model.ffn_hidden_size", -(-gate // step) * step, origin)
    elif name in ("gelu", "geglu") and name == "gelu":
        approximate = own.take("bias_gelu_fusion") or DEFAULT
        own.put("model.activation", "gelu_tanh" if fused else "gelu", approximate)
        if width or multiple > 1:
            wide = width or 4 * (hidden or 0)
            own.put("model.ffn_hidden_size", -(-wide // multiple) * multiple, origin)
    elif activation:
        own.refuse(activation, "has no counterpart in a run file")


def _convert_biases(own: Conversion) -> None:
    attention, mlp = own.switch("use_bias_in_attn_linear", True), own.switch("use_bias_in_mlp", True)
    first, second = own.take("use_bias_in_attn_linear"), own.take("use_bias_in_mlp")
    if attention != mlp:
        shown = second or first
        if shown:
            what = f"biases in attention are {str(attention).lower()} and in the MLP {str(mlp).lower()}"
            fix = f"make both alike, for example --set use_bias_in_mlp={str(attention).lower()}"
            own.refuse(shown, f"{what}, and a run file has one key for both", fix)
    own.put("model.linear_bias", attention, first or DEFAULT)


def _convert_init(own: Conversion) -> None:
    """``small_init`` and ``wang_init`` are normal distributions of a width that follows from the shape."""
    kind, last = own.take("init_method"), own.take("output_layer_init_method")
    hidden = own.got("model.hidden_size")
    if kind and kind.value == "small_init" and hidden:
        own.put("model.init_std", math.sqrt(2 / (5 * hidden)), kind)
        own.take("init_method_std")
    else:
        own.real("model.init_std", "init_method_std", default=0.02)
        if kind and kind.value not in ("normal", "scaled_normal", None):
            own.ignore(kind, "weights start from a normal distribution of model.init_std")
    if last and last.value not in ("scaled_normal", None):
        own.ignore(last, "output layers start from init_std / sqrt(2 * num_layers)")


def _check_attention(own: Conversion) -> None:
    setting = own.settings.get("attention_config")
    if setting is None:
        return
    words = {
        word for word in str(setting.value).replace("'", " ").replace('"', " ").split() if word.isalpha()
    }
    if words <= {"global", "flash", "all"}:
        own.take("attention_config")


def _convert_training(own: Conversion) -> None:
    own.whole("training.steps", "train_iters")
    own.take("fp16.fp16", "fp16.type")
    named = own.take("precision")
    words = {"fp16": "float16", "bfloat16": "bfloat16", "fp32": "float32"}
    if named and named.value is not None:
        own.choose("training.precision", words, "precision")
    else:
        for key, name in (("bf16.enabled", "bfloat16"), ("fp16.enabled", "float16")):
            if own.switch(key):
                own.put("training.precision", name, own.settings[key])
    if own.got("training.precision") is None:
        own.put("training.precision", "float32", DEFAULT)
    own.take("bf16.enabled", "fp16.enabled", "fp32_allreduce")
    schedule.put_sums(own, "data_types.grad_accum_dtype")
    own.whole("training.seed", "seed", least=0)


def _convert_optimizer(own: Conversion) -> None:
    own.choose("optimizer.name", _OPTIMIZERS, "optimizer.type", "optimizer_type")
    own.real("optimizer.learning_rate", "optimizer.params.lr", "lr")
    own.real("optimizer.min_learning_rate", "min_lr", default=0.0)
    betas = own.take("optimizer.params.betas")
    pair = betas.value if betas else [0.9, 0.999]
    own.put("optimizer.betas", pair, betas or DEFAULT)
    own.real("optimizer.epsilon", "optimizer.params.eps", default=1e-8)
    own.real("optimizer.weight_decay", "weight_decay", default=0.1)
    own.real("optimizer.clip", "gradient_clipping", "clip_grad", default=1.0)
    schedule.put_decay(own, "lr_decay_style")
    warm = own.take("warmup")
    share = own.value(warm, number, "a number") if warm else 0.01
    end = own.got("optimizer.decay_steps") or own.got("training.steps")
    if share and end:
        own.put("optimizer.warmup_steps", round(share * end), warm or DEFAULT)
    own.take("lr_decay_fraction")
