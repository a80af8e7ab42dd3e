"""Rules about training: optimizers, schedules, number formats, batch ramps and spikes."""

from __future__ import annotations

from collections.abc import Iterator

from rlhf.config.resolved import Resolved, ResolvedPhase
from rlhf.config.training import Optim


def adafactor_sees_whole_matrices(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """Adafactor's second moments are means over rows and columns of a matrix, which ZeRO and tensor parallelism split. With
    16 bits the engine itself turns ZeRO on, for the fp32 weights."""
    for role, where, optim in _trained(phase):
        if optim.name != "adafactor":
            continue
        model = phase.models[role]
        wrong = {
            ("zero_stage", "0"): model.zero_stage > 0,
            ("dtype", "float32"): model.dtype != "float32" and (model.dtype, resolved.config.device) != ("auto", "cpu"),
            ("tensor_parallel", "1"): model.tensor_parallel > 1,
        }
        changes = [f"{phase.place_of(role, name)} to {value}" for (name, value), is_wrong in wrong.items() if is_wrong]
        if changes:
            yield f"{where}.name: adafactor needs whole matrices in float32: set {', '.join(changes)}, or take adamw"


def schedules_fit_the_steps(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for role, where, optim in _trained(phase):
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
                    f"{phase.where}: lower warmup_steps or raise steps"
                )


def settings_of_optim_say_something(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for _, where, optim in _trained(phase):
        given = optim.given
        ignored = [name for name in ("betas", "eps") if name in given]
        if optim.name == "adafactor" and ignored:
            yield f"{where}: {' and '.join(ignored)} would do nothing, they are AdamW's; remove them, or take name adamw"
        if optim.schedule != "wsd" and "decay" in given:
            yield f"{where}.decay: it would do nothing, schedule {optim.schedule} has no last share; remove it, or take schedule wsd"
        if optim.warmup_steps is not None and "warmup" in given:
            yield f"{where}.warmup: it would do nothing beside warmup_steps; remove one of them"


def float16_is_for_supervised_training_on_gpus(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """A step that overflows is skipped: supervised training makes up for it, RL would lose the step's samples."""
    for role, _, _ in _trained(phase):
        if phase.models[role].dtype != "float16":
            continue
        where = phase.place_of(role, "dtype")
        if resolved.config.device == "cpu":
            yield f"{where}: float16 is not for CPUs; take float32 or bfloat16"
        elif phase.kind.name == "rl":
            yield f"{where}: RL has not been tried in float16; take bfloat16"


def ramps_grow_to_the_batch(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    ramp, role = getattr(phase.settings, "ramp", None), phase.kind.result
    if ramp is None or role not in phase.models:
        return
    where, most = f"{phase.where}.ramp.batch_size", phase.settings.batch_size
    if ramp.batch_size > most:
        yield f"{where} {ramp.batch_size} is over the phase's batch_size {most}, which it grows to: lower it"
    pool = phase.models[role].pool
    ranks = phase.replicas_of(role) if pool in resolved.config.pools else 1
    if ramp.batch_size % ranks:
        above = -(-ramp.batch_size // ranks) * ranks
        yield f"{where} {ramp.batch_size} does not divide over the {ranks} ranks of pool {pool!r} that share a batch: take {above}"


def spikes_have_a_way_back(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    settings = phase.settings
    if (
        getattr(settings, "spikes", None) is not None
        and settings.checkpoint_every == 0
        and phase.kind.result in phase.models
    ):
        yield (
            f"{phase.where}.spikes: a run goes back to its last checkpoint, and checkpoint_every 0 writes none: set "
            f"{phase.where}.checkpoint_every, or remove spikes"
        )


def _trained(phase: ResolvedPhase) -> Iterator[tuple[str, str, Optim]]:
    """(role, the setting of its optimiser, the optimiser) of each model that the phase trains."""
    if (role := phase.kind.result) in phase.models:
        yield role, f"{phase.where}.optim", phase.settings.optim
    if phase.kind.name == "rl" and "critic" in phase.models:
        yield "critic", f"{phase.where}.critic_optim", phase.settings.critic_optim


def _optimizer_steps(phase: ResolvedPhase, role: str) -> int | None:
    """None where they depend on the data. Of RL, if no step ends early and the algorithm leaves no rows out."""
    settings = phase.settings
    if phase.kind.name != "rl":
        return settings.steps
    return (
        (settings.steps - (settings.critic_warmup if role == "policy" else 0)) * settings.minibatches * settings.epochs
    )
