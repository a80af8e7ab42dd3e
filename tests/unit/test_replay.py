"""Replaying a stored step: a tiny run directory, and gradients held against plain PyTorch."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

import launch
from data.batch import Batch
from data.errors import UserError
from rlhf.algorithms.grpo import DAPO, GRPO
from rlhf.algorithms.penalty import KL
from rlhf.algorithms.ppo import PPO
from rlhf.replay import load_algorithm, replay
from rlhf.stored_steps import load_step, store_step

ROOT = Path(__file__).resolve().parents[2]
TEMPERATURE = 0.7
SHAPE = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "initializer_range": 0.2,
}


ROWS = [
    {"prompt": f"question {row // 3}", "answer": f"answer {row}\nof two\u2028lines", "row": row // 3}
    for row in range(6)
]


def make_batch() -> Batch:
    """Six answers to two prompts, of different lengths."""
    draw = torch.Generator().manual_seed(0)
    lengths = [9, 6, 7, 8, 5, 9]
    tokens = [torch.randint(1, 32, (length,), generator=draw).tolist() for length in lengths]
    batch = Batch.from_rows(
        tokens,
        [[False] * 3 + [True] * (length - 3) for length in lengths],
        group_ids=[0, 0, 0, 1, 1, 1],
        rewards=[1.0, 0.0, 0.5, 2.0, -1.0, 0.0],
        truncated=[True] + [False] * 5,
        policy_version=[3] * 6,
        meta=ROWS,
    )
    old = torch.where(batch.action_mask, -3 + 0.3 * torch.randn(batch.tokens.shape, generator=draw), 0)
    ref = torch.where(batch.action_mask, -3 + 0.3 * torch.randn(batch.tokens.shape, generator=draw), 0)
    return batch.with_columns(old_logprobs=old, rollout_logprobs=old, ref_logprobs=ref)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of GRPO with one stored step."""
    root = tmp_path_factory.mktemp("run")
    phase = {"kind": "rl", "data": "prompts.jsonl", "algorithm": "grpo", "reward": ["model"]}
    phase["sampling"] = {"temperature": TEMPERATURE, "samples": 3}
    models = {"policy": {"path": "somewhere", "microbatch_tokens": 16}}
    (root / "config.yaml").write_text(yaml.safe_dump({"models": models, "phases": [phase]}))
    directory = root / "steps" / "rl" / "step-5"
    store_step(directory, make_batch(), GRPO())
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE))
    model.save_pretrained(directory / "policy")
    return root


def plain_gradient(run: Path, advantages: torch.Tensor) -> tuple[float, float]:
    """(loss, gradient norm) of PPO's surrogate, each row run alone."""
    batch = make_batch()
    model = AutoModelForCausalLM.from_pretrained(run / "steps" / "rl" / "step-5" / "policy", dtype=torch.float32)
    total = torch.zeros(())
    for row in range(len(batch)):
        tokens = batch.tokens[row, : batch.lengths[row]].long()
        logprobs = (model(tokens[None]).logits[0, :-1] / TEMPERATURE).log_softmax(-1)
        chosen = logprobs.gather(-1, tokens[1:, None])[:, 0][2:]  # answers begin at token 3
        answer = slice(3, len(tokens))
        ratio = (chosen - batch.old_logprobs[row, answer]).exp()
        gain = advantages[row, answer]
        total = total - torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain).sum()
    loss = total / batch.action_mask.sum()
    loss.backward()
    return loss.item(), math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))


def test_a_stored_step_comes_back_as_it_was(tmp_path):
    batch = make_batch().select([0, 2, 4])  # views of wider tensors
    algorithm = PPO(kl=KL(target=3.0))
    store_step(tmp_path / "step-1", batch, algorithm)
    found = load_step(tmp_path / "step-1")
    assert found.rows == ROWS[0::2]
    assert algorithm.with_state(found.state) == algorithm
    assert found.algorithm == repr(algorithm)
    assert found.batch.columns.keys() == batch.columns.keys()
    for name, value in batch.columns.items():
        assert found.batch.columns[name].dtype == value.dtype
        assert torch.equal(found.batch.columns[name], value)
    assert sorted(file.name for file in (tmp_path / "step-1").iterdir()) == ["batch.safetensors", "step.json"]


