"""Adafactor, z-loss and float16 in the real engine, on two ranks."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import plain
import pytest
import torch
from marks import long
from test_engine_checkpoint import interrupted
from test_engine_training import BATCHES, assert_same_run, train, weights_of

from data.errors import UserError
from rlhf.engine.device import resolve
from rlhf.engine.engine import Engine
from rlhf.engine.optim import GROWTH_STEPS, lr_at
from rlhf.objectives import LanguageModel
from rlhf.skipped import failed

ADAFACTOR = replace(plain.OPTIM, name="adafactor")


@pytest.mark.parametrize("world", [1, 2])
def test_adafactor_trains_as_the_one_of_transformers(groups, llama, world):
    objective, build = plain.NegativeLogprob(), plain.build(llama, zero_stage=0, optim=ADAFACTOR)
    run = groups[world].run(train, build, BATCHES, objective)[0]
    assert_same_run(run, plain.load(llama, "lm"), objective, optim=ADAFACTOR)


def test_adafactor_resumes_exactly_to_the_bit(groups, llama, tmp_path):
    build = plain.build(llama, zero_stage=0, optim=ADAFACTOR)
    for uninterrupted, resumed in groups[2].run(interrupted, build, str(tmp_path)):
        assert resumed == uninterrupted


@pytest.mark.parametrize("stage", [0, 3])
def test_z_loss_trains_as_in_plain_pytorch(groups, llama, stage):
    objective = LanguageModel(z_loss=0.1)
    run = groups[2].run(train, plain.build(llama, zero_stage=stage), BATCHES, objective)[0]
    assert_same_run(run, plain.load(llama, "lm"), objective)
    for step in run[0]:
        assert step["z_loss"] > 0.1  # so that it matters to the weights that were compared
        assert step["nll"] + step["z_loss"] == pytest.approx(step["loss"])


@dataclass(frozen=True)
class TooSteep(plain.NegativeLogprob):
    """The same loss with a gradient that is far too large for float16 at any usual scale, but finite."""

    def __call__(self, out, microbatch):
        loss, metrics = super().__call__(out, microbatch)
        return loss + 1e6 * (out - out.detach()).sum(), metrics


def with_float16(rank, world, supported, function, *arguments):
    """The function where DeepSpeed takes float16, or not. torch computes it on any CPU; DeepSpeed asks for one that is fast."""
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    accelerator.is_fp16_supported = lambda: supported
    try:
        return function(rank, world, *arguments)
    finally:
        del accelerator.is_fp16_supported


@pytest.mark.parametrize("stage", [long(0), long(2), 3])
def test_float16_stays_near_float32(groups, llama, stage):
    objective = plain.NegativeLogprob()
    build = plain.build(llama, dtype="float16", zero_stage=stage)
    metrics, _ = groups[2].run(with_float16, True, train, build, BATCHES, objective)[0]
    for found, wanted in zip(metrics, plain.train(plain.load(llama, "lm"), BATCHES, objective), strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], abs=0.01)
        assert found["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=0.01)  # not that of the scaled loss
        assert found["loss_scale"] == 2**16


def overflow_and_continue(rank, world, build):
    """Metrics, and the weights after them, of a good step, one that overflows and another good one."""
    engine = Engine(build, resolve("cpu"))
    steps = []
    objectives = (plain.NegativeLogprob(), TooSteep(), plain.NegativeLogprob())
    for batch, objective in zip(BATCHES[:3], objectives, strict=True):
        steps.append((engine.train(plain.share(batch, rank, world), objective), weights_of(engine)))
    engine.close()
    return steps


@pytest.mark.parametrize("stage", [2, long(3)])
def test_a_step_that_overflows_float16_is_skipped_and_halves_the_scale(groups, llama, stage):
    build = plain.build(llama, dtype="float16", zero_stage=stage)
    steps = groups[2].run(with_float16, True, overflow_and_continue, build)[0]
    metrics, weights = zip(*steps, strict=True)
    assert [step.get("skipped", 0) for step in metrics] == [0, 1, 0]
    assert math.isfinite(metrics[1]["loss"])
    assert not failed(metrics[1])
    assert [step["loss_scale"] for step in metrics] == [2**16, 2**15, 2**15]
    assert [step["lr"] for step in metrics] == pytest.approx([lr_at(step, plain.OPTIM) for step in (1, 2, 3)])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[1][name], weights[2][name]) for name in weights[0])


def grow(rank, world, build, grows):
    """Metrics of three steps, and the weights after the second, after which the scale grows or does not."""
    engine = Engine(build, resolve("cpu"))
    share = plain.share(BATCHES[0], rank, world)
    metrics = [engine.train(share, plain.NegativeLogprob())]
    if grows:
        engine._deepspeed.optimizer.loss_scaler.cur_iter = GROWTH_STEPS - 1
    metrics.append(engine.train(share, plain.NegativeLogprob()))
    weights = weights_of(engine)
    metrics.append(engine.train(share, plain.NegativeLogprob()))
    engine.close()
    return metrics, weights


@pytest.mark.parametrize("stage", [long(2), 3])
def test_a_scale_that_grows_leaves_the_gradient_as_it_is(groups, llama, stage):
    """DeepSpeed's own growth halves it."""
    build = plain.build(llama, dtype="float16", zero_stage=stage)
    (grown, weights), (steady, others) = (
        groups[2].run(with_float16, True, grow, build, grows)[0] for grows in (True, False)
    )
    assert [step["loss_scale"] for step in grown] == [2**16, 2**17, 2**17]
    assert [step["loss_scale"] for step in steady] == [2**16, 2**16, 2**16]
    assert all(torch.equal(weights[name], others[name]) for name in others)
    for one, other in zip(grown, steady, strict=True):
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


def resume_after_an_overflow(rank, world, build, directory):
    """The metrics of the step that follows one that overflowed: uninterrupted, and of an engine that loads what was saved."""
    first, second = (plain.share(batch, rank, world) for batch in BATCHES[:2])
    engine = Engine(build, resolve("cpu"))
    engine.train(first, TooSteep())
    engine.train(first, plain.NegativeLogprob())
    engine.save(Path(directory))
    uninterrupted = engine.train(second, plain.NegativeLogprob())
    engine.close()
    resumed = Engine(build, resolve("cpu"))
    resumed.load(Path(directory))
    after = resumed.train(second, plain.NegativeLogprob())
    resumed.close()
    return uninterrupted, after


@pytest.mark.parametrize("stage", [long(2), 3])
def test_float16_resumes_exactly_to_the_bit_with_its_scale(groups, llama, tmp_path, stage):
    build = plain.build(llama, dtype="float16", zero_stage=stage)
    for uninterrupted, resumed in groups[2].run(with_float16, True, resume_after_an_overflow, build, str(tmp_path)):
        assert resumed == uninterrupted
        assert resumed["loss_scale"] == 2**15


def refused(rank, world, build):
    with pytest.raises(UserError) as caught:
        Engine(build, resolve("cpu"))
    return str(caught.value)


def test_float16_is_refused_where_the_device_has_none(groups, llama):
    build = plain.build(llama, dtype="float16")
    (message,) = groups[1].run(with_float16, False, refused, build)
    assert message == "models.policy.dtype: float16 is not for this device (cpu); take bfloat16 or float32"
