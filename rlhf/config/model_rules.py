"""Rules about a phase's models: where they start, where they run, whether rows fit them, how ranks share them.

docs/parallel.md has the rules of sharing as a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rlhf.config.data_rules import FILE
from rlhf.config.explain import did_you_mean
from rlhf.config.kinds import JUDGE, PHASE
from rlhf.config.resolved import Resolved, ResolvedPhase, scores_answers
from rlhf.config.schema import Model

RELATIVE = ("t5", "mt5", "umt5", "bloom", "mpt")  # model types without a longest row: their positions are relative
DIVIDED = ("num_attention_heads", "num_key_value_heads", "intermediate_size")  # fields that tensor_parallel divides


def models_start_somewhere(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for role, model in phase.models.items():
        if model.path or model.architecture:
            continue
        where = f"{phase.where}.models.{role}"
        if scores_answers(role) and phase.kind.result != "reward":
            yield f"{where}: a reward's source is `model`, but no reward model is named; name a reward phase (phase:reward) or a directory"
        elif role == "reference":
            yield f"{where}: the reference keeps the policy's first weights, but the policy starts from scratch; give either a path"
        else:
            yield f"{where}: neither path nor architecture; name an earlier phase (phase:sft), a directory, or an architecture"


def pools_exist(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    pools = resolved.config.pools
    for role, model in phase.models.items():
        if model.pool not in pools:
            yield f"{phase.place_of(role, 'pool')}: there is no pool {model.pool!r}{did_you_mean(model.pool, pools)}"


def phases_come_before(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """`phase:x` names a phase that runs earlier and leaves a model that the role can start from."""
    earlier = [other.name for other in phase.earlier]
    for role, path in _starts(phase):
        if not path.startswith(PHASE):
            continue
        where, name = phase.place_of(role, "path"), path.removeprefix(PHASE)
        if name in earlier:
            yield from _leaves_the_right_model(phase, role, where, path)
        elif name in [other.name for other in resolved.phases]:
            yield f"{where}: phase {name!r} does not run before {phase.name!r}; move it up or name another"
        else:
            yield f"{where}: there is no phase {name!r}{did_you_mean(name, earlier)}"


def _leaves_the_right_model(phase: ResolvedPhase, role: str, where: str, path: str) -> Iterator[str]:
    name, left = path.removeprefix(PHASE), phase.parent(path).kind.result
    if left is None:
        yield f"{where}: phase {name!r} leaves a data set and no model; name a phase that trains one"
    elif role in ("policy", "reference", JUDGE) and left == "reward":
        yield f"{where}: phase {name!r} leaves a reward model, which cannot write; name a phase that trains a policy"
    elif scores_answers(role) and phase.kind.result != "reward" and left != "reward":
        yield f"{where}: phase {name!r} leaves a language model, which gives no scores; name a phase of kind reward"


def model_directories_exist(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for role, path in _starts(phase):
        if FILE.match(path) and not Path(path).is_dir():
            yield f"{phase.place_of(role, 'path')}: there is no directory {path}; relative paths start at {Path.cwd()}"


def _starts(phase: ResolvedPhase) -> list[tuple[str, str]]:
    """(role, path) of each start; the reference's only if it differs from the policy's, so that a mistake is told once."""
    paths = [(role, model.path) for role, model in phase.models.items() if model.path]
    return [(role, path) for role, path in paths if role != "reference" or ("policy", path) not in paths]


def rows_fit_positions(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for role in phase.models:
        positions = _positions(phase, role)
        where, length = f"{phase.where}.max_length", phase.settings.max_length
        if role == JUDGE:
            where, length = f"{phase.where}.judge.max_length", phase.settings.judge.max_length
        if positions is not None and length > positions:
            yield (
                f"{where} {length} is over the {positions} positions of the {role}'s model: "
                f"set {where}={positions} or start from a longer model"
            )


def _positions(phase: ResolvedPhase, role: str) -> int | None:
    """The most tokens in a row that the role's model can read; None if unknown."""
    found = phase.architecture_of(role)
    if found is None:
        return None
    fields, maker = found
    positions = fields.get("max_position_embeddings")
    if isinstance(positions, int):
        return positions
    if fields.get("model_type") in RELATIVE:
        return None
    # without the field, a new model has as many positions as max_length of the phase that makes it
    return maker.max_length if maker is not None and maker is not phase.settings else None


