"""One rank of a role: computes outputs, trains, saves and hands out weights. DeepSpeed does the parallel part.

Objectives return sums. The engine alone divides, by the count of the objective's unit over all ranks and micro-batches,
so that the gradient does not depend on how rows are split and packed.
"""

from __future__ import annotations

import gc
import inspect
import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from data.batch import Batch
from data.errors import UserError
from rlhf.engine.assemble import assemble
from rlhf.engine.checkpoint import load_checkpoint, save_checkpoint
from rlhf.engine.device import Device
from rlhf.engine.grid import Grid, gradient_norm
from rlhf.engine.microbatch import count_of, split, units_of
from rlhf.engine.optim import grown_loss_scale, lr_at
from rlhf.engine.weights import NumpyWeight, WeightAverage, to_numpy
from rlhf.interfaces import ModelBuild, Objective, Output, Unit
from rlhf.skipped import failed


@dataclass(frozen=True)
class Term:
    """One loss of an optimizer step, on this replica's share of its rows. The step's first has no name and weighs 1."""

    batch: Batch
    objective: Objective
    temperature: float = 1.0
    weight: float = 1.0
    name: str = ""


@dataclass(frozen=True)
class Work:
    """What this rank has to do for a batch, and what all replicas have together."""

    microbatches: list[Batch]  # as many on every rank, the last ones may be empty
    rows: list[list[int]]  # of each, in the batch
    count: int  # of the objective's unit, over all replicas
    tokens: int  # real tokens, over all replicas


