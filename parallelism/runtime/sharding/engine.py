"""The sharding engine: gathers weights before use and reduces gradients after use, for any degrees.

Hooks on a built model do everything; the model's code does not know about sharding. In forward and backward,
a shard unit's weights are gathered when a module that needs them is entered, while the next unit's weights
are in flight. They are freed when another unit is entered, so at most two units are held. Gradients are
collected as autograd finishes each parameter. Reductions are issued in one fixed order of units (the reverse
of first use), so ranks agree on the order even if a parameter has no gradient.
"""

from __future__ import annotations

from typing import Any

import torch

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.runtime.device import DTYPES
from frontrunner.parallelism.runtime.gpt.build import LanguageModel, UnitPlan, plan_units
from frontrunner.parallelism.runtime.process_groups import ProcessGroups, ShardGroups
from frontrunner.parallelism.runtime.sharding.parameters import Parameter, describe, initial_values
from frontrunner.parallelism.runtime.sharding.reduction import Reducer
from frontrunner.parallelism.runtime.sharding.shard_unit import ALIGNMENT, ShardUnit
from frontrunner.parallelism.runtime.sharding.weights import Gatherer
from frontrunner.parallelism.runtime.streams import Streams
from frontrunner.parallelism.runtime.transport import Transport
from frontrunner.parallelism.runtime.wire.formats import wire_format


class Chunk:
    """The shard units of a model chunk in order of use, and the progress of its backward."""

    def __init__(self, units: list[ShardUnit], accumulation: int) -> None:
        self.reduction_order = units[::-1]
        # Units as modules use them, those of a layer together; False: the backward does not use them.
        self.visits: list[tuple[list[ShardUnit], bool]] = []
        self.accumulation = accumulation
        self.micro_batch = 0
        self._restart()

    def end_backward(self) -> None:
        self.micro_batch = (self.micro_batch + 1) % self.accumulation
        self._restart()

    def _restart(self) -> None:
        self.missing = {unit: set(unit.parameters) for unit in self.reduction_order}
        self.reduced = 0
        self.running = False


