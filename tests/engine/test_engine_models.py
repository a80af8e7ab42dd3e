"""Models from a directory or from scratch, and the one-line errors of those that cannot be built."""

import plain
import pytest
import torch
from conftest import SHAPE

from data.errors import UserError
from rlhf.engine.build import HEAD_STD, build_model

ARCHITECTURE = {"model_type": "llama", **SHAPE}


def build(path=None, **changes):
    return build_model(plain.build(path, **{"architecture": ARCHITECTURE, **changes}), torch.float32)


def test_the_seed_fixes_a_model_from_scratch():
    first, same, other = (dict(build(seed=seed).named_parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["model.lm_head.weight"], other["model.lm_head.weight"])


def test_transformers_attention_is_sdpa():
    assert build().model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("path", ["llama", None])
def test_a_new_scalar_head_starts_near_zero(request, path):
    path = path and request.getfixturevalue(path)
    head = build(path=path, architecture=None if path else ARCHITECTURE, head="scalar").model.score
    assert head.weight.shape == (1, SHAPE["hidden_size"]) and head.bias is None
    assert 0 < head.weight.abs().max() < 10 * HEAD_STD


def test_a_scalar_head_starts_from_a_language_model_or_another_scalar_head(llama, scalar):
    body = plain.load(llama, "lm").model.state_dict()
    from_language_model = build(path=llama, head="scalar").model.model.state_dict()
    assert all(torch.equal(from_language_model[name], body[name]) for name in body)
    assert torch.equal(build(path=scalar, head="scalar").model.score.weight, plain.load(scalar, "scalar").score.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": None}, "models.policy: give either `path` or `architecture`"),
        ({"architecture": {"model_type": "lama"}}, "'lama' is unknown; nearest: llama"),
        (
            {"architecture": {"hiden_size": 32}},
            "architecture.hiden_size: llama has no such field; nearest: hidden_size",
        ),
        ({"architecture": {"hidden_size": "big"}}, "models.policy.architecture:"),
        ({"path": "/no/such/model"}, "models.policy.path: cannot load '/no/such/model'"),
        ({"architecture": {**ARCHITECTURE, "model_type": "gemma2", "head_dim": 8}}, "changes its logits"),
    ],
)
def test_a_model_that_cannot_be_built_is_one_line_of_advice(changes, message):
    with pytest.raises(UserError) as caught:
        build(**changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_scalar_model_is_not_taken_for_a_language_model(scalar):
    with pytest.raises(UserError, match=r"lacks 1 weights of LlamaForCausalLM, such as lm_head.weight"):
        build(path=scalar)
