"""torchtitan's configuration file as a run (v0.2.2, and names of older versions). The exporter's inverse."""

from __future__ import annotations

from frontrunner.launcher.exporters.torchtitan_model import FLAVORS
from frontrunner.launcher.importers import schedule
from frontrunner.launcher.importers.settings import DEFAULT, Conversion, integer, number

_MODELS = {"llama3", "llama"}
_RECOMPUTE = {"none": "none", "full": "full", "selective": "selective"}
_PRECISIONS = {"bfloat16": "bfloat16", "float32": "float32"}


def convert(own: Conversion, world: int | None) -> None:
    """Fill in what the file says; ``world``: devices of the run, if they are known."""
    with own.of_model():
        _convert_model(own)
    own.whole("layout.tensor", "parallelism.tensor_parallel_degree", "training.tensor_parallel_degree")
    own.whole(
        "layout.pipeline", "parallelism.pipeline_parallel_degree", "experimental.pipeline_parallel_degree"
    )
    if (own.got("layout.tensor") or 1) > 1:
        own.put("layout.sequence_parallel", True, "its tensor parallelism includes it")
    _convert_batch(own, world)
    _convert_chunks(own)
    _convert_sharding(own, world)
    _convert_recompute(own)
    own.whole("training.seq_len", "training.seq_len", default=2048)
    own.whole("training.steps", "training.steps", default=10000)
    own.choose("training.precision", _PRECISIONS, "training.mixed_precision_param", default="bfloat16")
    own.take("training.mixed_precision_reduce", "training.dtype")
    own.whole("training.seed", "debug.seed", "training.seed", least=0)
    if own.switch("debug.deterministic"):
        own.put("training.deterministic", True, own.settings["debug.deterministic"])
    if own.switch("compile.enable"):
        own.put("training.compile", True, own.settings["compile.enable"])
    _convert_optimizer(own)
    if own.switch("checkpoint.enable") or own.switch("checkpoint.enable_checkpoint"):
        own.whole("checkpoint.every_steps", "checkpoint.interval", default=500)
        own.whole("checkpoint.keep", "checkpoint.keep_latest_k", default=10)
    own.take("checkpoint.interval", "checkpoint.keep_latest_k", "checkpoint.enable")


def _convert_model(own: Conversion) -> None:
    name, flavor = own.take("model.name"), own.take("model.flavor")
    own.take("model.hf_assets_path", "model.tokenizer_path", "model.norm_type")
    kind = str(name.value) if name else "llama3"
    if name and kind not in _MODELS:
        own.refuse(name, "is not a model that a run file can describe", "name one: --model llama-3-8b")
        return
    chosen = str(flavor.value) if flavor else "debugmodel"
    keys = FLAVORS.get(chosen)
    if keys is None:
        if flavor:
            what = f"is none of torchtitan's Llama 3 models: {', '.join(FLAVORS)}"
            own.refuse(flavor, what, "choose one: --set model.flavor=8B")
        return
    for key, value in keys.items():
        own.put(f"model.{key}", value, flavor or DEFAULT)
    own.put("model.vocab_size", keys["padded_vocab_size"], flavor or DEFAULT)
    own.put("model.max_position_embeddings", 131072, flavor or DEFAULT)
    converters = own.take("model.converters")
    if converters and converters.value:
        own.ignore(converters, "matrix products are in training.precision")


def _convert_batch(own: Conversion, world: int | None) -> None:
    """``local_batch_size`` is of a data-parallel rank; a pipeline cuts it into micro-batches."""
    local = own.take("training.local_batch_size", "training.batch_size")
    size = own.value(local, integer, "a whole number, at least 1") if local else 8
    piped = (own.got("layout.pipeline") or 1) > 1
    if piped:
        own.whole("layout.micro_batch_size", "parallelism.pipeline_parallel_microbatch_size", default=1)
    elif size:
        own.put("layout.micro_batch_size", size, local or DEFAULT)
    own.take("parallelism.pipeline_parallel_microbatch_size", "experimental.pipeline_parallel_microbatches")
    whole = own.take("training.global_batch_size")
    total = integer(whole.value) if whole else None
    if whole and total:
        own.put("training.global_batch_size", total, whole)
    elif world and size:
        ranks = world // ((own.got("layout.tensor") or 1) * (own.got("layout.pipeline") or 1))
        own.put("training.global_batch_size", max(1, ranks * size), local or DEFAULT)


