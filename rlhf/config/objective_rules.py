"""Rules about algorithms, losses and objectives: they exist, and rows, model and tokenizer are as they need.

They import the user's modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data.errors import UserError
from rlhf.config.kinds import CORPUS, JUDGE, PHASE
from rlhf.config.resolved import Resolved, ResolvedPhase

# model types whose form is known without transformers, whose import takes seconds
DECODERS = ("llama", "gpt2", "gpt_neox", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2")
UNSURE = (JUDGE, "reference", "critic")  # roles that may not be built, or not by us: checked when they are built


def algorithm_fits(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """The algorithm takes its parameters, and the phase has what it asks for."""
    # with the maths, which reading a config does not need
    from rlhf.objectives import Reinforce
    from rlhf.objectives.dpo import PairLoss

    settings, where = phase.settings, phase.where
    try:
        algorithm = phase.algorithm
    except UserError as error:
        yield f"{where}.algorithm: {error}"
        return
    name = type(algorithm).__name__
    if settings.sampling.samples < algorithm.samples_per_prompt:
        yield (
            f"{where}.sampling.samples is {settings.sampling.samples}, but {name} compares samples of one prompt: set at "
            f"least {algorithm.samples_per_prompt}"
        )
    asked = resolved.reward is None and any(part.source == "judge" for part in settings.reward)
    if asked and settings.judge.kind == "pairwise" and "greedy_rewards" in algorithm.needs:
        yield (
            f"{where}.judge.kind is pairwise, but {name} has one greedy answer of each prompt scored, which there is nothing "
            f"to compare with: set {where}.judge.kind=pointwise"
        )
    if settings.critic_warmup and "values" not in algorithm.needs:
        yield f"{where}.critic_warmup: {name} has no critic; set it to 0"
    elif settings.critic_warmup >= settings.steps:
        yield f"{where}.critic_warmup leaves the policy no step of {settings.steps}: lower it or raise steps"
    if settings.max_kl and isinstance(algorithm.objectives()["policy"], Reinforce | PairLoss):
        yield f"{where}.max_kl: {name} has no ratio whose drift it could bound; remove it"


def loss_fits(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """A preference loss takes its parameters, and the phase has what it asks for."""
    settings, where = phase.settings, phase.where
    try:
        columns = phase.objective.columns
    except UserError as error:
        yield f"{where}.loss: {error}"
        return
    if settings.precompute_reference and "ref_logprobs" not in columns:
        yield f"{where}.precompute_reference: loss {settings.loss.name} needs no reference; remove it"
    elif "kl_baseline" in columns:
        if settings.precompute_reference:
            yield f"{where}.precompute_reference: kto asks the reference in every step; remove it"
        if settings.batch_size < 2:
            yield f"{where}.batch_size: kto compares rows of a batch with each other; set at least 2"


def reward_loss_fits(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """A reward model's loss takes its parameters, and the data's options go with it."""
    settings = phase.settings
    try:
        rows = phase.rows
    except UserError as error:
        yield f"{phase.where}.loss: {error}"
        return
    if settings.attributes and rows in ("binary", "steps"):
        yield f"{phase.where}.attributes: loss {settings.loss.name} reads no ratings; remove it"


def text_objective_fits(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """A text objective takes its parameters, and the phase has what it asks for."""
    try:
        phase.objective  # noqa: B018, found and made here
    except UserError as error:
        yield f"{phase.where}.objective: {error}"
        return
    broken = [*_rows_fit(phase), *_architecture_fits(phase)]
    yield from broken or _tokens_are_known(phase)


def feedback_is_for_decoders(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """After SFT, models that read from left to right write answers, or score them where they end."""
    for role, model in phase.models.items() if not phase.kind.of_text else ():
        model_type, form = _form_of(phase, role)
        if role in UNSURE or form not in ("encoder", "encoder_decoder"):
            continue
        field = "path" if model.path else "architecture"
        yield (
            f"{phase.place_of(role, field)}: {model_type} is an {form.replace('_', '-')}, and phases of kind "
            f"{phase.kind.name} are for decoders: name a model such as llama"
        )


def _rows_fit(phase: ResolvedPhase) -> Iterator[str]:
    settings, objective, where = phase.settings, phase.objective, phase.where
    if phase.kind.rows == "chat" and "inputs" in objective.columns:
        yield f"{where}.objective: {settings.objective.name} restores masked tokens, but sft learns answers: take causal or prefix"
    if not hasattr(objective, "raw_length"):
        return
    try:
        length = objective.raw_length(settings.max_length)
    except UserError as error:
        yield f"{where}.{error}"
        return
    if length < 3 and phase.corpora:
        yield (
            f"{where}.max_length is {settings.max_length}, which leaves {length} tokens of text to a row of objective "
            f"{settings.objective.name}, and windows of a corpus have at least 3: raise it"
        )


def _architecture_fits(phase: ResolvedPhase) -> Iterator[str]:
    """`rlhf.engine.build` and `rlhf.engine.inputs` would raise the same errors, but only once the model is built."""
    model_type, form = _form_of(phase, "policy")
    name, where, chat = phase.settings.objective.name, f"{phase.where}.objective", phase.kind.rows == "chat"
    restores, reads = "inputs" in phase.objective.columns, "prefix_lengths" in phase.objective.columns
    if form == "encoder_decoder" and not reads:
        # an answer's prompt is its source
        take = "objective prefix" if chat else "objective spans, denoisers or prefix"
        yield f"{where}: {name} has no source, which {model_type}, an encoder-decoder, reads to write a target: take {take}"
    elif form == "encoder" and not restores:
        take = "" if chat else "objective masked, or "
        yield (
            f"{where}: {model_type} is an encoder and restores masked tokens, which {name} does not ask for: take {take}an "
            "architecture such as llama"
        )
    elif form == "decoder" and restores and not chat:
        yield (
            f"{where}: {name} masks tokens for an encoder, and {model_type} is a decoder: take an architecture such as bert or "
            "modernbert, or objective causal"
        )


def _form_of(phase: ResolvedPhase, role: str) -> tuple[str | None, str | None]:
    """(model type, its form), None where they are unknown."""
    fields, maker = phase.architecture_of(role) or ({}, None)
    model_type = fields.get("model_type", "llama" if maker else None)
    return model_type, _form(model_type, fields)


def _form(model_type: str | None, fields: Mapping[str, Any]) -> str | None:
    """encoder, decoder or encoder_decoder; None where transformers knows no language model of this type."""
    if model_type in DECODERS and not fields.get("is_encoder_decoder"):
        return "decoder"
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    if model_type not in CONFIG_MAPPING:
        return None
    if fields.get("is_encoder_decoder", CONFIG_MAPPING[model_type].is_encoder_decoder):
        return "encoder_decoder" if model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES else None
    decodes = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        # the same classes may be told to read from left to right; then either objective can be meant
        return None if decodes and (fields.get("is_decoder") or fields.get("causal")) else "encoder"
    return "decoder" if decodes else None


def _tokens_are_known(phase: ResolvedPhase) -> Iterator[str]:
    """A tokenizer is extended for a model from scratch; a trained model has no embeddings for more tokens."""
    path, wanted = phase.models["policy"].path, getattr(phase.objective, "special_tokens", ())
    if not wanted or not path or phase.settings.tokenizer is not None:
        return
    found = _brought_by(phase.parent(path))
    missing = [token for token in wanted if token not in found[0]] if found else []
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        yield (
            f"{phase.where}.objective: {path} lacks {missing[0]}{others}, which {phase.settings.objective.name} needs: list them "
            f"in {found[1]}.special_tokens, or train {path} with this objective"
        )


def _brought_by(phase: ResolvedPhase | None) -> tuple[set[str], str] | None:
    """(special tokens in addition to those of chat, the setting of the tokenizer) of an earlier phase's model or corpus;
    None if only a directory has them."""
    if phase is None:
        return None
    settings, own = getattr(phase.settings, "tokenizer", None), set()
    if phase.kind.name != CORPUS:
        path = phase.models[phase.kind.result].path
        if path:
            return None if settings is not None else _brought_by(phase.parent(path))
        if phase.kind.of_text:
            try:
                own = set(getattr(phase.objective, "special_tokens", ()))
            except UserError:  # which its own rule tells
                return None
        if corpus := next(iter(phase.corpora.values()), None):
            return _with(own, _brought_by(phase.parent(PHASE + corpus.name)))
    if settings is None:
        return None
    if settings.path:
        return _with(own, _brought_by(phase.parent(settings.path)))
    return own | set(settings.special_tokens), f"{phase.where}.tokenizer"


def _with(own: set[str], found: tuple[set[str], str] | None) -> tuple[set[str], str] | None:
    return found and (found[0] | own, found[1])
