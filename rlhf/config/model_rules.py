"""Rules about the models that a phase uses: where they start, where they run, whether the rows fit them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf.config.explain import did_you_mean
from rlhf.config.roles import JUDGE, PHASE, corpora_of, resolve_models, result_role, scores_answers
from rlhf.config.schema import Config, Model, Phase

Models = Mapping[str, Model]  # by role
Advice = Iterator[str]

RELATIVE = ("t5", "mt5", "umt5", "bloom", "mpt")  # model types without a longest row: positions count from each other
FILE = re.compile(
    r"^(?!.*://)(\.{0,2}/|.*\.(txt|json|jsonl|jsonl\.gz|json\.gz|parquet|arrow|csv)$)"
)  # else it may be a name


def every_rank_gets_rows(config: Config, phase: Phase, models: Models) -> Advice:
    """An optimizer step's rows go to all replicas of the trained model."""
    trained = [models[role] for role in (result_role(phase), "critic") if role in models]
    for pool, ranks in sorted(
        {(model.pool, replicas_of(config, model)) for model in trained if model.pool in config.pools}
    ):
        if phase.kind == "rl":
            # one prompt's samples stay together, so it is prompts that are dealt to ranks
            needed = ranks * phase.minibatches
            if phase.prompts_per_step < needed:
                yield (
                    f"phases.{phase.name}.prompts_per_step is {phase.prompts_per_step}, but {ranks} ranks of pool {pool!r} x "
                    f"{phase.minibatches} minibatches need at least {needed}: raise it or lower minibatches"
                )
        elif phase.batch_size % ranks:
            below, above = phase.batch_size // ranks * ranks, -(-phase.batch_size // ranks) * ranks
            yield (
                f"phases.{phase.name}.batch_size {phase.batch_size} does not divide over the {ranks} ranks of pool {pool!r}: "
                f"take {f'{below} or ' if below else ''}{above}"
            )


