"""All rules about several settings. Each yields advice, one line per mistake, before any process starts.

A rule stands in the file of the settings it speaks about. `rule(resolved)` is checked once, `rule(resolved, phase)` for
each phase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any

from data.errors import UserError
from rlhf.config import (
    corpus_rules,
    data_rules,
    model_rules,
    objective_rules,
    phase_rules,
    reward_rules,
    scaling_rules,
    training_rules,
)
from rlhf.config.resolved import Resolved, ResolvedPhase, resolve
from rlhf.config.schema import AnyPhase, BestOfN, Config, Corpus, Dpo, PhaseBase, Pretrain, RewardModel, Rl, Sft

if TYPE_CHECKING:
    from rlhf.interfaces import Algorithm

Rule = Callable[[Resolved, ResolvedPhase], Iterator[str]]

CONFIG_RULES = (phase_rules.names_are_unique, phase_rules.rollouts_have_devices, scaling_rules.scaling_fits)

PHASE_RULES: Mapping[type | UnionType, tuple[Rule, ...]] = {  # by the settings that a phase has
    AnyPhase: (phase_rules.goals_name_a_bound,),
    Corpus: (
        corpus_rules.sources_are_there,
        corpus_rules.reserved_exists,
        corpus_rules.steps_name_what_is_there,
        corpus_rules.tokenizer_can_be_had,
    ),
    Pretrain: (corpus_rules.mixture_fits_the_corpus,),
    Pretrain | Sft: (model_rules.tokenizer_fits_the_model,),
    PhaseBase: (
        phase_rules.answers_fit,
        phase_rules.only_policies_answer,
        data_rules.data_exists,
        data_rules.mixes_are_trained_on,
        data_rules.mix_shares_can_be_had,
        data_rules.mixes_are_evaluated_by_part,
        data_rules.templates_make_what_is_read,
        reward_rules.rewards_fit,
        reward_rules.reward_is_there,
        reward_rules.environment_is_there,
        reward_rules.judge_is_somewhere,
        reward_rules.judge_template_asks_what_it_must,
        reward_rules.judge_is_asked,
    ),
    Rl: (phase_rules.sampling_is_not_cut_by_top_p, reward_rules.watch_can_stop),
    BestOfN: (phase_rules.best_of_n_has_a_choice,),
}

MODEL_RULES: tuple[Rule, ...] = (  # about the models in `phase.models`
    model_rules.models_start_somewhere,
    model_rules.pools_exist,
    model_rules.phases_come_before,
    model_rules.model_directories_exist,
    model_rules.rows_fit_positions,
    model_rules.every_rank_gets_rows,
    model_rules.replicas_fill_the_pool,
    model_rules.pipelines_shard_the_optimizer_alone,
    model_rules.parallel_models_are_not_float16,
    model_rules.parallelism_fits_the_architecture,
    training_rules.adafactor_sees_whole_matrices,
    training_rules.schedules_fit_the_steps,
    training_rules.settings_of_optim_say_something,
    training_rules.float16_is_for_supervised_training_on_gpus,
    training_rules.ramps_grow_to_the_batch,
    training_rules.spikes_have_a_way_back,
)

CODE_RULES: Mapping[type | UnionType, tuple[Rule, ...]] = {  # these import the user's modules
    Corpus: (corpus_rules.corpus_steps_fit,),
    Rl: (objective_rules.algorithm_fits,),
    Dpo: (objective_rules.loss_fits,),
    RewardModel: (objective_rules.reward_loss_fits,),
    Pretrain | Sft: (objective_rules.text_objective_fits,),
    PhaseBase: (
        objective_rules.feedback_is_for_decoders,
        reward_rules.rewards_can_score,
        reward_rules.rollout_is_there,
    ),
}


def check(
    config: Config, *, algorithm: Algorithm | None = None, reward: Any = None, rollout_given: bool = False
) -> Resolved:
    """The resolved config. algorithm, reward, rollout_given: the objects that `rlhf.run` got instead of the config's.

    Raises UserError with one line for each rule that the config breaks.
    """
    resolved = resolve(config, algorithm=algorithm, reward=reward, rollout_given=rollout_given)
    advice = [line for rule in CONFIG_RULES for line in rule(resolved)]
    for phase in resolved.phases:
        advice += _asked(_rules_of(phase, PHASE_RULES), resolved, phase)
        advice += _asked(MODEL_RULES, resolved, phase.certain)
    if not advice:  # a mistake that needs no import is told at once
        for phase in resolved.phases:
            broken = _asked(_rules_of(phase, CODE_RULES), resolved, phase)
            advice += broken or _asked(MODEL_RULES, resolved, phase.decided)
    if advice:
        raise UserError("\n".join(advice))
    return resolved


def _rules_of(phase: ResolvedPhase, rules: Mapping[type | UnionType, tuple[Rule, ...]]) -> list[Rule]:
    return [rule for settings, own in rules.items() if isinstance(phase.settings, settings) for rule in own]


def _asked(rules: Iterable[Rule], resolved: Resolved, phase: ResolvedPhase) -> list[str]:
    return [line for rule in rules for line in rule(resolved, phase)]
