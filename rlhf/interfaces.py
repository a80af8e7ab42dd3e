"""The protocols between the rooms: objectives, algorithms and rewards, and the cluster that runs them."""

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
Result: TypeAlias = "tuple[Tensor, dict[str, Tensor]]"  # an objective's loss sum and its metric sums


class Objective(Protocol):
    """A loss to minimise. A frozen dataclass, sent to the ranks by value.

    output: the tensor that the engine computes for the loss. "logprobs" (b, T): log p(token t | < t) where action_mask
        is set, else 0; "logprobs_entropy" (2, b, T): the log-probs, and the entropy in nats of the distribution of
        token t; "logprobs_normalizer" (2, b, T): the log-probs, and log Z of that distribution (the logsumexp of the
        logits); "values" (b, T): the value of the state before token t where action_mask is set, else 0;
        "scores" (b,): the scalar head's output at the row's last token.
    unit: the engine divides the loss by the count of this unit over all ranks and micro-batches: trained tokens, rows,
        or groups of rows ("pairs": the rows of one group_id share a micro-batch, adjacent and in their order).
    columns: the batch columns that the loss reads beside tokens, lengths and action_mask. With "prefix_lengths" a row's
        first tokens attend in both directions (in the encoder, where the model has one); with "inputs" the model reads
        this column instead of the tokens, and predicts the token at each masked place.
    rows (optional): the kind of data rows (`data.examples.KINDS`) that a supervised phase reads; default: the phase's.
    """

    output: Output
    unit: Unit
    columns: frozenset[str]

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """(SUM of the loss, named SUMs of metrics), both over the unit. The engine divides them by the global count."""


class Algorithm:
    """Base of RL algorithms: subclass as a frozen dataclass whose fields are its parameters.

    needs: which of {"old_logprobs", "ref_logprobs", "values", "greedy_rewards"} the advantages and objectives read,
        beside the rewards and the rollout's columns. A model that computes no needed column is not built.
    samples_per_prompt: the fewest samples of a prompt that the algorithm can learn from.
    refills: how many more times a step may draw prompts to replace the prompt groups that `keep` rejects.
    """

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}
    needs: ClassVar[frozenset[str]] = frozenset()
    samples_per_prompt: ClassVar[int] = 1
    refills: int = 0

    def keep(self, batch: Batch) -> Tensor:
        """(B,) bool: the rows to train on. Called before rewards are shaped and before `advantages`. With refills, it
        must keep or reject all rows of a prompt group together."""
        return batch.action_mask.new_ones(len(batch))

    def advantages(self, batch: Batch) -> Batch:
        """Returns the batch with `advantages` (B, T) added, and `returns` (B, T) for a critic. Pure. All rewards are
        finite. The result may omit or reorder rows (`batch.select`); the policy trains on the rows of the result."""
        raise TypeError(f"{type(self).__name__} must define advantages(batch)")

    def objectives(self) -> dict[str, Objective]:
        """{"policy": its objective}, and "critic" for an algorithm with a critic."""
        raise TypeError(f"{type(self).__name__} must define objectives()")

    def after_step(self, metrics: Mapping[str, float]) -> Algorithm:
        """The algorithm for the next step; adaptive coefficients change here."""
        return self

    def state(self) -> dict[str, Any]:
        """The fields that `after_step` changes, as JSON values, for the checkpoint."""
        return {}

    def with_state(self, state: Mapping[str, Any]) -> Algorithm:
        """The algorithm with a saved `state` restored."""
        return self


class RewardSource(Protocol):
    """Scores samples: for each sample a float, or a dict of named parts whose sum is the reward. NaN means no score."""

    def score(self, samples: Sequence[Sample]) -> Sequence[float | Mapping[str, float]]: ...


@dataclass(frozen=True)
class OptimSettings:
    """The optimizer: linear warm-up, then decay to `final_lr_ratio` times `lr`. The phase fills in `total_steps`."""

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
    decay_steps: int = 0  # the last steps of the wsd schedule, in which the learning rate falls


@dataclass(frozen=True)
class ModelBuild:
    """Everything a rank needs to build its part of one role's model. Plain values: they travel to the workers."""

    role: str  # policy | reference | critic | reward
    path: str | None  # HF directory or name; None: a new model of this `architecture`
    architecture: Mapping[str, Any] | None  # transformers config fields, `model_type` among them
    head: Literal["lm", "masked", "scalar"]  # masked: an encoder with a masked-language-model head
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    zero_stage: int
    microbatch_tokens: int  # the most packed tokens in one micro-batch
    activation_checkpointing: bool
    optim: OptimSettings | None  # None: not trained
    seed: int
    # keep an average of the weights: average = decay * average + (1 - decay) * weights
    ema_decay: float | None = None
    tensor_parallel: int = 1  # ranks that share each matrix
    pipeline_parallel: int = 1  # ranks that share the layers
    # architecture fields that follow from the tokenizer and the row length, for fields that `architecture` leaves open
    implied: Mapping[str, Any] = field(default_factory=dict)


class Pending(Protocol):
    """Work in flight on a group."""

    def result(self) -> Any:
        """Waits; raises the first rank's error, which carries role, rank and node."""


class Staged(Protocol):
    """A batch in the object store, in shards that all groups share, balanced by tokens."""

    size: int  # rows
    minibatches: int

    def with_columns(self, **columns: Tensor) -> Staged:
        """Adds (B,) or (B, T) columns, in the order of the batch's rows."""


