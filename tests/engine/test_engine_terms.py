"""What an optimizer step can hold beside its loss: entropies, a second loss, and an average of the weights after it."""

from pathlib import Path

import plain
import pytest
import torch
from test_engine_training import BATCHES, assert_same_run, train, weights_of

from rlhf.engine.device import resolve
from rlhf.engine.engine import Engine, Term

BESIDE = [plain.make_batch(rows=6, seed=seed) for seed in range(10, 14)]
DECAY = 0.6


@pytest.mark.parametrize("stage", [0, 3])
def test_entropy_trains_as_in_plain_pytorch(groups, llama, stage):
    objective = plain.Entropic()
    run = groups[2].run(train, plain.build(llama, zero_stage=stage), BATCHES, objective)[0]
    assert_same_run(run, plain.load(llama, "lm"), objective)


def train_two(rank, world, build, weight):
    engine = Engine(build, resolve("cpu"))
    metrics = []
    for batch, other in zip(BATCHES, BESIDE):
        term = Term(plain.share(other, rank, world), plain.NegativeLogprob(), weight=weight, name="ptx")
        metrics.append(engine.train(plain.share(batch, rank, world), plain.Entropic(), beside=term))
    weights = weights_of(engine)
    engine.close()
    return metrics, weights


@pytest.mark.parametrize("stage", [0, 2])
@pytest.mark.parametrize("budget", [40, 10_000])
def test_a_second_loss_joins_the_step_with_its_weight(groups, llama, stage, budget):
    metrics, weights = groups[2].run(train_two, plain.build(llama, zero_stage=stage, microbatch_tokens=budget), 0.5)[0]
    model = plain.load(llama, "lm")
    optimizer = torch.optim.AdamW(plain.parameter_groups(model), lr=0.0, betas=plain.OPTIM.betas, eps=plain.OPTIM.eps)
    for found, batch, other in zip(metrics, BATCHES, BESIDE):
        sums = [plain.mean_loss(model, batch, plain.Entropic()), plain.mean_loss(model, other, plain.NegativeLogprob())]
        optimizer.zero_grad()
        (sums[0] + 0.5 * sums[1]).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), plain.OPTIM.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = found["lr"]
        optimizer.step()
        assert found["loss"] == pytest.approx(sums[0].item(), abs=1e-5)
        assert found["ptx/loss"] == pytest.approx(sums[1].item(), abs=1e-5)
        assert found["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(weights[name], parameter.detach(), atol=1e-4, rtol=0)


def averaged(rank, world, build, directory):
    """Weights after each step, their average, and the average after a resume from the second step's checkpoint."""
    shares = [plain.share(batch, rank, world) for batch in BATCHES]
    engine = Engine(build, resolve("cpu"))
    weights = [weights_of(engine)]
    for step, batch in enumerate(shares):
        engine.train(batch, plain.NegativeLogprob())
        weights.append(weights_of(engine))
        if step == 1:
            engine.save(Path(directory))
    engine.use_average()
    average = weights_of(engine)
    engine.close()
    resumed = Engine(build, resolve("cpu"))
    resumed.load(Path(directory))
    for batch in shares[2:]:
        resumed.train(batch, plain.NegativeLogprob())
    resumed.use_average()
    again = weights_of(resumed)
    resumed.close()
    return weights, average, again


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_the_average_follows_the_weights_and_survives_a_resume(groups, llama, tmp_path, stage):
    build = plain.build(llama, zero_stage=stage, ema_decay=DECAY)
    weights, average, again = groups[2].run(averaged, build, str(tmp_path))[0]
    expected = weights[0]
    for step in weights[1:]:
        expected = {name: DECAY * value + (1 - DECAY) * step[name] for name, value in expected.items()}
    for name, value in average.items():
        torch.testing.assert_close(value, expected[name])
        assert torch.equal(value, again[name])
