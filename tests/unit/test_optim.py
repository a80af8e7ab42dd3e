"""The learning rate is that of transformers' schedules, Adafactor that of PyTorch and the paper; matrices alone decay."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import optimization

from rlhf.engine.optim import lr_at, optimizer
from rlhf.interfaces import OptimSettings

SETTINGS = OptimSettings(
    lr=2e-3,
    betas=(0.9, 0.95),
    eps=1e-8,
    weight_decay=0.1,
    warmup_steps=5,
    schedule="cosine",
    final_lr_ratio=0.1,
    clip_norm=1.0,
    total_steps=30,
)


@pytest.mark.parametrize("warmup_steps", [0, 5, 29])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_learning_rate_is_that_of_transformers(schedule, warmup_steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=SETTINGS.lr)
    theirs = {
        "cosine": lambda: optimization.get_cosine_with_min_lr_schedule_with_warmup(
            optimizer, warmup_steps, 30, min_lr_rate=0.1
        ),
        "linear": lambda: optimization.get_linear_schedule_with_warmup(optimizer, warmup_steps, 30),
        "constant": lambda: optimization.get_constant_schedule_with_warmup(optimizer, warmup_steps),
    }[schedule]().lr_lambdas[0]
    ratio = 0.0 if schedule == "linear" else 0.1
    settings = replace(SETTINGS, schedule=schedule, warmup_steps=warmup_steps, final_lr_ratio=ratio)
    for step in range(1, 31):
        assert lr_at(step, settings) == pytest.approx(SETTINGS.lr * theirs(step), abs=1e-12), step


@pytest.mark.parametrize("ratio", [0.0, 0.1])
@pytest.mark.parametrize(("warmup_steps", "decay_steps"), [(0, 10), (5, 10), (5, 25), (20, 10), (5, 0)])
def test_warm_up_stable_decay_is_that_of_transformers(warmup_steps, decay_steps, ratio):
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=SETTINGS.lr)
    theirs = optimization.get_wsd_schedule(
        sgd, warmup_steps, decay_steps, num_training_steps=30, decay_type="linear", min_lr_ratio=ratio
    ).lr_lambdas[0]
    settings = replace(
        SETTINGS, schedule="wsd", warmup_steps=warmup_steps, decay_steps=decay_steps, final_lr_ratio=ratio
    )
    first = warmup_steps if ratio else 1  # their warm-up starts at the ratio, ours always at 0
    last = 30 if decay_steps else 29  # without a decay, theirs falls to the ratio after the last step
    for step in range(max(first, 1), last + 1):
        assert lr_at(step, settings) == pytest.approx(SETTINGS.lr * theirs(step), abs=1e-12), step


def test_a_decay_that_is_longer_than_the_steps_after_the_warm_up_starts_at_the_warm_up():
    settings = replace(SETTINGS, schedule="wsd", decay_steps=29, final_lr_ratio=0.0)
    found = [lr_at(step, settings) / SETTINGS.lr for step in (4, 5, 10, 30)]
    assert found == pytest.approx([0.8, 1.0, 0.8, 0.0])


@pytest.mark.parametrize(("schedule", "final"), [("cosine", 0.1), ("linear", 0.1), ("constant", 1.0), ("wsd", 0.1)])
def test_the_learning_rate_stays_at_its_end(schedule, final):
    settings = replace(SETTINGS, schedule=schedule, decay_steps=6)
    assert lr_at(30, settings) == lr_at(99, settings) == pytest.approx(SETTINGS.lr * final)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_only_matrices_decay(name):
    model = nn.Sequential(nn.Embedding(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    groups = optimizer(model, replace(SETTINGS, name=name)).param_groups
    decayed = {group["weight_decay"]: [tuple(p.shape) for p in group["params"]] for group in groups}
    assert decayed == {0.1: [(4, 3), (2, 3)], 0.0: [(3,), (3,), (2,)]}


def descend(model, step_of, steps=20):
    """The model's parameters after `steps` steps of a small regression in float64; step_of(step) takes one."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(16, 6, generator=draw, dtype=torch.float64)
    wanted = torch.randn(16, 3, generator=draw, dtype=torch.float64)
    for step in range(1, steps + 1):
        model.zero_grad()
        (model(inputs) - wanted).square().mean().backward()
        step_of(step)
    return list(model.parameters())


def regression():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def test_adafactor_is_that_of_pytorch_with_steps_of_the_schedules_size():
    """PyTorch's step is relative to the parameter's root mean square; divided by it, it is absolute as ours is."""
    model, reference = regression(), regression()
    ours = optimizer(model, replace(SETTINGS, name="adafactor"))
    theirs = torch.optim.Adafactor([{"params": [p]} for p in reference.parameters()], d=1.0, beta2_decay=-0.8)

    def step_theirs(step):
        for group in theirs.param_groups:
            (parameter,) = group["params"]
            size = max(1e-3, float(parameter.detach().square().mean().sqrt()))
            group["lr"] = SETTINGS.lr / size
            group["weight_decay"] = 0.1 * size if parameter.ndim > 1 else 0.0
        theirs.step()

    found, wanted = descend(model, lambda step: ours.step()), descend(reference, step_theirs)
    start = list(regression().parameters())
    for one, other, before in zip(found, wanted, start, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
        assert (one - before).abs().max() > 10 * SETTINGS.lr  # and they have moved


def test_adafactors_second_moment_decays_by_one_minus_step_to_the_minus_0_8():
    """Shazeer and Stern 2018, section 7.2; read from what the optimizer keeps, of a vector and of a matrix's rows."""
    model = nn.Linear(2, 3).double()
    settings = replace(SETTINGS, name="adafactor")
    adafactor = optimizer(model, settings)
    kept = {"bias": torch.zeros(3, dtype=torch.float64), "weight": torch.zeros(3, dtype=torch.float64)}
    for step in range(1, 41):
        model.weight.grad = torch.full((3, 2), float(step), dtype=torch.float64)
        model.bias.grad = torch.full((3,), float(step), dtype=torch.float64)
        adafactor.step()
        now = {
            "bias": adafactor.state[model.bias]["exp_avg_sq"],
            "weight": adafactor.state[model.weight]["exp_avg_sq_row"],
        }
        for name, before in kept.items():
            beta2 = (now[name] - step**2) / (before - step**2)
            assert beta2.tolist() == pytest.approx([1 - step**-0.8] * 3, abs=1e-9), (name, step)
        kept = {name: value.clone() for name, value in now.items()}
    assert set(adafactor.state[model.weight]) == {"step", "exp_avg_sq_row", "exp_avg_sq_col", "RMS"}  # no first moment
