"""The rows of a supervised phase: reads one data set or a mix, from files or a corpus, and stages batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from data.batch import Batch
from data.denoising.denoised import Denoised
from data.denoising.vocabulary import Vocabulary, extend
from data.errors import UserError
from data.examples import Examples, build_examples
from data.feedback.columns import FeedbackOptions
from data.feedback.single_answers import mismatched
from data.feeds import Blend, Feed, Shuffled, seed_of, shares
from data.messages import strings_in
from data.tokenizer import load_tokenizer
from data.tokens.mixture import Mixture
from data.tokens.token_rows import TokenRows
from rlhf.config.data import Data
from rlhf.config.schema import SupervisedPhase
from rlhf.corpus.mixing import corpus_rows
from rlhf.interfaces import ModelGroup, Objective, Staged
from rlhf.metrics import Bar
from rlhf.ops import masked
from rlhf.ops.preference import kto_baseline
from rlhf.phases.base import PhaseContext, tokenizer_of_data
from rlhf.phases.step_plan import StepPlan

ALONE = ""  # the name of the data set, if the phase has only one
AT_ONCE = 256  # units in one forward pass over a data set


@dataclass(frozen=True)
class Split:
    """A data set's rows to train on and held-out rows."""

    train: Examples | TokenRows
    held_out: Examples | TokenRows

    def each(self, change: Callable[[Any], Any]) -> Split:
        return Split(change(self.train), change(self.held_out))


Splits = Mapping[str, Split]  # by data set


def read_splits(context: PhaseContext, objective: Objective, kind: str, options: FeedbackOptions) -> Splits:
    """Reads and tokenises all data sets of the phase; first trains or loads the tokenizer if the phase asks for one.

    kind: the kind of rows (`data.examples.KINDS`) of data sets that do not name theirs.
    """
    phase = context.phase
    parts: Mapping[str, Data] = phase.data.mix or {ALONE: phase.data}
    from_scratch = _set_tokenizer(context, parts)
    splits = {name: _read(context, objective, name, part, kind, options) for name, part in parts.items()}
    if from_scratch:  # a trained model has no embeddings for new tokens; there the objective raises an error
        extend(context.tokenizer, getattr(objective, "special_tokens", ()))
    return splits


def feed_of(context: PhaseContext, splits: Splits, objective: Objective) -> Feed:
    """The rows that training draws from, in their order."""
    feed = _plain_feed(context, splits)
    return denoised(context, feed, objective)


def held_out_of(context: PhaseContext, splits: Splits, objective: Objective) -> dict[str, Any]:
    """The held-out rows by data set. A denoising objective corrupts them in the same way each time."""
    return {name: denoised(context, split.held_out, objective) for name, split in splits.items()}


def denoised(context: PhaseContext, rows: Any, objective: Objective) -> Any:
    """The rows, corrupted if the objective is a denoising one."""
    if not hasattr(objective, "corrupt"):
        return rows
    vocabulary = Vocabulary.of(context.tokenizer, objective.special_tokens)
    return Denoised(rows, objective, vocabulary, context.seed)


def _plain_feed(context: PhaseContext, splits: Splits) -> Feed:
    phase, seed = context.phase, context.seed
    if set(splits) == {ALONE}:
        rows = splits[ALONE].train
        if isinstance(rows, TokenRows):
            return rows
        left_over = len(rows) % phase.batch_size  # leave these rows out, so that no batch spans two passes
        keeps = phase.ramp or len(rows) < phase.batch_size  # too few rows: the step plan raises the error
        return Shuffled(rows, len(rows) if keeps else len(rows) - left_over, seed)
    # sorted, because the order of parts in the config is not one of the phase's inputs
    feeds = {name: _part_feed(splits[name].train, seed_of(seed, name)) for name in sorted(splits)}
    counts = {name: feed.pass_rows for name, feed in feeds.items()}
    given = {name: part.weight for name, part in phase.data.mix.items() if part.weight is not None}
    caps = {name: part.cap for name, part in phase.data.mix.items() if part.cap is not None}
    weights = shares(counts, given, caps, phase.data.temperature)
    return Blend(feeds, Mixture(counts, weights=weights, seed=seed))


def _part_feed(rows: Examples | TokenRows, seed: int) -> Feed:
    return rows if isinstance(rows, TokenRows) else Shuffled(rows, len(rows), seed)


def _set_tokenizer(context: PhaseContext, parts: Mapping[str, Data]) -> bool:
    """Sets the phase's tokenizer if it is not the model's own: for a new model on a corpus, the tokenizer of the
    corpus; else the tokenizer of the phase's `tokenizer` section. Returns whether the model is new."""
    settings = getattr(context.phase, "tokenizer", None)
    corpora = list(context.resolved.corpora.values())
    from_scratch = context.models[context.resolved.kind.result].path is None
    if corpora and from_scratch:
        context.tokenizer = load_tokenizer(context.artifacts[corpora[0].name].path)
    elif settings is not None:
        context.tokenizer = tokenizer_of_data(settings, _texts(context, parts))
    return from_scratch


