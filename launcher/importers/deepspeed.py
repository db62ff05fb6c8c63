"""DeepSpeed's configuration as a run (deepspeed 0.19); it has no model. The inverse of the exporter."""

from __future__ import annotations

from frontrunner.launcher.importers import schedule
from frontrunner.launcher.importers.settings import DEFAULT, Conversion, Setting, integer, number

_STAGES = {"0": "ddp", "1": "zero1", "2": "zero2", "3": "zero3"}
_OPTIMIZERS = dict.fromkeys(("adam", "adamw"), "adamw")
_AUTO = "auto"


def convert(own: Conversion, world: int | None) -> None:
    """Fill in what the file says; ``world``: devices of the run, if they are known.

    Values of ``auto`` are filled in by transformers' Trainer and stay at frontrunner's defaults.
    """
    for key, setting in own.settings.items():
        if setting.value == _AUTO:
            own.used.add(key)
            own.ignore(setting, "transformers fills it in: set it in the run file")
    taken = {key for key, setting in own.settings.items() if setting.value == _AUTO}
    own.settings = {key: setting for key, setting in own.settings.items() if key not in taken}
    own.whole("layout.micro_batch_size", "train_micro_batch_size_per_gpu")
    own.whole("layout.tensor", "tensor_parallel.autotp_size")
    accumulate = own.value(own.take("gradient_accumulation_steps"), integer, "a whole number, at least 1")
    if own.whole("training.global_batch_size", "train_batch_size") is None and world:
        schedule.put_batch(own, world, accumulate or 1)
    _convert_sharding(own)
    _convert_precision(own)
    _convert_optimizer(own)


def _convert_sharding(own: Conversion) -> None:
    preset = own.choose("layout.sharding", _STAGES, "zero_optimization.stage", default="ddp")
    hpz = own.take("zero_optimization.zero_hpz_partition_size")
    size = own.value(hpz, integer, "a whole number, at least 1")
    weights = own.switch("zero_optimization.zero_quantized_weights")
    gradients = own.switch("zero_optimization.zero_quantized_gradients")
    if preset != "zero3" or not (size and size > 1 or weights or gradients):
        return
    origin = next(
        (own.settings[key] for key in own.settings if key.startswith("zero_optimization.zero_")), DEFAULT
    )
    sharding: dict[str, object] = {"weights": "all", "gradients": "all", "optimizer": "all"}
    if size and size > 1:
        sharding["secondary"] = size
    wire = {"weights": "int8"} if weights else {}
    wire |= {"gradients": "int4", "network": "int4"} if gradients else {}
    own.put("layout.sharding", sharding | ({"wire": wire} if wire else {}), origin)


def _convert_precision(own: Conversion) -> None:
    for key, name in (("bf16.enabled", "bfloat16"), ("fp16.enabled", "float16")):
        if own.switch(key):
            own.put("training.precision", name, own.settings[key])
    if own.got("training.precision") is None:
        own.put("training.precision", "float32", DEFAULT)
    schedule.put_sums(own, "data_types.grad_accum_dtype")


def _convert_optimizer(own: Conversion) -> None:
    own.choose("optimizer.name", _OPTIMIZERS, "optimizer.type")
    rate = own.real("optimizer.learning_rate", "optimizer.params.lr")
    betas = own.take("optimizer.params.betas")
    if betas or own.got("optimizer.name"):
        own.put("optimizer.betas", betas.value if betas else [0.9, 0.999], betas or DEFAULT)
    own.real("optimizer.epsilon", "optimizer.params.eps", default=1e-8)
    own.real("optimizer.weight_decay", "optimizer.params.weight_decay", default=0.0)
    own.real("optimizer.clip", "gradient_clipping", default=0.0)
    kind = own.take("scheduler.type")
    if kind is None:
        own.put("optimizer.decay", "constant", "no scheduler")
        return
    own.whole("optimizer.warmup_steps", "scheduler.params.warmup_num_steps", least=0)
    own.take("scheduler.params.warmup_type")
    total = own.take("scheduler.params.total_num_steps")
    steps = own.value(total, integer, "a whole number, at least 1")
    if steps and total:
        own.put("training.steps", steps, total)
    _convert_curve(own, kind, rate)


def _convert_curve(own: Conversion, kind: Setting, rate: float | None) -> None:
    curves = {"WarmupLR": "constant", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}
    known = curves.get(str(kind.value))
    if known is None:
        own.ignore(kind, "the rate decays as a cosine instead: another schedule")
    own.put("optimizer.decay", known or "cosine", kind)
    highest = own.take("scheduler.params.warmup_max_lr")
    value = own.value(highest, number, "a number")
    if highest and value:
        own.put("optimizer.learning_rate", value, highest)
    share = own.take("scheduler.params.cos_min_ratio")
    ratio = own.value(share, number, "a number")
    peak = value or rate
    if known == "cosine" and peak:
        own.put("optimizer.min_learning_rate", (0.0001 if ratio is None else ratio) * peak, share or DEFAULT)
    elif known == "linear":
        own.put("optimizer.min_learning_rate", 0.0, DEFAULT)