def _convert_chunks(own: Conversion) -> None:
    kind = own.take("parallelism.pipeline_parallel_schedule", "experimental.pipeline_parallel_schedule")
    per = own.take("parallelism.pipeline_parallel_layers_per_stage")
    for end in ("first", "last"):
        less = own.take(f"parallelism.pipeline_parallel_{end}_stage_less_layers")
        if less and less.value != 0 and own.got("layout.pipeline"):
            own.ignore(less, "all stages have as many layers, and the ends one thing more")
    stages = own.got("layout.pipeline") or 1
    if stages == 1:
        return
    layers, chunk = own.got("model.num_layers"), own.value(per, integer, "a whole number, at least 1")
    interleaved = kind is not None and str(kind.value).lower().startswith("interleaved")
    if kind and not interleaved and str(kind.value).lower() != "1f1b":
        own.ignore(kind, "the schedule is 1F1B, interleaved if layout.virtual_stages is above 1")
    if chunk and layers and layers % (stages * chunk) == 0:
        own.put("layout.virtual_stages", layers // (stages * chunk), per or DEFAULT)
    elif interleaved and kind:
        own.put("layout.virtual_stages", 2, kind)


def _convert_sharding(own: Conversion, world: int | None) -> None:
    replicas = own.take(
        "parallelism.data_parallel_replicate_degree", "training.data_parallel_replicate_degree"
    )
    shards = own.take("parallelism.data_parallel_shard_degree", "training.data_parallel_shard_degree")
    again = own.take("parallelism.fsdp_reshard_after_forward")
    copies = (integer(replicas.value) if replicas else None) or 1
    size = integer(shards.value) if shards else None
    if size is None and copies > 1 and world:
        size = world // (copies * (own.got("layout.tensor") or 1) * (own.got("layout.pipeline") or 1))
    kept = str(again.value) if again else "default"
    never = kept == "never" or kept == "default" and (own.got("layout.pipeline") or 1) > 1
    origin = shards or replicas or DEFAULT
    if size == 1:
        own.put("layout.sharding", "ddp", origin)
    elif copies > 1 and size:
        own.put("layout.sharding", dict.fromkeys(("weights", "gradients", "optimizer"), size), origin)
        if never and again:
            own.ignore(again, "weights are gathered again for the backward")
    else:
        own.put("layout.sharding", "zero2" if never else "zero3", again or origin)


def _convert_recompute(own: Conversion) -> None:
    """The selective mode of torchtitan is not Megatron's: it recomputes chosen products, not attention."""
    mode = own.take("activation_checkpoint.mode", "training.activation_checkpoint")
    option = own.take("activation_checkpoint.selective_ac_option")
    chosen = str(mode.value) if mode else "selective"
    if chosen == "selective":
        origin = mode or option
        own.put(
            "layout.recompute", "full", "nearest in memory: torchtitan's selective mode keeps some products"
        )
        if origin:
            own.ignore(
                origin, "whole layers are recomputed: slower, with less memory; or set layout.recompute"
            )
    elif chosen in _RECOMPUTE:
        own.put("layout.recompute", chosen, mode or DEFAULT)
    elif mode:
        own.ignore(mode, "nothing is recomputed")


def _convert_optimizer(own: Conversion) -> None:
    own.choose("optimizer.name", {"adamw": "adamw"}, "optimizer.name")
    rate = own.real("optimizer.learning_rate", "optimizer.lr", default=8e-4)
    schedule.put_betas(own, ("optimizer.beta1", 0.9), ("optimizer.beta2", 0.95))
    own.real("optimizer.epsilon", "optimizer.eps", default=1e-8)
    own.real("optimizer.weight_decay", "optimizer.weight_decay", default=0.1)
    own.real("optimizer.clip", "training.max_norm", default=1.0)
    names = ("lr_scheduler.warmup_steps", "training.warmup_steps")
    warm = own.whole("optimizer.warmup_steps", *names, least=0, default=200)
    if warm and (steps := own.got("training.steps")) and warm > steps:
        own.put("optimizer.warmup_steps", steps, own.take(*names) or DEFAULT)  # as torchtitan shortens it
    share = own.take("lr_scheduler.decay_ratio")
    ratio = own.value(share, number, "a number") if share and share.value is not None else None
    kind = own.take("lr_scheduler.decay_type", "lr_scheduler.lr_decay_type")
    least = own.take("lr_scheduler.min_lr_factor", "lr_scheduler.lr_min")
    if ratio == 0:
        own.put("optimizer.decay", "constant", share or DEFAULT)
        return
    curve = schedule.DECAYS.get(str(kind.value)) if kind else "linear"
    if curve is None and kind:
        own.ignore(kind, "the rate decays as a cosine instead: another schedule")
    own.put("optimizer.decay", curve or "cosine", kind or DEFAULT)
    if share and ratio:
        own.ignore(share, "the rate decays from the warm-up on, not in the last part alone")
    factor = own.value(least, number, "a number") if least else 0.0
    if rate is not None and factor is not None:
        own.put("optimizer.min_learning_rate", factor * rate, least or DEFAULT)
