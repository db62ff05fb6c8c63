"""Logs of trainers that do not descend from Megatron, short and made up here, as those trainers write them.

All are of eight devices where the trainer says so, 16 sequences of 128 tokens a step, two seconds a step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

STEPS = range(1, 7)
#: Four layers of width 256, MLP of 768, four heads, 512 words, output layer of its own.
LAYERS, WIDTH, MLP, HEADS, WORDS, LENGTH = 4, 256, 768, 4, 512, 128
MATRICES = LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * MLP) + WORDS * WIDTH
NORMS = (2 * LAYERS + 1) * WIDTH
#: torchtitan's and OLMo-core's count, which has the norms; and nanotron's, which has not.
FLOPS_PER_TOKEN = 6 * (MATRICES + NORMS) + 12 * LAYERS * WIDTH * LENGTH
MATRIX_FLOPS_PER_TOKEN = 6 * MATRICES + 12 * LAYERS * WIDTH * LENGTH
TOKENS = 16 * LENGTH
TITAN_JOB = {
    "job": {"description": "a {test}", "print_args": True},
    "metrics": {"log_freq": 1},
    "training": {"mixed_precision_param": "bfloat16", "seq_len": LENGTH},
    "activation_checkpoint": {"mode": "none"},
    "model": {"converters": []},
}


def loss(step: int) -> float:
    return 9 - step / 100


def titan_step(step: int, seconds: float = 2.0, devices: int = 8, colours: bool = True) -> str:
    speed = TOKENS / seconds / devices
    flops = speed * FLOPS_PER_TOKEN / 1e12
    text = (
        f"\x1b[31mstep: {step:2}  \x1b[32mloss: {loss(step):8.5f}  \x1b[38;2;180;60;0mgrad_norm:  1.2345  "
        f"\x1b[36mmemory: 34.56GiB(43.20%)  \x1b[34mtps: {round(speed):,}  "
        f"\x1b[36mtflops: {flops:,.7f}  \x1b[35mmfu: 0.06%\x1b[39m"
    )
    if not colours:
        for code in ("31", "32", "38;2;180;60;0", "36", "34", "35", "39"):
            text = text.replace(f"\x1b[{code}m", "")
    return f"[titan] 2026-01-02 03:04:{step:02d},678 - root - INFO - {text}"


def titan(text: str) -> str:
    return f"[titan] 2026-01-02 03:04:00,678 - root - INFO - {text}"


def titan_log(times: Sequence[float] = (2.0,) * 6, as_json: bool = False) -> list[str]:
    """``as_json``: the configuration over several lines, as since the end of 2025."""
    model = {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "n_kv_heads": None, "vocab_size": WORDS}
    model |= {"multiple_of": 256, "ffn_dim_multiplier": None, "max_seq_len": LENGTH}
    arguments = ", ".join(f"{key}={value!r}" for key, value in model.items())
    job = json.dumps(TITAN_JOB, indent=2) if as_json else repr(TITAN_JOB)
    built = f"8Bwith {json.dumps(model, indent=2)}" if as_json else f"8B with ModelArgs({arguments})"
    mesh = (
        "Building device mesh with parallelism: pp=1, dp_replicate=1, dp_shard=4, cp=1, tp=2, ep=1"
        if as_json
        else "Building 2-D device mesh with ['dp_shard', 'tp'], [4, 2]"
    )
    return [
        titan("Starting job: a test"),
        *titan(f"Running with {'configs' if as_json else 'args'}: {job}").splitlines(),
        titan(mesh),
        *titan(f"Building llama3 {built}").splitlines(),
        titan("Peak FLOPS used for computing MFU: 3.120e+14"),
        titan("Applied FSDP to the model"),
        titan(
            "Trainer is initialized with local batch size 4, global batch size 16, gradient accumulation "
            "steps 1, sequence length 128, total steps 100 (warmup 2)."
        ),
        titan("Training starts at step 1."),
        *(titan_step(step, seconds) for step, seconds in enumerate(times, 1)),
    ]


def human(value: float) -> str:
    """Three significant digits, as nanotron prints numbers."""
    if abs(value) < 1:
        return f"{value:.3g}"
    value = float(f"{value:.3g}")
    power = min(int(f"{value:e}".split("e")[1]) // 3, 3)
    return f"{value / 1000**power:f}".rstrip("0").rstrip(".") + ("", "K", "M", "B")[power]


def nanotron_step(step: int, seconds: float = 2.0, devices: int = 8) -> str:
    speed = TOKENS / seconds / devices
    values = {
        "consumed_tokens": human(step * TOKENS),
        "time_per_iteration_ms": human(seconds * 1000),
        "tokens_per_sec": human(speed * devices),
        "tokens_per_sec_per_gpu": human(speed),
        "global_batch_size": human(TOKENS),
        "grad_norm": "1.23",
        "lm_loss": human(loss(step)),
        "lr": "0.0003",
        "model_tflops_per_gpu": human(speed * MATRIX_FLOPS_PER_TOKEN / 1e12),
        "eta": "0:03:08",
    }
    return f"iteration: {step} / 100 | " + " | ".join(f"{name}: {value}" for name, value in values.items())


def nanotron_log() -> list[str]:
    start = "01/02 03:04:05 [INFO|DP=0|TP=0|node017]: "
    config = f"""Config(general=GeneralArgs(project='test', run='a', seed=42),
       parallelism=ParallelismArgs(dp=4,
                                   pp=1,
                                   tp=2,
                                   tp_mode=<TensorParallelLinearMode.REDUCE_SCATTER: 2>,
                                   recompute_layer=False,
                                   expert_parallel_size=1,
                                   context_parallel_size=1),
       model=ModelArgs(dtype=torch.bfloat16),
       optimizer=OptimizerArgs(zero_stage=1),
       tokens=TokensArgs(sequence_length=128, train_steps=100, micro_batch_size=2))
