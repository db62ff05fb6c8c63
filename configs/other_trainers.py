"""Other trainers' words for our keys and values.

From Megatron-LM's ``arguments.py``, GPT-NeoX's ``neox_arguments.md``, DeepSpeed's JSON, transformers'
``TrainingArguments`` and model configurations, NeMo's GPT configuration and torchtitan's job configuration.
Names that are ours too (``seed``, ``warmup_steps``, ``hidden_size``) need no entry.
"""

from __future__ import annotations

#: Our dotted key, and their names for it, with underscores.
_NAMES = {
    "nodes": "num_nodes nnodes n_nodes trainer_num_nodes node_count",
    "engine": "strategy framework backend",
    "layout.tensor": "tp tensor_model_parallel_size tensor_parallel_degree tensor_parallel_size "
    "model_parallel_size "
    "tensor_parallelism tensor_parallel autotp_size",
    "layout.sequence_parallel": "sp sequence_parallelism",
    "layout.pipeline": "pp pipeline_model_parallel_size pipe_parallel_size pipeline_parallel_degree "
    "pipeline_parallel_size pipeline_parallelism pipeline_parallel num_stages",
    "layout.virtual_stages": "vpp virtual_pipeline_model_parallel_size num_virtual_stages_per_pipeline_rank "
    "num_layers_per_virtual_pipeline_stage virtual_pipeline_parallel_size interleave",
    "layout.micro_batch_size": "mbs train_micro_batch_size_per_gpu per_device_train_batch_size "
    "per_gpu_train_batch_size local_batch_size micro_batch_size_per_gpu microbatch_size device_batch_size",
    "layout.recompute": "activation_checkpointing gradient_checkpointing recompute_granularity "
    "recompute_activations "
    "checkpoint_activations activations_checkpoint_granularity activation_checkpoint "
    "use_activation_checkpointing",
    "layout.sharding": "zero_optimization fsdp fsdp_config data_parallel_sharding_strategy "
    "use_distributed_optimizer "
    "use_megatron_fsdp use_torch_fsdp2 distributed_optimizer data_parallel_shard_degree "
    "sharding_strategy zero",
    "layout.sharding.preset": "zero_stage stage",
    "layout.sharding.secondary": "zero_hpz_partition_size",
    "training.global_batch_size": "gbs train_batch_size batch_size gradient_accumulation_steps "
    "grad_accum_steps accumulate_grad_batches gas total_batch_size rampup_batch_size",
    "training.seq_len": "seq_length max_seq_len max_seq_length encoder_seq_length sequence_length block_size "
    "context_length n_ctx model_max_length",
    "training.tokens": "train_tokens max_tokens total_tokens",
    "training.steps": "train_iters max_steps num_train_steps total_steps num_steps max_iters "
    "iterations train_samples "
    "num_train_epochs train_epochs epochs max_epochs num_epochs",
    "training.precision": "dtype torch_dtype bf16 fp16 fp32 bfloat16 float16 mixed_precision params_dtype "
    "mixed_precision_param data_types amp precision_type",
    "training.gradient_dtype": "accumulate_allreduce_grads_in_fp32 grad_reduce_in_bf16 "
    "mixed_precision_reduce "
    "grad_accum_dtype grad_reduce_in_fp32 fp32_allreduce communication_data_type main_grads_dtype",
    "training.deterministic": "deterministic_mode full_determinism",
    "training.validate_every_steps": "eval_interval eval_steps val_check_interval eval_every",
    "training.validation_samples": "eval_iters limit_val_batches eval_samples max_eval_samples",
    "optimizer": "optim",
    "optimizer.name": "optimizer_type",
    "optimizer.learning_rate": "lr peak_lr max_lr",
    "optimizer.min_learning_rate": "min_lr min_lr_factor lr_min eta_min",
    "optimizer.betas": "adam_beta1 adam_beta2 beta1 beta2",
    "optimizer.epsilon": "adam_eps adam_epsilon eps",
    "optimizer.weight_decay": "wd",
    "optimizer.clip": "gradient_clipping clip_grad max_grad_norm max_norm gradient_clip_val grad_clip "
    "clip_grad_norm",
    "optimizer.warmup_steps": "lr_warmup_iters warmup_iters num_warmup_steps lr_warmup_steps "
    "warmup_num_steps "
    "lr_warmup_fraction warmup_ratio warmup lr_warmup_samples",
    "optimizer.decay": "lr_decay_style lr_scheduler_type lr_scheduler scheduler decay_type lr_schedule sched",
    "optimizer.decay_steps": "lr_decay_iters decay_iters lr_decay_samples total_num_steps",
    "data.train": "data_path data_prefix train_data_path train_data_paths dataset dataset_path "
    "dataset_name train_file "
    "train_path dataset_dir train_files",
    "data.tokenizer": "tokenizer_path tokenizer_model vocab_file tokenizer_name hf_tokenizer "
    "tokenizer_name_or_path "
    "tokenizer_type",
    "data.validation_fraction": "split validation_split_percentage val_split",
    "data": "mock_data synthetic use_synthetic_data",
    "checkpoint.every_steps": "save_interval save_steps checkpoint_interval save_every checkpoint_factor "
    "every_n_train_steps save_frequency",
    "checkpoint.keep": "save_total_limit keep_latest_k keep_last_n_checkpoints save_top_k most_recent_k",
    "checkpoint.background": "async_save async_mode use_async",
    "checkpoint.start_from": "load resume_from_checkpoint pretrained_checkpoint load_dir restore_from_path "
    "initial_load_path",
    "model": "model_name_or_path model_name base_model pretrained_model_name_or_path hf_model flavor",
    "model.num_layers": "num_hidden_layers n_layers n_layer n_blocks",
    "model.hidden_size": "n_embd d_model dim embedding_size model_dim",
    "model.num_heads": "num_attention_heads n_heads n_head",
    "model.num_kv_heads": "num_key_value_heads num_query_groups n_kv_heads",
    "model.head_dim": "kv_channels d_head",
    "model.ffn_hidden_size": "intermediate_size ffn_dim n_inner d_ff mlp_hidden_size",
    "model.padded_vocab_size": "make_vocab_size_divisible_by padded_vocab",
    "model.max_position_embeddings": "n_positions max_sequence_length",
    "model.position_embedding": "position_embedding_type pos_emb use_rotary_position_embeddings",
    "model.rotary_base": "rope_theta rotary_emb_base",
    "model.rotary_fraction": "rotary_percent rotary_pct rotary_percentage partial_rotary_factor",
    "model.rotary_scaling_factor": "rope_scaling_factor rope_scaling use_rope_scaling",
    "model.normalization": "norm norm_type",
    "model.norm_epsilon": "rms_norm_eps layernorm_epsilon norm_eps layer_norm_eps layer_norm_epsilon "
    "rms_norm_epsilon",
    "model.activation": "hidden_act activation_function swiglu",
    "model.qk_norm": "qk_layernorm use_qk_layernorm use_qk_norm",
    "model.parallel_residual": "gpt_j_residual use_parallel_residual",
    "model.linear_bias": "disable_bias_linear add_bias_linear use_bias_in_mlp use_bias_in_attn_linear "
    "attention_bias bias",
    "model.qkv_bias": "add_qkv_bias",
    "model.tie_embeddings": "untie_embeddings_and_output_weights no_weight_tying tie_word_embeddings "
    "share_embeddings_and_output_weights",
    "model.init_std": "init_method_std initializer_range",
    "model.hidden_dropout": "resid_pdrop resid_dropout",
    "model.attention_dropout": "attn_pdrop attn_dropout",
    "slurm.time_limit": "time walltime exit_duration_in_mins time_min",
    "slurm.partition": "queue",
    "slurm.account": "project",
    "slurm.environment": "env environment_variables env_vars",
    "name": "run_name exp_name experiment_name job_name",
}
KEYS = {theirs: ours for ours, names in _NAMES.items() for theirs in names.split()}

