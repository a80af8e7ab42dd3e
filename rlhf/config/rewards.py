"""Settings of rewards: the parts, their combination and shaping, the judge, the watch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rlhf.config.node import Node, Short

RewardSource = Annotated[
    str,
    Field(
        pattern=r"^(\w+|[\w.]+:[\w.]+)$",
        description="model (a reward model), environment, judge, a rule's name or module:function",
    ),
]


class Limits(Node):
    """Limits of a call of a reward function. Beyond them its process is killed, and the samples have no score."""

    timeout_s: float = Field(60.0, gt=0)
    memory_gib: float = Field(4.0, gt=0)
    output_mib: float = Field(16.0, gt=0)  # printed
    retries: int = Field(1, ge=0)  # of a failed call
    workers: int = Field(2, ge=1)  # processes


class Reward(Short):
    """One part of the reward: `model` (reward models), `environment` (the rollout's own score), `judge` (the phase's
    judge), a rule's name or `module:attribute`; see docs/rewards.md. The reward is the weighted sum of the parts."""

    short = "source"
    source: RewardSource = "model"
    # default: the source's
    name: str = Field("", pattern=r"^[\w.-]*$", description="letters, digits, '.', '_' and '-'")
    weight: float = 1.0
    clip: tuple[float, float] | None = None
    models: list[str] = []  # of source `model`: several form an ensemble; default: the role `reward`
    std_penalty: float = Field(0.0, ge=0)  # of an ensemble: the reward is its mean - std_penalty * its std
    args: dict[str, Any] = {}  # parameters of the rule, class or function
    limits: Limits = Limits()


class Piecewise(Node):
    """The guard's score alone is the reward where it is low or where the prompt calls for it; elsewhere the reward is the
    weighted sum of the other parts (Llama 2, Touvron et al. 2023, section 3.2.3)."""

    guard: str  # name of a part
    below: float = -1.7346  # low means below this; the default is the logit of a probability of 0.15
    prompts: str | None = None  # a column of the prompts that is true where the guard alone scores


class Judge(Node):
    """A language model that compares two answers, or rates one; see docs/judge.md."""

    model: str | None = None  # phase:<name> or a directory, served by vLLM; or `url`
    pool: str = "judge"  # devices that serve it
    url: str | None = None  # of any OpenAI-compatible server, ending in /v1
    name: str = "judge"  # of the model at `url`
    key_variable: str = "OPENAI_API_KEY"  # the environment variable that holds the key for `url`
    kind: Literal["pairwise", "pointwise"] = "pairwise"
    swap: bool = True  # pairwise: asks in both orders; a verdict that depends on the order is no preference
    principles: list[str] = []  # a constitution: each question contains one of them, drawn by the seed
    # of the question, with {principle}, {prompt}, and {first} and {second}, or {answer} and {best}
    template: str | None = None
    best: float = Field(10.0, gt=0)  # pointwise: the highest rating
    max_new_tokens: int = Field(16, ge=1)
    max_length: int = Field(4096, ge=2)  # tokens of a question and its verdict, where this run serves the model
    timeout_s: float = Field(60.0, gt=0)  # of a question
    retries: int = Field(3, ge=0)
    at_once: int = Field(16, ge=1)  # questions in flight


class Watch(Node):
    """Checks every few steps whether the policy exploits the reward: a gold reward, which the policy is not trained on,
    scores the step's answers, too."""

    every: int = Field(5, ge=1)  # rollout steps
    gold: list[Reward] = []  # none: only alarms
    stop: bool = True  # ends the run where gold falls while the reward rises
    patience: int = Field(2, ge=1)  # looks that gold must stay below its best
    format: Reward | None = None  # 1 for an answer in the right format, else 0; a fall of its mean raises an alarm

    def due(self, step: int, steps: int) -> bool:
        """Whether rollout step `step` of `steps`, counted from 1, is checked: the first, every few after it, the last."""
        return (step - 1) % self.every == 0 or step == steps


class Overlong(Node):
    """Penalty for long answers (DAPO, Yu et al. 2025, equation 13): from 0 at limit - buffer tokens to -1 at limit."""

    limit: int = Field(ge=1)  # tokens of an answer
    buffer: int = Field(ge=1)


class Shaping(Node):
    """Changes of the rewards before the algorithm reads them, in this order."""

    normalise: bool = False  # by the mean and standard deviation of all rewards of the phase so far
    clip: float | None = Field(None, gt=0)  # to [-clip, clip]
    missing_end: float = Field(0.0, ge=0)  # subtracted from the reward of an answer that hit the length limit
    overlong: Overlong | None = None
    drop_truncated: bool = False  # answers that hit the length limit are in the baseline, but not trained on


class Correction(Node):
    """Importance weights p(trainer) / p(rollout engine) on the tokens' advantages. truncated: clipped to [low, high];
    masked: 0 outside of it (IcePop); sequence: 0 for answers whose geometric mean is outside of it."""

    kind: Literal["truncated", "masked", "sequence", "off"] = "truncated"
    low: float | None = Field(None, ge=0, lt=1)  # default: truncated 0, masked and sequence 0.5
    high: float | None = Field(None, gt=1)  # default: truncated 2, masked and sequence 5

    @property
    def bounds(self) -> tuple[float, float]:
        low, high = (0.0, 2.0) if self.kind == "truncated" else (0.5, 5.0)
        return low if self.low is None else self.low, high if self.high is None else self.high
