import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlhf.ops import logprobs
from rlhf.ops.logprobs import (
    entropy_from_logits,
    logprobs_from_logits,
    selected_logprobs,
    selected_logprobs_and_entropy,
    selected_logprobs_and_normalizer,
    shift_left,
    shift_right,
)


def problem(n=7, d=5, v=11, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(v, d, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    bias = torch.randn(v, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return hidden, weight, bias, torch.randint(v, (n,), generator=generator)


def plain(hidden, weight, targets, temperature=1.0, bias=None):
    logits = functional.linear(hidden, weight, bias)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return torch.log_softmax(logits.to(wide) / temperature, -1).gather(-1, targets[:, None])[:, 0]


def test_shifts_by_hand():
    row = torch.tensor([[1, 2, 3, 4]])
    assert shift_left(row).tolist() == [[2, 3, 4, 0]]
    assert shift_right(row).tolist() == [[0, 1, 2, 3]]
    assert shift_left(row[:, :0]).shape == shift_right(row[:, :0]).shape == (1, 0)
    assert shift_left(torch.tensor([[False, False, True, True]])).tolist() == [[False, True, True, False]]


def test_column_t_is_the_log_probability_of_token_t():
    # after token 0 the model says 3 : 1 for token 1, after token 1 it says 1 : 1
    logits = torch.tensor([[[0.0, 3.0], [1.0, 1.0], [9.0, -9.0]], [[0.0, 0.0]] * 3]).clone()
    logits[0, 0] = torch.tensor([1.0, 3.0]).log()
    logprobs = logprobs_from_logits(logits, torch.tensor([[0, 1, 0], [0, 0, 0]], dtype=torch.int32))
    torch.testing.assert_close(logprobs[0].exp(), torch.tensor([1.0, 0.75, 0.5]))
    assert logprobs[0, 0] == 0


def test_temperature_divides_the_logits():
    logits, tokens = torch.randn(2, 4, 6), torch.randint(6, (2, 4))
    torch.testing.assert_close(logprobs_from_logits(logits, tokens, 0.5), logprobs_from_logits(2 * logits, tokens))
    torch.testing.assert_close(entropy_from_logits(logits, 0.5), entropy_from_logits(2 * logits))


def test_entropy_by_hand():
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, 200.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]]])
    torch.testing.assert_close(entropy_from_logits(logits), torch.tensor([[0.0, 4.0, 1.0]]).log().clamp(min=0))


def test_states_that_predict_the_selected_tokens_give_the_same_logprobs_as_all_logits():
    hidden, weight = torch.randn(3, 6, 5), torch.randn(11, 5)
    tokens, mask = torch.randint(11, (3, 6)), torch.rand(3, 6) < 0.5
    mask[:, 0] = False
    selected = selected_logprobs(hidden[shift_left(mask)], weight, tokens[mask])
    torch.testing.assert_close(selected, logprobs_from_logits(hidden @ weight.T, tokens)[mask])


@pytest.mark.parametrize("chunk_tokens", [1, 3, 100])
def test_chunks_change_neither_values_nor_gradients(chunk_tokens):
    hidden, weight, bias, targets = problem()
    upstream = torch.arange(1.0, 8.0, dtype=torch.float64)
    expected = plain(hidden, weight, targets, 0.7, bias)
    actual = selected_logprobs(hidden, weight, targets.int(), 0.7, chunk_tokens, bias)
    torch.testing.assert_close(actual, expected)
    leaves = (hidden, weight, bias)
    torch.testing.assert_close(
        torch.autograd.grad(actual, leaves, upstream), torch.autograd.grad(expected, leaves, upstream)
    )


@pytest.mark.parametrize("with_bias", [True, False])
def test_gradcheck(with_bias):
    hidden, weight, bias, targets = problem()
    inputs = (hidden, weight, bias) if with_bias else (hidden, weight)
    assert torch.autograd.gradcheck(lambda h, w, b=None: selected_logprobs(h, w, targets, 1.3, 3, b), inputs)


def test_entropy_comes_beside_the_same_logprobs():
    hidden, weight, bias, targets = problem()
    logprobs, entropy = selected_logprobs_and_entropy(hidden, weight, targets, 0.7, 3, bias)
    assert torch.equal(logprobs, selected_logprobs(hidden, weight, targets, 0.7, 3, bias))
    distribution = torch.distributions.Categorical(logits=functional.linear(hidden, weight, bias) / 0.7)
    torch.testing.assert_close(entropy, distribution.entropy())


@pytest.mark.parametrize("with_bias", [True, False])
def test_gradcheck_with_entropy(with_bias):
    hidden, weight, bias, targets = problem()
    inputs = (hidden, weight, bias) if with_bias else (hidden, weight)
    assert torch.autograd.gradcheck(
        lambda h, w, b=None: selected_logprobs_and_entropy(h, w, targets, 1.3, 3, b), inputs
    )


