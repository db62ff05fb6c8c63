"""What a user writes: the types of run, model, machine and layout.

All are frozen and reject unknown keys. A :class:`RunSpec` is fully resolved: presets are expanded, so
that the same file predicts, trains and submits the same run. Units are in the names (SI: bytes,
seconds, FLOP/s). The defaults below are the defaults of a run file, and the descriptions are what an
editor shows: ``frontrunner schema`` is derived from these classes.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import floordiv
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Strict, Tag, ValidationInfo, field_validator

from frontrunner.configs.engines import Engine
from frontrunner.configs.reliability import CheckpointSpec, ReliabilitySpec, WatchSpec
from frontrunner.configs.sharding import Precision, ShardingSpec
from frontrunner.configs.site import SiteSpec
from frontrunner.configs.slurm import SlurmSpec
from frontrunner.configs.software import SoftwareSpec
from frontrunner.configs.types import (
    LARGEST,
    Count,
    Frozen,
    Name,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    say,
)


def _derived(rule: Callable[..., Any], *keys: str) -> Callable[[dict[str, Any]], Any]:
    """A default that follows from other fields; None where they are wrong and the whole is refused anyway."""
    return lambda given: rule(*(given[key] for key in keys)) if given.keys() >= set(keys) else None


Recompute = Literal["none", "selective", "full"]


class SourceSpec(Frozen):
    """Where a fact was read."""

    source: Annotated[str, Field(min_length=1)]
    """Document, repository or paper, precise enough to find the figure again."""
    date: Annotated[
        str,
        Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$"),
        say("must be a date, YYYY-MM-DD or the beginning of one", "write it so; a year alone in quotes"),
    ]
    """Date of the source, YYYY-MM-DD (or YYYY-MM, YYYY)."""
    status: Literal["verified", "secondary", "computed", "inferred", "memory", "assumed"] = "verified"
    """verified: read in the source itself; secondary: in a text about it; computed: from verified figures;
    inferred, memory: not verified; assumed: a placeholder, replace it by your own figure."""


Sources = Annotated[dict[str, SourceSpec], Field(default_factory=dict)]


class ModelSpec(Frozen):
    """A decoder-only transformer, in Megatron's names."""

    name: Name = "custom"
    """Name for display (default: the file's)."""
    num_layers: PositiveInt
    """Transformer layers."""
    hidden_size: Annotated[int, Field(gt=0, le=LARGEST // 4)]
    """Width of the residual stream."""
    num_heads: PositiveInt
    """Attention (query) heads."""
    num_kv_heads: PositiveInt = Field(default_factory=_derived(lambda heads: heads, "num_heads"))
    """Key and value heads, shared by groups of query heads (default: num_heads)."""
    head_dim: PositiveInt = Field(default_factory=_derived(floordiv, "hidden_size", "num_heads"))
    """Size of a head (default: hidden_size / num_heads)."""
    ffn_hidden_size: PositiveInt = Field(default_factory=_derived(lambda size: 4 * size, "hidden_size"))
    """Width of the MLP (default: 4 * hidden_size)."""
    vocab_size: PositiveInt
    """Tokens of the tokenizer."""
    padded_vocab_size: PositiveInt = Field(
        default_factory=_derived(lambda size: -(-size // 128) * 128, "vocab_size")
    )
    """Rows of the embedding, whatever the layout (default: vocab_size rounded up to a multiple of 128)."""
    max_position_embeddings: PositiveInt = 2048
    """Longest sequence: a hard limit with learned positions."""
    position_embedding: Literal["learned", "rotary"] = "learned"
    """How positions enter: a learned table (GPT-2) or rotated queries and keys (Llama, GPT-NeoX)."""
    rotary_base: PositiveFloat = 10000.0
    """Base of the rotary frequencies (theta)."""
    rotary_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of head_dim that is rotated."""
    rotary_scaling_factor: PositiveFloat | None = None
    """Llama 3.1's frequency scaling (low_freq_factor 1, high_freq_factor 4, trained on 8192 positions);
    null: none."""
    normalization: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Norm before attention, MLP and output layer."""
    norm_epsilon: PositiveFloat = 1e-5
    """Added to the variance in each norm."""
    activation: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu_tanh"
    """gelu_tanh is the tanh approximation that GPT-2 uses; swiglu has a gate of the same width."""
    parallel_residual: bool = False
    """Attention and MLP both read the layer's input (GPT-NeoX)."""
    linear_bias: bool = True
    """Biases in all linear layers but the output layer."""
    qkv_bias: bool = Field(default_factory=_derived(lambda bias: bias, "linear_bias"))
    """Biases in the query, key and value projections (default: linear_bias)."""
    tie_embeddings: bool = True
    """The output layer uses the input embedding's weights."""
    attention_dropout: Probability = 0.0
    """Dropout probability of attention weights."""
    hidden_dropout: Probability = 0.0
    """Dropout probability after the embedding, the attention and the MLP."""
    init_std: PositiveFloat = 0.02
    """Standard deviation of initial weights."""
    sources: Sources
    """Where the facts come from, by key."""


class LinkSpec(Frozen):
    """One level of the interconnect as a single device sees it, one direction, all devices busy."""

    bandwidth_bytes_per_s: PositiveFloat
    """What a large message achieves, not the link's peak, where that was measured."""
    latency_s: NonNegativeFloat
    """Time of a small message."""


class LinksSpec(Frozen):
    """The three levels of the interconnect."""

    package: LinkSpec
    """Between devices of one package."""
    node: LinkSpec
    """Between packages of one node."""
    network: LinkSpec
    """Between nodes."""


class DeviceSpec(Frozen):
    """What torch sees as one device (one GCD on MI250X)."""

    name: Name
    """Name for display."""
    kind: Literal["cuda", "cpu", "auto"] = "auto"
    """ROCm is "cuda" in torch; auto: cuda if there is one."""
    memory_bytes: PositiveInt
    """Memory of one device; what the planner holds a layout against."""
    limit_memory: bool = False
    """Hold each rank to memory_bytes where it could have more: a larger device, or the memory that the CPU
    processes of one machine share."""
    peak_flops_per_s: dict[Precision, PositiveFloat] = Field(default_factory=dict)
    """Dense matrix peak by precision; empty where unknown: then no MFU is printed."""
    memory_bandwidth_bytes_per_s: PositiveFloat | None = None
    """Peak of the device's own memory; null where unknown."""


class MachineSpec(Frozen):
    """Nodes of packages of devices, and the links between them."""

    name: Name = "custom"
    """Name for display (default: the file's)."""
    num_nodes: Annotated[int, Field(gt=0, le=100_000)]
    """Nodes that the machine has."""
    packages_per_node: Annotated[int, Field(gt=0, le=64)]
    """Packages in a node (4 on Frontier and LUMI-G)."""
    devices_per_package: Annotated[int, Field(gt=0, le=64)]
    """Devices that share a package (2 on MI250X)."""
    device: DeviceSpec
    """What one device is."""
    links: LinksSpec
    """Bandwidth and latency at each level."""
    software: dict[str, SoftwareSpec] = Field(default_factory=dict)
    """What devices and links achieve, by the year of the software; the planner takes the newest."""
    reliability: ReliabilitySpec | None = None
    """How often nodes fail and how fast they write; null where unknown."""
    site: SiteSpec = Field(default_factory=SiteSpec)
    """What its Slurm allows and its nodes need."""
    sources: Sources
    """Where the facts come from, by key (dotted below this machine)."""

    @property
    def devices_per_node(self) -> int:
        return self.packages_per_node * self.devices_per_package


class LayoutSpec(Frozen):
    """How the work is cut; what tensor x pipeline leaves of the devices is data parallel."""

    tensor: PositiveInt = 1
    """Devices that share each layer; stays inside a node."""
    sequence_parallel: bool = False
    """Cut norms and dropout along the sequence too (needs tensor > 1)."""
    pipeline: PositiveInt = 1
    """Stages."""
    virtual_stages: PositiveInt = 1
    """Pieces of the model held by each stage (interleaved schedule)."""
    micro_batch_size: PositiveInt = 1
    """Sequences in one forward pass of one data-parallel rank."""
    recompute: Recompute = "none"
    """What the backward computes again instead of keeping it: nothing, the attention, or each whole layer."""
    sharding: ShardingSpec = Field(default_factory=lambda: ShardingSpec.of("three_level"))
    """What each data-parallel rank keeps (default: preset three_level)."""


class TrainingSpec(Frozen):
    """How much is trained, and in which numbers."""

    seq_len: PositiveInt
    """Tokens in a sequence (default: 2048, or the model's max_position_embeddings where that is less)."""
    global_batch_size: PositiveInt
    """Sequences in a step of all ranks (default: one micro-batch a stage for each data-parallel rank)."""
    steps: PositiveInt = 100
    """Optimizer steps of the whole run."""
    precision: Precision = "bfloat16"
    """Type of weights and activations in the forward and backward; master weights are float32."""
    gradient_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type in which micro-batches' gradients are summed; bfloat16 only with precision bfloat16."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1234
    """Of initial weights, the order of the data and dropout."""
    deterministic: bool = False
    """Ask for kernels that give the same bits each time, so that a continued run is the uninterrupted one on
    a GPU too; slower. CPU ranks need no asking."""
    validate_every_steps: Count = 0
    """0: before the first and after the last step only."""
    validation_samples: Count = 0
    """Sequences in a validation; 0: no validation."""


class OptimizerSpec(Frozen):
    """AdamW with warm-up, decay and clipping."""

    name: Literal["adamw"] = "adamw"
    """Which optimizer."""
    learning_rate: PositiveFloat = 3e-4
    """The highest, reached after the warm-up."""
    min_learning_rate: NonNegativeFloat = Field(
        default_factory=_derived(lambda rate: 0.1 * rate, "learning_rate")
    )
    """Where the decay ends (default: 0.1 * learning_rate)."""
    betas: Annotated[
        tuple[Probability, Probability],
        Strict(False),
        say("must be two numbers, each at least 0 and below 1", "write two, as in [0.9, 0.95]"),
    ] = (0.9, 0.95)
    """Decay rates of the first and the second moment."""
    epsilon: PositiveFloat = 1e-8
    """Added to the root of the second moment."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay; biases and norms are not decayed."""
    clip: NonNegativeFloat = 1.0
    """Largest global norm of the gradient; 0: no clipping."""
    warmup_steps: Count = 0
    """Steps in which the learning rate rises linearly to learning_rate."""
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    """Curve from learning_rate to min_learning_rate after the warm-up; constant: none."""
    decay_steps: PositiveInt | None = None
    """Step at which min_learning_rate is reached, warm-up included; null: training.steps."""


class DataSpec(Frozen):
    """A prepared corpus."""

    train: Annotated[str, Field(min_length=1)]
    """The prefix of PREFIX.bin and PREFIX.idx, relative to the folder that the command runs in."""
    tokenizer: Annotated[str, Field(min_length=1)] | None = None
    """A tokenizer.json, relative to the folder that the command runs in."""
    validation_fraction: Probability = 0.01
    """Share of the corpus, its last documents, that is not trained on."""


def _data_form(value: object) -> str:
    return "synthetic" if isinstance(value, str) else "corpus"


class RunSpec(Frozen):
    """A training run: model x machine x layout."""

    name: Name
    """Name for display (default: the file's)."""
    model: ModelSpec
    """The model: a preset, a Hugging Face config.json, or the fields themselves."""
    machine: MachineSpec
    """The machine: a preset, a file, or the fields themselves."""
    nodes: PositiveInt = 1
    """Nodes of the machine that the run uses."""
    engine: Engine = "native"
    """native: frontrunner's own; deepspeed, fsdp: the same model, data and optimizer under DeepSpeed's or
    PyTorch's sharding, to compare with."""
    layout: LayoutSpec = Field(default_factory=LayoutSpec)
    """How the work is cut over devices."""
    training: TrainingSpec
    """Batch, length, steps and precision."""
    optimizer: OptimizerSpec = Field(default_factory=OptimizerSpec)
    """Optimizer and learning-rate schedule."""
    data: Annotated[
        Annotated[DataSpec, Tag("corpus")] | Annotated[Literal["synthetic"], Tag("synthetic")],
        Discriminator(_data_form),
    ]
    """A prepared corpus, or "synthetic" for runs that measure speed."""
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec)
    """When checkpoints are written, which are kept, and which weights the run starts from."""
    watch: WatchSpec = Field(default_factory=WatchSpec)
    """When a run that hangs or learns nothing is ended."""
    slurm: SlurmSpec = Field(default_factory=SlurmSpec)
    """How `frontrunner submit` submits the run."""

    @field_validator("training", mode="before")
    @classmethod
    def _fill_training(cls, training: Any, info: ValidationInfo) -> Any:
        """The defaults that depend on other sections (fields are validated in order)."""
        given = info.data
        if not isinstance(training, dict) or not {"model", "machine", "nodes", "layout"} <= given.keys():
            return training
        layout = given["layout"]
        world_size = given["nodes"] * given["machine"].devices_per_node
        data_parallel = max(1, world_size // (layout.tensor * layout.pipeline))
        defaults = {
            "seq_len": min(2048, given["model"].max_position_embeddings),
            "global_batch_size": min(LARGEST, layout.micro_batch_size * layout.pipeline * data_parallel),
        }
        return defaults | training

    @property
    def world_size(self) -> int:
        return self.nodes * self.machine.devices_per_node

    @property
    def data_parallel(self) -> int:
        return self.world_size // (self.layout.tensor * self.layout.pipeline)

    @property
    def grad_accum_steps(self) -> int:
        return self.training.global_batch_size // (self.layout.micro_batch_size * self.data_parallel)
