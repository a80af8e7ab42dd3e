"""Rules about what pretraining and SFT learn: the objective is there, and rows, model and tokenizer are such as it needs. And about
the architectures of the phases after them. They import torch and the user's modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data.errors import UserError
from rlhf.config.model_rules import Advice, architecture_of, place_of
from rlhf.config.roles import CORPUS, JUDGE, PHASE, corpora_of, resolve_models, result_role
from rlhf.config.schema import Config, Model, Phase

if TYPE_CHECKING:  # it imports torch
    from rlhf.interfaces import Objective

OF_TEXT = ("pretrain", "sft")  # kinds of phases that name an objective
# model types whose form is known without asking transformers, whose import takes seconds
DECODERS = ("llama", "gpt2", "gpt_neox", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2")
UNSURE = (JUDGE, "reference", "critic")  # roles whose models may not be built, or not by us: told when they are
Objectives = Mapping[str, "Objective"]  # by phase; those that could be made


def text_objectives_fit(config: Config) -> Advice:
    """Objectives take their parameters, and the phase has what they ask for."""
    from rlhf.objectives import resolve_text_objective

    objectives: dict[str, Objective] = {}
    for phase in config.phases:
        if phase.kind not in OF_TEXT:
            continue
        try:
            objectives[phase.name] = resolve_text_objective(phase.objective.name, phase.objective.parameters)
        except UserError as error:
            yield f"phases.{phase.name}.objective: {error}"
            continue
        objective = objectives[phase.name]
        broken = [*_rows_fit(config, phase, objective), *_architecture_fits(config, phase, objective)]
        yield from broken or _tokens_are_known(config, phase, objectives)


def feedback_is_for_decoders(config: Config) -> Advice:
    """After SFT, answers are written and scored where they end by models that read from left to right."""
    for phase in config.model_phases:
        if phase.kind in OF_TEXT:
            continue
        for role, model in resolve_models(config, phase).items():
            model_type, form = _form_of(config, phase, model)
            if role in UNSURE or form not in ("encoder", "encoder_decoder"):
                continue
            field = "path" if model.path else "architecture"
            yield (
                f"{place_of(config, phase, role, field)}: {model_type} is an {form.replace('_', '-')}, and phases of kind "
                f"{phase.kind} are for decoders: name a model such as llama"
            )


def _rows_fit(config: Config, phase: Phase, objective: Objective) -> Advice:
    where = f"phases.{phase.name}"
    if phase.kind == "sft" and "inputs" in objective.columns:
        yield f"{where}.objective: {phase.objective.name} restores masked tokens, but sft learns answers: take causal or prefix"
    if not hasattr(objective, "raw_length"):
        return
    try:
        length = objective.raw_length(phase.max_length)
    except UserError as error:
        yield f"{where}.{error}"
        return
    if length < 3 and corpora_of(config, phase):
        yield (
            f"{where}.max_length is {phase.max_length}, which leaves {length} tokens of text to a row of objective "
            f"{phase.objective.name}, and windows of a corpus have at least 3: raise it"
        )


def _architecture_fits(config: Config, phase: Phase, objective: Objective) -> Advice:
    """As `rlhf.engine.build` and `rlhf.engine.inputs` would say once the model is made."""
    model_type, form = _form_of(config, phase, resolve_models(config, phase)["policy"])
    name, where = phase.objective.name, f"phases.{phase.name}.objective"
    restores, reads = "inputs" in objective.columns, "prefix_lengths" in objective.columns
    if form == "encoder_decoder" and not reads:
        # an answer's prompt is its source
        take = "objective prefix" if phase.kind == "sft" else "objective spans, denoisers or prefix"
        yield f"{where}: {name} has no source, which {model_type}, an encoder-decoder, reads to write a target: take {take}"
    elif form == "encoder" and not restores:
        take = "" if phase.kind == "sft" else "objective masked, or "
        yield (
            f"{where}: {model_type} is an encoder and restores masked tokens, which {name} does not ask for: take {take}an "
            "architecture such as llama"
        )
    elif form == "decoder" and restores and phase.kind != "sft":
        yield (
            f"{where}: {name} masks tokens for an encoder, and {model_type} is a decoder: take an architecture such as bert or "
            "modernbert, or objective causal"
        )


def _form_of(config: Config, phase: Phase, model: Model) -> tuple[str | None, str | None]:
    """(model type, its form), None where they are unknown."""
    fields, maker = architecture_of(config, phase, model) or ({}, None)
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


def _tokens_are_known(config: Config, phase: Phase, objectives: Objectives) -> Advice:
    """A tokenizer is extended for a model from scratch; one that was trained has no embeddings for more."""
    path, wanted = resolve_models(config, phase)["policy"].path, getattr(objectives[phase.name], "special_tokens", ())
    if not wanted or not path or phase.tokenizer is not None:
        return
    found = _brought_by(config, path, objectives)
    missing = [token for token in wanted if token not in found[0]] if found else []
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        yield (
            f"phases.{phase.name}.objective: {path} lacks {missing[0]}{others}, which {phase.objective.name} needs: list them in "
            f"{found[1]}.special_tokens, or train {path} with this objective"
        )


def _brought_by(config: Config, path: str, objectives: Objectives) -> tuple[set[str], str] | None:
    """(special tokens beside a chat's, the setting of the tokenizer) of what an earlier phase left; None where they are known
    only once a directory is read."""
    if not path.startswith(PHASE):
        return None
    phase = next(each for each in config.phases if PHASE + each.name == path)
    settings, own = getattr(phase, "tokenizer", None), set()
    if phase.kind != CORPUS:
        model = resolve_models(config, phase)[result_role(phase)]
        if model.path:
            return None if settings is not None else _brought_by(config, model.path, objectives)
        if phase.kind in OF_TEXT:
            if phase.name not in objectives:
                return None
            own = set(getattr(objectives[phase.name], "special_tokens", ()))
        if corpus := next(iter(corpora_of(config, phase).values()), None):
            return _with(own, _brought_by(config, PHASE + corpus.name, objectives))
    if settings is None:
        return None
    if settings.path:
        return _with(own, _brought_by(config, settings.path, objectives))
    return own | set(settings.special_tokens), f"phases.{phase.name}.tokenizer"


def _with(own: set[str], found: tuple[set[str], str] | None) -> tuple[set[str], str] | None:
    return found and (found[0] | own, found[1])
