"""What a reward model's directory says of itself beside transformers' config: how its scores are read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

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
