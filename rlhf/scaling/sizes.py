"""Parameter counts of architectures, and checks, before training, that a grid's sizes can be built and can determine a
law."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data.errors import UserError
from data.tokenizer import load_tokenizer
from rlhf.config.kinds import PHASE
from rlhf.config.resolved import Resolved, ResolvedPhase
from rlhf.config.scaling import FEWEST, NARROWEST
from rlhf.engine.build import parameters_of
from rlhf.phases.base import implied_fields
from rlhf.phases.supervised import head_of
from rlhf.scaling.law_tables import count


def parameters_for(
    phase: ResolvedPhase, architecture: Mapping[str, Any], implied: Mapping[str, Any], where: str
) -> int:
    """Parameters of a model of this architecture, as the phase would build it. implied:
    `rlhf.phases.base.implied_fields`.

    Raises UserError where it cannot be built; the message begins with `where`, the setting of the architecture.
    """
    return parameters_of(architecture, implied, head_of(phase.objective), where)


def expect_sizes(resolved: Resolved) -> None:
    """Raises UserError where a size of the grid cannot be built, or the fitted sizes are too close to each other."""
    phase, scaling = resolved.scaled, resolved.config.scaling
    base, implied = phase.models["policy"].architecture, _implied(phase)
    counts, advice = {}, []
    for name, size in scaling.sizes.items():
        try:
            counts[name] = parameters_for(
                phase, base | size.architecture, implied, f"scaling.sizes.{name}.architecture"
            )
        except UserError as error:
            advice.append(str(error))
    if advice:
        raise UserError("\n".join(advice))
    held_out = {training.size for training in scaling.held_out}
    fitted = [parameters for name, parameters in counts.items() if name not in held_out]
    if len(set(fitted)) < FEWEST or round(max(fitted) / min(fitted), 1) < NARROWEST:
        told = ", ".join(f"{name} {count(parameters)}" for name, parameters in counts.items() if name not in held_out)
        raise UserError(
            f"scaling.sizes: {told} parameters (with a vocabulary of {implied['vocab_size']:,}) are too close to "
            f"determine an exponent: take at least {FEWEST} different ones, spread over a factor of {NARROWEST:g}, better 8"
        )


def _implied(phase: ResolvedPhase) -> dict[str, Any]:
    """Fields that follow from the tokenizer; for a tokenizer that is not trained yet, with the vocabulary size of its
    settings."""
    settings = next((corpus.tokenizer for corpus in phase.corpora.values()), phase.settings.tokenizer)
    positions = phase.settings.max_length
    if settings.path and not settings.path.startswith(PHASE):
        return implied_fields(load_tokenizer(settings.path), positions)
    return {
        "max_position_embeddings": positions,
        "vocab_size": settings.vocab_size,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
