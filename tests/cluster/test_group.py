"""Groups of real Ray actors with real DeepSpeed engines: equal figures for any number of ranks, clear failures."""

import os
import signal
import time
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import ray
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from actors.calls import WorkerError
from actors.placement import plan
from actors.runtime import ClusterRuntime
from actors.weight_items import checksum, decode
from data.batch import Batch
from data.errors import UserError
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config
from rlhf.interfaces import ModelBuild, OptimSettings, Passes
from rlhf.objectives import LanguageModel

ARCHITECTURE = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
OPTIM = OptimSettings(
    lr=1e-2,
    betas=(0.9, 0.95),
    eps=1e-8,
    weight_decay=0.1,
    warmup_steps=0,
    schedule="constant",
    final_lr_ratio=1.0,
    clip_norm=1.0,
    total_steps=100,
)
BUILD = ModelBuild(
    role="policy",
    path=None,
    architecture=ARCHITECTURE,
    head="lm",
    dtype="float32",
    zero_stage=2,
    microbatch_tokens=64,
    activation_checkpointing=False,
    optim=OPTIM,
    seed=0,
)
CONFIG = Config.model_validate(
    {
        "device": "cpu",
        "pools": {"one": {"devices": 1}, "two": {"devices": 2}},
        "phases": [
            {"kind": "sft", "name": pool, "data": "rows.jsonl", "models": {"policy": {"path": "x", "pool": pool}}}
            for pool in ("one", "two")
        ],
    }
)


@pytest.fixture(scope="module")
def runtime(ray_cluster):
    with ClusterRuntime(CONFIG, plan(resolve(CONFIG), ray_cluster)) as runtime:
        yield runtime


def random_batch(rows: int = 10) -> Batch:
    generator = torch.Generator().manual_seed(rows)
    lengths = torch.randint(3, 20, (rows,), generator=generator).tolist()
    tokens = [torch.randint(0, 64, (length,), generator=generator).tolist() for length in lengths]
    masks = [[position >= 2 for position in range(length)] for length in lengths]
    return Batch.from_rows(tokens, masks)


@dataclass(frozen=True)
class Spy:
    """Tells which process runs it, and sums the column that it is given. The workers cannot import this file."""

    output: ClassVar[str] = "logprobs"
    unit: ClassVar[str] = "rows"
    columns: ClassVar[frozenset[str]] = frozenset({"advantages"})

    def __call__(self, out, microbatch):
        rows = torch.tensor(len(microbatch))
        seen = (
            (microbatch.advantages * microbatch.action_mask).sum() if "advantages" in microbatch else torch.tensor(0.0)
        )
        return out.sum(), {"process": rows * os.getpid(), "seen": seen}


@dataclass(frozen=True)
class Failing:
    """Fails on one rank, in one of the ways in which ranks fail."""

    rank: int
    how: str
    output: ClassVar[str] = "logprobs"
    unit: ClassVar[str] = "tokens"
    columns: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, out, microbatch):
        if torch.distributed.get_rank() == self.rank:
            if self.how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            raise UserError("the data is bad") if self.how == "user" else ZeroDivisionError("a bug in the objective")
        return -out.sum(), {}


def process_of(runtime: ClusterRuntime, group) -> float:
    """The process id of a group of one rank."""
    sums, rows = group.evaluate(runtime.stage(random_batch(), [group]), Spy()).result()
    return sums["process"] / rows


@pytest.mark.parametrize("sizes", [{}, {"tensor_parallel": 2}, {"pipeline_parallel": 2, "zero_stage": 1}], ids=str)
def test_two_ranks_train_as_one_does(runtime, sizes):
    batches = [random_batch(rows) for rows in (10, 7)]
    figures = {}
    for pool in ("one", "two"):
        group = runtime.group(BUILD if pool == "one" else replace(BUILD, **sizes), pool)
        staged = [runtime.stage(batch, [group], minibatches=3, seed=5) for batch in batches]
        steps = [step for batch in staged for step in group.train(batch, LanguageModel(), Passes(epochs=2)).result()]
        logprobs = group.forward(staged[0], "logprobs").result()
        figures[pool] = [step["loss"] for step in steps], [step["tokens"] for step in steps], logprobs
    losses, tokens, logprobs = zip(*figures.values())
    assert len(losses[0]) == 2 * 3 * 2 and losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert tokens[0] == tokens[1]
    assert torch.allclose(logprobs[0], logprobs[1], atol=1e-3)