class ShardingEngine:
    """Holds the sharded state of one rank's chunks; :class:`ShardUnit` says what is where."""

    def __init__(
        self,
        spec: RunSpec,
        chunks: list[LanguageModel],
        groups: ProcessGroups,
        transport: Transport,
        device: torch.device,
        streams: Streams,
    ) -> None:
        self.spec = spec
        self.groups = groups
        self.transport = transport
        self.device = device
        self.gatherer = Gatherer(transport, streams)
        wires = spec.layout.sharding.wires(spec.training.precision)
        block, network = (wire_format(name, wires.block) for name in (wires.gradients, wires.network))
        # Weights that are not cut are used as they are kept.
        self.whole_wire = wire_format(spec.training.precision, wires.block)
        self.weight_wire = self.whole_wire
        if groups.layout.weights > 1:
            self.weight_wire = wire_format(wires.weights, wires.block)
        quantised = any(wire.name.startswith("int") for wire in (self.weight_wire, block, network))
        self.alignment = wires.block if quantised else ALIGNMENT
        self.reducer = Reducer(groups, transport, streams, DTYPES[spec.training.precision], block, network)
        self.units: list[ShardUnit] = []
        self.held: list[ShardUnit] = []  # gathered or in flight: the one in use and the next
        for model in chunks:
            self._install(model)

    def begin_step(self) -> None:
        """Forget the last step's gradients."""
        torch._foreach_zero_([unit.gradients for unit in self.units])

    def finish_gradients(self) -> None:
        """Wait for the reductions after the last micro-batch."""
        self.release()
        self.reducer.join()
        self.reducer.across_tensor_ranks(self.units)

    def gather_updated(self) -> None:
        """Start updating each weight shard after the optimizer step."""
        for unit in self.units:
            self.gatherer.update(unit)

    def release(self) -> None:
        """Free the gathered weights that are still held."""
        for unit in self.held:
            self.gatherer.finish(unit)
            self.gatherer.free(unit)
        self.held = []

    def _install(self, model: LanguageModel) -> None:
        """Create a chunk's shard units, put their views into its modules and hook the modules."""
        described = describe(model, self.spec.model, self.groups, self.spec.layout.sequence_parallel)
        made = [(plan, self._make_all(plan, described)) for plan in plan_units(model)]
        units = [unit for _, group in made for unit in group]
        chunk = Chunk(units, self.spec.grad_accum_steps)
        uses = [(module, group, plan) for plan, group in made for module in plan.modules]
        order = {id(module): index for index, module in enumerate(model.modules())}
        for module, group, plan in sorted(uses, key=lambda use: order[id(use[0])]):
            self._hook(module, group, plan, chunk)
        for unit in units:
            for key in unit.parameters:
                path, _, leaf = key.rpartition(".")
                parameter = torch.nn.Parameter(unit.view(key))
                model.get_submodule(path).register_parameter(leaf, parameter)
                parameter.register_post_accumulate_grad_hook(
                    lambda p, unit=unit, key=key: self._collect(unit, key, p, chunk)
                )
            unit.fill(lambda parameter: initial_values(parameter, self.spec.training.seed))
            unit.free()
        self.units += units

    def _make_all(self, plan: UnitPlan, described: dict[str, Parameter]) -> list[ShardUnit]:
        """The unit of a plan, and that of its experts if it has some."""
        groups: ShardGroups = self.groups
        parts = [(plan.name, plan.parameters, groups)]
        if plan.experts:
            parts.append((f"{plan.name}'s experts", plan.experts, self.groups.experts))
        return [self._make(name, {key: described[key] for key in keys}, of) for name, keys, of in parts]

    def _make(self, name: str, parameters: dict[str, Parameter], groups: ShardGroups) -> ShardUnit:
        precision, sharding = self.spec.training, self.spec.layout.sharding
        layout = groups.layout
        unit = ShardUnit(
            name,
            parameters,
            groups,
            self.device,
            DTYPES[precision.precision],
            DTYPES[precision.gradient_dtype],
            self.weight_wire if layout.weights > 1 else self.whole_wire,
            self.alignment,
        )
        if layout.secondary < layout.weights:
            rows = layout.optimizer // layout.secondary
            unit.secondary = torch.zeros(rows, unit.rows.size(1), dtype=torch.uint8, device=self.device)
        if sharding.wires(precision.precision).error_feedback and layout.gradients > 1:
            unit.residual = torch.zeros(
                unit.geometry.padded, dtype=DTYPES[precision.precision], device=self.device
            )
        return unit

    def _hook(self, module: torch.nn.Module, units: list[ShardUnit], plan: UnitPlan, chunk: Chunk) -> None:
        lookup = module in plan.lookups
        if not chunk.visits or chunk.visits[-1][0] is not units:
            chunk.visits.append((units, not lookup))
        else:
            chunk.visits[-1] = (units, chunk.visits[-1][1] or not lookup)
        visit = len(chunk.visits) - 1

        def enter(*_: Any) -> None:
            self._enter(chunk, visit, backward=False)

        def enter_backward(_gradient: torch.Tensor) -> None:
            self._enter(chunk, visit, backward=True)

        def after_forward(_module: Any, _args: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if tensor.requires_grad:
                tensor.register_hook(enter_backward)

        module.register_forward_pre_hook(enter)
        if not lookup:
            module.register_forward_hook(after_forward)

    def _enter(self, chunk: Chunk, visit: int, backward: bool) -> None:
        """Before a module runs: gather its units, start gathering the next ones, and free all others."""
        units, _ = chunk.visits[visit]
        self.reducer.advance()
        self.gatherer.advance()
        following = visit - 1 if backward else visit + 1
        coming = list(units)
        if 0 <= following < len(chunk.visits) and (chunk.visits[following][1] or not backward):
            coming += chunk.visits[following][0]
        if coming == self.held:
            return
        for other in self.held:
            if other not in coming:
                self.gatherer.finish(other)
                self.gatherer.free(other)
        self.held = coming
        for each in coming:
            self.gatherer.start(each, backward)
        for unit in units:
            self.gatherer.finish(unit)

    def _collect(self, unit: ShardUnit, key: str, parameter: torch.nn.Parameter, chunk: Chunk) -> None:
        """Called when autograd has finished one parameter's gradient for this micro-batch."""
        if not chunk.running:
            chunk.running = True
            torch.autograd.Variable._execution_engine.queue_callback(lambda: self._finish_backward(chunk))
        assert parameter.grad is not None
        self.reducer.collect(unit, key, parameter.grad)
        parameter.grad = None
        chunk.missing[unit].discard(key)
        self._reduce(chunk, only_complete=True)

    def _finish_backward(self, chunk: Chunk) -> None:
        """At the end of a chunk's backward, reduce units in which a parameter got no gradient."""
        self._reduce(chunk, only_complete=False)
        chunk.end_backward()

    def _reduce(self, chunk: Chunk, only_complete: bool) -> None:
        last = chunk.micro_batch == chunk.accumulation - 1
        for unit in chunk.reduction_order[chunk.reduced :]:
            if only_complete and chunk.missing[unit]:
                return
            self.reducer.within_block(unit, last)
            chunk.reduced += 1
