"""A model that ranks share answers as one, resumes to the bit, leaves as one that plain transformers loads, or is refused."""

from dataclasses import replace
from pathlib import Path

import plain
import pytest
import torch
import torch.distributed as dist
from marks import long
from safetensors.torch import load_file
from test_engine_parallel import BATCHES, BOTH, NLL, PIPELINE, TENSOR, mine
from test_engine_training import weights_of
from transformers import AutoModelForCausalLM

from data.errors import UserError
from rlhf.engine.device import resolve
from rlhf.engine.engine import Engine


@pytest.fixture(scope="module")
def dropping(deep, tmp_path_factory):
    return plain.dropping(deep, tmp_path_factory.mktemp("dropping"))


def outputs(rank, world, build, batch):
    """Of an untrained model: this replica's rows, their log-probs, and the sums of an evaluation."""
    engine = Engine(build, resolve("cpu"))
    rows = mine(batch, rank, world, build)
    found = engine.forward(rows, "logprobs"), engine.evaluate(rows, NLL)
    engine.close()
    return rows, *found


def assert_answers(runs, batch, logprobs, tolerance):
    """Every rank has its replica's rows of these log-probs, and the sums over all of them."""
    for rows, out, (sums, count) in runs:
        places = [row for row, group in enumerate(batch.group_ids.tolist()) if group in rows.group_ids]
        torch.testing.assert_close(out, logprobs[places, : rows.width], atol=tolerance, rtol=0)
        assert count == batch.action_mask.sum()
        assert sums == pytest.approx({"loss": -logprobs.sum().item(), "trained": count}, rel=tolerance)


@pytest.mark.parametrize(
    ("stage", "sizes", "dtype", "tolerance"),
    [
        long(0, TENSOR, "float32", 1e-5),
        (3, TENSOR, "float32", 1e-5),
        (2, PIPELINE, "bfloat16", 0.2),
        (1, BOTH, "float32", 1e-5),
    ],
    ids=str,
)
def test_a_model_that_is_not_trained_answers_on_every_rank(groups, deep, stage, sizes, dtype, tolerance):
    build = replace(plain.build(deep, role="reference", dtype=dtype, zero_stage=stage, **sizes), optim=None)
    with torch.no_grad():
        logprobs = plain.outputs(plain.load(deep, "lm"), BATCHES[0], "logprobs")
    runs = groups[4].run(outputs, build, BATCHES[0])
    assert_answers(runs, BATCHES[0], logprobs, tolerance)
    assert sum(len(rows) for rows, *_ in runs) == 8 * build.tensor_parallel * build.pipeline_parallel


