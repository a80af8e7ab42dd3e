"""The seams: what an objective, an algorithm and a reward must offer, and what the cluster offers to the phases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

from data.corpus.work import Piece
from data.sample import Prompt, Sample, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch

Output = Literal["logprobs", "logprobs_entropy", "logprobs_normalizer", "values", "scores"]
Unit = Literal["tokens", "rows", "pairs"]
Result: TypeAlias = "tuple[Tensor, dict[str, Tensor]]"  # an objective's loss sum and metric sums


class Objective(Protocol):
    """What to minimise. A frozen dataclass, sent to the ranks by value.

    output: what the engine computes. "logprobs" (b, T): log p(token t | < t) where action_mask is set, else 0;
        "logprobs_entropy" (2, b, T): these, and the entropy in nats of the distribution that token t was drawn from;
        "logprobs_normalizer" (2, b, T): these, and log Z, the logarithm of that distribution's sum before it was normalised;
        "values" (b, T): value of the state before token t where action_mask is set, else 0;
        "scores" (b,): the scalar head at the row's last token.
    unit: what the engine divides by, counted over all ranks and micro-batches: trained tokens, rows, or groups of rows
        ("pairs": the rows of one group_id always share a micro-batch, adjacent and in their order).
    columns: the batch columns that it reads beside tokens, lengths and action_mask. With "prefix_lengths" a row's first tokens
        are read in both directions, by the encoder where the model has one; with "inputs" the model reads these instead of the
        tokens, and says at each masked place what the token was.
    rows (optional): the kind of data rows that a supervised phase reads for it (`data.examples.KINDS`), where that is not the
        phase's usual one.
    """

    output: Output
    unit: Unit
    columns: frozenset[str]

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """(the loss's SUM over the unit, named metric SUMs over the same unit). Both are divided by the global count."""
        ...


class Algorithm:
    """Base of RL algorithms: subclass as a frozen dataclass whose fields are its parameters.

    needs: of {"old_logprobs", "ref_logprobs", "values", "greedy_rewards"}, the columns that `advantages` and the objectives
        read beside rewards and what the rollout gives; a model that nobody needs is not built.
    samples_per_prompt: the fewest that it can learn from.
    refills: how many more times a step may draw prompts, in place of the groups that `keep` leaves out.
    """

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}
    needs: ClassVar[frozenset[str]] = frozenset()
    samples_per_prompt: ClassVar[int] = 1
    refills: int = 0

    def keep(self, batch: Batch) -> Tensor:
        """(B,) bool: the rows that are worth training on, asked before rewards are shaped and `advantages` is called. Whole
        groups, if refills are wanted."""
        return batch.action_mask.new_ones(len(batch))

    def advantages(self, batch: Batch) -> Batch:
        """Pure: a batch with `advantages` (and `returns`, for a critic) added. Rewards are finite here. It may leave rows
        out or put them into another order (`batch.select`), which then are what is trained on."""
        raise TypeError(f"{type(self).__name__} must define advantages(batch)")

    def objectives(self) -> dict[str, Objective]:
        """{"policy": …} and, with a critic, "critic"."""
        raise TypeError(f"{type(self).__name__} must define objectives()")

    def after_step(self, metrics: Mapping[str, float]) -> Algorithm:
        """The algorithm for the next step; adaptive coefficients change here."""
        return self

    def state(self) -> dict[str, Any]:
        """What `after_step` changes, as JSON values, for the checkpoint."""
        return {}

    def with_state(self, state: Mapping[str, Any]) -> Algorithm:
        """The inverse of `state`."""
        return self


class RewardSource(Protocol):
    """Scores samples: per sample a float, or a dict of named parts whose sum is the reward; NaN = no score."""

    def score(self, samples: Sequence[Sample]) -> Sequence[float | Mapping[str, float]]: ...


@dataclass(frozen=True)
class OptimSettings:
    """The optimiser with linear warm-up, then a decay to `final_lr_ratio`; `total_steps` is filled in by the phase."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float  # on matrices only
    warmup_steps: int
    schedule: Literal["cosine", "constant", "linear", "wsd"]
    final_lr_ratio: float
    clip_norm: float
    total_steps: int
    name: Literal["adamw", "adafactor"] = "adamw"
    decay_steps: int = 0  # of wsd: the last ones


@dataclass(frozen=True)
class ModelBuild:
    """Everything a rank needs to build its part of one role's model. Plain values: it travels to the workers."""

    role: str  # policy | reference | critic | reward
    path: str | None  # HF directory or name; None: from scratch by `architecture`
    architecture: Mapping[str, Any] | None  # transformers config fields, `model_type` among them
    head: Literal["lm", "masked", "scalar"]  # masked: an encoder's language model
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    zero_stage: int
    microbatch_tokens: int  # packed tokens of one micro-batch, at most
    activation_checkpointing: bool
    optim: OptimSettings | None  # None: not trained
    seed: int
    # an average of the weights is kept: average = decay * average + (1 - decay) * weights
    ema_decay: float | None = None
    tensor_parallel: int = 1  # ranks that share each matrix
    pipeline_parallel: int = 1  # ranks that share the layers
    # fields of an architecture that follow from the tokenizer and the rows; its own, and those it does not know, are left
    implied: Mapping[str, Any] = field(default_factory=dict)


