"""The sharding engine: gathers weights before use and reduces gradients after it, on any degrees.

Hooks on a built model do everything; the model's code knows nothing of sharding. In the forward and the
backward a unit's weights are gathered when a module that needs them is entered and freed when another
unit is. Gradients are collected as autograd finishes each parameter. Reductions are issued in one fixed
order of units (the reverse of first use), so that ranks agree on it even if a parameter got no gradient.
"""

from __future__ import annotations

from typing import Any

import torch

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.runtime.device import DTYPES
from frontrunner.parallelism.runtime.gpt.build import LanguageModel, UnitPlan, plan_units
from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.sharding.parameters import describe, initial_values
from frontrunner.parallelism.runtime.sharding.reduction import Reducer
from frontrunner.parallelism.runtime.sharding.unit import Unit
from frontrunner.parallelism.runtime.transport import Transport


class ChunkBackward:
    """Progress of one chunk's backward: which parameters have their gradient, which units are reduced."""

    def __init__(self, units: list[Unit]) -> None:
        self.order = units[::-1]
        self.restart()

    def restart(self) -> None:
        self.missing = {unit: set(unit.parameters) for unit in self.order}
        self.next = 0
        self.running = False


class ShardingEngine:
    """Holds the sharded state of one rank's chunks; see :class:`Unit` for what is where."""

    def __init__(
        self,
        spec: RunSpec,
        chunks: list[LanguageModel],
        groups: ProcessGroups,
        transport: Transport,
        device: torch.device,
    ) -> None:
        self.groups = groups
        self.transport = transport
        self.reducer = Reducer(groups, transport, DTYPES[spec.training.precision])
        self.units: list[Unit] = []
        self.active: Unit | None = None
        for chunk in chunks:
            described = describe(chunk, spec.model, groups, spec.layout.sequence_parallel)
            plans = plan_units(chunk)
            units = [
                Unit(
                    plan.name,
                    {key: described[key] for key in plan.parameters},
                    groups.layout,
                    groups.position,
                    device,
                    DTYPES[spec.training.precision],
                    DTYPES[spec.training.gradient_dtype],
                )
                for plan in plans
            ]
            progress = ChunkBackward(units)
            for unit, plan in zip(units, plans, strict=True):
                self._install(chunk, unit, plan, progress)
                unit.fill(lambda parameter: initial_values(parameter, spec.training.seed))
                unit.free()
            self.units += units

    def begin_step(self) -> None:
        """Forget the last step's gradients."""
        for unit in self.units:
            unit.gradients.zero_()

    def finish_gradients(self) -> None:
        """After the last micro-batch: reduce what crosses the network once per step."""
        self.release()
        for unit in self.units:
            self.reducer.across_network(unit)
        self.reducer.across_tensor_ranks(self.units)

    def gather_updated(self) -> None:
        """After the optimizer: bring each weight shard up to date."""
        for unit in self.units:
            self._gather_update(unit)

    def release(self) -> None:
        """Free the gathered weights that are still held."""
        if self.active is not None:
            self.active.free()
            self.active = None

    def _install(self, chunk: LanguageModel, unit: Unit, plan: UnitPlan, progress: ChunkBackward) -> None:
        """Put the unit's views into the chunk's modules and hook the modules that use them."""
        for key in plan.parameters:
            path, _, leaf = key.rpartition(".")
            parameter = torch.nn.Parameter(unit.view(key))
            chunk.get_submodule(path).register_parameter(leaf, parameter)
            parameter.register_post_accumulate_grad_hook(
                lambda p, unit=unit, key=key: self._collect(unit, key, p, progress)
            )
        for module in plan.modules:
            module.register_forward_pre_hook(lambda *_, unit=unit: self._enter(unit))
            if module not in plan.lookups:
                module.register_forward_hook(
                    lambda _module, _args, output, unit=unit: self._hook_backward(unit, output)
                )

    def _hook_backward(self, unit: Unit, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        if tensor.requires_grad:
            tensor.register_hook(lambda _gradient: self._enter(unit))

    def _enter(self, unit: Unit) -> None:
        """A module of ``unit`` is about to run, forward or backward."""
        if self.active is unit:
            return
        self.release()
        self.active = unit
        if not unit.gathered:
            unit.allocate()
            self.transport.all_gather(unit.full, unit.weights, self.groups.weights)
            unit.gathered = True

    def _collect(self, unit: Unit, key: str, parameter: torch.nn.Parameter, progress: ChunkBackward) -> None:
        """Autograd has finished the gradient of one parameter for this micro-batch."""
        if not progress.running:
            progress.running = True
            torch.autograd.Variable._execution_engine.queue_callback(lambda: self._finish_backward(progress))
        assert parameter.grad is not None
        self.reducer.collect(unit, key, parameter.grad)
        parameter.grad = None
        progress.missing[unit].discard(key)
        self._reduce_complete(progress)

    def _reduce_complete(self, progress: ChunkBackward) -> None:
        while progress.next < len(progress.order) and not progress.missing[progress.order[progress.next]]:
            self.reducer.within_block(progress.order[progress.next])
            progress.next += 1

    def _finish_backward(self, progress: ChunkBackward) -> None:
        """The end of a chunk's backward: units in which a parameter got no gradient are reduced now."""
        for unit in progress.order[progress.next :]:
            self.reducer.within_block(unit)
        progress.restart()

    @torch.no_grad()
    def _gather_update(self, unit: Unit) -> None:
        geometry = unit.geometry
        own = unit.own(unit.weights, geometry.weights)
        if own.data_ptr() != unit.master.data_ptr():
            own.copy_(unit.master)
        start, end = (edge - geometry.weights.start for edge in geometry.gradients)
        gradient_part = unit.weights[start:end]
        if self.groups.network_hop.size() > 1:
            self.transport.all_gather(gradient_part, own.clone(), self.groups.network_hop)
        if self.groups.node_hop.size() > 1:
            self.transport.all_gather(unit.weights, gradient_part.clone(), self.groups.node_hop)