def test_stages_read_prefixes_in_both_directions_as_one_rank_does(groups, deep):
    causal = BATCHES[0]
    batch = causal.with_columns(prefix_lengths=causal.lengths // 3 + 1)
    ((_, logprobs, _),) = groups[1].run(outputs, plain.build(deep, zero_stage=0), batch)
    ((_, others, _),) = groups[1].run(outputs, plain.build(deep, zero_stage=0), causal)
    assert not torch.allclose(logprobs, others, atol=1e-2)
    assert_answers(groups[2].run(outputs, plain.build(deep, zero_stage=1, **PIPELINE), batch), batch, logprobs, 1e-5)


def interrupted(rank, world, build, directory):
    """The last two of three steps' metrics, uninterrupted, and resumed by an engine that had taken another step; and whether the
    weights are the same then."""
    shares = [mine(batch, rank, world, build) for batch in BATCHES]
    engine = Engine(build, resolve("cpu"))
    engine.train(shares[0], NLL)
    engine.save(Path(directory))
    uninterrupted = [engine.train(batch, NLL) for batch in shares[1:]]
    wanted = weights_of(engine)
    engine.close()
    resumed = Engine(build, resolve("cpu"))
    resumed.train(shares[2], NLL)
    resumed.load(Path(directory))
    after = [resumed.train(batch, NLL) for batch in shares[1:]]
    same = all(torch.equal(weight, wanted[name]) for name, weight in weights_of(resumed).items())
    resumed.close()
    return uninterrupted, after, same


@pytest.mark.parametrize(
    ("stage", "dtype", "sizes"),
    [
        (3, "float32", TENSOR),
        long(0, "float32", PIPELINE),
        (1, "float32", BOTH),
        long(2, "bfloat16", TENSOR),
        (1, "bfloat16", PIPELINE),
    ],
    ids=str,
)
def test_resuming_is_exact_to_the_bit(groups, dropping, tmp_path, stage, dtype, sizes):
    build = plain.build(dropping, zero_stage=stage, dtype=dtype, ema_decay=0.5, **sizes)
    for uninterrupted, resumed, same in groups[4].run(interrupted, build, str(tmp_path)):
        assert resumed == uninterrupted and same


def load_what_others_wrote(rank, world, builds, directory):
    """The message to the second build, which loads the checkpoint of the first."""
    first, second = builds
    writer = Engine(first, resolve("cpu"))
    writer.save(Path(directory))
    writer.close()
    dist.barrier()  # rank 0 writes the layout last
    reader = Engine(second, resolve("cpu"))
    with pytest.raises(UserError) as caught:
        reader.load(Path(directory))
    reader.close()
    return str(caught.value)


def test_other_sizes_are_told_when_a_checkpoint_is_loaded(groups, deep, tmp_path):
    builds = [plain.build(deep, zero_stage=1, **sizes) for sizes in (TENSOR, PIPELINE)]
    (message, *_) = groups[4].run(load_what_others_wrote, builds, str(tmp_path))
    assert "tensor_parallel 2 then, 1 now; pipeline_parallel 1 then, 2 now" in message and "resume with" in message


def averaged(rank, world, build, directory):
    """Outputs after one step with the average of the weights in place, which the directory then holds."""
    rows = mine(BATCHES[0], rank, world, build)
    engine = Engine(build, resolve("cpu"))
    engine.train(rows, NLL)
    engine.use_average()
    out = engine.forward(BATCHES[1], "logprobs")
    engine.export(Path(directory))
    engine.close()
    return out


@pytest.mark.parametrize(
    ("model", "stage", "sizes"),
    [
        ("deep", 3, TENSOR),
        long("deep", 1, BOTH),
        long("tied_qwen", 2, TENSOR),
        ("tied_qwen", 1, BOTH),
    ],
    ids=str,
)
def test_an_exported_model_loads_in_plain_transformers_and_gives_the_same_logprobs(
    groups, request, tmp_path, model, stage, sizes
):
    build = plain.build(request.getfixturevalue(model), zero_stage=stage, ema_decay=0.5, **sizes)
    runs = groups[4].run(averaged, build, str(tmp_path))
    with torch.no_grad():
        wanted = plain.outputs(AutoModelForCausalLM.from_pretrained(tmp_path), BATCHES[1], "logprobs")
    for out in runs:
        torch.testing.assert_close(out, wanted, atol=1e-5, rtol=0)
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) == (model == "deep")


def refusal(rank, world, build):
    with pytest.raises(UserError) as caught:
        Engine(build, resolve("cpu"))
    return str(caught.value)


GPT2 = {"model_type": "gpt2", "vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SCALED = SHAPE | {
    "model_type": "granite",
    "num_hidden_layers": 2,
    "embedding_multiplier": 2.0,
}  # by the body, once a stage


@pytest.mark.parametrize(
    ("sizes", "architecture", "message"),
    [
        (TENSOR, GPT2, "tensor_parallel: GPT2LMHeadModel has no plan for it in transformers; set it to 1"),
        (
            TENSOR,
            SHAPE | {"model_type": "mixtral"},
            "tensor_parallel: MixtralForCausalLM cuts in ways that are not known",
        ),
        (
            TENSOR,
            SHAPE | {"num_key_value_heads": 1},
            "tensor_parallel: 2 does not divide the architecture's num_key_value_heads 1",
        ),
        (PIPELINE, GPT2, "pipeline_parallel: the layers of GPT2LMHeadModel cannot be cut into stages; set it to 1"),
        (PIPELINE, SCALED, "pipeline_parallel: GraniteForCausalLM computes something else when cut into stages; set"),
        (
            PIPELINE,
            SHAPE | {"num_hidden_layers": 1},
            "pipeline_parallel: 2 stages, but the model has 1 layers; lower it",
        ),
    ],
    ids=str,
)
def test_architectures_that_cannot_be_cut_are_refused(groups, sizes, architecture, message):
    build = plain.build(None, architecture=architecture, zero_stage=1, **sizes)
    for found in groups[2].run(refusal, build):
        assert found.startswith(f"models.policy.{message}")
