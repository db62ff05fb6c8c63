"""The types of run files: run, model, machine and layout.

All are frozen and reject unknown keys. A :class:`RunSpec` is fully resolved: presets are expanded, so
the same file predicts, trains and submits the same run. Units are in the names (SI: bytes, seconds,
FLOP/s). The defaults below are the defaults of a run file. Editors show the descriptions: ``frontrunner
schema`` is derived from these classes.
"""

from operator import floordiv
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from frontrunner.configs.data import DataSpec
from frontrunner.configs.engines import Engine
from frontrunner.configs.experts import ExpertsSpec
from frontrunner.configs.length import Tokens, in_steps
from frontrunner.configs.optimizer import OptimizerSpec
from frontrunner.configs.reliability import CheckpointSpec, ReliabilitySpec, WatchSpec
from frontrunner.configs.sharding import Precision, ShardingSpec
from frontrunner.configs.site import SiteSpec
from frontrunner.configs.slurm import SlurmSpec
from frontrunner.configs.software import SoftwareSpec
from frontrunner.configs.topology import GroupsSpec
from frontrunner.configs.types import (
    LARGEST,
    Count,
    Frozen,
    Name,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    derived,
    say,
)

Recompute = Literal["none", "selective", "full"]


class SourceSpec(Frozen):
    """The source of a fact."""

    source: Annotated[str, Field(min_length=1)]
    """Document, repository or paper, precise enough to find the figure again."""
    date: Annotated[
        str,
        Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$"),
        say("must be a date: YYYY-MM-DD, YYYY-MM or YYYY", "use one of these; put a year alone in quotes"),
    ]
    """Date of the source, YYYY-MM-DD (or YYYY-MM, YYYY)."""
    status: Literal["verified", "secondary", "computed", "inferred", "memory", "assumed"] = "verified"
    """verified: read in the source itself; secondary: read in a text about it; computed: from verified
    figures; inferred, memory: not verified; assumed: a placeholder, replace it with your own figure."""


Sources = Annotated[dict[str, SourceSpec], Field(default_factory=dict)]


