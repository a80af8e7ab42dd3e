"""What a supervised objective reads beside tokens: the reference's log-probs, and the KL baseline of KTO."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from data.batch import Batch
from data.examples import Examples
from data.feedback.single_answers import mismatched
from rlhf.interfaces import ModelGroup, Objective, Staged
from rlhf.metrics import Bar
from rlhf.ops import masked
from rlhf.ops.preference import kto_baseline
from rlhf.phases.base import PhaseContext

AT_ONCE = 256  # units of one forward pass over a whole data set


@dataclass(frozen=True)
class Reading:
    """Puts batches into the object store with all columns that the objective reads."""

    context: PhaseContext
    objective: Objective
    model: ModelGroup
    reference: ModelGroup | None  # None where the objective needs none, or its log-probs came with the examples

    def stage(self, batch: Batch) -> Staged:
        staged = self._put(batch)
        if "kl_baseline" in self.objective.columns:
            staged = staged.with_columns(kl_baseline=self._divergence(batch).expand(len(batch)))
        if self.reference:
            staged = staged.with_columns(ref_logprobs=self.reference.forward(staged, "logprobs").result())
        return staged

    def _divergence(self, batch: Batch) -> Tensor:
        """(): the batch's KL(policy || reference) in nats an answer, estimated on answers to other rows' prompts
        (Ethayarajh et al. 2024, section 4.1). Of the whole batch, so that all ranks and micro-batches share it."""
        other = mismatched(batch, self.context.phase.max_length)
        staged = self._put(other)
        work = [group.forward(staged, "logprobs") for group in (self.model, self.reference)]
        policy, reference = (pending.result() for pending in work)
        return kto_baseline(masked.sum(policy - reference, other.action_mask, dim=1))

    def _put(self, batch: Batch) -> Staged:
        return self.context.runtime.stage(batch, [group for group in (self.model, self.reference) if group])


def with_reference_logprobs(context: PhaseContext, reference: ModelGroup, examples: Examples) -> Examples:
    """The examples with a token column `ref_logprobs`, computed once for all epochs."""
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
