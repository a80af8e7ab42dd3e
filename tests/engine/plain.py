"""What the engine is held against: plain PyTorch and transformers, one unpadded row at a time, one process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    get_cosine_with_min_lr_schedule_with_warmup,
)
from transformers.optimization import Adafactor

from data.batch import Batch
from rlhf.interfaces import ModelBuild, OptimSettings

OPTIM = OptimSettings(
    lr=0.01,
    betas=(0.9, 0.95),
    eps=1e-8,
    weight_decay=0.1,
    warmup_steps=2,
    schedule="cosine",
    final_lr_ratio=0.1,
    clip_norm=1.0,
    total_steps=8,
)


@dataclass(frozen=True)
class NegativeLogprob:
    output = "logprobs"
    unit = "tokens"
    columns = frozenset()

    def __call__(self, out: Tensor, microbatch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return -out.sum(), {"trained": microbatch.action_mask.sum()}


@dataclass(frozen=True)
class Entropic:
    output = "logprobs_entropy"
    unit = "tokens"
    columns = frozenset()

    def __call__(self, out: Tensor, microbatch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs, entropy = out
        return -(logprobs + 0.3 * entropy).sum(), {"entropy": entropy.sum()}


@dataclass(frozen=True)
class SquaredError:
    output = "values"
    unit = "tokens"
    columns = frozenset({"returns"})

    def __call__(self, out: Tensor, microbatch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        error = (out - microbatch.returns).square()[microbatch.action_mask].sum()
        return error, {"error": error}


@dataclass(frozen=True)
class BetterFirst:
    output = "scores"
    unit = "pairs"
    columns = frozenset({"group_ids"})

    def __call__(self, out: Tensor, microbatch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        assert torch.equal(microbatch.group_ids[0::2], microbatch.group_ids[1::2])
        margin = out[0::2] - out[1::2]
        return -logsigmoid(margin).sum(), {"right": (margin > 0).sum()}


def build(path: str, **changes) -> ModelBuild:
    """A trained language model of the stage 2 in fp32, micro-batches of 64 tokens; `changes` replace fields."""
    fields = {"role": "policy", "path": path, "architecture": None, "head": "lm", "dtype": "float32", "zero_stage": 2}
    fields |= {"microbatch_tokens": 64, "activation_checkpointing": False, "optim": OPTIM, "seed": 0}
    return ModelBuild(**fields | changes)


def dropping(path: str, directory: Path) -> str:
    """The model at the path, saved with attention that it drops, so that the random generators matter."""
    model = AutoModelForCausalLM.from_pretrained(path)
    model.config.attention_dropout = 0.2
    model.save_pretrained(directory)
    return str(directory)


def make_batch(rows: int = 7, seed: int = 0) -> Batch:
    """Rows of 3 to 30 tokens, the first third a prompt; two neighbours make a pair."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 31, (rows,), generator=generator).tolist()
    tokens = [torch.randint(1, 64, (length,), generator=generator).tolist() for length in lengths]
    masks = [[position > length // 3 for position in range(length)] for length in lengths]
    batch = Batch.from_rows(tokens, masks, group_ids=[row // 2 for row in range(rows)])
    return batch.with_columns(returns=torch.randn(batch.tokens.shape, generator=generator))


def share(batch: Batch, rank: int, world: int) -> Batch:
    """A rank's rows: neighbours stay together."""
    return batch.select([row for row in range(len(batch)) if (row // 2) % world == rank])


def load(path: str, head: str):
    auto = {"lm": AutoModelForCausalLM, "scalar": AutoModelForSequenceClassification}[head]
    return auto.from_pretrained(path, dtype=torch.float32)


def outputs(model, batch: Batch, output: str, temperature: float = 1.0) -> Tensor:
    """(B, T), (2, B, T) with entropies or normalisers, or (B,) for scores, each row run alone."""
    if output in ("logprobs_entropy", "logprobs_normalizer"):
        return torch.stack([outputs(model, batch, name, temperature) for name in output.split("_")])
    results = []
    for row, length, mask in zip(batch.tokens.long(), batch.lengths.tolist(), batch.action_mask):
        tokens = row[None, :length]
        if output == "logprobs":
            distribution = (model(tokens).logits[0] / temperature).log_softmax(-1)
            column = distribution[:-1].gather(-1, tokens[0, 1:, None]).squeeze(-1)
        elif output == "entropy":
            column = torch.distributions.Categorical(logits=model(tokens).logits[0, :-1] / temperature).entropy()
        elif output == "normalizer":
            column = (model(tokens).logits[0, :-1] / temperature).logsumexp(-1)
        else:
            scores = model.score(model.base_model(tokens).last_hidden_state)[0, :, 0]
            if output == "scores":
                results.append(scores[-1])
                continue
            column = scores[:-1]
        padded = torch.nn.functional.pad(column, (1, batch.width - length))
        results.append(torch.where(mask, padded, 0.0))
    return torch.stack(results)


def parameter_groups(model, settings: OptimSettings = OPTIM) -> list[dict]:
    return [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]


def mean_loss(model, batch: Batch, objective) -> Tensor:
    """The objective's sum over its unit's count."""
    total, _ = objective(outputs(model, batch, objective.output), batch)
    return total / {"tokens": int(batch.action_mask.sum()), "pairs": len(batch) // 2}[objective.unit]


def train(model, batches: list[Batch], objective, settings: OptimSettings = OPTIM) -> list[dict[str, float]]:
    """One step a batch of AdamW, or of transformers' Adafactor; {"loss", "grad_norm"} of each."""
    groups = parameter_groups(model, settings)
    if settings.name == "adafactor":
        optimizer = Adafactor(groups, lr=settings.lr, scale_parameter=False, relative_step=False)
    else:
        optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)
    schedule = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, settings.warmup_steps, settings.total_steps, min_lr_rate=settings.final_lr_ratio
    )
    steps = []
    for step, batch in enumerate(batches, start=1):
        loss = mean_loss(model, batch, objective)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * schedule.lr_lambdas[0](step)
        optimizer.step()
        steps.append({"loss": loss.item(), "grad_norm": float(norm)})
    return steps
