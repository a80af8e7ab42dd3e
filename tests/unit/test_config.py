"""Reading a config, the advice for each mistake, and which models a phase uses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from data.errors import UserError
from data.imports import load_object
from rlhf.config.check import check
from rlhf.config.kinds import KINDS
from rlhf.config.load import dump_config, load_config
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config, Phase

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
FUNCTION = "rewards:length"  # a data source that need not exist to be named
SCORE = "data.demo.gold:well_formed"

POLICY = {"path": "some/model"}
SFT = {"kind": "sft", "data": FUNCTION}
REWARD = {"kind": "reward", "data": FUNCTION, "models": {"reward": "phase:sft"}}
RL = {"kind": "rl", "name": "ppo", "data": FUNCTION, "reward": [SCORE], "models": {"policy": "phase:sft"}}
DPO = {"kind": "dpo", "data": FUNCTION, "models": {"policy": "phase:sft"}}


def tree(*phases: dict[str, Any], **top: Any) -> dict[str, Any]:
    """A sound config: an SFT phase, then these."""
    pools = {"train": {"devices": 2}, "rollout": {"devices": 1}}
    return {"pools": pools, "models": {"policy": POLICY}, "phases": [SFT, *phases]} | top


def advice(config: dict[str, Any], **given: Any) -> str:
    with pytest.raises(UserError) as error:
        check(Config.model_validate(config), **given)
    return str(error.value)


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def mistake(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load_config(path, overrides)
    return str(error.value)


# Reading


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_parses_checks_and_reads_back(path, tmp_path):
    """Files that a config expects from the command line are stood in for."""
    write(tmp_path / "rows.jsonl", "{}\n")
    config = load_config(path)
    paths = {
        f"phases.{phase.name}.{place}.path": data.path
        for phase in config.model_phases
        for place, data in phase.data.sets("data").items()
    }
    for phase in config.phases:
        sources = enumerate(getattr(phase, "sources", ()))
        paths |= {f"phases.{phase.name}.sources.{number}.path": source.path for number, source in sources}
    missing = [setting for setting, found in paths.items() if ":" not in found and not Path(found).exists()]
    config = load_config(path, [f"{setting}={tmp_path / 'rows.jsonl'}" for setting in missing])
    check(config)
    again = load_config(write(tmp_path / "resolved.yaml", dump_config(config)))
    assert again == config
    check(again)  # a run's config.yaml, all defaults written out, can be run again
    assert [phase.models for phase in resolve(again).phases] == [phase.models for phase in resolve(config).phases]


def test_a_file_is_laid_over_those_that_it_extends_in_their_order(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path / "first.yaml", tree(RL, run={"name": "first", "seed": 1}))
    write(tmp_path / "sub" / "second.yaml", {"run": {"name": "second"}, "rollout": {"engines": 1}})
    top = write(tmp_path / "top.yaml", {"extends": ["first.yaml", "sub/second.yaml"], "rollout": {"pool": "train"}})
    config = load_config(top)
    assert (config.run.name, config.run.seed) == ("second", 1)
    assert (config.rollout.engines, config.rollout.pool) == (1, "train")


def test_a_mapping_is_laid_over_a_list_by_name_or_index(tmp_path):
    write(tmp_path / "base.yaml", tree(RL))
    over = {"extends": "base.yaml", "phases": {"ppo": {"steps": 3, "data": {"limit": 7}}, 0: {"epochs": 2}}}
    config = load_config(write(tmp_path / "over.yaml", over))
    assert config.phases[1].steps == 3
    assert (config.phases[1].data.path, config.phases[1].data.limit) == (FUNCTION, 7)
    assert config.phases[0].epochs == 2


def test_a_list_replaces_a_list(tmp_path):
    write(tmp_path / "base.yaml", tree(RL, DPO))
    config = load_config(write(tmp_path / "over.yaml", {"extends": "base.yaml", "phases": [SFT]}))
    assert [phase.name for phase in config.phases] == ["sft"]


def test_extending_in_a_circle_is_told(tmp_path):
    write(tmp_path / "a.yaml", "extends: b.yaml")
    write(tmp_path / "b.yaml", "extends: a.yaml")
    assert mistake(tmp_path / "a.yaml").startswith(f"{tmp_path / 'b.yaml'}: extends {tmp_path / 'a.yaml'}, which")


@pytest.mark.parametrize("where", ["phases.1", "phases[1]", "phases.ppo"])
def test_overrides_name_phases_by_index_and_by_name(tmp_path, where):
    path = write(tmp_path / "c.yaml", tree(RL))
    config = load_config(path, [f"{where}.steps=5", f"{where}.optim.lr=1e-5", f"{where}.reward.0.weight=0.5"])
    assert (config.phases[1].steps, config.phases[1].optim.lr, config.phases[1].reward[0].weight) == (5, 1e-5, 0.5)
    assert config.phases[1].reward[0].source == SCORE


def test_an_override_replaces_what_it_names(tmp_path):
    path = write(tmp_path / "c.yaml", tree(RL | {"algorithm": {"name": "ppo", "clip": 0.1}}))
    assert load_config(path, ["phases.ppo.algorithm=grpo"]).phases[1].algorithm.parameters == {}


def test_what_an_anchor_repeats_is_overridden_in_one_place(tmp_path):
    path = write(
        tmp_path / "c.yaml",
        "phases:\n"
        "- {kind: sft, name: a, data: d:d, optim: &optim {lr: 0.5}}\n"
        "- {kind: sft, name: b, data: d:d, optim: *optim}\n",
    )
    config = load_config(path, ["phases.a.optim.lr=0.25"])
    assert [phase.optim.lr for phase in config.phases] == [0.25, 0.5]


def test_numbers_without_a_point_are_numbers_and_dates_are_text(tmp_path):
    path = write(tmp_path / "c.yaml", tree(RL, run={"name": "x"}))
    config = load_config(path, ["phases.ppo.algorithm.clip=1e-1", "run.name=2026-01-31"])
    assert config.phases[1].algorithm.parameters == {"clip": 0.1}
    assert config.run.name == "2026-01-31"
    assert load_config(write(tmp_path / "again.yaml", dump_config(config))) == config


def test_text_that_looks_like_a_number_stays_text_when_written_and_read(tmp_path):
    config = Config.model_validate(tree(models={"policy": {"path": "1e-5"}}))
    assert load_config(write(tmp_path / "c.yaml", dump_config(config))) == config


# Mistakes, one line each, that name the file or override, the place and what would be right


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"promts_per_step": 4}, "phases[1].promts_per_step is not a setting; did you mean prompts_per_step?"),
        ({"lr": 1e-3}, "phases[1].lr is not a setting; did you mean optim.lr?"),
        ({"models": {"polcy": "x"}}, "phases[1].models.polcy is not a setting; did you mean policy?"),
        (
            {"kind": "rewrd"},
            "kind: found 'rewrd', wanted one of corpus, pretrain, sft, reward, dpo, rl, best_of_n, label; did you mean reward?",
        ),
        (
            {"kind": None},
            "phases[1].kind: found nothing, wanted one of corpus, pretrain, sft, reward, dpo, rl, best_of_n, label",
        ),
        ({"steps": 0}, "phases[1].steps: found 0, wanted a whole number at least 1"),
        ({"steps": 2.5}, "phases[1].steps: found 2.5, wanted a whole number at least 1"),
        ({"sampling": {"top_p": 1.5}}, "phases[1].sampling.top_p: found 1.5, wanted a number above 0 and at most 1"),
        (
            {"optim": {"schedule": "cosin"}},
            "found 'cosin', wanted one of cosine, linear, constant, wsd; did you mean cosine?",
        ),
        ({"optim": 3}, "phases[1].optim: found 3, wanted a mapping"),
        ({"data": {"path": [1]}}, "phases[1].data.path[0]: found 1, wanted text"),
        ({"data": {"limit": 3}}, "phases[1].data: give either path or mix"),
        (
            {"reward": ["a length"]},
            "phases[1].reward[0]: found 'a length', wanted model (a reward model), environment, judge, a rule's name or module:function",
        ),
        ({"name": "../x"}, "phases[1].name: found '../x', wanted a letter, then letters, digits, '_' and '-'"),
        ({"goals": {"kl": {"at_most": float("inf")}}}, "phases[1].goals.kl.at_most: found inf, wanted a number"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, change, line):
    path = write(tmp_path / "c.yaml", tree(RL | change))
    told = mistake(path)
    assert told.startswith(f"{path}: phases[1].")
    assert told.endswith(line)
    assert "\n" not in told


def test_every_mistake_gets_its_line_with_the_file_or_override_that_made_it(tmp_path):
    write(tmp_path / "base.yaml", tree(RL | {"step": 1}))
    path = write(tmp_path / "c.yaml", {"extends": "base.yaml", "rollout": {"engins": 2}})
    assert mistake(path, "phases.ppo.epochs=many").splitlines() == [
        f"{path}: rollout.engins is not a setting; did you mean engines?",
        "override phases.ppo.epochs=many: phases[1].epochs: found 'many', wanted a whole number at least 1",
        f"{tmp_path / 'base.yaml'}: phases[1].step is not a setting; did you mean steps?",
    ]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("run.seed", "override run.seed: not of the form path=value, such as run.seed=3"),
        ("rn.seed=1", "override rn.seed=1: rn is not a setting; did you mean run?"),
        ("phases.pp.steps=1", "override phases.pp.steps=1: phases has no entry pp; did you mean ppo?"),
        ("phases.7.steps=1", "override phases.7.steps=1: phases has 2 entries, counted from 0; there is no 7"),
        (
            "pools.train.devices.x=1",
            "override pools.train.devices.x=1: pools.train.devices is 2, which has no settings inside",
        ),
        ("run={name", "override run={name, line 1: expected ',' or '}', but got '<stream end>'"),
    ],
)
def test_a_wrong_override_is_one_line(tmp_path, override, line):
    assert mistake(write(tmp_path / "c.yaml", tree(RL)), override) == line


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("run: {seed: 1}\nrun: {seed: 2}\n", "{path}, line 2: the key 'run' is there twice"),
        ("phases: [\n", "{path}, line 2: expected the node content, but found '<stream end>'"),
        ("just text", "{path}: found str, wanted a mapping of settings such as run, models and phases"),
        ("", "{path}: phases is missing"),
        ("extends: 3", "{path}: extends: found 3, wanted a file or a list of files"),
        ("1: 2\nphases: [{kind: sft, data: d:d}]", "{path}: [1] is not a setting; there is run, device, pools, models, rollout, scaling, phases"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line(tmp_path, content, line):
    path = write(tmp_path / "c.yaml", content)
    assert mistake(path) == line.format(path=path)


def test_a_missing_file_is_told_with_the_nearest_one(tmp_path):
    write(tmp_path / "demo.yaml", tree())
    assert mistake(tmp_path / "dem.yaml") == f"{tmp_path / 'dem.yaml'}: there is no such file; did you mean demo.yaml?"


# Rules between fields


def test_a_sound_config_passes():
    check(Config.model_validate(tree(REWARD, RL, DPO)))


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            tree(SFT),
            "phases[0], phases[1] have the same name 'sft': artifacts are kept by name; give each its own name",
        ),
        (
            tree(DPO | {"models": {"policy": "phase:stf"}}),
            "phases.dpo.models.policy.path: there is no phase 'stf'; did you mean sft?",
        ),
        (
            tree(RL | {"models": {"policy": "phase:dpo"}}, DPO),
            "phases.ppo.models.policy.path: phase 'dpo' does not run before 'ppo'; move it up or name another",
        ),
        (
            tree(REWARD | {"models": {"reward": "phase:reward"}}),
            "phases.reward.models.reward.path: phase 'reward' does not run before 'reward'; move it up or name another",
        ),
        (
            tree(REWARD, DPO | {"models": {"policy": "phase:reward"}}),
            "phases.dpo.models.policy.path: phase 'reward' leaves a reward model, which cannot write; "
            "name a phase that trains a policy",
        ),
        (
            tree(RL | {"reward": ["model"], "models": {"reward": "phase:sft"}}),
            "phases.ppo.models.reward.path: phase 'sft' leaves a language model, which gives no scores; "
            "name a phase of kind reward",
        ),
        (
            tree(models={}),
            "phases.sft.models.policy: neither path nor architecture; name an earlier phase (phase:sft), a directory, "
            "or an architecture",
        ),
        (
            tree(RL | {"reward": ["model"]}),
            "phases.ppo.models.reward: a reward's source is `model`, but no reward model is named; name a reward phase "
            "(phase:reward) or a directory",
        ),
        (
            tree(DPO | {"models": {"policy": {"architecture": {"model_type": "llama"}}}}),
            "phases.dpo.models.reference: the reference keeps the policy's first weights, but the policy starts from "
            "scratch; give either a path",
        ),
        (
            tree(DPO | {"models": {"reference": {"pool": "trian"}}}),
            "phases.dpo.models.reference.pool: there is no pool 'trian'; did you mean train?",
        ),
        (
            tree(models={"policy": POLICY | {"pool": "trian"}}),
            "models.policy.pool (phase sft): there is no pool 'trian'; did you mean train?",
        ),
        (
            tree(RL, pools={"train": {"devices": 2}}),
            "rollout.pool: phase ppo samples answers, but there is no pool 'rollout'; there is train",
        ),
        (
            tree(RL, rollout={"engines": 2, "tensor_parallel": 2}),
            "pools.rollout.devices is 1, but rollout needs 4 (engines 2 x tensor_parallel 2): set pools.rollout.devices=4 "
            "or lower rollout.engines",
        ),
        (
            tree(DPO | {"batch_size": 1}),
            "phases.dpo.batch_size 1 does not divide over the 2 ranks of pool 'train': take 2",
        ),
        (
            tree(DPO | {"batch_size": 31}),
            "phases.dpo.batch_size 31 does not divide over the 2 ranks of pool 'train': take 30 or 32",
        ),
        (
            tree(RL | {"prompts_per_step": 7, "minibatches": 4}),
            "phases.ppo.prompts_per_step is 7, but 2 ranks of pool 'train' x 4 minibatches need at least 8: raise it or "
            "lower minibatches",
        ),
        (
            tree(RL | {"reward": []}),
            "phases.ppo.reward: nothing to learn from; name `model` (a reward model) or module:function",
        ),
        (
            tree(RL | {"max_length": 128}),
            "phases.ppo.sampling.max_new_tokens 128 leaves no room for a prompt in phases.ppo.max_length 128: lower the "
            "one or raise the other",
        ),
        (
            tree(DPO | {"max_length": 100, "answers": {"data": FUNCTION, "scores": {}}}),
            "phases.dpo.answers.sampling.max_new_tokens 128 leaves no room for a prompt in phases.dpo.max_length 100: "
            "lower the one or raise the other",
        ),
        (
            tree(RL | {"sampling": {"top_p": 0.9}}),
            "phases.ppo.sampling.top_p is 0.9: the trainer cannot see how it changes the probabilities; leave it at 1 "
            "and lower the temperature instead",
        ),
        (
            tree(REWARD | {"answers": {"data": FUNCTION, "scores": {}}}),
            "phases.reward.answers: a reward model scores answers and writes none; remove it",
        ),
        (tree(DPO | {"goals": {"kl": {}}}), "phases.dpo.goals.kl: give at_least or at_most"),
        (
            tree(DPO | {"data": "./pairs", "eval_data": "pairs.jsonl"}),
            f"phases.dpo.data.path: there is no ./pairs; relative paths start at {Path.cwd()}\n"
            f"phases.dpo.eval_data.path: there is no pairs.jsonl; relative paths start at {Path.cwd()}",
        ),
        (
            tree(DPO | {"models": {"policy": "/models/none"}}),
            f"phases.dpo.models.policy.path: there is no directory /models/none; relative paths start at {Path.cwd()}",
        ),
        (
            tree(SFT | {"name": "more", "tokenizer": {}}),
            "phases.more.tokenizer: a new tokenizer does not fit a model that was trained with another; "
            "set phases.more.tokenizer=null to keep the model's own",
        ),
        (
            tree(models={"policy": {"architecture": {"model_type": "llama"}}}),
            "phases.sft.tokenizer: a model from scratch brings no tokenizer; set phases.sft.tokenizer.vocab_size to train "
            "one, or phases.sft.tokenizer.path",
        ),
    ],
)
def test_a_broken_rule_is_told_with_advice(config, line):
    assert advice(config) == line


@pytest.mark.parametrize("positions", [64, None])
def test_rows_must_fit_the_positions_of_the_model_that_a_phase_made(positions):
    architecture = {"model_type": "llama"} | ({"max_position_embeddings": positions} if positions else {})
    first = SFT | {"max_length": 64, "tokenizer": {}, "models": {"policy": {"architecture": architecture}}}
    config = tree() | {"phases": [first, DPO | {"max_length": 65}]}
    assert advice(config).splitlines() == [
        "phases.dpo.max_length 65 is over the 64 positions of the policy's model: set phases.dpo.max_length=64 or start "
        "from a longer model"
    ]


def test_rows_must_fit_the_positions_of_a_model_directory(tmp_path):
    write(tmp_path / "config.json", json.dumps({"max_position_embeddings": 256}))
    told = advice(tree(models={"policy": str(tmp_path)}))
    assert told.startswith("phases.sft.max_length 512 is over the 256 positions of the policy's model")


@pytest.mark.parametrize(
    ("algorithm", "line"),
    [
        ({"clip_low": -0.1}, "clip"),
        ({"cliplow": 0.1}, "'cliplow'; did you mean 'clip_low'?"),
        ({"name": "pppo"}, "'pppo'"),
        ({"name": "nowhere:Mine"}, "there is no module 'nowhere'"),
    ],
)
def test_an_algorithm_is_checked_with_its_parameters(algorithm, line):
    told = advice(tree(RL | {"algorithm": algorithm}))
    assert told.startswith("phases.ppo.algorithm: ")
    assert line in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("loss", "line"),
    [
        ({"beta": 0}, "beta must be above 0, got 0"),
        ({"label_smoothing": 0.5}, "label_smoothing must lie in [0, 0.5), got 0.5"),
        ({"name": "hinge", "label_smoothing": 0.1}, "'hinge' has no parameter 'label_smoothing'"),
        ({"name": "ippo"}, "there is no loss 'ippo'"),
    ],
)
def test_a_loss_is_checked_with_its_parameters(loss, line):
    told = advice(tree(DPO | {"loss": loss}))
    assert told.startswith("phases.dpo.loss: ")
    assert line in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"loss": "listwise"}, "phases.reward.loss: there is no loss 'listwise'; built in are pairwise, kwise"),
        ({"loss": {"centre": -1}}, "phases.reward.loss: pairwise: centre must not be negative, got -1"),
        (
            {"loss": {"name": "kwise", "centre": 1}},
            "phases.reward.loss: loss 'kwise' has no parameter 'centre'; it has none",
        ),
        (
            {"loss": "process", "attributes": {"helpful": 1.0}},
            "phases.reward.attributes: loss process reads no ratings; remove it",
        ),
    ],
)
def test_a_reward_loss_is_checked_with_its_parameters(settings, line):
    assert advice(tree(REWARD | settings)).startswith(line)


def test_every_reward_loss_can_be_named():
    names = ("pairwise", "kwise", "plackett_luce", "pointwise", "binary", "process")
    check(Config.model_validate(tree(*(REWARD | {"name": name, "loss": name} for name in names))))


@pytest.mark.parametrize("loss", ["orpo", "simpo", "cpo"])
def test_a_loss_without_a_reference_has_none(loss):
    config = Config.model_validate(tree(DPO | {"loss": loss}))
    check(config)
    assert resolve(config).phases[-1].needed.keys() == {"policy"}
    with_reference = Config.model_validate(tree(DPO))
    assert resolve(with_reference).phases[-1].needed.keys() == {"policy", "reference"}


BEST = {"kind": "best_of_n", "data": FUNCTION, "models": {"policy": "phase:sft"}, "reward": [SCORE]}


@pytest.mark.parametrize(
    ("phases", "line"),
    [
        ([BEST | {"reward": []}], "phases.best_of_n.reward: nothing to learn from; name"),
        ([BEST | {"keep": 8}], "phases.best_of_n.keep is 8 of 8 samples, so nothing is rejected"),
        ([BEST | {"models": {"policy": "phase:stf"}}], "there is no phase 'stf'; did you mean sft?"),
        ([BEST, RL | {"models": {"policy": "phase:best_of_n"}}], "leaves a data set and no model"),
        (
            [RL | {"reward": ["environment"]}],
            "phases.ppo.reward: source `environment` is the score that a rollout gives",
        ),
        ([RL | {"data": "phase:sft"}], "phases.ppo.data.path: phase 'sft' leaves a model and no data set"),
        ([RL | {"data": "phase:later"}], "phases.ppo.data.path: no phase 'later' runs before 'ppo'"),
        (
            [RL | {"algorithm": "grpo", "sampling": {"samples": 2}, "critic_warmup": 3}],
            "GRPO has no critic; set it to 0",
        ),
        (
            [RL | {"rollout": "examples.gsm8k:solution_pairs"}],
            "phases.ppo.rollout: rollout 'examples.gsm8k:solution_pairs'",
        ),
        ([RL | {"reward": ["data.demo.gold:golden"]}], "phases.ppo.reward: 'data.demo.gold:golden'"),
        (
            [RL | {"models": {"policy": {"path": "x"}, "critic": {"path": "y"}}, "critic_warmup": 100}],
            "leaves the policy no step",
        ),
        (
            [DPO | {"loss": {"name": "mix", "parts": [{"name": "kto"}]}, "precompute_reference": True}],
            "kto asks the reference in every step",
        ),
        ([RL | {"algorithm": "reinforce", "max_kl": 0.1}], "phases.ppo.max_kl: REINFORCE has no ratio whose drift"),
        ([DPO | {"loss": "kto", "precompute_reference": True}], "kto asks the reference in every step; remove it"),
        ([DPO | {"loss": "simpo", "precompute_reference": True}], "loss simpo needs no reference; remove it"),
    ],
)
def test_what_the_new_phases_need_is_told(phases, line):
    assert line in advice(tree(*phases))


def test_a_phase_learns_from_the_rows_of_an_earlier_one():
    again = SFT | {"name": "again", "data": "phase:best_of_n", "models": {"policy": "phase:sft"}}
    check(Config.model_validate(tree(BEST, again)))


def test_models_are_checked_where_the_algorithm_needs_them():
    from_nowhere = {"policy": "phase:sft", "critic": "phase:nowhere"}
    line = "phases.ppo.models.critic.path: there is no phase 'nowhere'; there is sft"
    assert advice(tree(RL | {"models": from_nowhere})) == line
    grpo = {"algorithm": "grpo", "sampling": {"samples": 4}}
    check(Config.model_validate(tree(RL | {"models": from_nowhere} | grpo)))


def test_an_algorithm_that_compares_samples_needs_several_of_each_prompt():
    assert advice(tree(RL | {"algorithm": "grpo"})) == (
        "phases.ppo.sampling.samples is 1, but GRPO compares samples of one prompt: set at least 2"
    )


def test_ppo_cannot_make_a_critic_from_a_policy_without_weights():
    scratch = {"policy": {"architecture": {"model_type": "llama"}}}
    told = advice(tree(RL | {"models": scratch})).splitlines()
    assert [line.split(":")[0] for line in told] == ["phases.ppo.models.reference", "phases.ppo.models.critic"]


def test_a_reward_given_by_value_stands_in_for_the_configs():
    check(Config.model_validate(tree(RL | {"reward": []})), reward=lambda sample: 1.0)


def test_every_broken_rule_is_told_at_once():
    told = advice(tree(DPO | {"batch_size": 3, "goals": {"kl": {}}}, RL | {"reward": []}))
    assert len(told.splitlines()) == 3


# Kinds


def test_every_kind_of_phase_has_its_entry_and_what_the_entry_names_is_there():
    union, _ = get_args(Phase)
    assert {
        kind for phase in get_args(union) for kind in get_args(phase.model_fields["kind"].annotation)
    } == KINDS.keys()
    for kind in KINDS.values():
        assert callable(load_object(kind.loop))
        assert not kind.resolver or callable(load_object(kind.resolver))


# Roles


def roles(config: dict[str, Any], index: int) -> dict[str, Any]:
    return resolve(Config.model_validate(config)).phases[index].models


def test_a_phase_uses_the_roles_of_its_kind():
    config = tree(REWARD, DPO, RL, RL | {"name": "rm", "reward": ["model"]})
    assert [list(roles(config, index)) for index in range(5)] == [
        ["policy"],
        ["reward"],
        ["policy", "reference"],
        ["policy", "reference", "critic"],
        ["policy", "reference", "critic", "reward"],
    ]


GOLD = {"gold": [SCORE], "every": 5, "patience": 2}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"prompts_per_step": 1},
            "phases.ppo.watch.stop: gold of one prompt has no standard error, so it would never stop: set "
            "phases.ppo.prompts_per_step to at least 2, or phases.ppo.watch.stop=false",
        ),
        (
            {"steps": 11},  # looks at 1, 6 and 11
            "phases.ppo.watch.stop: patience 2 needs 4 looks, but 11 steps with a look every 5 have 3, so it would never "
            "stop: lower every or patience, raise steps, or set phases.ppo.watch.stop=false",
        ),
    ],
)
def test_a_watch_that_could_never_stop_is_told(settings, line):
    pools = {"train": {"devices": 1}, "rollout": {"devices": 1}}
    assert advice(tree(RL | settings | {"watch": GOLD}, pools=pools)) == line
    for watch in (GOLD | {"stop": False}, {"every": 5}):
        check(Config.model_validate(tree(RL | settings | {"watch": watch}, pools=pools)))


def test_the_last_step_is_a_look_too():
    check(Config.model_validate(tree(RL | {"steps": 12, "watch": GOLD})))  # at 1, 6, 11 and 12


def test_a_phase_covers_only_the_fields_that_it_sets():
    config = tree(DPO, models={"policy": POLICY | {"pool": "big", "zero_stage": 3}})
    policy = roles(config, 1)["policy"]
    assert (policy.path, policy.pool, policy.zero_stage) == ("phase:sft", "big", 3)


def test_a_path_and_an_architecture_take_each_other_back():
    scratch = {"architecture": {"model_type": "llama"}}
    assert roles(tree(DPO, models={"policy": scratch}), 1)["policy"].architecture is None
    assert roles(tree(DPO | {"models": {"policy": scratch}}), 1)["policy"].path is None


def test_the_reference_starts_as_the_policy_and_the_critic_as_the_reward_model():
    models = roles(tree(REWARD, RL | {"models": {"policy": "phase:sft"}}), 2)
    assert models["reference"].path == models["critic"].path == "phase:sft"
    models = roles(tree(REWARD, RL | {"models": {"policy": "phase:sft", "reward": "phase:reward"}}), 2)
    assert (models["reference"].path, models["critic"].path) == ("phase:sft", "phase:reward")


def test_the_configs_of_the_readme_and_of_the_guide_are_valid(tmp_path):
    (whole,), (corpus, pretraining, worth, fragment) = (
        re.findall(r"```yaml\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
        for name in ("README.md", "docs/guide.md")
    )
    phases = load_config(write(tmp_path / "mine.yaml", whole)).phases
    assert [phase.name for phase in phases] == ["sft", "reward", "ppo", "dpo"]
    made = load_config(write(tmp_path / "corpus.yaml", yaml.safe_dump({"phases": yaml.safe_load(corpus)})))
    assert [phase.kind for phase in made.phases] == ["corpus", "pretrain"]
    (pretrain,) = load_config(
        write(tmp_path / "p.yaml", yaml.safe_dump({"phases": yaml.safe_load(pretraining)}))
    ).phases
    assert (pretrain.objective.name, set(pretrain.data.mix)) == ("denoisers", {"web", "tasks"})
    rest = "\nphases: [{kind: sft, data: rows.jsonl, models: {policy: a-model}}]"
    check(load_config(write(tmp_path / "pools.yaml", fragment + rest), ["phases.sft.data.path=a-name"]))
    rl = yaml.safe_dump({"phases": [RL | yaml.safe_load(worth)]})
    assert load_config(write(tmp_path / "rl.yaml", rl)).phases[0].watch.every == 5


def test_best_of_n_takes_several_samples_whatever_else_is_set():
    config = Config.model_validate(tree(BEST | {"sampling": {"max_new_tokens": 8}}))
    assert config.phases[-1].sampling.samples == 8
