"""Outputs of packed micro-batches equal transformers on each row alone."""

import weakref

import plain
import pytest
import torch
from marks import long
from transformers import AutoConfig, AutoModelForCausalLM

from data.batch import Batch
from rlhf.engine.device import resolve
from rlhf.engine.engine import Engine

BATCH = plain.make_batch(rows=9)


def forward(rank, world, build, batch, output, temperature=1.0):
    """The whole batch's outputs on every rank, each rank having run a contiguous part; rank 1's may be empty."""
    engine = Engine(build, resolve("cpu"))
    half = len(batch) if world == 1 else len(batch) - 3
    rows = [row for row in range(len(batch)) if (row >= half) == (rank == 1)]
    out = engine.forward(batch.select(rows), output, temperature)
    engine.close()
    return rows, out


def whole(parts, shape):
    result = torch.full(shape, torch.nan)
    for rows, out in parts:
        if out.ndim == 2:
            result[rows] = 0.0
            result[rows, : out.shape[1]] = out
        else:
            result[rows] = out
    return result


@pytest.mark.parametrize(
    ("temperature", "stage", "world"),
    [
        *[(1.0, 2, 1), (1.0, 3, 2), (0.7, 2, 2), (0.7, 3, 1)],
        *[long(1.0, 2, 2), long(1.0, 3, 1), long(0.7, 2, 1), long(0.7, 3, 2)],
    ],
)
def test_packed_logprobs_are_those_of_unpacked_logits(groups, llama, stage, world, temperature):
    build = plain.build(llama, optim=None, zero_stage=stage)
    found = whole(groups[world].run(forward, build, BATCH, "logprobs", temperature), BATCH.tokens.shape)
    with torch.no_grad():
        wanted = plain.outputs(plain.load(llama, "lm"), BATCH, "logprobs", temperature)
    torch.testing.assert_close(found, wanted, atol=5e-6, rtol=0)


@pytest.mark.parametrize("output", ["values", "scores"])
@pytest.mark.parametrize("stage", [0, 3])
def test_a_scalar_head_gives_transformers_values_and_scores(groups, scalar, stage, output):
    build = plain.build(scalar, role="reward", head="scalar", optim=None, zero_stage=stage)
    parts = groups[2].run(forward, build, BATCH, output)
    found = whole(parts, BATCH.tokens.shape if output == "values" else (len(BATCH),))
    with torch.no_grad():
        wanted = plain.outputs(plain.load(scalar, "scalar"), BATCH, output)
    torch.testing.assert_close(found, wanted, atol=5e-6, rtol=0)


def test_a_trained_engine_answers_with_its_present_weights(groups, llama):
    for before, after, wanted in groups[2].run(forward_around_a_step, plain.build(llama, zero_stage=3), BATCH):
        assert (before - after).abs().max() > 1e-3
        assert torch.equal(after, wanted)


def forward_around_a_step(rank, world, build, batch):
    """Log-probs before a step, after it, and after it by an engine that had not been asked before."""
    mine = plain.share(batch, rank, world)
    asked = Engine(build, resolve("cpu"))
    before = asked.forward(mine, "logprobs")
    asked.train(mine, plain.NegativeLogprob())
    after = asked.forward(mine, "logprobs")
    asked.close()
    silent = Engine(build, resolve("cpu"))
    silent.train(mine, plain.NegativeLogprob())
    wanted = silent.forward(mine, "logprobs")
    silent.close()
    return before, after, wanted


def test_an_empty_share_gives_an_empty_answer(groups, llama):
    batch = BATCH.select([0, 1, 2])
    (_, first), (_, second) = groups[2].run(forward, plain.build(llama, optim=None, zero_stage=3), batch, "logprobs")
    assert first.shape[0] == 0 and second.shape == batch.tokens.shape


def test_an_architecture_that_mixes_packed_documents_is_run_without_packing(groups, tmp_path):
    """mamba carries its state over positions that begin anew."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("mamba", vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    batch = Batch.from_rows([[1, 2, 3, 4, 5, 6], [7, 8], [9, 1, 1]], [[False] + [True] * n for n in (5, 1, 2)])
    found = whole(groups[1].run(forward, plain.build(str(tmp_path), optim=None), batch, "logprobs"), batch.tokens.shape)
    with torch.no_grad():
        wanted = plain.outputs(plain.load(str(tmp_path), "lm"), batch, "logprobs")
    torch.testing.assert_close(found, wanted, atol=5e-6, rtol=0)


def closed(rank, world, build, batch):
    """Whether the model is still in memory after `close`."""
    engine = Engine(build, resolve("cpu"))
    model = weakref.ref(engine._weights._model)
    if build.optim is not None:
        engine.train(batch, plain.NegativeLogprob())
    engine.forward(batch, "logprobs")
    engine.close()
    return model() is not None


@pytest.mark.parametrize("optim", [plain.OPTIM, None], ids=["trained", "untrained"])
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_closed_engine_leaves_no_model_behind(groups, llama, stage, optim):
    assert groups[1].run(closed, plain.build(llama, zero_stage=stage, optim=optim), BATCH) == [False]
