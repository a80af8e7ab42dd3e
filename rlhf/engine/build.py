"""Models of transformers for the engine: from a directory, or from scratch by the fields of a config."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from data.errors import UserError
from data.lean_transformers import import_transformers
from rlhf.engine.models import EngineModel, expect_causal, is_scalar, kind_of
from rlhf.interfaces import ModelBuild

if TYPE_CHECKING:  # imports all of transformers' models, which this module's users in the driver need not have
    from transformers import PretrainedConfig, PreTrainedModel

# Near zero, so that an untrained critic or reward model says next to nothing; not zero, which would stop the gradient.
HEAD_STD = 1e-3
# Fields that transformers' configs take and turn into others.
CONVERTED_FIELDS = {"rope_theta", "rope_scaling", "global_attn_every_n_layers"}


def build_model(build: ModelBuild, dtype: torch.dtype) -> EngineModel:
    """The role's model on the CPU, the same on every rank.

    Raises UserError where the path does not load, lacks weights, or the architecture is unknown or cannot be trained
    here.
    """
    _quiet()
    torch.manual_seed(build.seed)
    model = _load(build, dtype) if build.path is not None else _create(build, dtype)
    if build.head == "scalar":
        if not is_scalar(model):
            raise UserError(
                f"models.{build.role}: {type(model).__name__} has no scalar head `score`; take another architecture"
            )
        if model.config.pad_token_id is None:
            # transformers finds a row's last token by its padding; batches are padded with 0
            model.config.pad_token_id = 0
    if build.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if build.head == "lm" and kind_of(model) == "decoder":
        expect_causal(model, f"models.{build.role}")
    return EngineModel(model)


def _load(build: ModelBuild, dtype: torch.dtype) -> PreTrainedModel:
    options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True}
    if build.head == "scalar":
        options["num_labels"] = 1
    try:
        auto = _auto(
            build.head, import_transformers().AutoConfig.from_pretrained(build.path), f"models.{build.role}.path"
        )
        model, report = auto.from_pretrained(build.path, **options)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"models.{build.role}.path: cannot load {build.path!r} ({reason}); give a directory that transformers loads"
        ) from error
    missing = set(report["missing_keys"])
    if build.head == "scalar" and "score.weight" in missing:
        missing.remove("score.weight")
        _start_near_zero(model)
    if missing:
        raise UserError(
            f"models.{build.role}.path: {build.path!r} lacks {len(missing)} weights of {type(model).__name__}, such as "
            f"{min(missing)}; give a model with a {build.head} head, or one that it can start from"
        )
    return model


def _create(build: ModelBuild, dtype: torch.dtype) -> PreTrainedModel:
    if build.architecture is None:
        raise UserError(f"models.{build.role}: give either `path` or `architecture`")
    model = from_scratch(build.architecture, build.implied, build.head, f"models.{build.role}.architecture")
    if build.head == "scalar":
        _start_near_zero(model)
    return model.to(dtype)


def from_scratch(architecture: Mapping[str, Any], implied: Mapping[str, Any], head: str, where: str) -> PreTrainedModel:
    """A new model in fp32, on the default device. implied: see ModelBuild; where: the setting of the architecture.

    Raises UserError where the architecture is unknown, its values do not go together, or there is no such head for it.
    """
    config = _config(architecture, implied, where)
    if head == "scalar":
        config.num_labels = 1
    try:
        return _auto(head, config, where).from_config(config, dtype=torch.float32)
    except ValueError as error:  # such as a width that the heads do not divide
        raise UserError(f"{where}: {' '.join(str(error).split())}") from error


def parameters_of(architecture: Mapping[str, Any], implied: Mapping[str, Any], head: str, where: str) -> int:
    """How many a new model would have, tied ones once; nothing is allocated. Raises UserError as `from_scratch`."""
    _quiet()
    with torch.device("meta"):
        model = from_scratch(architecture, implied, head, where)
    return sum(parameter.numel() for parameter in model.parameters())


def _auto(head: str, config: PretrainedConfig, where: str) -> Any:
    """transformers' class of models with the head that is asked for. Raises UserError where this architecture has none."""
    transformers = import_transformers()
    language_model = (
        transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    )
    auto, wanted = {
        "lm": (language_model, "a decoder such as llama, or an encoder-decoder such as t5"),
        "masked": (transformers.AutoModelForMaskedLM, "an encoder such as bert or modernbert"),
        "scalar": (transformers.AutoModelForSequenceClassification, "a decoder such as llama"),
    }[head]
    if type(config) not in auto._model_mapping or (head == "masked" and config.is_encoder_decoder):
        raise UserError(f"{where}: {config.model_type} cannot be trained with this objective; take {wanted}")
    return auto


def _config(architecture: Mapping[str, Any], implied: Mapping[str, Any], where: str) -> PretrainedConfig:
    """transformers' config with these fields, and those of `implied` that it knows; a `model_type` of llama if none is given."""
    transformers = import_transformers()
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

    known_types = transformers.CONFIG_MAPPING
    fields = dict(architecture)
    model_type = fields.pop("model_type", "llama")
    if model_type not in known_types:
        near = difflib.get_close_matches(model_type, list(known_types.keys()), 1)
        raise UserError(f"{where}.model_type: {model_type!r} is unknown; nearest: {', '.join(near) or 'none'}")
    config_class = known_types[model_type]
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    for name in fields:
        if name not in known | CONVERTED_FIELDS:
            near = difflib.get_close_matches(name, known, 1)
            raise UserError(f"{where}.{name}: {model_type} has no such field; nearest: {', '.join(near) or 'none'}")
    fields = {name: value for name, value in implied.items() if name in known} | fields
    pads = "roberta" in model_type or model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    if pads and fields.get("pad_token_id") is None:
        raise UserError(f"{where}: {model_type} needs a padding token, which the tokenizer lacks; take one that has it")
    if "roberta" in model_type and "max_position_embeddings" not in architecture:
        fields["max_position_embeddings"] += fields["pad_token_id"] + 1  # its first position is the one after padding's
    if config_class.is_encoder_decoder or model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        fields.setdefault("decoder_start_token_id", implied["pad_token_id"])  # as T5 does
    try:
        return transformers.AutoConfig.for_model(model_type, **fields)
    except StrictDataclassError as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from error


def _quiet() -> None:
    logging = import_transformers().utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _start_near_zero(model: PreTrainedModel) -> None:
    if is_scalar(model):  # where it is not, build_model says so
        nn.init.normal_(model.score.weight, std=HEAD_STD)
