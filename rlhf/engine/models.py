"""Models of transformers as the engine runs them: outputs at chosen positions only. `build_model` makes them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from data.errors import UserError
from rlhf.engine.inputs import Form, Kind
from rlhf.interfaces import Output
from rlhf.ops.logprobs import selected_logprobs, selected_logprobs_and_entropy, selected_logprobs_and_normalizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# By architecture: finding out costs a dozen forward passes of the whole model, and one process builds a model in each phase.
_FORMS: dict[str, Form] = {}


class EngineModel(nn.Module):
    """A transformers model that computes outputs at chosen positions of its input.

    model: the transformers model itself; its parameters keep their names.
    form: how its inputs are laid out.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Raises UserError where the model changes its logits after the output layer."""
        super().__init__()
        self.model = model
        self._positions_known = "position_ids" in inspect.signature(model.base_model.forward).parameters
        self._routes = bool(getattr(model.config, "output_router_logits", False))
        kind = kind_of(model)
        decodes = kind == "decoder"
        self._no_cache = {} if kind == "encoder" else {"use_cache": False}
        self._head_has_layers = not decodes
        architecture = architecture_of(model)
        known = _FORMS.get(architecture)
        if not is_scalar(model):
            if known is None:
                self._expect_plain_logits(kind)
            self._replace_output_layer()
        self.form = known or Form(
            kind=kind,
            packing=decodes and self._positions_known and self._separates_documents(),
            prefixes=decodes and self._takes_masks(),
            start_token=getattr(model.config, "decoder_start_token_id", None) or 0,
        )
        _FORMS[architecture] = self.form

    def forward(
        self,
        arguments: Mapping[str, Tensor],
        places: Tensor,
        targets: Tensor | None,
        temperature: float,
        output: Output = "logprobs",
    ) -> tuple[Tensor, Tensor | None]:
        """arguments: of the transformers model, which makes the mask of packed rows from `position_ids`: a position that does
        not follow its left neighbour's begins a document. places (N,): indices into the flattened states.

        Returns (N,) fp32: the log-probs of `targets` (N,) at `places`, or without targets the scalar head's outputs there;
        (2, N) with entropies or normalisers. Beside it the router loss of a mixture of experts, weighted by its coefficient.
        """
        states, router_loss = self._states(arguments)
        return self.answer(states, places, targets, temperature, output), router_loss

    def answer(
        self, states: Tensor, places: Tensor, targets: Tensor | None, temperature: float, output: Output
    ) -> Tensor:
        """The head's output at `places` of the states (R, L, D)."""
        hidden = states.flatten(0, 1)[places]
        if targets is None:
            return self.model.score(hidden).squeeze(-1).float()
        return self.model.get_output_embeddings()(hidden, targets, temperature, output)

    def _states(self, arguments: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """(R, L, D), the input of the output layer. use_cache=False, and no 2-D mask for packed rows: with either,
        transformers lets packed documents attend to each other, without a warning."""
        if not self._positions_known:
            arguments = {name: value for name, value in arguments.items() if name != "position_ids"}
        if not (self._head_has_layers or self._routes):
            return self.model.base_model(**arguments, **self._no_cache).last_hidden_state, None
        found = self.model(**arguments, **self._no_cache)
        if not self._routes:
            return found.logits, None
        return found.logits, self.model.config.router_aux_loss_coef * found.aux_loss

    def _replace_output_layer(self) -> None:
        self.model.set_output_embeddings(LogprobHead(self.model.get_output_embeddings()))

    @torch.no_grad()
    def _expect_plain_logits(self, kind: Kind) -> None:
        """Raises UserError where logits are not the output layer's plain product, as with soft-capped or scaled logits."""
        model, tokens = self.model, torch.tensor([[1, 2, 3]])
        arguments = {"input_ids": tokens} | ({"decoder_input_ids": tokens} if kind == "encoder_decoder" else {})
        training = model.training
        model.eval()
        logits = model(**arguments).logits
        output_layer = model.get_output_embeddings()
        self._replace_output_layer()
        try:
            states = self._states(arguments)[0]
            plain = torch.equal(nn.functional.linear(states, output_layer.weight, output_layer.bias), logits)
        except RuntimeError:  # BART, for one, adds a bias of the vocabulary's size, which the states do not have
            plain = False
        model.set_output_embeddings(output_layer)
        model.train(training)
        if not plain:
            raise UserError(
                f"{type(model).__name__} changes its logits after the output layer (soft cap, scale or bias), which this engine "
                "does not; take another architecture"
            )

    @torch.no_grad()
    def _separates_documents(self) -> bool:
        """Whether a document's states stay the same when the document before it in the row changes."""
        positions = torch.tensor([[0, 1, 0, 1]])
        first, second = (self._probe([before, 1, 2, 3], position_ids=positions)[2:] for before in (1, 4))
        return same_states(first, second)

    def _takes_masks(self) -> bool:
        """Whether the model obeys an explicit mask: a causal mask changes nothing, an open mask shows later tokens, and a mask of
        two documents hides the first from the second. Sliding windows are recognised by the config: they are wider than a probe."""
        layers = set(getattr(self.model.config, "layer_types", None) or ())
        if layers - {"full_attention"} or (not layers and getattr(self.model.config, "sliding_window", None)):
            return False
        causal = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
        opened, apart = causal.clone(), causal.clone()
        opened[..., :3] = True
        apart[..., 2:, :2] = False
        positions = torch.tensor([[0, 1, 0, 1]])
        try:
            plain, masked = self._probe([1, 2, 3, 4]), self._probe([1, 2, 3, 4], attention_mask=causal)
            seen, other = (self._probe([1, 2, after, 4], attention_mask=opened)[0] for after in (3, 5))
            first, second = (
                self._probe([before, 1, 2, 3], attention_mask=apart, position_ids=positions)[2:] for before in (1, 4)
            )
        except (ValueError, RuntimeError):  # the model wants masks of another shape
            return False
        return same_states(plain, masked) and not same_states(seen, other) and same_states(first, second)

    @torch.no_grad()
    def _probe(self, tokens: list[int], **arguments: Tensor) -> Tensor:
        """(L, D) states of one row, without dropout."""
        training = self.model.training
        self.model.eval()
        states = self._states({"input_ids": torch.tensor([tokens]), **arguments})[0][0]
        self.model.train(training)
        return states


def architecture_of(model: PreTrainedModel) -> str:
    """The model's class and its config, without the path that it came from."""
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    return f"{type(model).__name__} {json.dumps(config, sort_keys=True, default=str)}"


def kind_of(model: PreTrainedModel) -> Kind:
    """Whether the model is a decoder, an encoder or both; see docs/pretraining.md."""
    if model.config.is_encoder_decoder:
        return "encoder_decoder"
    return "encoder" if type(model).__name__.endswith("ForMaskedLM") else "decoder"


def same_states(first: Tensor, second: Tensor) -> bool:
    """Equal up to rounding. Experts round differently as other tokens change, because the shapes of their matrices do."""
    return torch.allclose(first, second, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def expect_causal(model: PreTrainedModel, where: str) -> None:
    """Raises UserError where logits depend on later tokens: a model that reads in both directions would copy the token that it
    should predict."""
    if architecture_of(model) in _FORMS:  # an earlier build of this process has passed this check
        return
    training = model.training
    model.eval()
    first, second = (model(input_ids=torch.tensor([[1, 2, 3, after]])).logits[:, :3] for after in (1, 2))
    model.train(training)
    if not same_states(first, second):
        raise UserError(
            f"{where}: {type(model).__name__} reads in both directions, so it cannot predict the next token: take objective "
            "masked, or an architecture such as llama"
        )


def is_scalar(model: PreTrainedModel) -> bool:
    """Whether the model has a scalar head instead of an output layer over the vocabulary."""
    return hasattr(model, "score")


class LogprobHead(nn.Module):
    """Takes the place and the parameters of a model's output layer, and gives log-probs of chosen tokens, not logits.

    A module of its own, since ZeRO 3 gathers a module's parameters around its call, forward and backward.
    """

    def __init__(self, output_layer: nn.Linear) -> None:
        super().__init__()
        self.weight = output_layer.weight
        self.register_parameter("bias", output_layer.bias)

    def forward(
        self, hidden: Tensor, targets: Tensor | None = None, temperature: float = 1.0, output: Output = "logprobs"
    ) -> Tensor:
        """(N, D), (N,) -> (N,) fp32, or with entropies or normalisers (2, N). Without targets, as the model itself calls it, the
        states as they are."""
        if targets is None:
            return hidden
        arguments = (hidden, self.weight, targets, temperature)
        if output == "logprobs_entropy":
            return torch.stack(selected_logprobs_and_entropy(*arguments, bias=self.bias))
        if output == "logprobs_normalizer":
            return torch.stack(selected_logprobs_and_normalizer(*arguments, bias=self.bias))
        return selected_logprobs(*arguments, bias=self.bias)
