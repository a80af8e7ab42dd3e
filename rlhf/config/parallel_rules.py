"""Rules about models that ranks share, matrix by matrix or layer by layer; docs/parallel.md has them as a table."""

from __future__ import annotations

from rlhf.config.model_rules import Advice, Models, architecture_of, place_of
from rlhf.config.roles import result_role
from rlhf.config.schema import Config, Model, Phase

DIVIDED = ("num_attention_heads", "num_key_value_heads", "intermediate_size")  # what tensor_parallel cuts


def replicas_fill_the_pool(config: Config, phase: Phase, models: Models) -> Advice:
    for role, model in _cut(models):
        size, pool = model.tensor_parallel * model.pipeline_parallel, config.pools.get(model.pool)
        if pool is None or pool.devices % size == 0:
            continue
        below, above = pool.devices // size * size, -(-pool.devices // size) * size
        yield (
            f"{_where(config, phase, role, model)}: one {role} takes {size} devices (tensor_parallel {model.tensor_parallel} x "
            f"pipeline_parallel {model.pipeline_parallel}), which do not divide the {pool.devices} of pool {model.pool!r}: set "
            f"pools.{model.pool}.devices to {f'{below} or ' if below else ''}{above}"
        )


def pipelines_shard_the_optimizer_alone(config: Config, phase: Phase, models: Models) -> Advice:
    for role, model in _cut(models):
        # of a model that is not trained there are no gradients to shard
        most = 1 if role in (result_role(phase), "critic") else 2
        if model.pipeline_parallel > 1 and model.zero_stage > most:
            yield (
                f"{place_of(config, phase, role, 'pipeline_parallel')}: DeepSpeed's pipeline engine shards optimizer states, but "
                f"neither gradients nor weights: set {place_of(config, phase, role, 'zero_stage')} to 1 or 0"
            )


def cuts_are_not_for_float16(config: Config, phase: Phase, models: Models) -> Advice:
    for role, model in _cut(models):
        if model.dtype == "float16":
            yield (
                f"{place_of(config, phase, role, 'dtype')}: float16 has not been tried with tensor_parallel or "
                "pipeline_parallel; take bfloat16"
            )


def cuts_fit_the_architecture(config: Config, phase: Phase, models: Models) -> Advice:
    for role, model in _cut(models):
        fields, _ = architecture_of(config, phase, model) or ({}, None)
        for field in DIVIDED:
            size = fields.get(field)
            if isinstance(size, int) and size % model.tensor_parallel:
                yield (
                    f"{place_of(config, phase, role, 'tensor_parallel')}: {model.tensor_parallel} does not divide the "
                    f"architecture's {field} {size}; take a divisor of it"
                )
        layers = fields.get("num_hidden_layers")
        if isinstance(layers, int) and layers < model.pipeline_parallel:
            yield (
                f"{place_of(config, phase, role, 'pipeline_parallel')}: {model.pipeline_parallel} stages, but the architecture has "
                f"{layers} layers; take at most as many"
            )


def _cut(models: Models) -> list[tuple[str, Model]]:
    return [(role, model) for role, model in models.items() if model.tensor_parallel * model.pipeline_parallel > 1]


def _where(config: Config, phase: Phase, role: str, model: Model) -> str:
    return place_of(config, phase, role, "tensor_parallel" if model.tensor_parallel > 1 else "pipeline_parallel")


PARALLEL_RULES = (
    replicas_fill_the_pool,
    pipelines_shard_the_optimizer_alone,
    cuts_are_not_for_float16,
    cuts_fit_the_architecture,
)
