"""What follows from settings that have no counterpart, and which of them make another model.

Names are those of Megatron-LM (d98e8a64), Megatron-DeepSpeed (4efb479), GPT-NeoX (ea7aefd), DeepSpeed 0.19,
torchtitan v0.2.2 and NeMo 1, with underscores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from frontrunner.analysis.importers.unsupported import unsupported
from frontrunner.launcher.importers.settings import Conversion, Setting

_RECORDS = "every step's figures are in records.jsonl"
_JOB = "a job ends by slurm.time_limit, saves, and continues by itself"
UNKNOWN = "not known here: look whether it changes the model or what it learns"

#: Settings that make a model which a run file cannot describe.
_MODELS = {
    "embed_layernorm": "a norm after the embedding",
    "apply_residual_connection_post_layernorm": "residuals after the norms",
    "qk_layernorm": "norms of queries and keys",
    "qk_l2_norm": "norms of queries and keys",
    "use_qk_layernorm": "norms of queries and keys",
    "squared_relu": "the activation squared ReLU",
    "quick_geglu": "the activation quick GEGLU",
    "rotary_interleaved": "rotary pairs of neighbours",
    "attention_sink_k": "attention sinks",
    "softmax_type": "another softmax",
    "no_rope_freq": "layers without rotary positions",
    "rope_type": "another scaling of positions",
    "kv_lora_rank": "multi-latent attention",
    "is_hybrid_model": "a hybrid of attention and state-space layers",
    "spec": "layers of its own",
    "freeze_all_layers": "weights that do not learn",
    "add_position_embedding_type": "another position embedding",
    "gmlp_attn_dim": "gMLP layers",
    "soft_prompt_tuning": "soft prompts",
    "use_mup": "another parametrisation (muP)",
    "num_unique_layers": "layers that share weights",
    "moe_enabled": "a mixture of experts",
    "peft": "adapters instead of whole weights",
    "lora": "adapters instead of whole weights",
}
_PLAN = {
    "context_parallel_size": "sequences are not cut over ranks: each holds whole ones, so look at `plan`",
    "ds_sequence_parallel_size": "sequences are not cut over ranks: each holds whole ones, so look at `plan`",
    "fp8": "matrix products are in training.precision",
    "fp4": "matrix products are in training.precision",
    "fp8_format": "matrix products are in training.precision",
    "fp8_recipe": "matrix products are in training.precision",
    "fp4_format": "matrix products are in training.precision",
    "te_precision_config_file": "matrix products are in training.precision",
}
_HARMLESS: tuple[tuple[str, str], ...] = (
    (
        "kernels follow from the device; what is computed is the same",
        r"apply_layernorm_1p|output_layer_parallelism|use_flash_attn\w*|use_flash\w*|attention_backend|transformer_impl|use_mcore_models|use_legacy_models|"
        r"use_te\w*|te_\w+|(no_)?\w*_fusion|cross_entropy_\w+|apply_query_key_layer_scaling|"
        r"no_query_key_layer_scaling|attention_softmax_in_fp32|fused_\w+|no_persist_layer_norm|"
        r"fp16_lm_cross_entropy|scaled_\w+_fusion|use_ring_exchange_p2p|onnx_safe|no_rope_fusion|"
        r"\w*cuda_graph\w*|gradient_accumulation_fusion|masked_softmax_fusion|megatron_amp_O2|"
        r"transformer_engine|async_tensor_model_parallel_allreduce|use_contiguous_\w+|native_amp_\w+|"
        r"no_async_tensor_model_parallel_allreduce|compile|apply_rope_fusion|activation_func_\w+|"
        r"enable_dynamic_gemm_tuning|use_cpu_initialization|init_method|output_layer_init_method|fp8_\w+|fp4_\w+",
    ),
    (
        "messages overlap with the work by themselves, in groups that follow from the layout",
        r"overlap_\w+|tp_comm_\w+|ub_\w+|ddp_\w+|distributed_\w+|nccl_\w+|delay_\w+|align_\w+|"
        r"(allgather|reduce)_(bucket_size|partitions|scatter)|contiguous_gradients|zero_\w*bucket\w*|"
        r"communication_data_type|reduce_scatter|prefetch_bucket_size|stage3_\w+|DDP_impl|ddp_impl|"
        r"use_distributed_optimizer|batch_p2p_\w+|sharp|use_tp_pp_dp_mapping|replace_sampler_ddp|"
        r"standalone_embedding_stage|sync_tp_duplicated_parameters|pp_partition_method|"
        r"pipe_partition_method|synchronize_each_layer|fsdp_\w+|pipeline_parallel_(schedule|split_points)\w*|"
        r"enable_async_tensor_parallel|enable_loss_parallel|disable_loss_parallel|lazy_mpu_init|"
        r"local_rank|rank|master_addr|master_port|launcher|hostfile|deepspeed_\w+|no_pipeline_parallel|"
        r"synchronize|account_for_\w+|microbatch_group_size\w*|deallocate_pipeline_outputs|num_communicat\w+",
    ),
    (
        _RECORDS,
        r"log_\w+|no_log_\w+|logging\w*|tensorboard\w*|wandb\w*|use_wandb|timing_log\w*|steps_per_print|"
        r"wall_clock_breakdown|codecarbon_dir|enable_(wandb|tensorboard)\w*|metrics\w*|comet\w*|use_comet|"
        r"memory_\w+|profil\w*|\w*_profil\w*|use_pytorch_profiler|dump_folder|save_tb_folder|"
        r"create_\w*logger\w*|\w*_logger_kwargs|exp_dir|name|description|print_config|comm_\w*|flight_\w*|"
        r"enable_checkpointing|logger|summary_\w*|use_profiler|nsys_\w*|rerun_mode|straggler\w*|log",
    ),
    (
        "the corpus is read through a memory map, in an order that the seed fixes",
        r"num_workers|dataloader_(type|defer\w*|fast\w*)|data_cache_path|data_impl|mmap_\w+|no_mmap_\w+|"
        r"no_create_attention_mask\w*|"
        r"use_shared_fs|index_mapping_dir|skip_warmup|persistent_workers|validation_drop_last|"
        r"pin_memory|drop_last|shuffle_documents|weight_by_num_documents|splits_string|"
        r"valid_num_workers|create_attention_mask\w*|mmap_warmup|infinite|"
        r"valid_weighted\w*|test_weighted\w*|pad_samples\w*|exchange_indices_distributed",
    ),
    (
        "checkpoints hold everything that is needed to continue, in one format",
        r"save|interval_type|async_mode|ckpt_\w+|no_save_\w+|use_dist_ckpt|async_save|dist_ckpt\w*|checkpoint_(scale|validation\w*|in_cpu)|"
        r"contiguous_checkpointing|partition_activations|folder|export_dtype|extra_save_iters|no_strict\w*|"
        r"use_checkpoint_args|use_checkpoint_opt_param_scheduler|override_opt_param_scheduler|"
        r"exit_on_missing_checkpoint|checkpoint_callback_params|resume_\w+|auto_detect_ckpt_format|"
        r"use_mp_args\w*|interval|last_save_\w+|keep_\w+|no_load_\w+|use_checkpoint_lr_scheduler|"
        r"override_lr_scheduler|distribute_checkpointed_activations|checkpoint_dir|non_persistent_\w+",
    ),
    (
        _JOB,
        r"exit_\w+|kill_switch_path|adlr_autoresume\w*|max_time|rdzv_\w+|max_restarts|tee|node_rank|"
        r"abort_on_unmet_fused_kernel_constraints|manual_gc\w*|gc_\w+|empty_unused_memory_level|init_timeout\w*|"
        r"train_timeout\w*|run|benchmark|accelerator|deepspeed_mpi|deepspeed_slurm|autoresume\w*|elasticity",
    ),
    (
        "a corpus is tokenized before it is trained on: frontrunner data prepare",
        r"tokenizer\w*|merge_file|vocab_file|vocab_\w*path|delimiter|extra_vocab_size|dataset|dataset_path|"
        r"hf_assets_path|tiktoken_\w+|legacy_tokenizer|sentencepiece_legacy",
    ),
    (
        "samples are packed one after the other, and attention covers a whole sequence",
        r"reset_position_ids|reset_attention_mask|eod_mask_loss|dataloader_inter_document_masking|pack_impl|"
        r"allow_chopped|variable_seq_lengths",
    ),
    (
        "each step has the whole global batch from the start",
        r"rampup_batch_size|step_batch_size_schedule",
    ),
    (
        "validation: set training.validation_samples and validate_every_steps",
        r"split|eval_\w+|limit_\w+|val_check_interval|validation|freq|do_(train|valid|test)|validation_\w+",
    ),
    (
        "training starts from new weights: set checkpoint.start_from",
        r"load|finetune|restore_from_path|pretrained_checkpoint|initial_load_\w+|load_\w+",
    ),
    (
        "the scale of the loss follows by itself",
        r"(initial_|min_|dynamic_)?loss_scale\w*|hysteresis|min_scale",
    ),
    (
        "weights learn otherwise: one learning rate and one weight decay are for all of them",
        r"decoupled_\w+|start_weight_decay|end_weight_decay|weight_decay_incr_style|lr_warmup_init|"
        r"lr_wsd_\w+|constant_steps|bucket_cap_mb|lr_mult",
    ),
    (
        "memory of the host is used for checkpoints alone, so look at `plan`",
        r"\w*cpu_offload\w*|offload\w*|optimizer_offload\w*|swap_tensor|pin_cpu_\w+",
    ),
    (
        "a loss per token or per sequence differs only where sequences are padded",
        r"calculate_per_token_loss|average_in_collective|check_for_\w+|no_check_for_\w+|"
        r"no_initialization|perform_initialization|sequence_data_parallel\w*|barrier_with_L1_time|"
        r"context_parallel_comm\w*|cp_comm\w*",
    ),
)
#: Whole sections of nested files.
_SECTIONS = [
    (
        re.compile(
            r"(exp_manager|profiling|metrics|job|comm|memory_estimation|flops_profiler|monitor_config|"
            r"tensorboard|wandb|csv_monitor|model\.nsys_profile|model\.exp_manager)\."
        ),
        _RECORDS,
    ),
    (re.compile(r"(hydra|run|autotuning|fault_tolerance|experimental|launcher)\.|defaults$"), _JOB),
]
_PATTERNS = [(text, re.compile(pattern)) for text, pattern in _HARMLESS]
_SAME = {
    _RECORDS,
    _JOB,
    "ranks, binding and the files of a job follow from the machine file",
    *(
        text
        for text, _ in _PATTERNS
        if text.startswith(("kernels", "messages", "the corpus", "checkpoints", "a corpus", "the scale"))
    ),
}
_COUNTS = re.compile(r"(parallel_size|degree|experts|accumulate_grad_batches|context_parallel\w*)$")
_UNUSED = {None, False, "", "0", "none", "None", "False", "false", "null"}


def is_harmless(text: str) -> bool:
    """Whether a consequence changes neither what is computed nor how fast."""
    return text in _SAME


def settle(own: Conversion, printed: bool) -> None:
    """Refuse or list whatever no reader took, each with what follows.

    ``printed``: a log, which has the trainer's defaults too; those that change nothing are not listed.
    """
    rest = {key: setting for key, setting in own.settings.items() if key not in own.used}
    for key, (void, reason) in _unsupported(rest).items():
        setting = rest.pop(key)
        name = key.rpartition(".")[2]
        if void == "plan":
            own.ignore(
                setting, _PLAN.get(name, f"not done here ({reason.partition(': ')[2]}), so look at `plan`")
            )
        else:
            _refuse(own, setting, reason.partition(": ")[2] or reason)
    for key, setting in rest.items():
        model = _MODELS.get(key.rpartition(".")[2])
        if model is not None:
            if not _off(setting):
                _refuse(own, setting, model)
        elif not _off(setting) and not (_COUNTS.search(key) and setting.value in (1, "1")):
            what = consequence(key)
            if not printed or what != UNKNOWN and not is_harmless(what):
                own.ignore(setting, what)


def consequence(key: str) -> str:
    """What follows from the absence of a setting; nested ones go by section, then by their last key."""
    last = key.rpartition(".")[2]
    known = _PLAN.get(last) or next((text for like, text in _SECTIONS if like.match(key)), None)
    return known or next((text for text, like in _PATTERNS if like.fullmatch(last)), UNKNOWN)


def _refuse(own: Conversion, setting: Setting, what: str) -> None:
    if own.another_model:
        own.ignore(setting, "of the files' model, in place of which another is named")
    else:
        own.refuse(setting, f"is {what}, which a run file cannot describe")


def _unsupported(rest: Mapping[str, Setting]) -> dict[str, tuple[str, str]]:
    """What the readers of logs do not know either, by key."""
    keys = {key.rpartition(".")[2]: key for key, setting in rest.items() if not _off(setting)}
    shown = {name: "True" if rest[key].value is True else rest[key].shown for name, key in keys.items()}
    found = ((re.split(r" = | has ", reason)[0], str(void), reason) for void, reason in unsupported(shown))
    return {keys[name]: (void, reason) for name, void, reason in found if name in keys}


def _off(setting: Setting) -> bool:
    value = setting.value
    if isinstance(value, list | dict):
        return not value
    return value in _UNUSED or value == 0 and value is not True
