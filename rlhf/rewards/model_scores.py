"""From a reward model's raw scores to a reward for each answer, and the file beside the weights that says how scores
are read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

FILE = "reward.json"
MOST_QUESTIONS = 64  # about each answer, in a reward; each takes a forward pass


@dataclass(frozen=True)
class RewardSpec:
    """How a reward model's scores are read.

    reads: "answer": one score at the answer's last token; "steps": one score after each step of the answer;
    "questions": one score for each of `questions` about the answer.
    mean, std: of the scores of held-out answers. With "questions", of the verdicts on single questions; a reward is the
    mean of an answer's verdicts and has a smaller spread.
    """

    reads: Literal["answer", "steps", "questions"] = "answer"
    questions: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def read(cls, directory: str | Path) -> RewardSpec:
        """The directory's spec; without the file, the default, which fits any classifier with one score."""
        file = Path(directory) / FILE
        found = json.loads(file.read_text()) if file.is_file() else {}
        return cls(**{**found, "questions": tuple(found.get("questions", ()))})

    def write(self, directory: Path) -> None:
        (directory / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def ensemble(members: Sequence[Tensor], means: Sequence[float], std_penalty: float) -> tuple[Tensor, Tensor | None]:
    """((B,) reward, (B,) standard deviation over the members, or None if there is one member).

    The reward of several members is mean - std_penalty * std, so answers on which members disagree get less (Coste et
    al. 2023, section 3.2, with the standard deviation in place of the variance). Each member's mean on held-out answers
    is subtracted first, since a reward model's scores are defined up to a constant. members: (B,) scores of each.
    means: of held-out scores.
    """
    import torch

    if len(members) == 1:
        return members[0], None
    centred = torch.stack([member - mean for member, mean in zip(members, means, strict=True)])
    std = centred.std(0, unbiased=False)
    return centred.mean(0) - std_penalty * std, std


def weakest_step(values: Tensor, ends: Tensor) -> Tensor:
    """(B,): the lowest probability that a step of the answer is right; NaN for an answer without steps. The minimum
    ranks answers about as well as the product over steps (Lightman et al. 2023, appendix F) and does not punish length.

    values: (B, T) logits. ends: (B, T) bool, True at the last token of a step.
    """
    lowest = values.where(ends, math.inf).amin(1)
    return lowest.sigmoid().where(ends.any(1), math.nan)


def mean_verdict(scores: Tensor, questions: int) -> Tensor:
    """(B,): the mean of log p(yes) over an answer's questions. scores: (B * questions,) logits, an answer's questions
    adjacent."""
    from torch.nn.functional import logsigmoid

    return logsigmoid(scores).view(-1, questions).mean(1)
