"""Configurations of NeMo 1 for GPT and Llama as a run (NeMo-Framework-Launcher, conf/training)."""

from __future__ import annotations

from dataclasses import replace

from frontrunner.launcher.importers import schedule, vocabularies
from frontrunner.launcher.importers.interpolations import resolved
from frontrunner.launcher.importers.megatron import put_sequence_parallel
from frontrunner.launcher.importers.megatron_model import put_qk_norm
from frontrunner.launcher.importers.settings import DEFAULT, Conversion, Setting, integer, number

_POSITIONS = {"learned_absolute": "learned", "rope": "rotary"}
_NORMS = {"layernorm": "layernorm", "layernorm1p": "layernorm", "rmsnorm": "rmsnorm"}
_ACTIVATIONS = {"gelu": "gelu", "swiglu": "swiglu", "fast-swiglu": "swiglu", "silu": "swiglu"}
_PRECISIONS = {
    "bf16": "bfloat16",
    "bf16-mixed": "bfloat16",
    "bf16-true": "bfloat16",
    "16": "float16",
    "16-mixed": "float16",
    "32": "float32",
    "32-true": "float32",
}
_OPTIMIZERS = {
    "fused_adam": "ddp",
    "adam": "ddp",
    "adamw": "ddp",
    "megatron_fused_adam": "ddp",
    "distributed_fused_adam": "zero1",
    "mcore_distributed_optim": "zero1",
}
_FSDP = {"full": "zero3", "hybrid": "hsdp", "grad": "zero2"}


def convert(own: Conversion, world: int | None) -> None:
    """Fill in what the file says; ``world``: devices of the run, if they are known."""
    own.settings = resolved(own.settings)
    own.whole("layout.tensor", "model.tensor_model_parallel_size")
    own.whole("layout.pipeline", "model.pipeline_model_parallel_size")
    own.whole("layout.virtual_stages", "model.virtual_pipeline_model_parallel_size")
    own.whole("layout.micro_batch_size", "model.micro_batch_size")
    put_sequence_parallel(own, "model.sequence_parallel")
    _convert_recompute(own)
    if own.whole("training.global_batch_size", "model.global_batch_size") is None and world:
        schedule.put_batch(own, world)
    own.whole("training.seq_len", "model.encoder_seq_length", "model.data.seq_length")
    with own.of_model():
        _convert_model(own)
    own.whole("training.steps", "trainer.max_steps")
    own.choose("training.precision", _PRECISIONS, "trainer.precision", default="float32")
    own.whole("training.seed", "model.seed", least=0)
    _convert_optimizer(own)
    own.take("trainer.max_epochs", "model.mcore_gpt", "model.pre_process", "model.post_process")


def _convert_recompute(own: Conversion) -> None:
    choice = {"full": "full", "selective": "selective"}
    own.choose("layout.recompute", choice, "model.activations_checkpoint_granularity")
    layers = own.take("model.activations_checkpoint_num_layers")
    method = own.take("model.activations_checkpoint_method")
    own.take("model.activations_checkpoint_layers_per_pipeline")
    partly = own.take("model.num_micro_batches_with_partial_activation_checkpoints")
    if own.got("layout.recompute") != "full":
        return
    if method and method.value == "block":
        own.ignore(method, "all layers are recomputed, not some: slower, with less memory")
    elif layers and integer(layers.value) not in (1, None):
        own.ignore(layers, "each layer is recomputed alone, which takes less memory in the backward")
    if partly and partly.value:
        own.ignore(partly, "all micro-batches are recomputed alike")