class Engine:
    """One rank's part of one role's model; `init_distributed` comes first, and every rank makes the same calls.

    `batch` is always this replica's share of the rows, on all of its ranks; it may be empty, but the rank must still call.
    """

    def __init__(self, build: ModelBuild, device: Device) -> None:
        self._build, self._device = build, device
        self._world = dist.get_world_size()
        self._grid = Grid(self._world, build.tensor_parallel, build.pipeline_parallel)
        self._scales_loss = build.optim is not None and device.dtype(build.dtype) == torch.float16
        model = assemble(build, device, self._grid)
        self._deepspeed, self._runner, self._weights = model.deepspeed, model.runner, model.weights
        self._stage, self._packing, self._parameters = model.stage, model.form.packing, model.parameters
        self._buckets: list[list[str]] = []
        self._average = WeightAverage(self._parameters, build.ema_decay) if build.ema_decay else None
        self._steps = 0
        place = self._grid.place(dist.get_rank())
        self.leads = place.stage == place.part == 0  # speaks for its replica, whose ranks know the same
        # replicas and stages drop out different units, the parts of one the same
        torch.manual_seed(build.seed + place.stage * self._grid.replicas + place.replica)

    @torch.no_grad()
    def forward(self, batch: Batch, output: Output, temperature: float = 1.0) -> Tensor:
        """This replica's rows in their order, fp32 in CPU memory: "logprobs" and "values" (b, T), 0 where action_mask is
        False; "scores" (b,). Entropies are there for `train` alone."""
        work = self._plan(batch)
        result = torch.zeros(len(batch) if output == "scores" else tuple(batch.tokens.shape))

        def keep(index: int, out: Tensor, router_loss: Tensor | None) -> None:
            rows = work.rows[index]
            if output == "scores":
                result[rows] = out.cpu()
            else:
                result[rows, : out.shape[-1]] = out.cpu()

        self._runner.train(False)
        self._runner.run(work.microbatches, output, temperature, keep)
        return self._runner.shared(result)

    def train(
        self, batch: Batch, objective: Objective, temperature: float = 1.0, beside: Term | None = None
    ) -> dict[str, float]:
        """One optimizer step. The same on every rank: "loss" and the objective's metrics over the global count, those of
        `beside` as name/…, "grad_norm" before clipping, "lr", "tokens" (real ones).

        Where the loss or the gradient is not finite the weights stay as they are and "skipped" is 1, else it is absent; see
        `rlhf.skipped`. In float16, "loss_scale" is that of the next step. Raises ValueError where no rank has anything to train
        on.
        """
        terms = [Term(batch, objective, temperature), *([beside] if beside else [])]
        works = [self._plan(term.batch, term.objective.unit) for term in terms]
        if works[0].count == 0:
            raise ValueError(f"{self._build.role}: the batch has no {objective.unit} to train on, on any rank")
        learning_rate = lr_at(self._steps + 1, self._build.optim)
        for group in self._deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        self._runner.train(True)
        metrics: dict[str, float] = {}
        for number, (term, work) in enumerate(zip(terms, works), start=1):
            sums: Counter[str] = Counter()
            last = not any(later.microbatches for later in works[number:])
            finish = partial(self._scaled_loss, term, work, sums)
            self._runner.learn(work.microbatches, term.objective.output, term.temperature, finish, last)
            prefix = f"{term.name}/" if term.name else ""
            metrics |= {f"{prefix}{name}": value / work.count for name, value in self._total(sums).items()}
        tokens = float(sum(work.tokens for work in works))
        metrics |= {"grad_norm": self._step(), "lr": learning_rate, "tokens": tokens}
        if self._scales_loss:
            metrics["loss_scale"] = grown_loss_scale(self._deepspeed.optimizer.loss_scaler)
        if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"])):
            metrics["skipped"] = 1.0
        elif self._average:
            self._average.update()
        # a gradient that a smaller scale would have held takes its step of the schedule; one that no scale holds never was
        self._steps += not failed(metrics)
        return metrics

    @torch.no_grad()
    def evaluate(self, batch: Batch, objective: Objective) -> tuple[dict[str, float], int]:
        """(sums of "loss" and the objective's metrics, count of its unit), over all replicas."""
        work = self._plan(batch, objective.unit)
        sums: Counter[str] = Counter()

        def add(index: int, out: Tensor, router_loss: Tensor | None) -> None:
            sums.update(self._loss(work.microbatches[index], objective, out, router_loss)[1])

        self._runner.train(False)
        self._runner.run(work.microbatches, objective.output, 1.0, add)
        return self._total(sums), work.count

    def save(self, directory: Path) -> None:
        """Writes a checkpoint into a fresh directory: weights, optimizer, steps, random generators. A model that is not
        trained has no state beyond its path and writes nothing."""
        if self._build.optim is not None:
            save_checkpoint(self._deepspeed, directory, self._device, self._layout(), self._steps, self._average)

    def load(self, directory: Path) -> None:
        """Continues, bit for bit, where `save` left off. Raises UserError where ranks, stage or dtype are others."""
        if self._build.optim is not None:
            self._steps = load_checkpoint(self._deepspeed, directory, self._device, self._layout(), self._average)

    def use_average(self) -> None:
        """Puts the average of the weights in their place, for evaluation and export."""
        self._average.put_in_place()

    def export(self, directory: Path) -> None:
        """Rank 0 writes a directory that transformers and vLLM load: config.json and safetensors."""
        self._weights.export(directory)

    def weight_plan(self, bucket_bytes: int) -> int:
        """Plans buckets of at most `bucket_bytes` (a larger tensor has its own) and returns how many there are."""
        self._buckets = self._weights.buckets(bucket_bytes)
        return len(self._buckets)

    def weight_bucket(self, index: int) -> list[NumpyWeight] | None:
        """Rank 0: (name in transformers, dtype, array) of each weight in a bucket of the plan, bfloat16 as uint16; tied
        weights once. The other ranks: None, but they must call."""
        weights = self._weights.read(self._buckets[index])
        return None if weights is None else [to_numpy(name, weight) for name, weight in weights]

    def close(self) -> None:
        """Frees the model; another Engine may then be built in this process."""
        if self._deepspeed is not None:
            self._deepspeed.destroy()
            _drop_zero3_references()
        del self._deepspeed, self._runner, self._weights, self._average, self._parameters
        gc.collect()
        self._device.free_memory()

    def _plan(self, batch: Batch, unit: Unit = "rows") -> Work:
        """Raises UserError where rows that must stay together are over the micro-batch's token budget."""
        lengths = batch.lengths.tolist()
        try:
            rows = split(lengths, units_of(batch, unit), self._build.microbatch_tokens, self._packing)
        except ValueError as error:
            advice = f"raise models.{self._build.role}.microbatch_tokens or lower max_length"
            raise UserError(f"{error}; {advice}") from error
        mine = torch.tensor([count_of(batch, unit), sum(lengths), len(rows)], device=self._device.torch_device)
        ranks = [torch.empty_like(mine) for _ in range(self._world)]
        dist.all_gather(ranks, mine)
        counts, tokens, planned = torch.stack([ranks[leader] for leader in self._grid.leaders()]).T.tolist()
        rows += [[]] * (max(planned) - len(rows))
        return Work([batch.select(chosen) for chosen in rows], rows, sum(counts), sum(tokens))

    def _scaled_loss(
        self, term: Term, work: Work, sums: Counter[str], index: int, out: Tensor, router_loss: Tensor | None
    ) -> Tensor:
        loss, found = self._loss(work.microbatches[index], term.objective, out, router_loss)
        sums.update(found)
        # DeepSpeed averages over replicas. A loss that is not finite must spoil the gradient, whatever its derivative: DeepSpeed
        # then sees the norm and leaves the weights alone, on all ranks.
        return loss * (self._grid.replicas * term.weight / max(work.count, 1) if torch.isfinite(loss) else math.nan)

    def _loss(
        self, microbatch: Batch, objective: Objective, out: Tensor, router_loss: Tensor | None
    ) -> tuple[Tensor, dict[str, float]]:
        """The micro-batch's loss sum with its graph, and all sums as plain numbers."""
        if len(microbatch) == 0:
            return out.sum(), {}
        loss, metrics = objective(out, _to(microbatch, self._device))
        if router_loss is not None:  # a mean: micro-batches weigh by what they count
            router_loss = router_loss * count_of(microbatch, objective.unit)
            loss, metrics = loss + router_loss, {**metrics, "router_loss": router_loss}
        return loss, {name: float(value.detach()) for name, value in {"loss": loss, **metrics}.items()}

    def _step(self) -> float:
        """Clips, steps, and returns the norm of the gradient before clipping; does not step where it is not finite."""
        if self._stage > 0:
            self._runner.step()
            return float(self._deepspeed.get_global_grad_norm())
        # stage 0 neither tells the norm nor minds what it is, and of a pipeline it would take the first stage's for the whole
        norm = gradient_norm(self._parameters, self._grid)
        if math.isfinite(norm):
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._build.optim.clip_norm, torch.tensor(norm))
            self._runner.step()
        else:
            self._deepspeed.zero_grad()
        return norm

    def _total(self, sums: Counter[str]) -> dict[str, float]:
        """Sums over all replicas; by name, for a rank without rows does not know the objective's metrics."""
        ranks: list[dict[str, float]] = [{}] * self._world
        dist.all_gather_object(ranks, dict(sums))
        total: Counter[str] = Counter()
        for leader in self._grid.leaders(self._grid.stages - 1):  # the last stage has the outputs
            total.update(ranks[leader])
        return dict(total)

    def _layout(self) -> dict[str, int | str]:
        return {
            "ranks": self._world,
            "tensor_parallel": self._grid.parts,
            "pipeline_parallel": self._grid.stages,
            "zero_stage": self._stage,
            "dtype": str(self._device.dtype(self._build.dtype)),
        }


def _to(batch: Batch, device: Device) -> Batch:
    return Batch({name: column.to(device.torch_device) for name, column in batch.columns.items()}, batch.meta)


def _drop_zero3_references() -> None:
    """ZeRO 3 of DeepSpeed 0.19 never lets go of a model: it stays in a stack of modules and in the keys of a cache."""
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    FWD_MODULE_STACK.clear()
    instrumented = PartitionedParameterCoordinator._PartitionedParameterCoordinator__params_to_release
    inspect.getclosurevars(instrumented).nonlocals["func"].cache_clear()