#: What our key counts, where theirs counts something else.
UNITS = {
    "gradient_accumulation_steps": "sequences of all ranks: micro-batch x accumulation x data-parallel ranks",
    "num_layers_per_virtual_pipeline_stage": "chunks per stage",
    "train_samples": "steps, not samples",
    "num_train_epochs": "steps, not epochs",
    "lr_warmup_fraction": "steps, not a fraction",
    "lr_warmup_samples": "steps, not samples",
    "lr_decay_samples": "steps, not samples",
    "eval_iters": "sequences, not batches",
    "min_lr_factor": "a rate, not a factor",
    "zero_hpz_partition_size": "ranks",
    "split": "a fraction, such as 0.01",
    "make_vocab_size_divisible_by": "rows, not a divisor",
    "untie_embeddings_and_output_weights": "the opposite",
    "disable_bias_linear": "the opposite",
    "adam_beta1": "both, such as [0.9, 0.95]",
    "exit_duration_in_mins": "text, such as 2h",
    "time": "text, such as 2h",
}
UNITS |= dict.fromkeys(("train_epochs", "epochs", "max_epochs", "num_epochs"), UNITS["num_train_epochs"])
UNITS |= dict.fromkeys(
    ("grad_accum_steps", "accumulate_grad_batches", "gas"), UNITS["gradient_accumulation_steps"]
)
UNITS |= {"warmup_ratio": UNITS["lr_warmup_fraction"], "limit_val_batches": UNITS["eval_iters"]}
UNITS |= dict.fromkeys(("qk_layernorm", "use_qk_layernorm", "use_qk_norm"), "none, head or full")
UNITS |= {"no_weight_tying": "the opposite", "adam_beta2": UNITS["adam_beta1"]}

#: Their words for our values.
VALUES = {
    "fsdp": "zero3",
    "fsdp2": "zero3",
    "full_shard": "zero3",
    "optim_grads_params": "zero3",
    "shard_grad_op": "zero2",
    "optim_grads": "zero2",
    "optim": "zero1",
    "no_shard": "ddp",
    "hybrid_shard": "hsdp",
    "mics": "hsdp",
    "zero++": "zeropp",
    "0": "ddp",
    "1": "zero1",
    "2": "zero2",
    "3": "zero3",
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "bf16-mixed": "bfloat16",
    "16-mixed": "float16",
    "32": "float32",
    "16": "float16",
    "torch.bfloat16": "bfloat16",
    "rope": "rotary",
    "learned_absolute": "learned",
    "adam": "adamw",
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "silu": "swiglu",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "gelu_tanh",
    "uniform": "full",
    "block": "full",
    "layernorm1p": "layernorm",
    "cosineannealing": "cosine",
    "constant_with_warmup": "constant",
}
_TYPES = {
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "float16": "float16",
    "fp32": "float32",
}


def plain(key: str) -> str:
    """A key as the tables have it: GPT-NeoX and command lines write dashes."""
    return key.replace("-", "_").lower()


def as_written(key: str, value: object) -> str | None:
    """``layout.sharding: zero1`` for ``zero_optimization: {stage: 1}``; None if the value does not say."""
    key = plain(key)
    inner = value.get("stage", value.get("enabled")) if isinstance(value, dict) else value
    if key in ("zero_optimization", "zero_stage", "zero") and str(inner) in VALUES:
        return f"layout.sharding: {VALUES[str(inner)]}"
    if key in _TYPES and str(inner).lower() == "true":
        return f"training.precision: {_TYPES[key]}"
    return None
