"""What leaves the engine loads in transformers and gives the same numbers."""

import json
from pathlib import Path

import plain
import pytest
import torch
from marks import long
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf.engine.device import resolve
from rlhf.engine.engine import Engine
from rlhf.engine.weights import plan_buckets

BATCH = plain.make_batch(rows=6)


def train_and_export(rank, world, build, directory, objective, output):
    """This rank's rows and outputs after one step, whose weights the directory then holds."""
    rows = [row for row in range(len(BATCH)) if (row // 2) % world == rank]
    engine = Engine(build, resolve("cpu"))
    engine.train(BATCH.select(rows), objective)
    out = engine.forward(BATCH.select(rows), output)
    engine.export(Path(directory))
    engine.close()
    return rows, out


@pytest.mark.parametrize(
    ("model", "stage"),
    [
        *[("llama", 0), ("llama", 3), ("tied_qwen", 2), ("tied_qwen", 3)],
        *[long("llama", 2), long("tied_qwen", 0)],
    ],
)
def test_an_exported_language_model_loads_and_gives_the_same_logprobs(groups, request, tmp_path, model, stage):
    build = plain.build(request.getfixturevalue(model), zero_stage=stage)
    parts = groups[2].run(train_and_export, build, str(tmp_path), plain.NegativeLogprob(), "logprobs")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        wanted = plain.outputs(loaded, BATCH, "logprobs")
    for rows, out in parts:
        torch.testing.assert_close(out, wanted[rows, : out.shape[1]], atol=5e-6, rtol=0)
    stored = load_file(tmp_path / "model.safetensors")
    assert ("lm_head.weight" in stored) == (model == "llama")
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [type(loaded).__name__]


def test_a_bfloat16_model_is_exported_in_bfloat16(groups, llama, tmp_path):
    build = plain.build(llama, zero_stage=3, dtype="bfloat16")
    groups[2].run(train_and_export, build, str(tmp_path), plain.NegativeLogprob(), "logprobs")
    assert {weight.dtype for weight in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16


@pytest.mark.parametrize("stage", [2, 3])
def test_an_exported_scalar_head_loads_as_a_sequence_classifier_and_scores_padded_batches_the_same(
    groups, llama, tmp_path, stage
):
    build = plain.build(llama, role="reward", head="scalar", zero_stage=stage)
    parts = groups[2].run(train_and_export, build, str(tmp_path), plain.BetterFirst(), "scores")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        wanted = loaded(BATCH.tokens.long(), attention_mask=BATCH.attention_mask.long()).logits
    assert wanted.shape == (len(BATCH), 1)
    for rows, out in parts:
        torch.testing.assert_close(out, wanted[rows, 0], atol=5e-6, rtol=0)


def fetch(rank, world, build, bucket_bytes):
    engine = Engine(build, resolve("cpu"))
    buckets = [engine.weight_bucket(index) for index in range(engine.weight_plan(bucket_bytes))]
    engine.close()
    return buckets


@pytest.mark.parametrize(("dtype", "stage"), [("float32", 2), ("bfloat16", 3), long("float32", 3), long("bfloat16", 2)])
def test_buckets_hold_every_weight_once_under_its_name_in_transformers(groups, tied_qwen, stage, dtype):
    bucket_bytes = 8192
    build = plain.build(tied_qwen, zero_stage=stage, dtype=dtype)
    first, second = groups[2].run(fetch, build, bucket_bytes)
    assert len(first) > 2 and second == [None] * len(first)
    for bucket in first:
        assert len(bucket) == 1 or sum(array.nbytes for _, _, array in bucket) <= bucket_bytes
    items = [item for bucket in first for item in bucket]
    wanted = dict(AutoModelForCausalLM.from_pretrained(tied_qwen, dtype=getattr(torch, dtype)).named_parameters())
    assert [name for name, _, _ in items] == list(wanted)
    for name, marker, array in items:
        assert marker == dtype
        weight = torch.from_numpy(array).view(getattr(torch, dtype))
        assert torch.equal(weight, wanted[name].detach())


def test_buckets_keep_the_order_and_give_a_large_tensor_one_of_its_own():
    sizes = [("a", 3), ("b", 4), ("c", 20), ("d", 1), ("e", 9), ("f", 1)]
    assert plan_buckets(sizes, 10) == [["a", "b"], ["c"], ["d", "e"], ["f"]]
