"""Rules about how a phase trains: optimisers, schedules and number formats that go together, and batches that grow."""

from __future__ import annotations

from collections.abc import Iterator

from rlhf.config.model_rules import Advice, Models, place_of, replicas_of
from rlhf.config.roles import result_role
from rlhf.config.schema import Config, Phase
from rlhf.config.training import Optim


def adafactor_sees_whole_matrices(config: Config, phase: Phase, models: Models) -> Advice:
    """Its second moment is one of rows and columns; ZeRO's flat partitions have none, shards of a matrix have others. In 16 bits
    the engine itself turns to ZeRO, for the fp32 weights."""
    for role, where, optim in _trained(phase, models):
        if optim.name != "adafactor":
            continue
        model = models[role]
        wrong = {
            ("zero_stage", "0"): model.zero_stage > 0,
            ("dtype", "float32"): model.dtype != "float32" and (model.dtype, config.device) != ("auto", "cpu"),
            ("tensor_parallel", "1"): model.tensor_parallel > 1,
        }
        changes = [
            f"{place_of(config, phase, role, name)} to {value}" for (name, value), is_wrong in wrong.items() if is_wrong
        ]
        if changes:
            yield f"{where}.name: adafactor needs whole matrices in float32: set {', '.join(changes)}, or take adamw"


def schedules_fit_the_steps(config: Config, phase: Phase, models: Models) -> Advice:
    for role, where, optim in _trained(phase, models):
        steps = _optimizer_steps(phase, role)
        if optim.warmup_steps is None:
            if optim.schedule == "wsd" and optim.warmup + optim.decay > 1:
                yield f"{where}: warmup {optim.warmup} and decay {optim.decay} are shares of the run, over 1 together: lower one"
        elif steps is not None:
            falling = round(optim.decay * steps) if optim.schedule == "wsd" else 0
            if optim.warmup_steps + falling > steps:
                beside = f" and {falling} of decay" if falling else ""
                yield (
                    f"{where}.warmup_steps: {optim.warmup_steps} steps{beside} do not fit into the {steps} optimizer steps of "
                    f"phases.{phase.name}: lower warmup_steps or raise steps"
                )


def settings_of_optim_say_something(config: Config, phase: Phase, models: Models) -> Advice:
    for _, where, optim in _trained(phase, models):
        given = optim.given
        ignored = [name for name in ("betas", "eps") if name in given]
        if optim.name == "adafactor" and ignored:
            yield f"{where}: {' and '.join(ignored)} would do nothing, they are AdamW's; remove them, or take name adamw"
        if optim.schedule != "wsd" and "decay" in given:
            yield f"{where}.decay: it would do nothing, schedule {optim.schedule} has no last share; remove it, or take schedule wsd"
        if optim.warmup_steps is not None and "warmup" in given:
            yield f"{where}.warmup: it would do nothing beside warmup_steps; remove one of them"


def float16_is_for_supervised_training_on_gpus(config: Config, phase: Phase, models: Models) -> Advice:
    """A step that overflows is skipped, which supervised training makes up for; RL would lose that batch's samples."""
    for role, _, _ in _trained(phase, models):
        if models[role].dtype != "float16":
            continue
        where = place_of(config, phase, role, "dtype")
        if config.device == "cpu":
            yield f"{where}: float16 is not for CPUs; take float32 or bfloat16"
        elif phase.kind == "rl":
            yield f"{where}: RL has not been tried in float16; take bfloat16"


def ramps_grow_to_the_batch(config: Config, phase: Phase, models: Models) -> Advice:
    ramp, role = getattr(phase, "ramp", None), result_role(phase)
    if ramp is None or role not in models:
        return
    where = f"phases.{phase.name}.ramp.batch_size"
    if ramp.batch_size > phase.batch_size:
        yield f"{where} {ramp.batch_size} is over the phase's batch_size {phase.batch_size}, which it grows to: lower it"
    model = models[role]
    ranks = replicas_of(config, model) if model.pool in config.pools else 1
    if ramp.batch_size % ranks:
        above = -(-ramp.batch_size // ranks) * ranks
        yield (
            f"{where} {ramp.batch_size} does not divide over the {ranks} ranks of pool {model.pool!r} that share a batch: take {above}"
        )


def spikes_have_a_way_back(config: Config, phase: Phase, models: Models) -> Advice:
    if getattr(phase, "spikes", None) is not None and phase.checkpoint_every == 0 and result_role(phase) in models:
        yield (
            f"phases.{phase.name}.spikes: a run goes back to its last checkpoint, and checkpoint_every 0 writes none: set "
            f"phases.{phase.name}.checkpoint_every, or remove spikes"
        )


def _trained(phase: Phase, models: Models) -> Iterator[tuple[str, str, Optim]]:
    """(role, where its optimiser is set, the optimiser) of each model that the phase trains."""
    if (role := result_role(phase)) in models:
        yield role, f"phases.{phase.name}.optim", phase.optim
    if phase.kind == "rl" and "critic" in models:
        yield "critic", f"phases.{phase.name}.critic_optim", phase.critic_optim


def _optimizer_steps(phase: Phase, role: str) -> int | None:
    """None where they depend on the data. RL's, if no step ends early and no algorithm leaves rows out."""
    if phase.kind != "rl":
        return phase.steps
    return (phase.steps - (phase.critic_warmup if role == "policy" else 0)) * phase.minibatches * phase.epochs


TRAINING_RULES = (
    adafactor_sees_whole_matrices,
    schedules_fit_the_steps,
    settings_of_optim_say_something,
    float16_is_for_supervised_training_on_gpus,
    ramps_grow_to_the_batch,
    spikes_have_a_way_back,
)
