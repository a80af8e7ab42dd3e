"""An environment of one's own: the policy guesses a letter and is told whether the secret one comes earlier or later.

In a config: `rollout: "examples.guess:Guess"`, `reward: [environment]` and `data: {path: "examples.guess:secrets"}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_lowercase

from data.sample import Prompt

GUESSES = 6


def secrets() -> Iterator[dict]:
    """One row a letter."""
    for letter in ascii_lowercase:
        yield {"prompt": "Guess my letter. Say one letter from a to z.", "secret": letter}


class Guess:
    """Worth 1 where the letter is found within GUESSES answers, else 0."""

    def reset(self, prompt: Prompt) -> None:
        self.secret = prompt.meta["secret"]
        self.left = GUESSES

    def step(self, answer: str) -> tuple[str | None, float]:
        guess = answer.strip().lower()
        self.left -= 1
        if guess == self.secret:
            return None, 1.0
        if self.left == 0:
            return None, 0.0
        if len(guess) != 1 or guess not in ascii_lowercase:
            return "Say one letter from a to z.", 0.0
        return ("It comes later." if guess < self.secret else "It comes earlier."), 0.0