def test_forward_comes_back_in_the_global_row_order(runtime, tmp_path):
    batch = random_batch(9)
    group = runtime.group(BUILD, "two")
    logprobs = group.forward(runtime.stage(batch, [group], minibatches=2, seed=1), "logprobs").result()
    group.export(tmp_path).result()
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    for row, length in enumerate(batch.lengths.tolist()):
        tokens = batch.tokens[row, :length].long()
        expected = model(tokens[None]).logits[0, :-1].log_softmax(-1).gather(-1, tokens[1:, None])[:, 0]
        assert torch.allclose(logprobs[row, 1:length], expected * batch.action_mask[row, 1:length], atol=1e-4)


def test_columns_added_later_reach_the_rows_that_they_belong_to(runtime):
    batch, group = random_batch(11), runtime.group(BUILD, "two")
    advantages = torch.randn(batch.tokens.shape, generator=torch.Generator().manual_seed(0))
    staged = runtime.stage(batch, [group], minibatches=2, seed=3)
    before = runtime.counters["bytes_through_driver"]
    sums, rows = group.evaluate(staged.with_columns(advantages=advantages), Spy()).result()
    assert sums["seen"] == pytest.approx(float((advantages * batch.action_mask).sum()), abs=1e-3)
    assert rows == 11
    assert 0 < runtime.counters["bytes_through_driver"] - before <= advantages.nbytes


def test_one_batch_serves_groups_of_different_sizes_and_ranks_without_rows(runtime):
    batch = random_batch(1)
    groups = [runtime.group(BUILD, pool) for pool in ("one", "two")]
    staged = runtime.stage(batch, groups)
    one, two = (group.forward(staged, "logprobs").result() for group in groups)
    assert torch.allclose(one, two, atol=1e-5) and one.abs().sum() > 0


def test_weights_leave_in_buckets_with_their_checksum(runtime, tmp_path):
    group = runtime.group(BUILD, "two")
    buckets = [ray.get(group.weight_bucket(index)) for index in range(group.weight_plan(8192))]
    items = [item for bucket in buckets for item in bucket]
    group.export(tmp_path).result()
    saved = load_file(tmp_path / "model.safetensors")
    assert len(buckets) > 1 and {name for name, _, _ in items} == saved.keys()
    assert all(torch.equal(decode(dtype, array), saved[name]) for name, dtype, array in items)
    assert group.weight_checksum() == checksum(items)


def test_processes_are_reused_unless_zero_3_comes_or_goes(runtime):
    group = runtime.group(BUILD, "one")
    first = process_of(runtime, group)
    runtime.release("policy")
    assert process_of(runtime, runtime.group(BUILD, "one")) == first
    sharded = process_of(runtime, runtime.group(replace(BUILD, zero_stage=3), "one"))
    assert sharded != first


def test_a_killed_rank_is_named_at_once_and_the_group_can_be_built_anew(runtime):
    group = runtime.group(BUILD, "two")
    staged = runtime.stage(random_batch(), [group])
    group.forward(staged, "logprobs").result()
    started = time.monotonic()
    with pytest.raises(WorkerError, match=r"policy/1 on node [\d.]+ failed in policy.train") as caught:
        group.train(staged, Failing(1, "dies")).result()
    assert time.monotonic() - started < 20
    assert (caught.value.role, caught.value.rank) == ("policy", 1)
    again = runtime.group(BUILD, "two")
    assert again.train(runtime.stage(random_batch(), [again]), LanguageModel()).result()[0]["loss"] > 0


def test_a_bug_on_one_rank_arrives_with_its_own_traceback(runtime):
    group = runtime.group(BUILD, "two")
    with pytest.raises(WorkerError, match=r"(?s)policy/0 .*in __call__.*ZeroDivisionError: a bug in the objective"):
        group.train(runtime.stage(random_batch(), [group]), Failing(0, "bug")).result()


def test_a_users_error_arrives_as_it_is(runtime, tmp_path):
    group = runtime.group(replace(BUILD, zero_stage=3), "one")
    with pytest.raises(UserError, match=r"^the data is bad$"):
        group.train(runtime.stage(random_batch(), [group]), Failing(0, "user")).result()
    absent = runtime.group(replace(BUILD, path=str(tmp_path / "nothing"), architecture=None), "one")
    with pytest.raises(UserError, match="nothing"):
        absent.forward(runtime.stage(random_batch(), [absent]), "logprobs").result()


def test_a_role_without_a_place_is_a_users_error(runtime):
    with pytest.raises(UserError, match=r"critic has no place on pool 'one'"):
        runtime.group(replace(BUILD, role="critic"), "one")
