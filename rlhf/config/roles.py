"""Which models a phase uses, and with which settings: the config's top level, the phase's own, and what follows from them."""

from __future__ import annotations

from rlhf.config.schema import Config, Model, Phase, PhaseBase

ROLES = {
    "pretrain": ("policy",),
    "sft": ("policy",),
    "reward": ("reward",),
    "dpo": ("policy", "reference"),
    "rl": ("policy", "reference", "critic"),
    "best_of_n": ("policy",),
}
ROLE_OF_NEED = {"ref_logprobs": "reference", "values": "critic"}  # what an algorithm or loss needs: who computes it
PHASE = "phase:"  # a path that names an earlier phase's artifact


def resolve_models(config: Config, phase: PhaseBase) -> dict[str, Model]:
    """{role: model} of the roles that the phase's kind can use.

    The phase's `models` cover the top level's field by field; a path wins over an architecture. The reference then starts as the policy does, the critic as
    the reward model or else as the policy, where they name no path or architecture of their own. Which of
    reference and critic are built, the algorithm or loss decides (`rlhf.needs`); the reward model is there if a reward's
    source is `model`.
    """
    models = {role: _overlaid(config, phase, role) for role in ("policy", "reference", "critic", "reward")}
    start = models["reward"] if models["reward"].path else models["policy"]
    models["critic"] = _starting_as(models["critic"], start)
    models["reference"] = _starting_as(models["reference"], models["policy"])
    roles = ROLES[phase.kind]
    if any(part.source == "model" for part in getattr(phase, "reward", ())):
        roles = (*roles, "reward")
    return {role: models[role] for role in roles}


def result_role(phase: Phase) -> str | None:
    """The role of the model that the phase leaves; None where it leaves a data set."""
    return {"reward": "reward", "best_of_n": None}.get(phase.kind, "policy")


def samples_answers(phase: Phase) -> bool:
    """Whether the phase needs the rollout engines."""
    return phase.kind in ("rl", "best_of_n") or phase.answers is not None


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