def replicas_of(config: Config, model: Model) -> int:
    """How many copies of the model see different rows on its pool, which exists."""
    return max(1, config.pools[model.pool].devices // (model.tensor_parallel * model.pipeline_parallel))


def pools_exist(config: Config, phase: Phase, models: Models) -> Advice:
    for role, model in models.items():
        if model.pool not in config.pools:
            yield f"{place_of(config, phase, role, 'pool')}: there is no pool {model.pool!r}{did_you_mean(model.pool, config.pools)}"


def models_start_somewhere(config: Config, phase: Phase, models: Models) -> Advice:
    for role, model in models.items():
        if model.path or model.architecture:
            continue
        where = f"phases.{phase.name}.models.{role}"
        if scores_answers(role) and phase.kind != "reward":
            yield f"{where}: a reward's source is `model`, but no reward model is named; name a reward phase (phase:reward) or a directory"
        elif role == "reference":
            yield f"{where}: the reference keeps the policy's first weights, but the policy starts from scratch; give either a path"
        else:
            yield f"{where}: neither path nor architecture; name an earlier phase (phase:sft), a directory, or an architecture"


def phases_come_before(config: Config, phase: Phase, models: Models) -> Advice:
    """`phase:x` names a phase that runs earlier and leaves the kind of model that is wanted."""
    names = [other.name for other in config.phases]
    earlier = names[: names.index(phase.name)]
    for role, path in _starts(models):
        if not path.startswith(PHASE):
            continue
        where, name = place_of(config, phase, role, "path"), path.removeprefix(PHASE)
        if name not in names:
            yield f"{where}: there is no phase {name!r}{did_you_mean(name, earlier)}"
        elif name not in earlier:
            yield f"{where}: phase {name!r} does not run before {phase.name!r}; move it up or name another"
        else:
            yield from _of_the_right_kind(config, phase, role, where, name)


def _of_the_right_kind(config: Config, phase: Phase, role: str, where: str, name: str) -> Advice:
    left = result_role(next(other for other in config.phases if other.name == name))
    if left is None:
        yield f"{where}: phase {name!r} leaves a data set and no model; name a phase that trains one"
    elif role in ("policy", "reference", JUDGE) and left == "reward":
        yield f"{where}: phase {name!r} leaves a reward model, which cannot write; name a phase that trains a policy"
    elif scores_answers(role) and phase.kind != "reward" and left != "reward":
        yield f"{where}: phase {name!r} leaves a language model, which gives no scores; name a phase of kind reward"


def rows_fit_positions(config: Config, phase: Phase, models: Models) -> Advice:
    for role, model in models.items():
        positions = _positions(config, phase, model)
        where, length = f"phases.{phase.name}.max_length", phase.max_length
        if role == JUDGE:
            where, length = f"phases.{phase.name}.judge.max_length", phase.judge.max_length
        if positions is not None and length > positions:
            yield (
                f"{where} {length} is over the {positions} positions of the {role}'s model: "
                f"set {where}={positions} or start from a longer model"
            )


def model_directories_exist(config: Config, phase: Phase, models: Models) -> Advice:
    for role, path in _starts(models):
        if FILE.match(path) and not Path(path).is_dir():
            yield f"{place_of(config, phase, role, 'path')}: there is no directory {path}; relative paths start at {Path.cwd()}"


def tokenizer_fits_the_model(config: Config, phase: Phase, models: Models) -> Advice:
    if phase.kind not in ("pretrain", "sft"):
        return
    where = f"phases.{phase.name}.tokenizer"
    if models["policy"].path and phase.tokenizer is not None and phase.tokenizer.path is None:
        yield f"{where}: a new tokenizer does not fit a model that was trained with another; set {where}=null to keep the model's own"
    elif models["policy"].architecture and phase.tokenizer is None and not corpora_of(config, phase):
        yield f"{where}: a model from scratch brings no tokenizer; set {where}.vocab_size to train one, or {where}.path"


def _starts(models: Models) -> list[tuple[str, str]]:
    """(role, path) of each start; the reference's only where it is not the policy's, whose mistake is told once."""
    paths = [(role, model.path) for role, model in models.items() if model.path]
    return [(role, path) for role, path in paths if role != "reference" or ("policy", path) not in paths]


def place_of(config: Config, phase: Phase, role: str, field: str) -> str:
    """The setting that gave the role this field: the phase's own or the top level's."""
    own = phase.models.get(role)
    if role == JUDGE:
        return f"phases.{phase.name}.judge.{'model' if field == 'path' else field}"
    if scores_answers(role) and role != "reward" and field == "path":
        return f"phases.{phase.name}.reward.models"
    at_top = (own is None or field not in own.model_fields_set) and role in config.models
    return f"models.{role}.{field} (phase {phase.name})" if at_top else f"phases.{phase.name}.models.{role}.{field}"


def architecture_of(config: Config, phase: Phase, model: Model) -> tuple[Mapping[str, Any], Phase | None] | None:
    """(fields of the model's config that are given, the phase that makes it from them: None of a directory's), followed through
    the phases that it came from; None if unknown."""
    if model.architecture:
        return model.architecture, phase
    if not model.path:
        return None
    if not model.path.startswith(PHASE):
        file = Path(model.path) / "config.json"
        return (json.loads(file.read_text()), None) if file.is_file() else None
    names = [other.name for other in config.phases]
    name = model.path.removeprefix(PHASE)
    if name not in names[: names.index(phase.name)]:
        return None
    parent = config.phases[names.index(name)]
    role = result_role(parent)
    return None if role is None else architecture_of(config, parent, resolve_models(config, parent)[role])


def _positions(config: Config, phase: Phase, model: Model) -> int | None:
    """The longest row that the model was made for; None if unknown."""
    found = architecture_of(config, phase, model)
    if found is None:
        return None
    fields, maker = found
    positions = fields.get("max_position_embeddings")
    if isinstance(positions, int):
        return positions
    if fields.get("model_type") in RELATIVE:
        return None
    # a phase that makes a model gives it room for its own rows, where the architecture says nothing
    return maker.max_length if maker is not None and maker is not phase else None


MODEL_RULES = (
    models_start_somewhere,
    pools_exist,
    phases_come_before,
    model_directories_exist,
    rows_fit_positions,
    every_rank_gets_rows,
    tokenizer_fits_the_model,
)
