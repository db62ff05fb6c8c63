"""A small file of each trainer, made for tests, and what it means."""

from __future__ import annotations

from typing import Any

MEGATRON = """#!/bin/bash
#SBATCH --nodes=8 --ntasks-per-node=8
#SBATCH --partition=standard-g --account=abc123 --time=1-12:00:00
#SBATCH --job-name=tiny-7b
SIZE=${SIZE:-small}
if [ "$SIZE" = large ]; then LAYERS=64; else LAYERS=32; fi
MODEL="--num-layers $LAYERS --hidden-size 4096 --num-attention-heads 32 --swiglu \\
  --disable-bias-linear --position-embedding-type rope --normalization RMSNorm \\
  --group-query-attention --num-query-groups 8 --untie-embeddings-and-output-weights"
TRAIN=(
  --micro-batch-size 1 --global-batch-size 256 --seq-length 4096 --max-position-embeddings 4096
  --train-samples $((256 * 1000)) --lr 3e-4 --lr-warmup-samples 2560 --lr-decay-style cosine
  --adam-beta2 0.95 --weight-decay 0.1 --bf16 --attention-dropout 0 --hidden-dropout 0
  --tensor-model-parallel-size 2 --sequence-parallel --pipeline-model-parallel-size 2
  --num-layers-per-virtual-pipeline-stage 4 --recompute-activations --use-distributed-optimizer
  --tokenizer-type Llama2Tokenizer --tokenizer-model tokenizer.model
  --save out --save-interval 500 --log-interval 5 --use-flash-attn --rampup-batch-size 16 16 5000
  --data-path 0.3 a_text_document 0.7 b_text_document --invented-option 7
)
srun bash -c "torchrun --nnodes $SLURM_NNODES pretrain_gpt.py $MODEL ${TRAIN[*]} $EXTRA"
"""
NEOX = """{
  # as the library writes it
  "pipe_parallel_size": 1, "model_parallel_size": 2, "num_layers": 12, "hidden_size": 768,
  "num_attention_heads": 12, "seq_length": 2048, "max_position_embeddings": 2048, "norm": "layernorm",
  "pos_emb": "rotary", "rotary_pct": 0.25, "no_weight_tying": true, "gpt_j_residual": true,
  "vocab_file": "20B_tokenizer.json", "init_method": "small_init", "output_layer_init_method": "wang_init",
  "optimizer": {"type": "Adam", "params": {"lr": 0.0006, "betas": [0.9, 0.95], "eps": 1.0e-8}},
  "zero_optimization": {"stage": 1, "allgather_partitions": True}, "min_lr": 0.00006,
  "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2, "train_iters": 320000,
  "lr_decay_iters": 300000, "lr_decay_style": "cosine", "warmup": 0.01, "bf16": {"enabled": true},
  "checkpoint_activations": true, "weight_decay": 0.1, "gradient_clipping": 1.0,
}
"""
TITAN = """
[job]
description = "Llama 3 8B"
[model]
name = "llama3"
flavor = "8B"
[parallelism]
data_parallel_replicate_degree = 2
tensor_parallel_degree = 1
[training]
local_batch_size = 2
seq_len = 8192
steps = 3000
[activation_checkpoint]
mode = "full"
[lr_scheduler]
warmup_steps = 600
decay_type = "cosine"
"""
NEMO = """
run: {name: gpt3_5b}
trainer: {num_nodes: 16, devices: 8, precision: bf16, max_steps: 75000, gradient_clip_val: 1.0}
exp_manager: {name: megatron_gpt}
model:
  micro_batch_size: 4
  global_batch_size: 2048
  tensor_model_parallel_size: 1
  encoder_seq_length: 2048
  max_position_embeddings: 2048
  num_layers: 24
  hidden_size: 4096
  ffn_hidden_size: ${multiply:4, ${.hidden_size}}
  num_attention_heads: 32
  tokenizer: {vocab_file: gpt2-vocab.json}
  optim: {name: distributed_fused_adam, lr: 1.6e-4, betas: [0.9, 0.95],
    sched: {name: CosineAnnealing, warmup_steps: 115, constant_steps: 12500, min_lr: 1.6e-5}}
"""
DEEPSPEED = """{"train_batch_size": 64, "train_micro_batch_size_per_gpu": 2, "bf16": {"enabled": true},
 "zero_optimization": {"stage": 3, "zero_hpz_partition_size": 8, "zero_quantized_weights": true},
 "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "betas": [0.9, 0.95], "eps": 1e-8}}}"""
FILES = {
    "run.sh": MEGATRON,
    "neox.yml": NEOX,
    "titan.toml": TITAN,
    "nemo.yaml": NEMO,
    "ds.json": DEEPSPEED,
}
#: What else each needs to be said, and what then comes out.
WANTED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "run.sh": (
        (),
        {
            "name": "tiny-7b",
            "nodes": 8,
            "machine.name": "lumi-g",
            "model.num_layers": 32,
            "model.num_kv_heads": 8,
            "model.ffn_hidden_size": 10880,  # two thirds of 4 x 4096, down to a multiple of 64
            "model.vocab_size": 32000,
            "model.activation": "swiglu",
            "layout.virtual_stages": 4,
            "layout.recompute": "selective",
            "training.steps": 1000,
            "optimizer.warmup_steps": 10,
            "optimizer.min_learning_rate": 0.0,
            "checkpoint.every_steps": 500,
            "slurm.account": "abc123",
            "slurm.time_limit": "1-12:00:00",
        },
    ),
    "neox.yml": (
        ("--machine", "frontier", "--nodes", "4"),
        {
            "training.global_batch_size": 128,  # 16 data-parallel ranks, 4 x 2 on each
            "model.parallel_residual": True,
            "model.init_std": (2 / (5 * 768)) ** 0.5,
            "model.padded_vocab_size": 50432,
            "layout.sharding.preset": "zero1",
            "training.gradient_dtype": "bfloat16",
            "optimizer.warmup_steps": 3000,
            "optimizer.decay_steps": 300000,
        },
    ),
    "titan.toml": (
        ("--machine", "frontier", "--nodes", "4"),
        {
            "layout.sharding.weights": 16,
            "layout.sharding.optimizer": 16,
            "training.global_batch_size": 64,
            "model.ffn_hidden_size": 14336,
            "model.rotary_scaling_factor": 8.0,
            "layout.recompute": "full",
        },
    ),
    "nemo.yaml": (
        ("--machine", "frontier"),
        {
            "nodes": 16,
            "model.ffn_hidden_size": 16384,
            "model.hidden_dropout": 0.1,
            "model.activation": "gelu_tanh",
            "optimizer.decay_steps": 62500,
            "layout.sharding.preset": "zero1",
        },
    ),
    "ds.json": (
        ("--machine", "frontier", "--nodes", "4", "--model", "llama-2-7b"),
        {
            "layout.sharding.secondary": 8,
            "layout.sharding.wire.weights": "int8",
            "optimizer.weight_decay": 0.0,
            "optimizer.clip": 0.0,
            "optimizer.decay": "constant",
        },
    ),
}
