"""The learning rate is that of transformers' schedules; AdamW decays matrices only."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import optimization

from rlhf.engine.optim import adamw, lr_at
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


@pytest.mark.parametrize(("schedule", "final"), [("cosine", 0.1), ("linear", 0.1), ("constant", 1.0)])
def test_the_learning_rate_stays_at_its_end(schedule, final):
    settings = replace(SETTINGS, schedule=schedule)
    assert lr_at(30, settings) == lr_at(99, settings) == pytest.approx(SETTINGS.lr * final)


def test_only_matrices_decay():
    model = nn.Sequential(nn.Embedding(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    groups = adamw(model, SETTINGS).param_groups
    decayed = {group["weight_decay"]: [tuple(p.shape) for p in group["params"]] for group in groups}
    assert decayed == {0.1: [(4, 3), (2, 3)], 0.0: [(3,), (3,), (2,)]}