class Pending(Protocol):
    """Work in flight on a group."""

    def result(self) -> Any:
        """Waits; raises the first rank's error, which carries role, rank and node."""
        ...


class Staged(Protocol):
    """A batch in the object store: shards that all groups share, balanced by tokens."""

    size: int  # rows
    minibatches: int

    def with_columns(self, **columns: Tensor) -> Staged:
        """Adds (B,) or (B, T) columns, in the global row order, beside the shards."""
        ...


@dataclass(frozen=True)
class Passes:
    """How a staged batch is learned from: one optimizer step for each of its mini-batches and epochs."""

    epochs: int = 1
    temperature: float = 1.0
    max_kl: float | None = None  # no further step once one has an "approx_kl" above this


ONE_PASS = Passes()


@dataclass(frozen=True)
class Beside:
    """A second loss that joins every optimizer step, on rows of its own: pretraining beside PPO (PTX). Its metrics are
    named `name/…`. staged: as many mini-batches as the batch that it stands beside."""

    name: str
    staged: Staged
    objective: Objective
    weight: float


class ModelGroup(Protocol):
    """All ranks of one role. The calls return at once; `result()` waits."""

    def forward(self, staged: Staged, output: Output, temperature: float = 1.0) -> Pending:
        """(B, T) or (B,) fp32 in the global row order."""
        ...

    def train(
        self, staged: Staged, objective: Objective, passes: Passes = ONE_PASS, beside: Beside | None = None
    ) -> Pending:
        """A list of metric dicts, one an optimizer step, with "loss", "grad_norm", "lr", "tokens" (real tokens processed)
        and the objective's own. A step that left the weights as they were has "skipped" 1; where it `failed` (rlhf.skipped), it is
        the list's last."""
        ...

    def evaluate(self, staged: Staged, objective: Objective) -> Pending:
        """(sums: dict with "loss" and the objective's metrics, count of its unit), over all ranks, without gradients."""
        ...

    def use_average(self) -> Pending:
        """Puts the average of the weights (`ModelBuild.ema_decay`) in their place, for evaluation and export."""
        ...

    def save(self, directory: Path) -> Pending: ...

    def load(self, directory: Path) -> Pending: ...

    def export(self, directory: Path) -> Pending:
        """Writes a directory that transformers and vLLM load (config, safetensors); tokenizer files are the phase's."""
        ...


class RolloutPool(Protocol):
    """The rollout engines."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Sample]:
        """All samples, ordered by (prompt, index)."""
        ...

    def sync(self, policy: ModelGroup) -> Mapping[str, float]:
        """Sends the policy's weights to every engine and proves that they arrived; raises WeightSyncError if not.
        Returns {"version", "bytes", "seconds", "canary_gap"}."""
        ...


@dataclass(frozen=True)
class Served:
    """A language model behind an OpenAI-compatible address."""

    url: str  # ends in /v1
    name: str  # of the model, in requests
    key: str = field(repr=False)
    # sent along to vLLM, which knows the end of text, but not every model's end of turn
    stop_token_ids: tuple[int, ...] = ()


class Runtime(Protocol):
    """What the cluster gives to the phases. `actors/` implements it; phases never see Ray."""

    rollout_stats: Mapping[str, int]  # weight syncs so far: "count", "failed"

    def expect(self, pools: Mapping[str, str], rollouts: tuple[str, int] | None = None) -> None:
        """Starts the processes of these roles ({role: pool}), and the rollout engines of (model path, max_length) where
        memory allows; returns at once."""
        ...

    def group(self, build: ModelBuild, pool: str) -> ModelGroup:
        """The role's group with this model loaded; processes of an earlier phase are reused."""
        ...

    def rollouts(self, model_path: str, max_length: int) -> RolloutPool:
        """The rollout engines for this architecture, which build in the background; reused while the architecture stays."""
        ...

    def serve(self, role: str, model_path: str, pool: str, max_length: int) -> Served:
        """vLLM's own OpenAI-compatible server of the model, in the role's place on the pool; `release(role)` ends it."""
        ...

    def stage(self, batch: Batch, groups: Sequence[ModelGroup], minibatches: int = 1, seed: int = 0) -> Staged:
        """Puts the batch's columns into the object store once. Rows of one group_id stay in one mini-batch and shard."""
        ...

    def release(self, role: str) -> None:
        """Frees the role's model; its processes stay for later phases."""
        ...

    def run_pieces(self, pieces: Sequence[Piece], workers: int) -> Iterable[None]:
        """Runs all pieces, `workers` at once, in any order; yields once for each that is done."""
        ...

    def report(self, metrics: Mapping[str, float], phase: str) -> None:
        """Exports the main metrics to Ray's metrics agent."""
        ...


RewardFunction = Callable[[Sample], float | Mapping[str, float]]
