"""Models of transformers, from a directory or from scratch, as the engine runs them: outputs at chosen positions."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from data.errors import UserError
from rlhf.interfaces import ModelBuild
from rlhf.ops.logprobs import selected_logprobs, selected_logprobs_and_entropy

# Near zero, so that an untrained critic or reward model says next to nothing; not zero, which would stop the gradient.
HEAD_STD = 1e-3
# Fields that transformers' configs take and turn into others.
CONVERTED_FIELDS = {"rope_theta", "rope_scaling"}


class LogprobHead(nn.Module):
    """Takes the place and the parameters of a model's output layer, and gives log-probs of chosen tokens, not logits.

    A module of its own, since ZeRO 3 gathers a module's parameters around its call, forward and backward.
    """

    def __init__(self, output_layer: nn.Linear) -> None:
        super().__init__()
        self.weight = output_layer.weight
        self.register_parameter("bias", output_layer.bias)

    def forward(self, hidden: Tensor, targets: Tensor, temperature: float, with_entropy: bool) -> Tensor:
        """(N, D), (N,) -> (N,) fp32, or with entropy (2, N)."""
        if with_entropy:
            return torch.stack(selected_logprobs_and_entropy(hidden, self.weight, targets, temperature, bias=self.bias))
        return selected_logprobs(hidden, self.weight, targets, temperature, bias=self.bias)


class EngineModel(nn.Module):
    """A transformers model that answers for chosen positions of packed rows.

    model: the transformers model itself; its parameters keep their names.
    packing: whether documents may share a row, that is, whether the architecture keeps them apart.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._positions_known = "position_ids" in inspect.signature(model.base_model.forward).parameters
        self.packing = self._positions_known and self._separates_documents()
        if not is_scalar(model):
            _check_output_layer(model)
            model.set_output_embeddings(LogprobHead(model.get_output_embeddings()))

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        places: Tensor,
        targets: Tensor | None,
        temperature: float,
        with_entropy: bool = False,
    ) -> Tensor:
        """tokens and positions (R, L), of which transformers makes the mask: a position that does not follow its left
        neighbour's begins a document. places (N,): indices into the flattened rows.

        (N,) fp32: log-probs of `targets` (N,) after those places, or without targets the scalar head's outputs there.
        With entropy (2, N): the log-probs, and the entropies of the distributions that the targets are drawn from.
        """
        hidden = self._hidden(tokens, positions).flatten(0, 1)[places]
        if targets is None:
            return self.model.score(hidden).squeeze(-1).float()
        return self.model.get_output_embeddings()(hidden, targets, temperature, with_entropy)

    def _hidden(self, tokens: Tensor, positions: Tensor) -> Tensor:
        # use_cache=False and no 2-D mask: with either, transformers lets packed documents see each other, silently
        place = {"position_ids": positions} if self._positions_known else {}
        return self.model.base_model(input_ids=tokens, use_cache=False, **place).last_hidden_state

    @torch.no_grad()
    def _separates_documents(self) -> bool:
        """Whether a document's states stay the same, bit for bit, when the document before it in the row changes."""
        training = self.model.training
        self.model.eval()
        positions = torch.tensor([[0, 1, 0, 1]])
        first, second = (self._hidden(torch.tensor([[before, 1, 2, 3]]), positions)[:, 2:] for before in (1, 4))
        self.model.train(training)
        return torch.equal(first, second)


def is_scalar(model: PreTrainedModel) -> bool:
    """Whether the model has a scalar head instead of an output layer over the vocabulary."""
    return hasattr(model, "score")


def build_model(build: ModelBuild, dtype: torch.dtype) -> EngineModel:
    """The role's model on the CPU, the same on every rank.

    Raises UserError where the path does not load, lacks weights, or the architecture is unknown or cannot be trained
    here.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.manual_seed(build.seed)
    model = _load(build, dtype) if build.path is not None else _create(build, dtype)
    if build.head == "scalar":
        if not is_scalar(model):
            raise UserError(
                f"models.{build.role}: {type(model).__name__} has no scalar head `score`; take another architecture"
            )
        if model.config.pad_token_id is None:
            # transformers finds a row's last token by its padding; batches are padded with 0
            model.config.pad_token_id = 0
    if build.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return EngineModel(model)


def _load(build: ModelBuild, dtype: torch.dtype) -> PreTrainedModel:
    options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True}
    if build.head == "scalar":
        options["num_labels"] = 1
    auto = AutoModelForSequenceClassification if build.head == "scalar" else AutoModelForCausalLM
    try:
        model, report = auto.from_pretrained(build.path, **options)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"models.{build.role}.path: cannot load {build.path!r} ({reason}); give a directory that transformers loads"
        ) from error
    missing = set(report["missing_keys"])
    if build.head == "scalar" and "score.weight" in missing:
        missing.remove("score.weight")
        _start_near_zero(model)
    if missing:
        raise UserError(
            f"models.{build.role}.path: {build.path!r} lacks {len(missing)} weights of {type(model).__name__}, such as "
            f"{min(missing)}; give a model with a {build.head} head, or one that it can start from"
        )
    return model


def _create(build: ModelBuild, dtype: torch.dtype) -> PreTrainedModel:
    if build.architecture is None:
        raise UserError(f"models.{build.role}: give either `path` or `architecture`")
    config = _config(build.architecture, f"models.{build.role}.architecture")
    if build.head == "scalar":
        config.num_labels = 1
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        _start_near_zero(model)
    else:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.to(dtype)


def _config(architecture: Mapping[str, Any], where: str) -> PretrainedConfig:
    """transformers' config with these fields; a `model_type` of llama if none is given."""
    fields = dict(architecture)
    model_type = fields.pop("model_type", "llama")
    if model_type not in CONFIG_MAPPING:
        near = difflib.get_close_matches(model_type, list(CONFIG_MAPPING.keys()), 1)
        raise UserError(f"{where}.model_type: {model_type!r} is unknown; nearest: {', '.join(near) or 'none'}")
    config_class = CONFIG_MAPPING[model_type]
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    for name in fields:
        if name not in known | CONVERTED_FIELDS:
            near = difflib.get_close_matches(name, known, 1)
            raise UserError(f"{where}.{name}: {model_type} has no such field; nearest: {', '.join(near) or 'none'}")
    try:
        return AutoConfig.for_model(model_type, **fields)
    except StrictDataclassError as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from error


def _start_near_zero(model: PreTrainedModel) -> None:
    if is_scalar(model):  # where it is not, build_model says so
        nn.init.normal_(model.score.weight, std=HEAD_STD)


@torch.no_grad()
def _check_output_layer(model: PreTrainedModel) -> None:
    """Raises UserError where logits are not the output layer's plain product, as with soft-capped or scaled logits."""
    training = model.training
    model.eval()
    tokens = torch.tensor([[1, 2, 3]])
    hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    plain = torch.equal(model.get_output_embeddings()(hidden), model(input_ids=tokens, use_cache=False).logits)
    model.train(training)
    if not plain:
        raise UserError(
            f"{type(model).__name__} changes its logits after the output layer (soft cap or scale), which this engine "
            "does not; take another architecture"
        )
