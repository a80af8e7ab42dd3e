"""What phases share that ask the policy and train nothing: every prompt once, some at a time, and the rows that come of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.plain_rows import build_prompts
from data.sample import Prompt, Sample
from rlhf.metrics import Timer
from rlhf.phases.answers import sampling, start_rollouts
from rlhf.phases.base import ROWS, Metrics, PhaseContext


@dataclass
class Round:
    """Some prompts' samples. The phase fills in what became of them, before it asks for the next round."""

    samples: list[Sample]
    timer: Timer
    rows: Sequence[dict[str, Any]] = ()  # for the phase's data set
    figures: Metrics = field(default_factory=dict)
    notes: Sequence[str] = ()  # for the user


def rounds(context: PhaseContext, prompts: Sequence[Prompt], shown: tuple[str, ...]) -> Iterator[Round]:
    """The samples of `prompts_per_step` prompts after the other; writes the phase's data set, its metrics and its bar."""
    phase = context.phase
    policy = context.build("policy")
    rollouts = start_rollouts(context, policy)
    rollouts.sync(policy)
    steps = range(0, len(prompts), phase.prompts_per_step)
    with context.tracking(len(steps), 0, shown) as track, open(context.staging / ROWS, "w") as file:
        for step, first in enumerate(steps):
            timer = Timer()
            with timer("generate"):
                asked = prompts[first : first + phase.prompts_per_step]
                samples = rollouts.generate(asked, sampling(context, phase.sampling, step))
            each = Round(samples, timer)
            yield each
            for row in each.rows:
                file.write(json.dumps(row) + "\n")
            for text in each.notes:
                track.note(step + 1, text)
            track.step(step + 1, each.figures | timer.seconds)


def read_prompts(context: PhaseContext) -> list[Prompt]:
    """The phase's prompts that leave room for an answer."""
    phase = context.phase
    room = phase.max_length - phase.sampling.max_new_tokens
    prompts, report = build_prompts(context.open(phase.data), context.tokenizer, room)
    context.read(report)
    return prompts
