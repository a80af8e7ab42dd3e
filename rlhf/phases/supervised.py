"""THE supervised loop. Pretraining, SFT, reward models and DPO differ only in the row of `RECIPES` that they name."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from data.errors import UserError
from data.examples import Examples, build_examples
from data.feedback.options import FeedbackOptions
from data.loader import InSequence, Order
from data.messages import strings_in
from data.tokenizer import load_tokenizer
from data.tokens.rows import TokenRows
from rlhf.config.roles import corpus_of
from rlhf.config.schema import SupervisedPhase
from rlhf.corpus.mixing import corpus_rows
from rlhf.interfaces import Objective, Pending
from rlhf.objectives import LanguageModel, resolve_loss, resolve_reward_loss
from rlhf.phases.answers import AnswerCheck
from rlhf.phases.base import Metrics, PhaseContext, export, following, optim_settings, tokenizer_of_data
from rlhf.phases.calibrate import calibrate
from rlhf.phases.reading import AT_ONCE, Reading, with_reference_logprobs

PREFETCH = 1  # steps submitted ahead of the one waited for: hides staging and the calls' latency


@dataclass(frozen=True)
class Recipe:
    rows: str  # kind of rows, where the objective names none
    role: str  # which model is trained
    head: str
    objective: Callable[[SupervisedPhase], Objective]
    shown: tuple[str, ...] = ("loss", "lr", "tokens/s")


RECIPES = {
    "pretrain": Recipe("text", "policy", "lm", lambda phase: LanguageModel()),
    "sft": Recipe("chat", "policy", "lm", lambda phase: LanguageModel()),
    "reward": Recipe(
        "preference",
        "reward",
        "scalar",
        lambda phase: resolve_reward_loss(phase.loss.name, phase.loss.parameters),
        ("loss", "accuracy", "mae", "lr", "tokens/s"),
    ),
    "dpo": Recipe(
        "preference",
        "policy",
        "lm",
        lambda phase: resolve_loss(phase.loss.name, phase.loss.parameters),
        ("loss", "accuracy", "margin", "tokens/s"),
    ),
}


def run(context: PhaseContext) -> Metrics:
    """Trains the phase's model from its rows, evaluates it on held-out rows, exports it; returns the held-out figures."""
    phase, recipe = context.phase, RECIPES[context.phase.kind]
    objective = recipe.objective(phase)

    # 1. rows
    train, held_out = read_rows(context)
    expect_margins(objective, train)
    order = order_of(train, phase.batch_size, context.seed)
    steps = phase.steps or order.steps_per_epoch * phase.epochs

    # 2. models, and where an interrupted run stopped
    optim, together = optim_settings(phase.optim, steps), rows_compared(objective, train, held_out)
    model = context.build(recipe.role, head=recipe.head, optim=optim, rows_together=together)
    reference = context.build("reference") if "ref_logprobs" in objective.columns else None
    precomputed = reference is not None and phase.precompute_reference
    if precomputed:
        train, held_out = (with_reference_logprobs(context, reference, rows) for rows in (train, held_out))
        context.runtime.release("reference")
    reading = Reading(context, objective, model, None if precomputed else reference)
    check = AnswerCheck.prepare(context, model, reference)
    progress = context.checkpoints.load({recipe.role: model})
    start = progress["step"]
    before = progress.get("before") or evaluate(reading, held_out)
    if check:
        check.before(progress.get("answers"))

    # 3. the loop
    def submit(step: int) -> Pending:
        return model.train(reading.stage(train, order.indices(step)), objective)

    with context.tracking(steps, start, recipe.shown) as track:
        in_flight: deque[Pending] = deque()
        clock = time.monotonic()
        for step in range(start, steps):
            stop = min(steps, following(step, phase.checkpoint_every), following(step, phase.evaluate_every))
            in_flight.extend(submit(ahead) for ahead in range(step + len(in_flight), min(step + 1 + PREFETCH, stop)))
            metrics = of_untied(in_flight.popleft().result()[0])
            clock, elapsed = time.monotonic(), time.monotonic() - clock
            track.step(step + 1, {**metrics, "tokens/s": metrics["tokens"] / elapsed})
            if step + 1 == following(step, phase.checkpoint_every):
                state = {"before": before, "answers": check and check.first}
                context.checkpoints.save(step + 1, model, {recipe.role: model}, state, context.tokenizer)
            if step + 1 == following(step, phase.evaluate_every):
                figures = evaluate(reading, held_out)
                track.log.write(step + 1, {f"held_out/{name}": value for name, value in figures.items()})

    # 4. held-out figures, export
    figures = evaluate(reading, held_out)
    figures |= {f"{name}_before": value for name, value in before.items() if name in ("loss", "perplexity")}
    if check:
        if precomputed:
            context.build("reference")  # the same group again, for the answers' KL
        figures |= check.after()
    if isinstance(train, TokenRows):
        figures |= {f"epochs/{name}": passes for name, passes in train.epochs(steps * phase.batch_size).items()}
    export(context, model)
    if recipe.role == "reward":
        figures |= calibrate(reading, train, held_out)
    return figures


