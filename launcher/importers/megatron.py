"""Arguments of Megatron-LM and Megatron-DeepSpeed as a run.

Defaults and meaning are those of megatron/training/arguments.py (Megatron-LM core_v0.12.0 to d98e8a64) and
megatron/arguments.py (Megatron-DeepSpeed 4efb479). The inverse of the exporters.
"""

from __future__ import annotations

from frontrunner.launcher.importers import schedule
from frontrunner.launcher.importers.megatron_model import convert_model
from frontrunner.launcher.importers.settings import DEFAULT, Conversion, Setting, integer

_CUTS = {"no_shard": "ddp", "optim": "zero1", "optim_grads": "zero2", "optim_grads_params": "zero3"}
_STAGES = {"0": "ddp", "1": "zero1", "2": "zero2", "3": "zero3"}


def convert(own: Conversion, world: int | None) -> None:
    """Fill in what arguments say; ``world``: devices of the run, if they are known."""
    own.whole("layout.tensor", "tensor_model_parallel_size", "model_parallel_size")
    own.whole("layout.pipeline", "pipeline_model_parallel_size")
    own.whole("layout.micro_batch_size", "micro_batch_size", "batch_size")
    put_sequence_parallel(own, "sequence_parallel")
    _convert_chunks(own)
    _convert_recompute(own)
    _convert_sharding(own)
    own.whole("training.seq_len", "seq_length", "encoder_seq_length")
    if own.whole("training.global_batch_size", "global_batch_size") is None and world:
        schedule.put_batch(own, world)
    with own.of_model():
        convert_model(own)
    _convert_training(own)
    if "save" in own.settings:
        own.whole("checkpoint.every_steps", "save_interval")
    own.take("save_interval")


def put_sequence_parallel(own: Conversion, key: str) -> None:
    """Switched off by the trainer where there is one tensor rank."""
    if not own.switch(key):
        return
    if (own.got("layout.tensor") or 1) > 1:
        own.put("layout.sequence_parallel", True, own.settings[key])
    else:
        own.ignore(own.settings[key], "there is nothing to split over one tensor rank")


def _convert_chunks(own: Conversion) -> None:
    own.whole("layout.virtual_stages", "num_virtual_stages_per_pipeline_rank")
    own.take("virtual_pipeline_model_parallel_size")
    layers = own.take("num_layers")
    per = own.take("num_layers_per_virtual_pipeline_stage")
    chunk = own.value(per, integer, "a whole number, at least 1")
    total = integer(layers.value) if layers else None
    if per and chunk and total:
        stages = own.got("layout.pipeline") or 1
        if total % (stages * chunk):
            own.refuse(per, f"must divide {total} layers on {stages} stages", "use another number of layers")
        else:
            own.put("layout.virtual_stages", total // (stages * chunk), per)


def _convert_recompute(own: Conversion) -> None:
    own.take("deepspeed_activation_checkpointing")  # how, not what
    choice = {"full": "full", "selective": "selective"}
    if own.choose("layout.recompute", choice, "recompute_granularity") is None:
        for key, what in (("recompute_activations", "selective"), ("checkpoint_activations", "full")):
            if own.switch(key):
                own.put("layout.recompute", what, own.settings[key])
    own.take("recompute_activations", "checkpoint_activations")
    layers, method = own.take("recompute_num_layers", "checkpoint_num_layers"), own.take("recompute_method")
    if own.got("layout.recompute") != "full":
        return
    if method and method.value == "block":
        own.ignore(method, "all layers are recomputed, not some: slower, with less memory")
    elif layers and integer(layers.value) != 1:
        own.ignore(layers, "each layer is recomputed alone, which takes less memory in the backward")


def _convert_sharding(own: Conversion) -> None:
    """ddp unless something shards: the distributed optimizer, Megatron's or torch's FSDP, or ZeRO."""
    distributed, torch = own.switch("use_distributed_optimizer"), own.switch("use_torch_fsdp2")
    megatron = own.switch("use_megatron_fsdp") or own.switch("use_custom_fsdp")
    zero = own.switch("deepspeed")
    if megatron:
        own.choose("layout.sharding", _CUTS, "data_parallel_sharding_strategy", default="ddp")
    elif torch or distributed:
        name = "use_torch_fsdp2" if torch else "use_distributed_optimizer"
        own.put("layout.sharding", "zero3" if torch else "zero1", own.settings[name])
    elif zero:
        own.choose("layout.sharding", _STAGES, "zero_stage", default="ddp")
    else:
        own.put("layout.sharding", "ddp", DEFAULT)
    own.take("data_parallel_sharding_strategy", "no_pipeline_parallel", "deepspeed_config")
    if not zero and "zero_stage" in own.settings:
        return
    own.take("zero_stage")


def _convert_training(own: Conversion) -> None:
    schedule.put_steps(own, "train_iters", "train_samples")
    chosen: Setting | None = None
    for key, name in (("bf16", "bfloat16"), ("fp16", "float16")):
        if own.switch(key):
            chosen = own.settings[key]
            own.put("training.precision", name, chosen)
    if chosen is None:
        own.put("training.precision", "float32", DEFAULT)
    own.take("accumulate_allreduce_grads_in_fp32", "params_dtype")
    if own.switch("deepspeed"):
        schedule.put_sums(own, "data_types.grad_accum_dtype")
    if own.switch("grad_reduce_in_bf16") and own.got("training.precision") == "bfloat16":
        own.put("training.gradient_dtype", "bfloat16", own.settings["grad_reduce_in_bf16"])
    own.whole("training.seed", "seed", least=0)
    if own.switch("deterministic_mode"):
        own.put("training.deterministic", True, own.settings["deterministic_mode"])
    own.choose("optimizer.name", {"adam": "adamw", "adamw": "adamw"}, "optimizer")
    own.real("optimizer.learning_rate", "lr")
    own.real("optimizer.min_learning_rate", "min_lr", default=0.0)
    schedule.put_decay(own, "lr_decay_style")
    schedule.put_betas(own, ("adam_beta1", 0.9), ("adam_beta2", 0.999))
    own.real("optimizer.epsilon", "adam_eps", default=1e-8)
    own.real("optimizer.weight_decay", "weight_decay", default=0.01)
    own.real("optimizer.clip", "clip_grad", default=1.0)
