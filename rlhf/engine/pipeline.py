"""Pipeline parallel: a decoder's layers are cut into stages, and DeepSpeed's pipeline engine runs micro-batches through them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data.batch import Batch
from data.errors import UserError
from rlhf.engine.grid import UNCUT, Grid, Place, topology
from rlhf.engine.inputs import in_rows, inputs_of
from rlhf.engine.models import EngineModel
from rlhf.engine.runner import Finish
from rlhf.interfaces import Output

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# activations travel whole: DeepSpeed would cut them over the parts of a matrix, and takes no integers beside them then
CONFIG = {"pipeline": {"pipe_partitioned": False, "grad_partitioned": False}}


class Stage(nn.Module):
    """The model's own body with some of its layers: the first stage embeds tokens, the last one holds norm and head.

    A copy of the body whose modules are the body's own; its config says how many layers it has.
    """

    def __init__(self, model: PreTrainedModel, number: int, stages: int) -> None:
        super().__init__()
        body = copy.copy(model.base_model)
        body._modules = dict(body._modules)
        body.config = copy.deepcopy(body.config)
        mine = layers_of(len(body.layers), number, stages)
        body.layers = body.layers[mine.start : mine.stop]
        body.config.num_hidden_layers = len(mine)
        if getattr(body.config, "layer_types", None):
            body.config.layer_types = body.config.layer_types[mine.start : mine.stop]
        self.first, self.last = number == 0, number == stages - 1
        if not self.first:
            body.embed_tokens = None
        if not self.last:
            body.norm = nn.Identity()
        self.body = body
        self.head = (getattr(model, "score", None) or model.get_output_embeddings()) if self.last else None

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | Tensor:
        """((R, L) int64 tokens or (R, L, D) states, then what `_tensors` adds) -> the same with states; of the last stage the states
        alone."""
        given, *how = inputs
        places = {{2: "position_ids", 4: "attention_mask"}[tensor.ndim]: tensor for tensor in how}
        if "attention_mask" in places:
            places["attention_mask"] = places["attention_mask"].bool()
        given_as = "input_ids" if self.first else "inputs_embeds"
        states = self.body(**{given_as: given}, **places, use_cache=False).last_hidden_state
        return states if self.last else (states, *how)


def layers_of(layers: int, stage: int, stages: int) -> range:
    """The layers of one stage; stages have as many, or one apart."""
    return range(stage * layers // stages, (stage + 1) * layers // stages)


def cut_layers(model: EngineModel, grid: Grid, role: str) -> tuple[nn.Module, dict[str, int]]:
    """DeepSpeed's PipelineModule of this rank's stage, and {weight's name: stage that has it}. What other stages have leaves this
    rank's memory. A tied output layer is held twice, at both ends, and learns from the sum of both gradients.

    Raises UserError where the architecture cannot be cut.
    """
    from deepspeed.pipe import PipelineModule

    network = model.model
    _check_architecture(model, grid.stages, role)
    stages = [Stage(network, number, grid.stages) for number in range(grid.stages)]
    _check_same(network, stages, role)
    # by identity: a tied weight is named once, and the first stage has it
    owners = {id(weight): number for number in reversed(range(grid.stages)) for weight in stages[number].parameters()}
    names = {name: owners[id(weight)] for name, weight in network.named_parameters()}
    tied = [weight for weight in stages[-1].head.parameters() if owners[id(weight)] == 0]
    with redirect_stdout(StringIO()):  # it prints
        module = PipelineModule(stages, topology=topology(grid), partition_method="uniform", dynamic_shape=True)
    mine = stages[grid.place(dist.get_rank()).stage]
    kept = {id(weight) for weight in mine.parameters()}
    for part in list(network.modules()):
        for name, weight in list(part.named_parameters(recurse=False)):
            if id(weight) not in kept:
                setattr(part, name, nn.Parameter(weight.to("meta")))
    _tie(module, mine, tied, grid)
    return module, names


class Pipeline:
    """`Runner` of a cut model. Outputs are on the last stage's ranks alone, so `finish` is called there.

    engine: DeepSpeed's PipelineEngine. model: what was cut; its answers are those of the last stage's head.
    """

    def __init__(self, engine: Any, model: EngineModel, device: torch.device) -> None:
        self._engine, self._model, self._device = engine, model, device

    def train(self, mode: bool) -> None:
        self._engine.module.train(mode)

    def run(self, microbatches: Sequence[Batch], output: Output, temperature: float, finish: Finish) -> None:
        from deepspeed.runtime.pipe.schedule import InferenceSchedule

        def show(index: int, out: Tensor, router_loss: None) -> Tensor:
            finish(index, out, router_loss)
            return torch.zeros((), device=self._device)  # DeepSpeed adds them up

        self._execute(InferenceSchedule, microbatches, output, temperature, show)

    def learn(
        self, microbatches: Sequence[Batch], output: Output, temperature: float, finish: Finish, last: bool
    ) -> None:
        self._execute(_gradients_only(), microbatches, output, temperature, finish)
        if microbatches and last:
            self._engine._exec_reduce_tied_grads()
            self._engine._exec_reduce_grads()

    def step(self) -> None:
        self._engine._exec_optimizer_step()

    def shared(self, result: Tensor) -> Tensor:
        grid, result = self._engine.grid, result.to(self._device)
        dist.broadcast(result, grid.stage_to_global(grid.pipe_parallel_size - 1), group=grid.get_pipe_parallel_group())
        return result.cpu()

    def _execute(
        self, schedule: Any, microbatches: Sequence[Batch], output: Output, temperature: float, finish: Finish
    ) -> None:
        """One pass. As DeepSpeed's train_batch, whose number of micro-batches is fixed and which takes the optimizer's step."""
        if not microbatches:
            return
        engine = self._engine
        form = self._model.form

        def answer(states: Tensor, index: int) -> Tensor:
            microbatch = microbatches[index]
            places = inputs_of(microbatch, output, form).places.to(self._device)
            targets = (
                microbatch.tokens[microbatch.action_mask].to(self._device) if output.startswith("logprobs") else None
            )
            out = self._model.answer(states, places, targets, temperature, output)
            return finish(index, in_rows(out, microbatch, output), None)

        engine.module.loss_fn = answer
        engine.total_loss, engine._compute_loss = None, True
        # drawn when its turn comes, by the first stage for the tensors and by the last for the index
        first = engine.is_first_stage()
        turns = (
            (_tensors(inputs_of(one, output, form).arguments) if first else (), index)
            for index, one in enumerate(microbatches)
        )
        engine.set_dataiterator(turns)
        engine._exec_schedule(schedule(len(microbatches), engine.num_stages, engine.stage_id))
        engine.module.loss_fn = None


def _tensors(arguments: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """What goes from stage to stage: (R, L) int64 tokens, and where they are there (R, L) int64 positions and (R, 1, L, L) uint8 of
    who sees whom, for nccl sends no bool."""
    positions = [arguments["position_ids"]] if "position_ids" in arguments else []
    seen = [arguments["attention_mask"].to(torch.uint8)] if "attention_mask" in arguments else []
    return arguments["input_ids"], *positions, *seen


def _gradients_only() -> type:
    """DeepSpeed's schedule of a step (Harlap et al. 2018: one forward, one backward) without its end, which the engine has in its
    own hands: it may add another loss's gradients first, and looks at the norm before the step."""
    from deepspeed.runtime.pipe.schedule import OptimizerStep, ReduceGrads, ReduceTiedGrads, TrainSchedule

    class Gradients(TrainSchedule):
        def steps(self):
            for commands in super().steps():
                yield [
                    command
                    for command in commands
                    if not isinstance(command, OptimizerStep | ReduceGrads | ReduceTiedGrads)
                ]

    return Gradients


def _check_architecture(model: EngineModel, stages: int, role: str) -> None:
    where, network = f"models.{role}.pipeline_parallel", model.model
    body = network.base_model
    if model.form.kind != "decoder" or any(not hasattr(body, name) for name in ("layers", "embed_tokens", "norm")):
        raise UserError(f"{where}: the layers of {type(network).__name__} cannot be cut into stages; {UNCUT}")
    if getattr(network.config, "output_router_logits", False):
        raise UserError(f"{where}: the routers' loss of {type(network).__name__} needs all layers on one rank; {UNCUT}")
    if len(body.layers) < stages:
        raise UserError(f"{where}: {stages} stages, but the model has {len(body.layers)} layers; lower it")


@torch.no_grad()
def _check_same(model: PreTrainedModel, stages: Sequence[Stage], role: str) -> None:
    """The stages, one after the other, compute the model's states, bit for bit."""
    training = model.training
    model.eval()
    tokens, positions = torch.tensor([[[1, 2, 3, 4]], [[0, 1, 0, 1]]], device=model.device)
    wanted = model.base_model(input_ids=tokens, position_ids=positions, use_cache=False).last_hidden_state
    found: Any = (tokens, positions)
    for stage in stages:
        found = stage.eval()(found)
    model.train(training)
    for stage in stages:
        stage.train(training)
    if not torch.equal(found, wanted):
        raise UserError(
            f"models.{role}.pipeline_parallel: {type(model).__name__} computes something else when cut into stages; {UNCUT}"
        )


def _tie(module: Any, mine: Stage, tied: Sequence[nn.Parameter], grid: Grid) -> None:
    """Tells DeepSpeed which weights both ends have, and that the first end's count in the gradient's norm."""
    if not tied:
        return
    rank, groups = dist.get_rank(), {}
    for replica in range(grid.replicas):
        for part in range(grid.parts):
            ends = [grid.rank(Place(replica, stage, part)) for stage in (0, grid.stages - 1)]
            group = dist.new_group(ends)
            groups |= dict.fromkeys(ends, group)
    if rank in groups:
        module.get_tied_weights_and_groups = lambda: [(weight, groups[rank]) for weight in tied]
    if mine.last:
        for weight in tied:
            weight.ds_pipe_replicated = True