Model Config:
LlamaConfig(hidden_act='silu',
            hidden_size={WIDTH},
            intermediate_size={MLP},
            max_position_embeddings=128,
            num_attention_heads={HEADS},
            num_hidden_layers={LAYERS},
            num_key_value_heads={HEADS},
            tie_word_embeddings=False,
            vocab_size={WORDS})"""
    return [
        f"{start}Config:",
        *(start + line for line in config.splitlines()),
        f"{start}mbs: 2 | grad_accum: 2 | cp: 1 | sequence_length: 128 | global_batch_size: 16 | "
        "train_steps: 100 | start_iteration_step: 0 | consumed_tokens_total: 0",
        f"{start} Memory usage: 500.00MiB. Peak allocated 1024.00MiB. Peak reserved: 2048.00MiB",
        *(start + nanotron_step(step) for step in STEPS),
    ]


def olmo_step(step: int, seconds: float = 2.0, devices: int = 8) -> list[str]:
    speed = TOKENS / seconds / devices
    header = f"2026-01-02 03:04:05.678\tnode017:0\tolmo_core.train\tINFO\t[step={step}/100,epoch=1,eta=3m]"
    metrics = {
        "train/CE loss": f"{loss(step):.3f}",
        "train/PPL": "8,103",
        "optim/LR (group 0)": "3.00E-04",
        "optim/total grad norm": "1.234",
        "throughput/total tokens": f"{step * TOKENS:,}",
        "throughput/device/TPS": f"{speed:.1f}",
        "throughput/device/TPS (actual avg)": f"{speed:.1f}",
        "throughput/device/flopsPS": f"{speed * FLOPS_PER_TOKEN / 1e9:.4f}B",
        "throughput/device/BPS": f"{1 / seconds:.4f}",
        "throughput/device/BPS (actual avg)": f"{1 / seconds:.4f}",
        "gpu_memory/GPU active mem (GiB)": "34.56",
        "gpu_memory/GPU active mem (%)": "43.20",
    }
    return [header, *(f"    {name}={value}" for name, value in metrics.items())]


def olmo_log() -> list[str]:
    start = "2026-01-02 03:04:05.678\tnode017:0\tolmo_core.train\tINFO\t"
    return [
        f"{start}Data parallel world size = 8",
        f"{start}Built model with:",
        "- 1,234,567 total params",
        f"{start}Training for 100 steps",
        *(line for step in STEPS for line in olmo_step(step)),
    ]


def composer_step(step: int, seconds: float = 2.0, devices: int = 8) -> list[str]:
    metrics = {
        "time/batch": str(step - 1),
        "time/sample": str(16 * (step - 1)),
        "time/token": str(TOKENS * (step - 1)),
        "memory/peak_allocated_mem": "34.5600",
        "trainer/device_train_microbatch_size": "2",
        "loss/train/total": f"{loss(step):.4f}",
        "metrics/train/LanguageCrossEntropy": f"{loss(step):.4f}",
        "throughput/batches_per_sec": f"{1 / seconds:.4f}",
        "throughput/samples_per_sec": f"{16 / seconds:.4f}",
        "throughput/device/samples_per_sec": f"{16 / seconds / devices:.4f}",
        "throughput/tokens_per_sec": f"{TOKENS / seconds:.4f}",
        "throughput/device/tokens_per_sec": f"{TOKENS / seconds / devices:.4f}",
        "lr-DecoupledAdamW/group0": "0.0003",
    }
    return [f"[batch={step}/100]:", *(f"\t Train {name}: {value}" for name, value in metrics.items())]


def composer_log() -> list[str]:
    """An MPT whose MLP is not gated."""
    config = f"""max_seq_len: {LENGTH}