def test_a_run_of_an_algorithm_given_by_value_says_so(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    store_step(tmp_path / "run/steps/rl/step-5", make_batch(), GRPO(clip_high=0.3))
    found = replay(tmp_path / "run", 5, GRPO())
    assert "the run itself used GRPO(" in found.title and "clip_high=0.3" in found.title
    assert "the run itself" not in replay(run, 5, GRPO()).title


def test_a_run_of_an_algorithm_that_needs_less_asks_for_it(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["phases"][0]["algorithm"] = "ppo"
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(
        UserError, match=r"was taken with GRPO\(.*which config.yaml does not name: give it with --against"
    ):
        replay(tmp_path / "run", 5, GRPO())
    assert replay(tmp_path / "run", 5, GRPO(), against=GRPO()).cosine == pytest.approx(1, abs=1e-6)


def test_rows_are_kept_by_the_rewards_before_their_shaping(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    batch = make_batch()
    store_step(
        tmp_path / "run/steps/rl/step-5",
        batch.with_columns(raw_rewards=[1.0, 1.0, 1.0, 2.0, -1.0, 0.0]),  # penalties made the first group unequal
        GRPO(),
    )
    assert replay(tmp_path / "run", 5, DAPO()).other.figures["rows trained on"] == 3


def test_the_phases_correction_is_part_of_the_replay(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    batch = make_batch()
    doubled = torch.where(batch.action_mask, batch.old_logprobs - math.log(1.5), 0)
    store_step(tmp_path / "run/steps/rl/step-5", batch.with_columns(rollout_logprobs=doubled), GRPO())
    torch.testing.assert_close(
        replay(tmp_path / "run", 5, GRPO()).run.advantages, 1.5 * replay(run, 5, GRPO()).run.advantages
    )


def test_an_algorithm_beside_itself_is_the_same(run):
    same = replay(run, 5, GRPO())
    assert same.cosine == pytest.approx(1, abs=1e-6)
    assert all(value == pytest.approx(1, abs=1e-6) for value in same.cosines.values())
    assert torch.equal(same.run.advantages, same.other.advantages)
    assert same.run.figures == same.other.figures
    assert same.samples == ()
    assert list(same.cosines) == ["embeddings", "layer 0", "layer 1", "head"]


def test_loss_and_gradient_are_those_of_plain_pytorch(run):
    batch = make_batch()
    grouped = batch.rewards.view(2, 3)
    gains = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-6)
    advantages = torch.where(batch.action_mask, gains.flatten()[:, None], 0)
    loss, norm = plain_gradient(run, advantages)
    found = replay(run, 5, GRPO(clip_low=0.2)).other
    assert found.figures["loss"] == pytest.approx(loss, rel=1e-4)
    assert found.figures["gradient norm"] == pytest.approx(norm, rel=1e-4)
    own = advantages[batch.action_mask]
    assert found.figures["advantage, mean"] == pytest.approx(float(own.mean()), abs=1e-6)
    assert found.figures["advantage, std"] == pytest.approx(float(own.std(unbiased=False)))
    assert found.figures["advantage, share of zeros"] == pytest.approx(float((own.abs() < 1e-9).float().mean()))


def test_another_algorithm_differs_most_on_the_samples_shown(run):
    found = replay(run, 5, load_algorithm("rloo"))
    assert found.other.name == "RLOO"
    assert -1 <= found.cosine < 1
    gaps = ((found.run.advantages - found.other.advantages).abs().sum(1) / make_batch().action_mask.sum(1)).tolist()
    most = sorted(range(6), key=lambda row: -gaps[row])[:3]
    assert [sample.answer for sample in found.samples] == [ROWS[row]["answer"] for row in most]
    assert [sample.reward for sample in found.samples] == make_batch().rewards[most].tolist()


def test_an_algorithm_that_selects_pairs_is_replayed_too(run):
    found = replay(run, 5, load_algorithm("online_dpo"))
    assert found.other.figures["rows trained on"] == 4
    assert 0 < found.other.figures["gradient norm"] < math.inf


def test_a_run_of_ppo_is_replayed_beside_grpo(run, tmp_path):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["phases"][0]["algorithm"] = {"name": "ppo", "kl": {"coef": 0.0}, "whiten": False, "gae": {"lam": 1.0}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    directory = tmp_path / "steps" / "rl" / "step-7"
    batch = make_batch()
    store_step(directory, batch.with_columns(values=torch.zeros(tuple(batch.tokens.shape))), PPO())
    (directory / "policy").symlink_to(run / "steps" / "rl" / "step-5" / "policy")
    found = replay(tmp_path, 7, GRPO())
    # without critic, discount and penalty every token's advantage is the reward
    wanted = torch.where(batch.action_mask, batch.rewards[:, None], 0)
    torch.testing.assert_close(found.run.advantages, wanted)
    assert found.run.figures["loss"] == pytest.approx(plain_gradient(run, wanted)[0], rel=1e-4)
    assert found.run.figures["approx_kl"] == pytest.approx(found.other.figures["approx_kl"])


def test_an_algorithm_that_keeps_nothing_is_told(run):
    @dataclass(frozen=True)
    class Nothing(GRPO):
        def keep(self, batch):
            return torch.zeros(len(batch), dtype=torch.bool)

    with pytest.raises(UserError, match="Nothing leaves out every sample"):
        replay(run, 5, Nothing())


def test_a_column_that_the_run_did_not_store_is_named(run):
    with pytest.raises(UserError, match="rl, step 5: PPO needs values, which this run did not compute"):
        replay(run, 5, PPO())


@pytest.mark.parametrize(
    ("step", "phase", "message"),
    [
        (6, None, r"step 6 of rl is not stored; stored are 5; set phases\.rl\.store_every"),
        (5, "ppo", "no phase 'ppo' of kind rl; it has rl"),
    ],
)
def test_a_step_or_phase_that_is_not_there_is_told(run, step, phase, message):
    with pytest.raises(UserError, match=message):
        replay(run, step, GRPO(), phase)


def configured(root: Path, *phases: dict) -> Path:
    (root / "config.yaml").write_text(yaml.safe_dump({"phases": list(phases)}))
    return root


def test_runs_that_cannot_be_replayed_say_why(tmp_path):
    with pytest.raises(UserError, match="is not a run's directory"):
        replay(tmp_path, 1, GRPO())
    with pytest.raises(UserError, match="has no phase of kind rl"):
        replay(configured(tmp_path, {"kind": "sft", "data": "x"}), 1, GRPO())
    phase = {"kind": "rl", "data": "x"}
    with pytest.raises(UserError, match="step 1 of rl is not stored; none is"):
        replay(configured(tmp_path, phase), 1, GRPO())
    with pytest.raises(UserError, match="several phases of kind rl: name one of a, b with --phase"):
        replay(configured(tmp_path, phase | {"name": "a"}, phase | {"name": "b"}), 1, GRPO())
    store_step(tmp_path / "steps" / "a" / "step-1", make_batch(), GRPO())
    with pytest.raises(UserError, match="policy is missing"):
        replay(tmp_path, 1, GRPO(), "a")


MINE = """
from dataclasses import dataclass
import torch
from rlhf import Algorithm, ClippedPolicy

@dataclass(frozen=True)
class Plain(Algorithm):
    needs = frozenset({"old_logprobs"})
    scale: float = 1.0

    def advantages(self, batch):
        return batch.with_columns(advantages=torch.where(batch.action_mask, self.scale * batch.rewards[:, None], 0))

    def objectives(self):
        return {"policy": ClippedPolicy()}
"""


@pytest.fixture
def mine(tmp_path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path / 'mine.py'}:Plain"


def test_algorithms_come_from_a_file_a_module_or_a_name_with_their_parameters(mine):
    assert load_algorithm(mine, ["scale=3"]).scale == 3
    assert load_algorithm("rlhf.algorithms.grpo:GRPO", ["clip_low=0.1"]) == GRPO(clip_low=0.1)
    assert load_algorithm("ppo", ["kl.coef=0.5", "kl.estimator=k3"]).kl.coef == 0.5


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("nothing.py:Plain", [], "there is no nothing.py; give file.py:Class"),
        ("grpo", ["clip_low"], "'clip_low' is not of the form parameter=value"),
        ("grpo", ["clip_lo=1"], "did you mean 'clip_low'"),
    ],
)
def test_a_wrong_algorithm_is_told(name, settings, message):
    with pytest.raises(UserError, match=message):
        load_algorithm(name, settings)


def test_the_command_prints_both_algorithms_side_by_side(run, mine):
    done = CliRunner(env={"COLUMNS": "140"}).invoke(
        launch.app, ["replay", str(run), "scale=2", "--step", "5", "--algorithm", mine]
    )
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert any("GRPO (the run's)" in line and "Plain" in line for line in lines)
    for name in ("rows trained on", "advantage, mean", "gradient norm", "clip_fraction", "all parameters", "layer 1"):
        assert any(line.strip().startswith(name) for line in lines), name
    figures = next(line.split() for line in lines if "advantage, max" in line)
    assert float(figures[-1]) == 4  # twice the best reward
    assert "answer 3 of two lines" in done.stdout


def test_a_mistake_of_the_command_is_told_with_exit_code_2(run):
    done = CliRunner().invoke(launch.app, ["replay", str(run), "--step", "4", "--algorithm", "grpo"])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {run}: step 4 of rl is not stored; stored are 5")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