@dataclass(frozen=True)
class Passes:
    """How a group trains on a staged batch: one optimizer step for each mini-batch in each epoch."""

    epochs: int = 1
    temperature: float = 1.0
    max_kl: float | None = None  # stop after the first step whose "approx_kl" is above this limit


ONE_PASS = Passes()


@dataclass(frozen=True)
class AuxiliaryLoss:
    """A second loss on other rows, added to the main loss in every optimizer step: pretraining text in PPO (PTX). Its
    metrics are named `name/…`. staged: has as many mini-batches as the main batch."""

    name: str
    staged: Staged
    objective: Objective
    weight: float


class WeightSource(Protocol):
    """Sends a model's weights to the rollout engines, in buckets of complete tensors under their checkpoint names."""

    def weight_plan(self, bucket_bytes: int) -> int:
        """Divides the weights into buckets of about this size; returns the number of buckets."""

    def weight_bucket(self, index: int) -> Any:
        """A reference to the bucket in the object store, a list of `WeightItem`. Ask in order of index."""

    def weight_checksum(self) -> int:
        """The sum modulo 2**64 of the checksums of all buckets, computed by the sender."""

    def logprobs_of(self, sequences: list[list[int]]) -> list[list[float]]:
        """log p of every token but the first of each sequence, at temperature 1."""


class ModelGroup(WeightSource, Protocol):
    """All ranks of one role. Calls that return `Pending` return at once; `result()` waits."""

    replicas: int  # copies of the model that work on different rows

    def forward(self, staged: Staged, output: Output, temperature: float = 1.0) -> Pending:
        """(B, T) or (B,) fp32, in the order of the batch's rows."""

    def train(
        self, staged: Staged, objective: Objective, passes: Passes = ONE_PASS, auxiliary: AuxiliaryLoss | None = None
    ) -> Pending:
        """A list of metric dicts, one for each optimizer step, with "loss", "grad_norm", "lr", "tokens" (processed,
        without padding) and the objective's metrics. A step that did not change the weights has "skipped" 1; a step
        that failed (`rlhf.skipped`) ends the list."""

    def evaluate(self, staged: Staged, objective: Objective) -> Pending:
        """(dict of the sums of "loss" and the objective's metrics, count of the objective's unit) over all ranks."""

    def use_average(self) -> Pending:
        """Replaces the weights with their average (`ModelBuild.ema_decay`), for evaluation and export."""

    def save(self, directory: Path) -> Pending:
        """Writes the state of weights and optimizer. Does nothing for a group that is not trained."""

    def load(self, directory: Path) -> Pending:
        """Reads the state that `save` wrote. Does nothing for a group that is not trained."""

    def export(self, directory: Path) -> Pending:
        """Writes a model directory for transformers and vLLM: config and safetensors, without tokenizer files."""


class RolloutPool(Protocol):
    """The rollout engines."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Sample]:
        """All samples, ordered by (prompt, index)."""

    def sync(self, policy: WeightSource) -> Mapping[str, float]:
        """Sends the policy's weights to every engine and proves that the engines compute with them.
        Returns {"version", "bytes", "seconds", "canary_gap"}. Raises WeightSyncError where the proof fails."""


@dataclass(frozen=True)
class Served:
    """A language model behind an OpenAI-compatible server."""

    url: str  # ends in /v1
    name: str  # the model's name in requests
    key: str = field(repr=False)
    # sent with each request: vLLM stops at the end of text by itself, but not at every model's end of turn
    stop_token_ids: tuple[int, ...] = ()


class Runtime(Protocol):
    """The cluster, as the phases see it. `actors/` implements this protocol; phases never import Ray."""

    rollout_stats: Mapping[str, int]  # weight syncs so far: "count", "failed"

    def expect(self, pools: Mapping[str, str], rollouts: tuple[str, int] | None = None) -> None:
        """Starts the processes of these roles ({role: pool}), and the rollout engines for (model path, max_length) if
        memory allows. Returns at once."""

    def group(self, build: ModelBuild, pool: str) -> ModelGroup:
        """The role's group, with this model loaded. Reuses processes of an earlier phase."""

    def rollouts(self, model_path: str, max_length: int) -> RolloutPool:
        """The rollout engines for this architecture, built in the background or reused from an earlier phase."""

    def serve(self, role: str, model_path: str, pool: str, max_length: int) -> Served:
        """Starts vLLM's server of the model, in the role's place on the pool. `release(role)` stops it."""

    def stage(self, batch: Batch, groups: Sequence[ModelGroup], minibatches: int = 1, seed: int = 0) -> Staged:
        """Puts the batch's columns into the object store once. Rows of one group_id share a mini-batch and a shard.
        seed: deals the groups of rows to mini-batches and shards."""

    def release(self, role: str) -> None:
        """Frees the role's model; the role's processes stay for later phases."""

    def run_pieces(self, pieces: Sequence[Piece], workers: int) -> Iterable[None]:
        """Runs all pieces, `workers` at a time, in any order. Yields once for each finished piece."""

    def report(self, metrics: Mapping[str, float], phase: str) -> None:
        """Exports the main metrics to Ray's metrics agent."""


RewardFunction = Callable[[Sample], float | Mapping[str, float]]