def every_rank_gets_rows(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """An optimizer step's rows are dealt to all replicas of the trained model."""
    settings, pools = phase.settings, resolved.config.pools
    trained = [role for role in (phase.kind.result, "critic") if role in phase.models]
    replicas = {(phase.models[role].pool, role) for role in trained if phase.models[role].pool in pools}
    for pool, ranks in sorted({(pool, phase.replicas_of(role)) for pool, role in replicas}):
        if phase.kind.name == "rl":
            # the samples of one prompt stay together, so prompts are dealt to ranks
            needed = ranks * settings.minibatches
            if settings.prompts_per_step < needed:
                yield (
                    f"{phase.where}.prompts_per_step is {settings.prompts_per_step}, but {ranks} ranks of pool {pool!r} x "
                    f"{settings.minibatches} minibatches need at least {needed}: raise it or lower minibatches"
                )
        elif settings.batch_size % ranks:
            yield (
                f"{phase.where}.batch_size {settings.batch_size} does not divide over the {ranks} ranks of pool {pool!r}: "
                f"take {_multiples(settings.batch_size, ranks)}"
            )


def _multiples(number: int, of: int) -> str:
    """The multiples next to a number, `4 or 8`; there is none below the smallest."""
    below, above = number // of * of, -(-number // of) * of
    return f"{below} or {above}" if below else str(above)


def tokenizer_fits_the_model(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    where, tokenizer, policy = f"{phase.where}.tokenizer", phase.settings.tokenizer, phase.models["policy"]
    if policy.path and tokenizer is not None and tokenizer.path is None:
        yield f"{where}: a new tokenizer does not fit a model that was trained with another; set {where}=null to keep the model's own"
    elif policy.architecture and tokenizer is None and not phase.corpora:
        yield f"{where}: a model from scratch brings no tokenizer; set {where}.vocab_size to train one, or {where}.path"


def replicas_fill_the_pool(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for role, model in _parallel(phase):
        size, pool = model.tensor_parallel * model.pipeline_parallel, resolved.config.pools.get(model.pool)
        if pool is None or pool.devices % size == 0:
            continue
        where = phase.place_of(role, "tensor_parallel" if model.tensor_parallel > 1 else "pipeline_parallel")
        yield (
            f"{where}: one {role} takes {size} devices (tensor_parallel {model.tensor_parallel} x "
            f"pipeline_parallel {model.pipeline_parallel}), which do not divide the {pool.devices} of pool {model.pool!r}: set "
            f"pools.{model.pool}.devices to {_multiples(pool.devices, size)}"
        )


def pipelines_shard_the_optimizer_alone(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for role, model in _parallel(phase):
        # a model that is not trained has no gradients to shard
        most = 1 if role in (phase.kind.result, "critic") else 2
        if model.pipeline_parallel > 1 and model.zero_stage > most:
            yield (
                f"{phase.place_of(role, 'pipeline_parallel')}: DeepSpeed's pipeline engine shards optimizer states, but "
                f"neither gradients nor weights: set {phase.place_of(role, 'zero_stage')} to 1 or 0"
            )


def parallel_models_are_not_float16(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for role, model in _parallel(phase):
        if model.dtype == "float16":
            yield (
                f"{phase.place_of(role, 'dtype')}: float16 has not been tried with tensor_parallel or "
                "pipeline_parallel; take bfloat16"
            )


def parallelism_fits_the_architecture(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for role, model in _parallel(phase):
        fields, _ = phase.architecture_of(role) or ({}, None)
        for field in DIVIDED:
            size = fields.get(field)
            if isinstance(size, int) and size % model.tensor_parallel:
                yield (
                    f"{phase.place_of(role, 'tensor_parallel')}: {model.tensor_parallel} does not divide the "
                    f"architecture's {field} {size}; take a divisor of it"
                )
        layers = fields.get("num_hidden_layers")
        if isinstance(layers, int) and layers < model.pipeline_parallel:
            yield (
                f"{phase.place_of(role, 'pipeline_parallel')}: {model.pipeline_parallel} stages, but the architecture has "
                f"{layers} layers; take at most as many"
            )


def _parallel(phase: ResolvedPhase) -> list[tuple[str, Model]]:
    """The models of which one replica takes several devices."""
    return [
        (role, model) for role, model in phase.models.items() if model.tensor_parallel * model.pipeline_parallel > 1
    ]