model:
  name: mpt_causal_lm
  d_model: {WIDTH}
  n_heads: {HEADS}
  n_layers: {LAYERS}
  expansion_ratio: 4
  vocab_size: {WORDS}
global_train_batch_size: 16
device_train_microbatch_size: 2
precision: amp_bf16
fsdp_config:
  sharding_strategy: FULL_SHARD
  activation_checkpointing: false
n_gpus: 8"""
    return [
        *config.splitlines(),
        "2026-01-02 03:04:05,678: rank0[73][MainThread]: INFO: llmfoundry.train: Starting training...",
        *"******************************\nConfig:\nnum_gpus_per_node: 8\nnum_nodes: 1".splitlines(),
        *(line for step in STEPS for line in composer_step(step)),
    ]


def nemo_step(step: int, seconds: float = 2.0) -> str:
    return (
        f"Training epoch 0, iteration {step - 1}/99 | lr: 0.0003 | global_batch_size: 16 | global_step: "
        f"{step - 1} | max_memory_reserved: 2147483648 | max_memory_allocated: 1073741824 | "
        f"reduced_train_loss: {loss(step):.4} | "
        f"train_step_timing in s: {float(seconds):.4} | TFLOPS_per_GPU: 865.7"
        + (f" | consumed_samples: {16 * step}" if step > 1 else "")
    )


def nemo_log() -> list[str]:
    return [
        "All distributed processes registered. Starting with 8 processes",
        *(nemo_step(step) for step in STEPS),
    ]


def nemo_bar(step: int, seconds: float = 2.0) -> str:
    values = {
        "v_num": "",
        "reduced_train_loss": f"{loss(step):.3f}",
        "global_step": f"{step - 1}.000",
        "train_step_timing in s": f"{seconds:.3f}",
    }
    told = ", ".join(f"{name}={value}" for name, value in values.items())
    return f"Epoch 0: :   {step}%|#####     | {step}/100 [00:10<03:00, {told}]"


def hugging_face_step(step: int, seconds: float = 2.0, quoted: bool = False) -> str:
    values: dict[str, Any] = {"loss": loss(step), "grad_norm": 1.25, "learning_rate": 3e-4, "epoch": 0.01}
    record = str({name: str(value) if quoted else value for name, value in values.items()})
    bar = f"  {step}%|#         | {step}/100 [00:{2 * step:02d}<03:00,  {seconds:.2f}s/it]"
    return f"{bar}\r{' ' * 50}\r{record}"


def hugging_face_log() -> list[str]:
    return [
        "***** Running training *****",
        "  Num examples = 1,600",
        "  Instantaneous batch size per device = 2",
        "  Total train batch size (w. parallel, distributed & accumulation) = 16",
        "  Gradient Accumulation steps = 1",
        "  Total optimization steps = 100",
        "Loading checkpoint shards: 100%|##########| 4/4 [00:05<00:00,  1.30s/it]",
        *(hugging_face_step(step) for step in STEPS),
        "{'eval_loss': 2.5, 'eval_runtime': 3.1, 'epoch': 0.06}",
        "{'train_runtime': 13.2, 'train_samples_per_second': 7.3, 'train_steps_per_second': 0.5, "
        "'train_loss': 8.9, 'epoch': 0.06}",
    ]


def trainer_state() -> str:
    history: list[dict[str, Any]] = [
        {"epoch": 0.1 * step, "grad_norm": 1.25, "learning_rate": 3e-4, "loss": loss(step), "step": 10 * step}
        for step in STEPS
    ]
    history += [{"epoch": 0.6, "eval_loss": 2.5, "step": 60}, {"epoch": 0.6, "train_loss": 8.9, "step": 60}]
    history[-1] |= {"train_runtime": 120.0, "train_steps_per_second": 0.5}
    state = {"best_metric": None, "epoch": 0.6, "global_step": 60, "log_history": history, "max_steps": 100}
    return json.dumps(state, indent=2)


#: Name of each format, and a log of it.
LOGS: dict[str, Callable[[], list[str]]] = {
    "torchtitan": titan_log,
    "nanotron": nanotron_log,
    "olmo-core": olmo_log,
    "llm-foundry": composer_log,
    "nemo": nemo_log,
    "hugging-face": hugging_face_log,
}