class ModelSpec(Frozen):
    """A decoder-only transformer; the keys use Megatron's names."""

    name: Name = "custom"
    """Display name (default: the file's name)."""
    num_layers: PositiveInt
    """Transformer layers."""
    hidden_size: Annotated[int, Field(gt=0, le=LARGEST // 4)]
    """Width of the residual stream."""
    num_heads: PositiveInt
    """Attention (query) heads."""
    num_kv_heads: PositiveInt = Field(default_factory=derived(lambda heads: heads, "num_heads"))
    """Key and value heads, shared by groups of query heads (default: num_heads)."""
    head_dim: PositiveInt = Field(default_factory=derived(floordiv, "hidden_size", "num_heads"))
    """Size of a head (default: hidden_size / num_heads)."""
    ffn_hidden_size: PositiveInt = Field(default_factory=derived(lambda size: 4 * size, "hidden_size"))
    """Width of the MLP (default: 4 * hidden_size)."""
    experts: ExpertsSpec | None = None
    """A mixture of experts in place of the MLP of some or all layers; null: every layer is dense."""
    vocab_size: PositiveInt
    """Tokens in the tokenizer's vocabulary."""
    padded_vocab_size: PositiveInt = Field(
        default_factory=derived(lambda size: -(-size // 128) * 128, "vocab_size")
    )
    """Rows of the embedding, for every layout (default: vocab_size rounded up to a multiple of 128)."""
    max_position_embeddings: PositiveInt = 2048
    """Longest sequence: a hard limit with learned positions."""
    position_embedding: Literal["learned", "rotary"] = "learned"
    """Position encoding: a learned table (GPT-2) or rotary embeddings (Llama, GPT-NeoX)."""
    rotary_base: PositiveFloat = 10000.0
    """Base of the rotary frequencies (theta)."""
    rotary_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of head_dim that is rotated."""
    rotary_scaling_factor: PositiveFloat | None = None
    """Llama 3.1's frequency scaling (low_freq_factor 1, high_freq_factor 4, trained on 8192 positions);
    null: none."""
    normalization: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalization of attention, MLP and output layer."""
    norm_position: Literal["before", "after"] = "before"
    """Norms of a layer: before attention and MLP, or after them, on what they add (OLMo 2)."""
    qk_norm: Literal["none", "head", "full"] = "none"
    """RMSNorm of queries and keys before rotation: of each head (Qwen3), or of all together (OLMo 2)."""
    norm_epsilon: PositiveFloat = 1e-5
    """Added to the variance in each norm."""
    activation: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu_tanh"
    """gelu_tanh is the tanh approximation that GPT-2 uses; swiglu has a gate of the same width."""
    parallel_residual: bool = False
    """Attention and MLP both read the layer's input (GPT-NeoX)."""
    linear_bias: bool = True
    """Biases in all linear layers except the output layer."""
    qkv_bias: bool = Field(default_factory=derived(lambda bias: bias, "linear_bias"))
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
    """Sources of the facts, by key."""


class LinkSpec(Frozen):
    """One level of the interconnect as a single device sees it, one direction, all devices busy."""

    bandwidth_bytes_per_s: PositiveFloat
    """Bandwidth that large messages achieve; the link's peak if that was not measured."""
    latency_s: NonNegativeFloat
    """Latency of a small message."""


class LinksSpec(Frozen):
    """The three levels of the interconnect."""

    package: LinkSpec
    """Between devices of one package."""
    node: LinkSpec
    """Between packages of one node."""
    network: LinkSpec
    """Between nodes."""
    groups: GroupsSpec | None = None
    """Groups of nodes in the network; null: all nodes alike."""


class DeviceSpec(Frozen):
    """One device as torch sees it (one GCD on MI250X)."""

    name: Name
    """Display name."""
    kind: Literal["cuda", "cpu", "auto"] = "auto"
    """torch's device type (ROCm is "cuda"); auto: cuda if available, else cpu."""
    memory_bytes: PositiveInt
    """Memory of one device; the planner's limit for a layout."""
    limit_memory: bool = False
    """Limit each rank to memory_bytes even if more is available, as on a larger device or with CPU
    processes that share a machine's memory."""
    peak_flops_per_s: dict[Precision, PositiveFloat] = Field(default_factory=dict)
    """Dense matrix peak by precision; empty: unknown, and no MFU is printed."""
    memory_bandwidth_bytes_per_s: PositiveFloat | None = None
    """Peak bandwidth of the device's memory; null: unknown."""


class MachineSpec(Frozen):
    """Nodes, packages and devices, and the links between them."""

    name: Name = "custom"
    """Display name (default: the file's name)."""
    num_nodes: Annotated[int, Field(gt=0, le=100_000)]
    """Nodes of the machine."""
    packages_per_node: Annotated[int, Field(gt=0, le=64)]
    """Packages per node (4 on Frontier and LUMI-G)."""
    devices_per_package: Annotated[int, Field(gt=0, le=64)]
    """Devices per package (2 on MI250X)."""
    device: DeviceSpec
    """Properties of one device."""
    links: LinksSpec
    """Bandwidth and latency at each level."""
    software: dict[str, SoftwareSpec] = Field(default_factory=dict)
    """Measured rates of devices and links, by software year; the planner uses the newest by default."""
    reliability: ReliabilitySpec | None = None
    """Failure rate of nodes and write speed; null: unknown."""
    site: SiteSpec = Field(default_factory=SiteSpec)
    """Slurm limits and job environment of the site."""
    sources: Sources
    """Sources of the facts, by dotted key under this machine."""

    @property
    def devices_per_node(self) -> int:
        return self.packages_per_node * self.devices_per_package


class LayoutSpec(Frozen):
    """How the work is split over devices; data-parallel ranks = devices / (tensor x pipeline)."""

    tensor: PositiveInt = 1
    """Tensor-parallel degree: devices that share each layer, all inside one node."""
    sequence_parallel: bool = False
    """Also split norms and dropout along the sequence (needs tensor > 1)."""
    pipeline: PositiveInt = 1
    """Pipeline stages."""
    virtual_stages: PositiveInt = 1
    """Model chunks per stage (interleaved schedule)."""
    micro_batch_size: PositiveInt = 1
    """Sequences per forward pass of one data-parallel rank."""
    recompute: Recompute = "none"
    """What the backward recomputes instead of storing: nothing, attention, or whole layers."""
    expert: PositiveInt = 1
    """Expert-parallel degree: data-parallel ranks over which a layer's experts are split."""
    dispatch: Literal["hierarchical", "flat"] = "hierarchical"
    """How tokens get to experts. hierarchical: once to each node that has an expert of theirs, and copied
    inside it. flat: from each device directly to each device that has one."""
    dispatch_wire: Literal["exact", "int8"] = "exact"
    """Format of tokens on the hop between nodes: as computed, or int8 with a scale for each block."""
    sharding: ShardingSpec = Field(default_factory=lambda: ShardingSpec.of("three_level"))
    """How state is sharded over data-parallel ranks (default: preset three_level)."""


class TrainingSpec(Frozen):
    """Batch, sequence length, length of the run and precision."""

    seq_len: PositiveInt
    """Tokens per sequence (default: 2048, or the model's max_position_embeddings if that is less)."""
    global_batch_size: PositiveInt
    """Sequences per step over all ranks (default: one micro-batch per stage and data-parallel rank)."""
    steps: PositiveInt = 100
    """Optimizer steps of the whole run."""
    tokens: Annotated[Tokens | None, Field(exclude=True)] = None
    """Tokens to train on, such as 300e9, in place of steps = tokens / (seq_len * global_batch_size)."""
    precision: Precision = "bfloat16"
    """Type of weights and activations in forward and backward; master weights are float32."""
    gradient_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type for summing gradients of micro-batches; bfloat16 only with precision bfloat16."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1234
    """Seed of initial weights, data order and dropout."""
    deterministic: bool = False
    """Use bitwise deterministic GPU kernels, so that a continued run equals an uninterrupted one; slower.
    CPU ranks are always deterministic."""
    compile: bool = False
    """Compile each layer with torch.compile: fewer kernels, and some minutes before the first step. Sums are
    rounded differently. Not with dropout or other engines; it has not run on a GPU."""
    validate_every_steps: Count = 0
    """Steps between validations; 0: only before the first and after the last step."""
    validation_samples: Count = 0
    """Sequences per validation; 0: no validation."""


def _data_form(value: object) -> str:
    return "synthetic" if isinstance(value, str) else "corpus"


class RunSpec(Frozen):
    """A training run: model x machine x layout."""

    name: Name
    """Display name (default: the file's name)."""
    model: ModelSpec
    """The model: a preset, a Hugging Face config.json or its folder, or the fields themselves."""
    machine: MachineSpec
    """The machine: a preset, a file, or the fields themselves."""
    nodes: PositiveInt = 1
    """Number of nodes that the run uses."""
    engine: Engine = "native"
    """native: frontrunner's own; deepspeed, fsdp: the same model, data and optimizer with DeepSpeed's or
    PyTorch's sharding, for comparison."""
    layout: LayoutSpec = Field(default_factory=LayoutSpec)
    """How the work is split over devices."""
    training: TrainingSpec
    """Batch size, sequence length, steps and precision."""
    optimizer: OptimizerSpec = Field(default_factory=OptimizerSpec)
    """Optimizer and learning-rate schedule."""
    data: Annotated[
        Annotated[DataSpec, Tag("corpus")] | Annotated[Literal["synthetic"], Tag("synthetic")],
        Discriminator(_data_form),
    ]
    """A prepared corpus, or "synthetic" to measure speed only."""
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec, validate_default=True)
    """When checkpoints are written, which are kept, and the initial weights."""
    watch: WatchSpec = Field(default_factory=WatchSpec)
    """When to end a run that hangs or diverges."""
    slurm: SlurmSpec = Field(default_factory=SlurmSpec)
    """Slurm options of `frontrunner submit`."""

    @field_validator("training", mode="before")
    @classmethod
    def _fill_training(cls, training: Any, info: ValidationInfo) -> Any:
        """Defaults that depend on other sections (fields are validated in order)."""
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
        return in_steps(defaults | training)

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _fill_checkpoint(cls, checkpoint: Any, info: ValidationInfo) -> Any:
        """Intervals by default where the failure rate is known: a long run must not lose its work."""
        machine = info.data.get("machine")
        if machine is None or machine.reliability is None or info.data.get("engine") != "native":
            return checkpoint
        given = {} if isinstance(checkpoint, CheckpointSpec) else checkpoint
        if not isinstance(given, dict) or given.keys() & {"every_steps", "every_minutes"}:
            return checkpoint
        return {"every_minutes": "auto"} | given

    @property
    def world_size(self) -> int:
        return self.nodes * self.machine.devices_per_node

    @property
    def data_parallel(self) -> int:
        return self.world_size // (self.layout.tensor * self.layout.pipeline)

    @property
    def grad_accum_steps(self) -> int:
        return self.training.global_batch_size // (self.layout.micro_batch_size * self.data_parallel)
