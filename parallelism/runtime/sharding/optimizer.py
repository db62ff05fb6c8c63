"""AdamW on the optimizer shards, clipping by the global norm, dynamic loss scaling."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.learning_rate import learning_rate
from frontrunner.parallelism.runtime import ranges
from frontrunner.parallelism.runtime.rank_trainer import StepResult
from frontrunner.parallelism.runtime.sharding.engine import ShardingEngine
from frontrunner.parallelism.trace_events import OPTIMIZER


class LossScale:
    """Dynamic loss scale for float16: halved if a step overflows, doubled after ``interval`` good steps.

    (Micikevicius et al. 2018; the constants are those of torch.amp.GradScaler.)
    """

    def __init__(self, enabled: bool, initial: float = 2.0**16, interval: int = 2000) -> None:
        self.enabled = enabled
        self.value = initial if enabled else 1.0
        self.interval = interval
        self.good_steps = 0

    def update(self, overflow: bool) -> None:
        if not self.enabled:
            return
        self.good_steps = 0 if overflow else self.good_steps + 1
        if overflow:
            self.value = max(1.0, self.value / 2)
        elif self.good_steps == self.interval:
            self.value *= 2
            self.good_steps = 0


class ShardedAdamW:
    """torch's fused AdamW over this rank's optimizer shards; moments are float32.

    Weight decay applies to matrices, not to vectors (norms and biases).
    """

    def __init__(self, spec: RunSpec, engine: ShardingEngine) -> None:
        self.spec = spec
        self.engine = engine
        self.loss_scale = LossScale(spec.training.precision == "float16")
        self.updates = 0  # steps that were not skipped
        # Moments of all units lie one after the other, those of experts last: a check reads many at once.
        order = sorted(engine.units, key=lambda unit: unit.groups is not engine.groups)
        sizes = [unit.master.numel() for unit in order]
        dense = sum(unit.master.numel() for unit in order if unit.groups is engine.groups)
        flat = [torch.zeros(sum(sizes), device=engine.device) for _ in range(2)]
        #: First and second moments of what is no expert, and of experts.
        self.moments_of_parts = [[m[:dense] for m in flat], [m[dense:] for m in flat]]
        found = dict(zip(order, zip(*(m.split(sizes) for m in flat), strict=True), strict=True))
        self.moments = [found[unit] for unit in engine.units]
        self._pieces: list[tuple[int, slice, torch.Tensor]] = []
        groups = []
        for decay in (True, False):
            views = []
            for index, unit in enumerate(engine.units):
                for run in unit.runs(lambda parameter, decay=decay: parameter.decay == decay):  # type: ignore[misc]
                    views.append(unit.master[run])
                    self._pieces.append((index, run, views[-1]))
            if views:
                groups.append(
                    {"params": views, "weight_decay": spec.optimizer.weight_decay if decay else 0.0}
                )
        self.adamw = (
            torch.optim.AdamW(groups, betas=spec.optimizer.betas, eps=spec.optimizer.epsilon, fused=True)
            if groups
            else None
        )
        for index, run, view in self._pieces:
            assert self.adamw is not None
            first, second = self.moments[index]
            self.adamw.state[view] = {
                "step": torch.zeros((), device=view.device),
                "exp_avg": first[run],
                "exp_avg_sq": second[run],
            }

    @torch.no_grad()
    def step(self, number: int, loss: torch.Tensor, updated: Callable[[], None] = lambda: None) -> StepResult:
        """Update the weights with the reduced gradients of step ``number`` (from 0); collective.

        ``updated`` is called between the update and the start of sending it to other ranks. The step is
        skipped on every rank if a gradient or any rank's ``loss`` is not finite.
        """
        with ranges.part(OPTIMIZER):
            return self._step(number, loss, updated)

    def _step(self, number: int, loss: torch.Tensor, updated: Callable[[], None]) -> StepResult:
        owned = [unit.own_gradients.float() for unit in self.engine.units]
        average = 1.0 / (self.engine.groups.layout.data * self.loss_scale.value)
        norm = self._norm(owned, loss) * average
        skipped = not math.isfinite(norm)
        self.loss_scale.update(skipped)
        if not skipped:
            clip = self.spec.optimizer.clip
            factor = average * (clip / norm if 0 < clip < norm else 1.0)
            torch._foreach_mul_(owned, factor)
            if self.adamw is not None:
                for index, run, view in self._pieces:
                    view.grad = owned[index][run]
                rate = learning_rate(self.spec.optimizer, number, self.spec.training.steps)
                for group in self.adamw.param_groups:
                    group["lr"] = rate
                self.adamw.step()
                self.adamw.zero_grad(set_to_none=True)
            self.updates += 1
            updated()
            self.engine.gather_updated()
        return StepResult(norm, skipped)

    def restored(self, updates: int) -> None:
        """Continue from master weights and moments that were loaded after ``updates`` updates."""
        self.updates = updates
        if self.adamw is not None:
            for _, _, view in self._pieces:
                self.adamw.state[view]["step"].fill_(updates)
        self.engine.gather_updated()
        self.engine.gatherer.join()

    def bytes_held(self) -> dict[str, int]:
        """Bytes of each kind of state that this rank keeps between steps."""
        held = dict.fromkeys(("weights", "gradients", "optimizer", "secondary", "error_feedback"), 0)
        for unit, moments in zip(self.engine.units, self.moments, strict=True):
            held["weights"] += unit.rows.nbytes
            held["secondary"] += unit.secondary.nbytes if unit.secondary is not None else 0
            held["error_feedback"] += unit.residual.nbytes if unit.residual is not None else 0
            held["gradients"] += unit.gradients.nbytes
            # A float32 run's master weights are its weights.
            master = 0 if unit.master._base is not None else unit.master.nbytes
            held["optimizer"] += master + sum(moment.nbytes for moment in moments)
        return held

    def _norm(self, owned: list[torch.Tensor], loss: torch.Tensor) -> float:
        """L2 norm of the summed gradient over all ranks, each element counted once; NaN if a loss is NaN."""
        groups = self.engine.groups
        squares = (loss.double() * 0).reshape(1)
        counted = [
            own[run]
            for unit, own in zip(self.engine.units, owned, strict=True)
            if unit.groups.position.replica == 0
            for run in unit.runs(lambda parameter: parameter.counted)
        ]
        if counted:
            squares += torch.stack(torch._foreach_norm(counted)).double().square().sum()
        self.engine.transport.all_reduce(squares, groups.world)
        return squares.sqrt().item()
