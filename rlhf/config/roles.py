"""Which models a phase uses, and with which settings: the config's top level, the phase's own, and what follows from them."""

from __future__ import annotations

from rlhf.config.data import Data
from rlhf.config.rewards import Reward
from rlhf.config.schema import AnyPhase, Config, Corpus, Model, Phase, PhaseBase

ROLES = {
    "corpus": (),
    "pretrain": ("policy",),
    "sft": ("policy",),
    "reward": ("reward",),
    "dpo": ("policy", "reference"),
    "rl": ("policy", "reference", "critic"),
    "best_of_n": ("policy",),
    "label": ("policy",),
}
ROLE_OF_NEED = {"ref_logprobs": "reference", "values": "critic"}  # what an algorithm or loss needs: who computes it
PHASE = "phase:"  # a path that names an earlier phase's artifact
JUDGE = "judge"
DATA_SETS = ("best_of_n", "label")  # kinds of phases that leave rows and no model
CORPUS = "corpus"  # the kind that leaves a corpus


def resolve_models(config: Config, phase: AnyPhase) -> dict[str, Model]:
    """{role: model} of the roles that the phase's kind can use.

    The phase's `models` cover the top level's field by field; a path wins over an architecture. The reference then starts as the policy does, the critic as
    the reward model or else as the policy, where they name no path or architecture of their own. Which of
    reference and critic are built, the algorithm or loss decides (`rlhf.needs`); the reward models are those that
    `reward_models` names, each with the settings of `models.reward`; a judge is there if this run serves one.
    """
    if phase.kind == CORPUS:
        return {}
    models = {role: _overlaid(config, phase, role) for role in ("policy", "reference", "critic", "reward")}
    start = models["reward"] if models["reward"].path else models["policy"]
    models["critic"] = _starting_as(models["critic"], start)
    models["reference"] = _starting_as(models["reference"], models["policy"])
    found = {role: models[role] for role in ROLES[phase.kind]}
    for role, path in reward_models(phase).items():
        found[role] = models["reward"].model_copy(update={"path": path, "architecture": None} if path else {})
    judge = getattr(phase, "judge", None)
    if judge is not None and judge.model:
        found[JUDGE] = Model(path=judge.model, pool=judge.pool)
    return found


def reward_parts(phase: AnyPhase) -> list[Reward]:
    """Every reward that the phase scores answers with, those that only watch among them."""
    watch = getattr(phase, "watch", None)
    watching = [*watch.gold, *([watch.format] if watch.format else [])] if watch else []
    return [*getattr(phase, "reward", ()), *watching]


def reward_models(phase: AnyPhase) -> dict[str, str | None]:
    """{role: path} of the reward models that score answers in the phase: `reward` is the config's role and has no path here;
    those that a reward names itself are reward_1, reward_2, … in the order of their first mention."""
    parts = [part for part in reward_parts(phase) if part.source == "model"]
    named = dict.fromkeys(path for part in parts for path in part.models)
    own = {"reward": None} if any(not part.models for part in parts) else {}
    return own | {f"reward_{number}": path for number, path in enumerate(named, 1)}


def scores_answers(role: str) -> bool:
    """Whether it is a reward model's role."""
    return role.startswith("reward")


def needs_cluster(phase: Phase) -> bool:
    """All but a corpus that is made in this process."""
    return phase.kind != CORPUS or phase.workers > 1


def result_role(phase: Phase) -> str | None:
    """The role of the model that the phase leaves; None where it leaves a data set or a corpus."""
    return None if phase.kind in (CORPUS, *DATA_SETS) else "reward" if phase.kind == "reward" else "policy"


def corpus_of(config: Config, data: Data) -> Corpus | None:
    """The corpus phase that the data are, where they are one."""
    return next((other for other in config.phases if other.kind == CORPUS and data.path == PHASE + other.name), None)


def corpora_of(config: Config, phase: PhaseBase) -> dict[str, Corpus]:
    """By setting, the corpora that the phase trains on."""
    found = {name: corpus_of(config, data) for name, data in phase.data.sets("data").items()}
    return {name: corpus for name, corpus in found.items() if corpus}


def named_data(phase: PhaseBase) -> dict[str, Data]:
    """What the phase reads, by setting: data, eval_data, answers.data, ptx.data."""
    found = {"data": phase.data, "eval_data": getattr(phase, "eval_data", None)}
    for name in ("answers", "ptx"):
        if settings := getattr(phase, name, None):
            found[f"{name}.data"] = settings.data
    return {name: data for name, data in found.items() if data}


def data_sets(phase: PhaseBase) -> dict[str, Data]:
    """The same, each part of a mix on its own."""
    return {where: part for name, data in named_data(phase).items() for where, part in data.sets(name).items()}


def samples_answers(phase: Phase) -> bool:
    """Whether the phase needs the rollout engines."""
    return phase.kind in ("rl", *DATA_SETS) or getattr(phase, "answers", None) is not None


def _overlaid(config: Config, phase: PhaseBase, role: str) -> Model:
    base, top = config.models.get(role, Model()), phase.models.get(role, Model())
    fields = {name: getattr(top, name) for name in top.model_fields_set}
    if top.architecture:
        fields.setdefault("path", None)  # from scratch, whatever the top level starts from
    model = base.model_copy(update=fields)
    return model.model_copy(update={"architecture": None}) if model.path else model


def _starting_as(model: Model, other: Model) -> Model:
    """The model, started from the other's weights where it names none."""
    if model.path or model.architecture:
        return model
    return model.model_copy(update={"path": other.path})
