"""The supervised loop. Pretraining, SFT, reward models and DPO differ only in their entry in `rlhf.config.kinds`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from data.feedback.columns import FeedbackOptions
from rlhf.config.schema import SupervisedPhase
from rlhf.interfaces import ModelGroup, Objective, Pending
from rlhf.phases.answers import AnswerCheck
from rlhf.phases.base import Metrics, PhaseContext, export, following, optim_settings
from rlhf.phases.calibrate import calibrate
from rlhf.phases.held_out import HeldOut, kept_before, of_untied
from rlhf.phases.spikes import Guard
from rlhf.phases.step_plan import StepPlan
from rlhf.phases.supervised_rows import (
    ALONE,
    Stager,
    expect_margins,
    feed_of,
    held_out_of,
    read_splits,
    rows_compared,
    with_reference_logprobs,
)

PREFETCH = 1  # steps submitted ahead of the step that is waited for: hides staging and the latency of calls


def run(context: PhaseContext) -> Metrics:
    """Trains the phase's model, evaluates it on held-out rows and exports it; returns the held-out figures."""
    phase, kind, objective = context.phase, context.resolved.kind, context.resolved.objective

    # 1. read the rows
    splits = read_splits(context, objective, context.resolved.rows, options_of(phase))
    for split in splits.values():
        expect_margins(objective, split.train)
    feed = feed_of(context, splits, objective)
    plan = StepPlan.of(phase, feed.pass_rows)
    steps = phase.steps or plan.steps(feed.pass_rows * phase.epochs)

    # 2. build the models, load the last checkpoint of an interrupted run
    optim, together = optim_settings(phase.optim, steps), rows_compared(objective, splits)
    build = partial(context.build, kind.result, head=head_of(objective), optim=optim, rows_together=together)
    model = build()
    reference = context.build("reference") if "ref_logprobs" in objective.columns else None
    precomputed = reference is not None and phase.precompute_reference
    if precomputed:
        splits = {
            name: split.each(partial(with_reference_logprobs, context, reference)) for name, split in splits.items()
        }
        feed = feed_of(context, splits, objective)
        context.runtime.release("reference")
    stager = Stager(context, objective, model, None if precomputed else reference)
    held_out = HeldOut.of(stager, held_out_of(context, splits, objective))
    check = AnswerCheck.prepare(context, model, reference)
    progress = context.checkpoints.load({kind.result: model})
    guard = Guard.of(phase.spikes, context.run.incidents(phase.name), context.id, progress)
    step = progress["step"]
    before = progress.get("before") or held_out.evaluate()
    if check:
        check.before(progress.get("answers"))

    # 3. train; no step is in flight beyond the next checkpoint or evaluation
    def submit(step: int) -> Pending:
        return model.train(stager.stage(feed.batch(plan.numbers(step, guard.skipped))), objective)

    with context.tracking(steps, step, kind.shown) as track:
        in_flight: deque[Pending] = deque()
        clock = time.monotonic()
        while step < steps:
            stop = min(steps, following(step, phase.checkpoint_every), following(step, phase.evaluate_every))
            in_flight.extend(submit(ahead) for ahead in range(step + len(in_flight), min(step + 1 + PREFETCH, stop)))
            metrics = of_untied(in_flight.popleft().result()[0])
            clock, elapsed = time.monotonic(), time.monotonic() - clock
            if reason := guard.trouble(step, metrics, kind.result):
                while in_flight:
                    in_flight.popleft().result()
                progress = last_good(context, guard, step, {kind.result: model}, build)
                guard.record(step, reason, metrics, progress, plan)
                step = progress["step"]
                track.back_to(step, guard.incidents[-1].step, str(guard.incidents[-1]))
                continue
            step += 1
            track.step(step, {**metrics, "tokens/s": metrics["tokens"] / elapsed})
            if step == following(step - 1, phase.checkpoint_every):
                state = {"before": before, "answers": check and check.first, "spikes": guard.state()}
                keep = 2 if phase.spikes else 1
                context.checkpoints.save(step, model, {kind.result: model}, state, context.tokenizer, keep)
            if step == following(step - 1, phase.evaluate_every):
                figures = held_out.evaluate()
                track.log.write(step, {f"held_out/{name}": value for name, value in figures.items()})

    # 4. evaluate, export
    figures = held_out.evaluate() | kept_before(before)
    if check:
        if precomputed:
            context.build("reference")  # loads the same group again, for the KL of answers
        figures |= check.after()
    passes = feed.epochs(plan.before(steps) + guard.skipped)
    figures |= {f"epochs/{name}": count for name, count in passes.items()} | guard.figures()
    export(context, model)
    if kind.result == "reward":
        figures |= calibrate(stager, splits[ALONE].train, splits[ALONE].held_out)
    return figures


def last_good(
    context: PhaseContext, guard: Guard, step: int, groups: Mapping[str, ModelGroup], build: Callable[[], ModelGroup]
) -> dict[str, Any]:
    """Puts the model back to the last checkpoint that cannot have caused the failed `step`, or to the initial weights.
    Returns the checkpoint's progress."""
    if (saved := context.checkpoints.step) and guard.doubts(step, saved):
        context.checkpoints.step_back()
    if context.checkpoints.current is None:
        build()  # the same group with the initial weights
    return context.checkpoints.load(groups)


def head_of(objective: Objective) -> str:
    """The model head that computes the objective's output."""
    if objective.output in ("scores", "values"):
        return "scalar"
    return "masked" if "inputs" in objective.columns else "lm"


def options_of(phase: SupervisedPhase) -> FeedbackOptions:
    """How the phase reads feedback. Only a reward model learns from ties."""
    if phase.kind != "reward":
        return FeedbackOptions()
    return FeedbackOptions(phase.attributes, phase.annotators, ties=True)
