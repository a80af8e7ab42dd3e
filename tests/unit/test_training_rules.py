"""Settings of training that do not go together are told with advice, before anything starts."""

from typing import Any

import pytest

from data.errors import UserError
from rlhf.config.check import check
from rlhf.config.schema import Config

ADAFACTOR = {"name": "adafactor"}
WHOLE = {"path": "some/model", "dtype": "float32", "zero_stage": 0}


def tree(model: dict[str, Any] | None = None, device: str = "auto", **settings: Any) -> Config:
    """An SFT phase of 100 steps of 32 rows on two ranks, or of another kind."""
    phase = {
        "kind": "sft",
        "name": "it",
        "data": "data.demo.tasks:instructions",
        "models": {"policy": model or "some/model"},
    }
    if settings.get("kind") != "rl":
        phase |= {"batch_size": 32, "steps": 100}
    pools = {"train": {"devices": 2}, "rollout": {"devices": 1}}
    return Config.model_validate({"device": device, "pools": pools, "phases": [phase | settings]})


def rl(**settings: Any) -> dict[str, Any]:
    """PPO of ten optimizer steps for the policy and twelve for the critic."""
    base = {"kind": "rl", "data": "data.demo.tasks:prompts", "reward": ["data.demo.gold:well_formed"]}
    return base | {"algorithm": "ppo", "steps": 6, "epochs": 2, "critic_warmup": 1} | settings


@pytest.mark.parametrize(
    "config",
    [
        tree(WHOLE, optim=ADAFACTOR),
        tree({**WHOLE, "dtype": "auto"}, device="cpu", optim=ADAFACTOR),
        tree(optim={"warmup_steps": 100}),
        tree(optim={"schedule": "wsd", "warmup": 0.5, "decay": 0.5}),
        tree(optim={"schedule": "wsd", "warmup_steps": 80, "decay": 0.2}),
        tree(optim={"schedule": "wsd", "warmup_steps": 200}, steps=None),  # over as many steps as the data have
        tree({"path": "some/model", "dtype": "float16"}),
        tree(ramp={"batch_size": 8, "tokens": 1000}, spikes={}),
        tree(WHOLE, optim={**ADAFACTOR, "weight_decay": 0, "warmup": 0.1}),
        tree(**rl(optim={"warmup_steps": 10}, critic_optim={"warmup_steps": 12})),
    ],
    ids=range(10),
)
def test_sound_settings_pass(config):
    check(config)


@pytest.mark.parametrize(
    ("config", "lines"),
    [
        (
            tree(optim=ADAFACTOR),
            [
                "phases.it.optim.name: adafactor needs whole matrices in float32: set phases.it.models.policy.zero_stage to 0, "
                "phases.it.models.policy.dtype to float32, or take adamw"
            ],
        ),
        (
            tree({**WHOLE, "tensor_parallel": 2}, optim=ADAFACTOR),
            ["set phases.it.models.policy.tensor_parallel to 1, or"],
        ),
        (tree({**WHOLE, "dtype": "auto"}, device="cuda", optim=ADAFACTOR), ["dtype to float32, or take adamw"]),
        (
            tree(optim={"warmup_steps": 101}),
            ["phases.it.optim.warmup_steps: 101 steps do not fit into the 100 optimizer steps"],
        ),
        (tree(optim={"schedule": "wsd", "warmup_steps": 81}), ["81 steps and 20 of decay do not fit into the 100"]),
        (
            tree(optim={"schedule": "wsd", "warmup": 0.5, "decay": 0.6}),
            ["phases.it.optim: warmup 0.5 and decay 0.6 are shares of the run, over 1 together: lower one"],
        ),
        (
            tree(**rl(optim={"warmup_steps": 11}, critic_optim={"warmup_steps": 13})),
            ["phases.it.optim.warmup_steps: 11 steps do not fit into the 10"],
        ),
        (
            tree(**rl(critic_optim={"warmup_steps": 13})),
            ["phases.it.critic_optim.warmup_steps: 13 steps do not fit into the 12 optimizer steps"],
        ),
        (
            tree({"path": "some/model", "dtype": "float16"}, device="cpu"),
            ["phases.it.models.policy.dtype: float16 is not for CPUs; take float32 or bfloat16"],
        ),
        (
            tree({"path": "some/model", "dtype": "float16"}, **rl()),
            ["dtype: RL has not been tried in float16; take bfloat16"],
        ),
        (
            tree(ramp={"batch_size": 35, "tokens": 1000}),
            [
                "phases.it.ramp.batch_size 35 is over the phase's batch_size 32, which it grows to: lower it",
                "phases.it.ramp.batch_size 35 does not divide over the 2 ranks of pool 'train' that share a batch: take 36",
            ],
        ),
        (
            tree(spikes={}, checkpoint_every=0),
            ["phases.it.spikes: a run goes back to its last checkpoint, and checkpoint_every 0 writes none"],
        ),
        (
            tree(WHOLE, optim={**ADAFACTOR, "betas": [0.9, 0.99], "eps": 1e-6}),
            ["phases.it.optim: betas and eps would do nothing, they are AdamW's; remove them, or take name adamw"],
        ),
        (
            tree(optim={"decay": 0.1, "warmup": 0.1, "warmup_steps": 5}),
            [
                "phases.it.optim.decay: it would do nothing, schedule cosine has no last share; remove it, or take schedule wsd",
                "phases.it.optim.warmup: it would do nothing beside warmup_steps; remove one of them",
            ],
        ),
        (
            tree(**rl(critic_optim={"decay": 0.1})),
            ["phases.it.critic_optim.decay: it would do nothing, schedule cosine has no last share"],
        ),
    ],
    ids=range(15),
)
def test_settings_that_do_not_go_together_are_told_once_with_advice(config, lines):
    with pytest.raises(UserError) as error:
        check(config)
    told = str(error.value).splitlines()
    assert len(told) == len(lines)
    for found, wanted in zip(told, lines, strict=True):
        assert wanted in found
