"""The kinds of phases: models, rows, objective or algorithm, loop and result of each.

A new kind of phase needs its settings in `schema.py`, its entry here, and its loop. Loops, objectives and algorithms are
named by import path, so that reading a config imports none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PHASE = "phase:"  # a path that names an earlier phase's result
CORPUS = "corpus"
JUDGE = "judge"  # the role of a judge that the run itself serves
SUPERVISED = "rlhf.phases.supervised:run"


@dataclass(frozen=True)
class Kind:
    """A kind of phase."""

    name: str
    roles: tuple[str, ...] = ()  # of the models that the phase can use
    result: str | None = None  # the role of the model that the phase leaves; None: it leaves rows or a corpus
    # the kind of its rows; a loss may name another kind of feedback (`data.examples.KINDS`)
    rows: Literal["text", "chat", "preference", "prompts"] | None = None
    setting: Literal["objective", "loss", "algorithm"] | None = None  # names the objective, loss or algorithm
    resolver: str = ""  # import path of the function that builds it from name and parameters
    loop: str = SUPERVISED
    given: tuple[str, ...] = ()  # objects of `rlhf.run` that replace the config's
    shown: tuple[str, ...] = ("loss", "lr", "tokens/s")  # figures of a supervised step in the progress bar

    @property
    def of_text(self) -> bool:
        """Whether it trains on a text objective; its data may then be a mix."""
        return self.setting == "objective"

    @property
    def supervised(self) -> bool:
        return self.loop == SUPERVISED

    @property
    def leaves_rows(self) -> bool:
        """Whether it leaves a data set of rows."""
        return self.result is None and self.name != CORPUS

    @property
    def samples(self) -> bool:
        """Whether it asks the rollout engines for answers to its prompts."""
        return self.rows == "prompts"


KINDS = {
    kind.name: kind
    for kind in (
        Kind(CORPUS, loop="rlhf.phases.corpus:run"),
        Kind("pretrain", ("policy",), "policy", "text", "objective", "rlhf.objectives:resolve_text_objective"),
        Kind("sft", ("policy",), "policy", "chat", "objective", "rlhf.objectives:resolve_text_objective"),
        Kind(
            "reward",
            roles=("reward",),
            result="reward",
            rows="preference",
            setting="loss",
            resolver="rlhf.objectives:resolve_reward_loss",
            shown=("loss", "accuracy", "mae", "lr", "tokens/s"),
        ),
        Kind(
            "dpo",
            roles=("policy", "reference"),
            result="policy",
            rows="preference",
            setting="loss",
            resolver="rlhf.objectives:resolve_loss",
            shown=("loss", "accuracy", "margin", "tokens/s"),
        ),
        Kind(
            "rl",
            roles=("policy", "reference", "critic"),
            result="policy",
            rows="prompts",
            setting="algorithm",
            resolver="rlhf.algorithms:resolve",
            loop="rlhf.phases.rl:run",
            given=("algorithm", "reward", "rollout"),
        ),
        Kind("best_of_n", ("policy",), rows="prompts", loop="rlhf.phases.best_of_n:run", given=("reward",)),
        Kind("label", ("policy",), rows="prompts", loop="rlhf.phases.label:run"),
    )
}
LEAVING_ROWS = [kind.name for kind in KINDS.values() if kind.leaves_rows]
OF_TEXT = [kind.name for kind in KINDS.values() if kind.of_text]
