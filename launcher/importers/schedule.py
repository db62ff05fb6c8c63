"""Batch, length and learning-rate schedule, which trainers count in steps, samples or fractions."""

from __future__ import annotations

from frontrunner.launcher.importers.settings import DEFAULT, Conversion, Setting, integer, number

#: Curves that are ours too.
DECAYS = {"cosine": "cosine", "linear": "linear", "constant": "constant"}


def put_batch(own: Conversion, world: int, accumulate: int = 1) -> None:
    """The global batch size where none is given: ``accumulate`` micro-batches a data-parallel rank."""
    ranks = world // ((own.got("layout.tensor") or 1) * (own.got("layout.pipeline") or 1))
    micro = own.got("layout.micro_batch_size") or 1
    words = f"{accumulate} x {micro} sequences on each of {ranks} data-parallel ranks"
    if ranks:
        own.put("training.global_batch_size", ranks * micro * accumulate, words)


def put_steps(own: Conversion, steps: str, samples: str) -> None:
    """``training.steps``, from a number of steps, or of samples in steps of the global batch."""
    total = own.take(samples)
    if own.whole("training.steps", steps) is not None or total is None:
        return
    value, batch = (
        own.value(total, integer, "a whole number, at least 1"),
        own.got("training.global_batch_size"),
    )
    if value and batch:
        own.put("training.steps", max(1, value // batch), total)


def put_decay(own: Conversion, style: str) -> None:
    """Decay, its end, and the warm-up of Megatron's arguments."""
    curve = own.take(style)
    known = DECAYS.get(str(curve.value).lower()) if curve else "linear"
    if known is None and curve:
        own.ignore(curve, "the rate decays as a cosine instead: another schedule")
    own.put("optimizer.decay", known or "cosine", curve or DEFAULT)
    steps, batch = own.got("training.steps"), own.got("training.global_batch_size")
    iterations, samples = own.take("lr_decay_iters"), own.take("lr_decay_samples")
    end = own.value(iterations, integer, "a whole number, at least 1")
    if end is None and (value := own.value(samples, integer, "a whole number, at least 1")) and batch:
        end = max(1, value // batch)
    origin = iterations or samples
    if end is not None and origin and end != steps:
        own.put("optimizer.decay_steps", end, origin)
    warm = _warmup(own, end or steps, batch)
    if warm:
        own.put("optimizer.warmup_steps", *warm)


def _warmup(own: Conversion, end: int | None, batch: int | None) -> tuple[int, Setting] | None:
    fraction, iterations = own.take("lr_warmup_fraction"), own.take("lr_warmup_iters")
    samples = own.take("lr_warmup_samples")
    share = own.value(fraction, number, "a number")
    if fraction and share is not None and end:
        return round(share * end), fraction
    for setting, divisor in ((iterations, 1), (samples, batch)):
        value = own.value(setting, lambda found: integer(found, 0), "a whole number, at least 0")
        if setting and value is not None and divisor:
            return round(value / divisor), setting
    return None


def put_betas(own: Conversion, first: tuple[str, float], second: tuple[str, float]) -> None:
    """Both decay rates of AdamW, each by its key and the trainer's default."""
    settings = [own.take(key) for key, _ in (first, second)]
    values = [own.value(setting, number, "a number") for setting in settings]
    betas = [
        value if value is not None else default
        for value, (_, default) in zip(values, (first, second), strict=True)
    ]
    own.put("optimizer.betas", betas, settings[1] or settings[0] or DEFAULT)


def put_sums(own: Conversion, key: str) -> None:
    """The type in which DeepSpeed sums gradients, and what follows from it at stage 0.

    By default it is the model's (``get_data_types``). bfloat16 at stage 0 goes to ``BF16_Optimizer``, which
    sums in float32 and shards the optimizer states; 0.19 does so in pipelines alone.
    """
    sums = own.take(key)
    if own.got("training.precision") != "bfloat16":
        return
    named = None if sums is None else str(sums.value)
    if own.got("layout.sharding") == "ddp" and named not in ("bf16", "bfloat16"):
        words = "bfloat16 at stage 0: DeepSpeed's BF16_Optimizer shards the optimizer states"
        own.put("layout.sharding", "zero1", words)
        own.put("training.gradient_dtype", "float32", words)
        return
    wide = named in ("fp32", "float32")
    own.put("training.gradient_dtype", "float32" if wide else "bfloat16", sums or DEFAULT)
