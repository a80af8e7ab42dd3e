"""What algorithms and objectives are tried on: a random rollout, a tiny real model, and the ways to change a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from data.batch import COLUMNS, Batch
from rlhf.engine.build import build_model
from rlhf.engine.inputs import Form, outputs
from rlhf.engine.models import EngineModel
from rlhf.interfaces import ModelBuild, Output
from rlhf.testing.arithmetic import CPU

VOCABULARY = 64
LONG = 256  # tokens; far above the number of columns that an objective may hold at once
LARGE_VOCABULARY = 4096
# gpt_neox computes in float64 throughout; llama's norms and rotations are in float32, whatever the model's dtype
ARCHITECTURE = {
    "model_type": "gpt_neox",
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}

LIKELY: dict[str, Callable[[Tensor], Tensor]] = {  # what feedback columns look like, of numbers around 0
    "ranks": lambda value: (2 * value.abs()).floor() + 1,  # with ties
    "margins": Tensor.abs,
    "weights": Tensor.exp,
    "desirable": lambda value: value > 0,
    "step_labels": lambda value: value > 0,
}


@cache
def tiny_model(head: Literal["lm", "scalar"]) -> EngineModel:
    """A transformer of float64, the same in every call; its own generator is left where it was."""
    build = ModelBuild("policy", None, ARCHITECTURE, head, "float32", 0, 1, False, None, seed=0)
    with torch.random.fork_rng(devices=[]):
        return build_model(build, torch.float64).eval()


def model_for(output: Output) -> EngineModel:
    return tiny_model("lm" if output.startswith("logprobs") else "scalar")


def rollouts(seed: int, prompts: int = 4, samples: int = 3, longest: int = 9, vocabulary: int = VOCABULARY) -> Batch:
    """Answers as the rollout and the models give them, every column before `advantages`: lengths differ, two rows have
    holes in their mask (turns of an environment), one is truncated."""
    draw = torch.Generator().manual_seed(seed)
    rows = prompts * samples
    shape = torch.randint(longest // 2 + 2, longest + 1, (rows,), generator=draw).tolist()
    shape[0], shape[-1] = longest, longest // 2 + 1
    start = longest // 4 + 1  # of the answer
    tokens = [torch.randint(1, vocabulary, (start + size,), generator=draw).tolist() for size in shape]
    masks = [[False] * start + [True] * size for size in shape]
    for row in (0, rows // 2):
        masks[row][start + 2] = False
    groups = torch.arange(rows) // samples
    batch = Batch.from_rows(
        tokens,
        masks,
        group_ids=groups,
        rewards=torch.randn(rows, generator=draw),
        greedy_rewards=torch.randn(prompts, generator=draw)[groups],
        truncated=torch.arange(rows) == 1,
        policy_version=torch.zeros(rows),
    )
    return _with_models(batch, draw)


def _with_models(batch: Batch, draw: torch.Generator) -> Batch:
    """Log-probs near those of the tiny policy, so that some ratios are clipped and some are not."""
    small = batch.width <= ARCHITECTURE["max_position_embeddings"]
    logprobs = torch.full(tuple(batch.tokens.shape), -4.0)
    if small:
        with torch.no_grad():
            logprobs = outputs(tiny_model("lm"), batch, "logprobs", 1.0, Form(), CPU)[0].float()

    def near(column: Tensor, spread: float) -> Tensor:
        noise = spread * torch.randn(column.shape, generator=draw)
        return torch.where(batch.action_mask, column + noise, 0)

    old = near(logprobs, 0.2)
    return batch.with_columns(
        old_logprobs=old,
        rollout_logprobs=near(old, 0.05),
        ref_logprobs=near(logprobs, 0.3),
        values=near(torch.zeros_like(logprobs), 0.5),
    )


def with_all_columns(batch: Batch, seed: int, others: Mapping[str, str]) -> Batch:
    """The batch with random values in every known column that it lacks, and in `others`, {name: "row" or "token"}: for an
    objective without its algorithm."""
    draw = torch.Generator().manual_seed(seed + 1)
    added = {}
    for name, (kind, dtype) in (COLUMNS | {name: (kind, torch.float32) for name, kind in others.items()}).items():
        if name not in batch:
            value = torch.randn(len(batch) if kind == "row" else tuple(batch.tokens.shape), generator=draw)
            value = LIKELY.get(name, Tensor.clone)(value > 0 if dtype == torch.bool else value)
            added[name] = value if kind == "row" else torch.where(batch.action_mask, value, 0)
    return batch.with_columns(**added)


def poisoned(batch: Batch) -> Batch:
    """NaN outside of action_mask in every (B, T) column of floats."""
    return _mapped(batch, lambda value: value.masked_fill(~batch.action_mask, torch.nan) if _is_float(value) else value)


def widened(batch: Batch, columns: int = 3) -> Batch:
    """More padding on the right."""
    return _mapped(batch, lambda value: pad(value, (0, columns)))


def copied(batch: Batch) -> Batch:
    """With tensors of its own."""
    return Batch({name: value.clone() for name, value in batch.columns.items()}, batch.meta)


def replaced(batch: Batch, **columns: Tensor) -> Batch:
    """With these columns as they are: `with_columns` would turn float64 into float32."""
    return Batch({**batch.columns, **columns}, batch.meta)


def other_order(batch: Batch, within_groups: bool) -> list[int]:
    """The rows with the first group last and, with `within_groups`, the rows of each in reverse."""
    groups = [rows.tolist() for rows in batch.groups()]
    return [row for rows in groups[1:] + groups[:1] for row in (rows[::-1] if within_groups else rows)]


def _mapped(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    return Batch({n: change(value) if value.ndim == 2 else value for n, value in batch.columns.items()}, batch.meta)


def _is_float(value: Tensor) -> bool:
    return value.dtype.is_floating_point
