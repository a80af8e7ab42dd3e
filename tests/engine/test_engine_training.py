"""Training equals plain PyTorch AdamW on unpadded rows, whatever the stage, the ranks and the micro-batches."""

import math
from dataclasses import dataclass, replace

import plain
import pytest
import torch
from marks import long

from data.batch import Batch
from data.errors import UserError
from rlhf.engine.device import resolve
from rlhf.engine.engine import Engine
from rlhf.skipped import failed

BATCHES = [plain.make_batch(rows=8, seed=seed) for seed in range(4)]


def train(rank, world, build, batches, objective):
    """Metrics of one step a batch, and the weights afterwards (rank 0)."""
    engine = Engine(build, resolve("cpu"))
    metrics = [engine.train(plain.share(batch, rank, world), objective) for batch in batches]
    weights = weights_of(engine)
    engine.close()
    return metrics, weights


def weights_of(engine):
    buckets = [engine.weight_bucket(index) for index in range(engine.weight_plan(4096))]
    return {name: torch.tensor(array) for bucket in buckets if bucket for name, _, array in bucket}


def assert_same_run(run, model, objective, batches=BATCHES, tolerance=1e-5, optim=plain.OPTIM):
    """The run of (metrics, weights) is the one that plain PyTorch makes with this model."""
    metrics, weights = run
    for step, (found, wanted) in enumerate(zip(metrics, plain.train(model, batches, objective, optim), strict=True)):
        assert found["loss"] == pytest.approx(wanted["loss"], abs=tolerance), step
        assert found["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4), step
    parameters = dict(model.named_parameters())
    assert weights.keys() == parameters.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, parameters[name].detach(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("stage", "world"), [(0, 2), (1, 2), (2, 2), (3, 2), (2, 1), *[long(stage, 1) for stage in (0, 1, 3)]]
)
def test_a_language_model_trains_as_in_plain_pytorch(groups, llama, stage, world):
    objective = plain.NegativeLogprob()
    runs = groups[world].run(train, plain.build(llama, zero_stage=stage), BATCHES, objective)
    assert [metrics for metrics, _ in runs] == [runs[0][0]] * world
    assert_same_run(runs[0], plain.load(llama, "lm"), objective)


@pytest.mark.parametrize(
    ("budget", "stage"), [(30, 2), (100, 3), *[long(30, 3), long(100, 2), long(10_000, 2), long(10_000, 3)]]
)
def test_micro_batches_do_not_change_the_run(groups, llama, budget, stage):
    objective = plain.NegativeLogprob()
    build = plain.build(llama, microbatch_tokens=budget, zero_stage=stage)
    assert_same_run(groups[2].run(train, build, BATCHES, objective)[0], plain.load(llama, "lm"), objective)


@pytest.mark.parametrize("stage", [0, 3])
def test_a_tied_output_layer_gets_the_gradient_of_both_of_its_uses(groups, tied_qwen, stage):
    objective = plain.NegativeLogprob()
    run = groups[2].run(train, plain.build(tied_qwen, zero_stage=stage), BATCHES, objective)[0]
    assert_same_run(run, plain.load(tied_qwen, "lm"), objective)


@pytest.mark.parametrize("stage", [2, 3])
def test_activation_checkpointing_does_not_change_the_run(groups, llama, stage):
    objective = plain.NegativeLogprob()
    build = plain.build(llama, activation_checkpointing=True, zero_stage=stage)
    assert_same_run(groups[2].run(train, build, BATCHES, objective)[0], plain.load(llama, "lm"), objective)


@pytest.mark.parametrize("stage", [long(1), 3])
@pytest.mark.parametrize("objective", [plain.SquaredError(), plain.BetterFirst()], ids=["values", "pairs"])
def test_a_scalar_head_trains_as_in_plain_pytorch(groups, scalar, objective, stage):
    build = plain.build(scalar, role="critic", head="scalar", zero_stage=stage)
    assert_same_run(groups[2].run(train, build, BATCHES, objective)[0], plain.load(scalar, "scalar"), objective)


@pytest.mark.parametrize("stage", [0, long(1), long(2), 3])
def test_a_rank_without_rows_takes_part(groups, llama, stage):
    objective = plain.NegativeLogprob()
    batches = [plain.make_batch(rows=2, seed=seed) for seed in range(3)]  # two neighbours: all on rank 0
    runs = groups[2].run(train, plain.build(llama, zero_stage=stage), batches, objective)
    assert runs[0][0] == runs[1][0]
    assert_same_run(runs[0], plain.load(llama, "lm"), objective, batches)


@pytest.mark.parametrize("stage", [long(0), 2, 3])
def test_bfloat16_stays_near_float32(groups, llama, stage):
    objective = plain.NegativeLogprob()
    build = plain.build(llama, dtype="bfloat16", zero_stage=stage)
    metrics, _ = groups[2].run(train, build, BATCHES, objective)[0]
    wanted = plain.train(plain.load(llama, "lm"), BATCHES, objective)
    assert [step["loss"] for step in metrics] == pytest.approx([step["loss"] for step in wanted], abs=0.05)


def test_metrics_are_global(groups, llama):
    (first, *_), _ = groups[2].run(train, plain.build(llama), BATCHES, plain.NegativeLogprob())[1]
    assert first["tokens"] == BATCHES[0].lengths.sum()
    assert first["trained"] == pytest.approx(1)  # a sum of the unit itself, over its global count
    assert first["lr"] == pytest.approx(plain.OPTIM.lr / 2)


@dataclass(frozen=True)
class Broken(plain.NegativeLogprob):
    """Loss or gradient stops being finite, on the rank that holds the first row."""

    how: str = "loss"

    def __call__(self, out, microbatch: Batch):
        loss, metrics = super().__call__(out, microbatch)
        here = (microbatch.group_ids == 0).any()
        if self.how == "loss":
            return (loss + torch.inf if here else loss), metrics
        return (loss + torch.sqrt(out.sum() * 0) if here else loss), metrics  # the root's slope at 0


def break_and_continue(rank, world, build, batch, how):
    """The bad step's metrics, whether the weights stayed, the next step's metrics, and those of a twin without the bad step."""
    mine = plain.share(batch, rank, world)
    results = []
    for bad in (True, False):
        engine = Engine(build, resolve("cpu"))
        engine.train(mine, plain.NegativeLogprob())
        before = weights_of(engine)
        if bad:
            results.append(engine.train(mine, Broken(how=how)))
            after = weights_of(engine)
            results.append(all(torch.equal(before[name], after[name]) for name in before))
        results.append(engine.train(mine, plain.NegativeLogprob()))
        engine.close()
    return results


@pytest.mark.parametrize(
    ("stage", "dtype", "how"),
    [
        *[(0, "float32", "gradient"), (2, "float32", "gradient"), (3, "float32", "loss"), (3, "bfloat16", "gradient")],
        *[long(0, "float32", "loss"), long(2, "float32", "loss"), long(3, "float32", "gradient")],
        *[long(1, "float32", how) for how in ("loss", "gradient")],
        *[long(2, "bfloat16", "gradient"), (2, "bfloat16", "loss"), long(3, "bfloat16", "loss")],
    ],
)
def test_what_is_not_finite_never_reaches_the_weights(groups, llama, stage, dtype, how):
    build = plain.build(llama, zero_stage=stage, dtype=dtype)
    for bad, unchanged, after_the_bad_step, without_it in groups[2].run(break_and_continue, build, BATCHES[0], how):
        assert bad["skipped"] == 1
        assert failed(bad)
        assert math.isfinite(bad["loss"]) == (how == "gradient")
        assert not math.isfinite(bad["grad_norm"])
        assert unchanged
        assert "skipped" not in without_it
        assert after_the_bad_step == without_it


def evaluate(rank, world, build, batch, objective):
    engine = Engine(build, resolve("cpu"))
    sums = engine.evaluate(plain.share(batch, rank, world), objective)
    engine.close()
    return sums


@pytest.mark.parametrize("stage", [0, 3])
def test_evaluation_sums_over_all_ranks(groups, llama, stage):
    build = replace(plain.build(llama, zero_stage=stage), optim=None)
    batch, objective = BATCHES[1], plain.NegativeLogprob()
    loss, _ = objective(plain.outputs(plain.load(llama, "lm"), batch, "logprobs"), batch)
    for sums, count in groups[2].run(evaluate, build, batch, objective):
        assert count == batch.action_mask.sum()
        assert sums == pytest.approx({"loss": loss.item(), "trained": count}, rel=1e-5)


def train_nothing(rank, world, build, batch):
    engine = Engine(build, resolve("cpu"))
    with pytest.raises(ValueError, match="policy: the batch has no tokens to train on"):
        engine.train(batch, plain.NegativeLogprob())
    with pytest.raises(UserError, match=r"raise models.policy.microbatch_tokens"):
        engine.train(plain.make_batch(8), plain.NegativeLogprob())
    engine.close()


def test_a_batch_without_work_and_a_row_over_the_budget_are_errors(groups, llama):
    batch = Batch.from_rows([[1, 2]], [[False, False]])
    groups[1].run(train_nothing, plain.build(llama, microbatch_tokens=10), batch)
