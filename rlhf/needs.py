"""Which models a phase builds: of those that its kind can use, the ones that its algorithm, loss or watch needs."""

from __future__ import annotations

from rlhf.algorithms import resolve
from rlhf.config.roles import ROLE_OF_NEED, resolve_models
from rlhf.config.schema import Config, Model, Phase
from rlhf.interfaces import Algorithm
from rlhf.objectives import resolve_loss


def needed_models(config: Config, phase: Phase, algorithm: Algorithm | None = None) -> dict[str, Model]:
    """{role: model}. algorithm: what `rlhf.run` was given instead of the config's.

    Raises UserError where the config's algorithm or loss is wrong.
    """
    needs = set(ROLE_OF_NEED)
    if phase.kind == "rl":
        needs = set((algorithm or resolve(phase.algorithm.name, phase.algorithm.parameters)).needs)
    elif phase.kind == "dpo":
        needs = set(resolve_loss(phase.loss.name, phase.loss.parameters).columns)
    watch = getattr(phase, "watch", None)
    if watch is not None and watch.gold:
        needs.add("ref_logprobs")  # the watch measures how far the policy has gone
    unneeded = {role for need, role in ROLE_OF_NEED.items() if need not in needs}
    return {role: model for role, model in resolve_models(config, phase).items() if role not in unneeded}