def _texts(context: PhaseContext, parts: Mapping[str, Data]) -> Iterator[str]:
    for part in parts.values():
        for row in context.open(part):
            yield from strings_in(row)


def _read(
    context: PhaseContext, objective: Objective, name: str, part: Data, kind: str, options: FeedbackOptions
) -> Split:
    phase = context.phase
    length = objective.raw_length(phase.max_length) if hasattr(objective, "raw_length") else phase.max_length

    def read(data: Data, options: FeedbackOptions) -> Examples:
        of = getattr(data, "rows", None) or kind
        # `length` leaves room for the rows of text to grow when they are corrupted; other rows do not grow
        examples = build_examples(
            of, context.open(data), context.tokenizer, length if of == "text" else phase.max_length, options
        )
        context.read(examples.report)
        return examples

    if corpus := context.resolved.corpora.get(f"data.mix.{name}" if name else "data"):
        artifact, total = context.artifacts[corpus.name].path, None if name else rows_wanted(phase)
        train, held_out = corpus_rows(
            artifact, corpus, phase.mixture, context.tokenizer, length, context.seed, total, phase.epochs, part.holdout
        )
        context.read(train.report)
    elif phase.eval_data is None:
        train, held_out = split(read(part, options), part, context.seed)
    else:
        train, held_out = read(part, options), None
    if phase.eval_data is not None:
        # the weights of annotators are only for training rows
        held_out = read(phase.eval_data, replace(options, annotators={}))
    return Split(train, held_out)


def split(examples: Examples, data: Data, seed: int) -> tuple[Examples, Examples]:
    """(rows to train on, held-out rows). A part of weight 0 is never drawn, so all its rows may be held out."""
    if getattr(data, "weight", None) == 0 and data.holdout >= len(examples):
        return examples, examples
    return examples.split(data.holdout, seed)


def rows_wanted(phase: SupervisedPhase) -> int | None:
    """How many rows `steps` take; None if the phase counts epochs instead."""
    if phase.steps is None:
        return None
    return StepPlan.of(phase, phase.batch_size).before(phase.steps)


def expect_margins(objective: Objective, examples: Examples) -> None:
    """Raises UserError where the loss uses margins but no row has one: it would learn as if without margins."""
    if "margins" in objective.columns and not examples.columns["margins"].any():
        raise UserError(
            f"{examples.report.name}: loss.margin is on, but no row says by how much its chosen answer is better; bring a "
            "column 'margin' or 'ratings', or turn it off"
        )


def rows_compared(objective: Objective, splits: Splits) -> int:
    """How many rows must share a micro-batch: the rows of the largest comparison, or 1."""
    if objective.unit != "pairs":
        return 1
    return max(rows.rows_of_largest_unit for split in splits.values() for rows in (split.train, split.held_out))


@dataclass(frozen=True)
class Stager:
    """Puts batches into the object store, with all columns that the objective reads."""

    context: PhaseContext
    objective: Objective
    model: ModelGroup
    reference: ModelGroup | None  # None if the objective needs none, or the examples have its log-probs

    def stage(self, batch: Batch) -> Staged:
        staged = self._put(batch)
        if "kl_baseline" in self.objective.columns:
            staged = staged.with_columns(kl_baseline=self._divergence(batch).expand(len(batch)))
        if self.reference:
            staged = staged.with_columns(ref_logprobs=self.reference.forward(staged, "logprobs").result())
        return staged

    def _divergence(self, batch: Batch) -> Tensor:
        """(): KL(policy || reference) in nats per answer, estimated on answers to other rows' prompts (Ethayarajh et
        al. 2024, section 4.1). Computed over the batch, so that all ranks and micro-batches use one value."""
        other = mismatched(batch, self.context.phase.max_length)
        staged = self._put(other)
        work = [group.forward(staged, "logprobs") for group in (self.model, self.reference)]
        policy, reference = (pending.result() for pending in work)
        return kto_baseline(masked.sum(policy - reference, other.action_mask, dim=1))

    def _put(self, batch: Batch) -> Staged:
        return self.context.runtime.stage(batch, [group for group in (self.model, self.reference) if group])


def with_reference_logprobs(context: PhaseContext, reference: ModelGroup, examples: Examples) -> Examples:
    """The examples with a token column `ref_logprobs`, which is computed once for all epochs."""
    logprobs = np.zeros(len(examples.tokens), np.float32)
    with Bar(context.console, "reference", len(examples), 0, ()) as bar:
        for first in range(0, len(examples), AT_ONCE):
            units = range(first, min(first + AT_ONCE, len(examples)))
            staged = context.runtime.stage(examples.batch(units), [reference])
            found = reference.forward(staged, "logprobs").result().numpy()
            for values, span in zip(found, examples.spans_of(units), strict=True):
                logprobs[span] = values[: span.stop - span.start]
            bar.update(units.stop, {})
    return examples.with_token_column("ref_logprobs", logprobs)