def _convert_model(own: Conversion) -> None:
    own.whole("model.num_layers", "model.num_layers")
    own.whole("model.hidden_size", "model.hidden_size")
    own.whole("model.num_heads", "model.num_attention_heads")
    own.whole("model.num_kv_heads", "model.num_query_groups")
    own.whole("model.head_dim", "model.kv_channels")
    own.whole("model.ffn_hidden_size", "model.ffn_hidden_size")
    own.whole("model.max_position_embeddings", "model.max_position_embeddings")
    kind = own.choose(
        "model.position_embedding", _POSITIONS, "model.position_embedding_type", default="learned"
    )
    own.take("model.rotary_percentage", "model.rotary_base")
    if kind == "rotary":
        own.real("model.rotary_fraction", "model.rotary_percentage")
        own.real("model.rotary_base", "model.rotary_base")
    own.choose("model.normalization", _NORMS, "model.normalization", default="layernorm")
    own.real("model.norm_epsilon", "model.layernorm_epsilon", default=1e-5)
    put_qk_norm(own, "model.qk_layernorm")
    biased = own.switch("model.bias", True)
    own.put("model.linear_bias", biased, own.take("model.bias") or DEFAULT)
    activation = own.choose("model.activation", _ACTIVATIONS, "model.activation", default="gelu")
    fused = own.switch("model.bias_activation_fusion", True) or own.switch("model.bias_gelu_fusion")
    if activation == "gelu" and (fused and biased or own.switch("model.openai_gelu")):
        own.put("model.activation", "gelu_tanh", "the tanh approximation of the kernel that adds the bias")
    own.take("model.openai_gelu", "model.bias_gelu_fusion")
    tied = own.switch("model.share_embeddings_and_output_weights", True)
    shown = own.take("model.share_embeddings_and_output_weights")
    own.put("model.tie_embeddings", tied, shown or DEFAULT)
    own.real("model.hidden_dropout", "model.hidden_dropout", default=0.1)
    own.real("model.attention_dropout", "model.attention_dropout", default=0.1)
    own.real("model.init_std", "model.init_method_std", default=0.02)
    blocks = own.take("model.transformer_block_type")
    if blocks and blocks.value not in ("pre_ln", None):
        own.refuse(blocks, "has norms elsewhere than before attention and MLP")
    _put_vocabulary(own)


def _put_vocabulary(own: Conversion) -> None:
    """Through Megatron's names of the same settings."""
    names = {
        "model.tokenizer.type": "tokenizer_type",
        "model.tokenizer.model": "tokenizer_model",
        "model.tokenizer.vocab_file": "vocab_file",
        "model.tokenizer.merge_file": "merge_file",
        "model.make_vocab_size_divisible_by": "make_vocab_size_divisible_by",
        "model.override_vocab_size": "vocab_size",
    }
    settings: dict[str, Setting] = {}
    for theirs, name in names.items():
        setting = own.take(theirs)
        if setting is not None and setting.value is not None:
            settings[name] = replace(setting, value=str(setting.value).replace("${", "$("))
    inner = replace(own, settings=settings, used=set())
    vocabularies.put(inner, 128)


def _convert_optimizer(own: Conversion) -> None:
    own.choose("layout.sharding", _OPTIMIZERS, "model.optim.name", default="ddp")
    if own.switch("model.fsdp"):
        own.choose("layout.sharding", _FSDP, "model.fsdp_sharding_strategy", default="zero3")
    own.take("model.fsdp_sharding_strategy", "model.fsdp_grad_reduce_dtype", "model.fsdp_sharded_checkpoint")
    own.real("optimizer.learning_rate", "model.optim.lr")
    own.real("optimizer.weight_decay", "model.optim.weight_decay", default=0.01)
    betas = own.take("model.optim.betas")
    own.put("optimizer.betas", betas.value if betas else [0.9, 0.999], betas or DEFAULT)
    own.real("optimizer.epsilon", "model.optim.eps", default=1e-8)
    own.real("optimizer.clip", "trainer.gradient_clip_val", default=0.0)
    own.whole("optimizer.warmup_steps", "model.optim.sched.warmup_steps", least=0)
    kind, flat = own.take("model.optim.sched.name"), own.take("model.optim.sched.constant_steps")
    if kind is None:
        own.put("optimizer.decay", "constant", "no schedule")
        return
    if kind.value != "CosineAnnealing":
        own.ignore(kind, "the rate decays as a cosine instead: another schedule")
    own.put("optimizer.decay", "cosine", kind)
    own.real("optimizer.min_learning_rate", "model.optim.sched.min_lr", default=0.0)
    steps, rest = own.got("training.steps"), number(flat.value) if flat else None
    if flat and rest and steps:
        own.put("optimizer.decay_steps", int(steps - rest), flat)
