"""Which steps count: the steady state of a run, and how it was chosen.

Four kinds of steps are skipped:

- steps in an earlier layout of a continued run;
- steps at another global batch or sequence length than the last step's, where a run changes them;
- warm-up (caches fill, connections open, the allocator grows): the first step of each start, and those right
  after it that are over a tenth slower than the median of the start's second half, at most ten in all;
- outliers: more than five standard deviations (from the median absolute deviation) and more than a twentieth
  away from the median of the remaining steps.

A log that has tokens/s and no step times is judged by the time per token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from frontrunner.analysis.run_log import RunLog
from frontrunner.run_folder.steady import LONGEST_WARM_UP, WARM_UP_SLOWER

OUTLIER_DEVIATIONS = 5.0
OUTLIER_SHARE = 0.05
#: Standard deviations per median absolute deviation, for a normal distribution.
_DEVIATION = 1.4826

RULE = (
    f"skipped: the first step of each start; up to {LONGEST_WARM_UP - 1} steps after it that are over "
    f"{WARM_UP_SLOWER - 1:.0%} slower than the median of its second half; then steps over "
    f"{OUTLIER_DEVIATIONS:g} deviations and {OUTLIER_SHARE:.0%} away from the median"
)

STEADY, WARM_UP, OUTLIER, OTHER, OTHER_BATCH = 0, 1, 2, 3, 4


def mark(steps: pl.DataFrame, runs: Sequence[RunLog]) -> pl.DataFrame:
    """Add the column ``use``: :data:`STEADY`, :data:`WARM_UP`, :data:`OUTLIER`, :data:`OTHER` (layout) or
    :data:`OTHER_BATCH`."""
    start = ["run", "segment"]
    place = pl.int_range(pl.len()).over(start)
    count = pl.len().over(start)
    current = pl.Series("current", [run.current_segment for run in runs], dtype=pl.Int32)
    found = steps.with_columns(
        place.alias("_place"),
        count.alias("_count"),
        pl.coalesce("step_time_s", 1 / pl.col("tokens_per_s_per_device")).alias("_time"),
        (pl.col("segment") < current.gather(steps["run"])).alias("_other"),
        pl.any_horizontal(_changed("global_batch_size"), _changed("seq_len")).alias("_other_batch"),
    )
    found = found.with_columns(
        pl.when(pl.col("_place") >= pl.col("_count") // 2)
        .then(pl.col("_time"))
        .median()
        .over(start)
        .alias("_usual")
    )
    slow = (pl.col("_place") == 0) | (pl.col("_time") > WARM_UP_SLOWER * pl.col("_usual"))
    warm = (
        (slow.cast(pl.Int8).cum_min().over(start) == 1)
        & (pl.col("_place") < LONGEST_WARM_UP)
        & (pl.col("_place") < pl.col("_count") - 1)
    )
    found = found.with_columns(
        pl.when(pl.col("_other"))
        .then(OTHER)
        .when(pl.col("_other_batch"))
        .then(OTHER_BATCH)
        .when(warm)
        .then(WARM_UP)
        .otherwise(STEADY)
        .alias("use")
    )
    rest = pl.when(pl.col("use") == STEADY).then(pl.col("_time"))
    found = found.with_columns(rest.median().over("run").alias("_median"))
    distance = (pl.col("_time") - pl.col("_median")).abs()
    spread = pl.when(pl.col("use") == STEADY).then(distance).median().over("run")
    limit = pl.max_horizontal(OUTLIER_DEVIATIONS * _DEVIATION * spread, OUTLIER_SHARE * pl.col("_median"))
    outlier = (pl.col("use") == STEADY) & (distance > limit)
    found = found.with_columns(
        pl.when(outlier).then(OUTLIER).otherwise(pl.col("use")).cast(pl.Int8).alias("use")
    )
    return found.select(*steps.columns, "use")


def _changed(name: str) -> pl.Expr:
    """Whether a figure of a step is not that of the run's last step; a step without it is like the last."""
    return (pl.col(name) != pl.col(name).drop_nulls().last().over("run")).fill_null(value=False)


def summarise(marked: pl.DataFrame) -> pl.DataFrame:
    """One row per ``run``: medians and quantiles of the steady steps, and totals over all steps."""
    return marked.lazy().group_by("run").agg(*_of_steady(), *_of_all()).sort("run").collect()


def _of_steady() -> Iterator[pl.Expr]:
    steady = pl.col("use") == STEADY
    time = pl.col("step_time_s").filter(steady)
    yield time.median().alias("step_time_s")
    yield time.quantile(0.05, "linear").alias("step_time_p5_s")
    yield time.quantile(0.95, "linear").alias("step_time_p95_s")
    yield pl.col("printed_flops_per_s").filter(steady).max().alias("largest_printed_flops_per_s")
    share = pl.col("communication_exposed_s") / pl.col("step_time_s")
    yield share.filter(steady).median().alias("communication_share")
    for name in (
        "global_batch_size",
        "seq_len",
        "tokens_per_s_per_device",
        "printed_flops_per_s",
        "forward_backward_s",
        "communication_exposed_s",
        "optimizer_s",
        "bytes_package",
        "bytes_node",
        "bytes_network",
        "samples_per_s",
    ):
        yield pl.col(name).filter(steady).median().alias(name)


def _of_all() -> Iterator[pl.Expr]:
    yield pl.len().alias("steps")
    yield pl.col("step").max().alias("last_step")
    for use, name in (
        (STEADY, "steady"),
        (WARM_UP, "warm_up"),
        (OUTLIER, "outliers"),
        (OTHER, "other_layout"),
        (OTHER_BATCH, "other_batch"),
    ):
        yield (pl.col("use") == use).sum().alias(name)
    yield pl.col("global_batch_size").drop_nulls().first().alias("first_batch")
    yield pl.col("seq_len").drop_nulls().first().alias("first_seq_len")
    yield pl.col("peak_memory_bytes").filter(pl.col("use") != OTHER).max()
    loss, scale = pl.col("loss"), pl.col("loss_scale")
    yield loss.drop_nulls().first().alias("first_loss")
    yield loss.drop_nulls().last().alias("last_loss")
    yield loss.max().alias("largest_loss")
    yield loss.min().alias("smallest_loss")
    yield loss.null_count().alias("losses_missing")
    yield pl.col("skipped").sum().alias("skipped")
    yield (scale.diff() < 0).sum().alias("loss_scale_drops")
    yield scale.count().alias("loss_scales")
