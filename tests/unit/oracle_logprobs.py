"""`rlhf.ops.logprobs` against trl, OpenRLHF and verl."""

import pytest
import torch

from rlhf.ops import masked
from rlhf.ops.logprobs import entropy_from_logits, logprobs_from_logits, selected_logprobs


def unshifted(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Their logits[:, t] go with labels[:, t]; ours speak about the next token, so the labels move right by one."""
    return torch.nn.functional.pad(logits, (0, 0, 0, 1)), torch.nn.functional.pad(labels, (1, 0))


@pytest.mark.parametrize(
    ("name", "temperature"),
    [
        ("logp/token/trl", 1.0),
        ("logp/token/openrlhf", 1.0),
        ("logp/token/verl", 1.0),
        ("logp/token_T0.7/trl", 0.7),
        ("logp/token_T0.7/openrlhf", 0.7),
    ],
)
def test_logprobs_of_tokens(oracle, name, temperature):
    logits, labels = oracle["in/logits"], oracle["in/labels"]
    ours = logprobs_from_logits(*unshifted(logits, labels), temperature)
    oracle.agrees(ours[:, 1:], name)
    identity = torch.eye(logits.shape[-1], dtype=oracle.dtype)
    chunked = selected_logprobs(logits.flatten(0, 1), identity, labels.flatten(), temperature, chunk_tokens=4)
    oracle.agrees(chunked.view(labels.shape), name)


@pytest.mark.parametrize("peer", ["trl", "verl", "openrlhf"])
def test_entropy_of_tokens(oracle, peer):
    logits, _ = unshifted(oracle["in/logits"], oracle["in/labels"])
    oracle.agrees(entropy_from_logits(logits)[:, 1:], f"entropy/token/{peer}")


def test_sequence_logprobs_and_language_modelling_loss(oracle):
    labels = oracle["in/labels_ignore"]
    mask = labels != -100
    logprobs = logprobs_from_logits(oracle["in/logits"], labels.where(mask, 0))
    oracle.agrees(masked.sum(logprobs, mask, dim=1), "logp/seq_sum/trl")
    oracle.agrees(masked.mean(logprobs, mask, dim=1), "logp/seq_mean/trl")
    oracle.agrees(-masked.mean(logprobs, mask), "sft/nll_token_mean/openrlhf")
    oracle.agrees(-masked.mean(logprobs, mask), "sft/token_level/openrlhf")
    oracle.agrees(-masked.mean(logprobs, mask, dim=1).mean(), "sft/seq_level/openrlhf")
