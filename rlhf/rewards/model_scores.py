"""From a reward model's raw scores to a reward for each answer, and the file beside the weights that says how scores are read."""

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
MOST_QUESTIONS = 64  # that a reward may ask of each answer, one forward pass each


@dataclass(frozen=True)
class RewardSpec:
    """reads: "answer", one score at the answer's last token; "steps", one after each step of it; or "questions", one after each
    of `questions`, asked about the answer. mean, std: of the scores of held-out answers, with "questions" of the verdicts on
    single questions: a reward is the mean of an answer's, and spreads less."""

    reads: Literal["answer", "steps", "questions"] = "answer"
    questions: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def read(cls, directory: str | Path) -> RewardSpec:
        """That of the directory; the default where it holds none, which is any classifier with one score."""
        file = Path(directory) / FILE
        found = json.loads(file.read_text()) if file.is_file() else {}
        return cls(**{**found, "questions": tuple(found.get("questions", ()))})

    def write(self, directory: Path) -> None:
        (directory / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def ensemble(members: Sequence[Tensor], means: Sequence[float], std_penalty: float) -> tuple[Tensor, Tensor | None]:
    """((B,) the reward, (B,) the members' standard deviation, None for a single one). Of several, each is centred by its mean
    on held-out answers, since a reward model's scores are defined up to a constant; the reward is mean - std_penalty * std, so
    that answers on which they disagree are worth less (Coste et al. 2023, section 3.2, with the std for the variance)."""
    import torch

    if len(members) == 1:
        return members[0], None
    centred = torch.stack([member - mean for member, mean in zip(members, means, strict=True)])
    std = centred.std(0, unbiased=False)
    return centred.mean(0) - std_penalty * std, std


def weakest_step(values: Tensor, ends: Tensor) -> Tensor:
    """(B,): the lowest probability that a step of the answer is right, NaN for an answer without steps. (The minimum and the
    product over steps rank answers about equally well, Lightman et al. 2023, appendix F; the minimum does not punish length.)

    values: (B, T), logits. ends: (B, T) bool, where they are of a step's end.
    """
    lowest = values.where(ends, math.inf).amin(1)
    return lowest.sigmoid().where(ends.any(1), math.nan)


def mean_verdict(scores: Tensor, questions: int) -> Tensor:
    """(B,): the mean over the questions of log p(yes). scores: (B * questions,) logits, an answer's questions adjacent."""
    from torch.nn.functional import logsigmoid

    return logsigmoid(scores).view(-1, questions).mean(1)