def rows_of(phase: SupervisedPhase) -> str:
    """The kind of rows that the phase reads (`data.examples.KINDS`): its loss may name one."""
    recipe = RECIPES[phase.kind]
    return getattr(recipe.objective(phase), "rows", recipe.rows)


def options_of(phase: SupervisedPhase) -> FeedbackOptions:
    """How feedback is read: a reward model learns from ties, too."""
    if phase.kind != "reward":
        return FeedbackOptions()
    return FeedbackOptions(phase.attributes, phase.annotators, ties=True)


def expect_margins(objective: Objective, examples: Examples) -> None:
    """Raises UserError where the loss asks for margins and the data know none: it would learn as without."""
    if "margins" in objective.columns and not examples.columns["margins"].any():
        raise UserError(
            f"{examples.report.name}: loss.margin is on, but no row says by how much its chosen answer is better; bring a "
            "column 'margin' or 'ratings', or turn it off"
        )


def rows_compared(objective: Objective, *sets: Examples) -> int:
    """How many rows must share a micro-batch: those of the largest comparison."""
    return max(rows.rows_of_largest_unit for rows in sets) if objective.unit == "pairs" else 1


def order_of(train: Examples | TokenRows, batch_size: int, seed: int) -> InSequence:
    """Which units each step takes. A corpus's are shuffled already."""
    if isinstance(train, TokenRows):
        return InSequence(len(train), batch_size)
    return Order(len(train), batch_size, seed)


def read_rows(context: PhaseContext) -> tuple[Examples, Examples] | tuple[TokenRows, TokenRows]:
    """The training rows and the held-out rows; trains the tokenizer first where the phase asks for one."""
    phase = context.phase
    if corpus := corpus_of(context.config, phase):
        artifact = context.artifacts[corpus.name].path
        if context.models["policy"].path is None:  # else the model's own, which must be the corpus's
            context.tokenizer = load_tokenizer(artifact)
        train, held_out = corpus_rows(artifact, corpus, phase, context.tokenizer, context.seed)
        context.read(train.report)
        if phase.eval_data is None:
            return train, held_out
        held_out = build_examples("text", context.open(phase.eval_data), context.tokenizer, phase.max_length)
        context.read(held_out.report)
        return train, held_out
    rows = context.open(phase.data)
    settings = getattr(phase, "tokenizer", None)
    if settings is not None:
        context.tokenizer = tokenizer_of_data(settings, (text for row in rows for text in strings_in(row)))
    kind, options = rows_of(phase), options_of(phase)
    examples = build_examples(kind, rows, context.tokenizer, phase.max_length, options)
    context.read(examples.report)
    if phase.eval_data is not None:
        alike = replace(options, annotators={})  # the weights are of who labelled the training rows
        held_out = build_examples(kind, context.open(phase.eval_data), context.tokenizer, phase.max_length, alike)
        context.read(held_out.report)
        return examples, held_out
    return examples.split(phase.data.holdout, context.seed)


def evaluate(reading: Reading, examples: Examples) -> Metrics:
    """Held-out figures: the mean loss and metrics, with perplexities where the loss is one of tokens."""
    if not len(examples):
        return {}
    totals: dict[str, float] = {}
    count = 0
    for part in parts_of(examples):
        staged = reading.stage(examples, part)
        sums, units = reading.model.evaluate(staged, reading.objective).result()
        count += units
        totals = {name: totals.get(name, 0.0) + value for name, value in sums.items()}
    figures = of_untied({name: value / count for name, value in totals.items()})
    if "accuracy" in figures and reading.objective.unit == "pairs":
        figures["pair_accuracy"] = figures.pop("accuracy")
    if reading.objective.output == "logprobs" and reading.objective.unit == "tokens":
        figures["perplexity"] = math.exp(min(figures["loss"], 700.0))
        figures["unigram_perplexity"] = unigram_perplexity(examples)
        figures["perplexity_ratio"] = figures["perplexity"] / figures["unigram_perplexity"]
    return figures


def parts_of(examples: Examples | TokenRows) -> list[list[int]]:
    """All units, in parts of about equal size that are few enough to be read at once."""
    return [part.tolist() for part in np.array_split(np.arange(len(examples)), math.ceil(len(examples) / AT_ONCE))]


def of_untied(figures: Metrics) -> Metrics:
    """Means over all comparisons turned into means over those that are no tie, where the objective counts them; left out where
    all are ties."""
    if "untied" not in figures:
        return figures
    share, compared = figures["untied"], ("accuracy", "margin")
    if share == 0:
        return {name: value for name, value in figures.items() if name not in compared}
    return {name: value / share if name in compared else value for name, value in figures.items()}


def unigram_perplexity(examples: Examples) -> float:
    """exp(entropy) of the trained tokens' own frequencies: the best that any context-free model could reach on them."""
    counts = torch.zeros(len(examples.tokenizer), dtype=torch.double)
    for part in parts_of(examples):
        batch = examples.batch(part)
        counts += torch.bincount(batch.tokens[batch.action_mask], minlength=len(counts))
    p = counts[counts > 0] / counts.sum()
    return float((-(p * p.log()).sum()).exp())