@pytest.mark.parametrize("chunk_tokens", [3, 100])
def test_the_normalizer_and_its_gradient_are_those_of_plain_logsumexp(chunk_tokens):
    hidden, weight, bias, targets = problem()
    logprobs, normalizer = selected_logprobs_and_normalizer(hidden, weight, targets, 0.7, chunk_tokens, bias)
    assert torch.equal(logprobs, selected_logprobs(hidden, weight, targets, 0.7, chunk_tokens, bias))
    wanted = (functional.linear(hidden, weight, bias) / 0.7).logsumexp(-1)
    torch.testing.assert_close(normalizer, wanted)
    leaves, factors = (hidden, weight, bias), torch.arange(1.0, 8.0, dtype=torch.float64)
    found = torch.autograd.grad((0.3 * factors * normalizer.square() - factors.flip(0) * logprobs).sum(), leaves)
    plainly = plain(hidden, weight, targets, 0.7, bias)
    expected = torch.autograd.grad((0.3 * factors * wanted.square() - factors.flip(0) * plainly).sum(), leaves)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("with_bias", [True, False])
def test_gradcheck_with_the_normalizer(with_bias):
    hidden, weight, bias, targets = problem()
    inputs = (hidden, weight, bias) if with_bias else (hidden, weight)
    assert torch.autograd.gradcheck(
        lambda h, w, b=None: selected_logprobs_and_normalizer(h, w, targets, 1.3, 3, b), inputs
    )


def test_a_frozen_weight_gets_no_gradient():
    hidden, weight, _, targets = problem()
    selected_logprobs(hidden, weight.detach(), targets).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_bf16_weights_keep_a_fp32_softmax_and_bf16_gradients():
    hidden, weight, _, targets = problem(n=64, d=32, v=301, dtype=torch.bfloat16)
    actual = selected_logprobs(hidden, weight, targets, chunk_tokens=16)
    expected = plain(hidden, weight, targets)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    gradients = torch.autograd.grad(actual.sum(), (hidden, weight))
    assert {gradient.dtype for gradient in gradients} == {torch.bfloat16}
    wide = [leaf.detach().float().requires_grad_() for leaf in (hidden, weight)]
    exact = torch.autograd.grad(plain(*wide, targets).sum(), wide)
    for ours, reference in zip(gradients, exact):
        assert (ours.float() - reference).norm() < 0.02 * reference.norm()


def test_no_tokens_give_no_logprobs_and_zero_gradients():
    hidden, weight, _, _ = problem()
    selected = selected_logprobs(hidden[:0], weight, torch.zeros(0, dtype=torch.int32))
    assert selected.shape == (0,)
    selected.sum().backward()
    assert (weight.grad == 0).all()


def test_a_weight_whose_data_is_freed_between_the_passes_still_gets_its_gradient():
    """What ZeRO-3 does: it frees the gathered parameter after the forward pass and gathers it anew for the backward."""
    hidden, weight, _, targets = problem()
    expected = torch.autograd.grad(plain(hidden, weight, targets).sum(), (hidden, weight))
    selected, full = selected_logprobs(hidden, weight, targets), weight.data
    weight.data = torch.empty(0, dtype=full.dtype)
    weight.data = full.clone()
    torch.testing.assert_close(torch.autograd.grad(selected.sum(), (hidden, weight)), expected)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    "function", [selected_logprobs, selected_logprobs_and_entropy, selected_logprobs_and_normalizer]
)
def test_logprobs_that_are_kept_give_the_same_gradient_bit_for_bit(monkeypatch, function, temperature):
    gradients = []
    for limit in (0, 2**26):
        monkeypatch.setattr(logprobs, "KEPT_BYTES", limit)
        hidden, weight, _, targets = problem(50, 4, 100)
        out = function(hidden, weight, targets, temperature, chunk_tokens=16)
        sum(part.square().sum() for part in (out if isinstance(out, tuple) else (out,))).backward()
        gradients.append((hidden.grad, weight.grad))
    assert all(map(torch.equal, *gradients))


def test_where_all_would_be_too_many_logits_of_more_than_one_chunk_never_exist_together(monkeypatch):
    monkeypatch.setattr(logprobs, "KEPT_BYTES", 0)
    n, d, v, chunk = 64, 4, 100, 8
    hidden, weight, _, targets = problem(n, d, v)
    with LargestTensor() as naive:
        plain(hidden, weight, targets).sum().backward()
    assert naive.elements == n * v
    with LargestTensor() as chunked:
        selected_logprobs(hidden, weight, targets, chunk_tokens=chunk).sum().backward()
    assert chunked.elements == chunk * v
    assert chunked.elements > v * d  # or the gradient of the weight would hide it
