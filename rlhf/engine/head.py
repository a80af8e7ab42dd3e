"""The output layer of a language model, as the engine asks it: for log-probs of chosen tokens, never for all logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlhf.interfaces import Output
from rlhf.ops.logprobs import selected_logprobs, selected_logprobs_and_entropy, selected_logprobs_and_normalizer


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
