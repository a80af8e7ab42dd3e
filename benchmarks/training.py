"""Training speed of the engine against a plain PyTorch loop on the same model, rows and optimizer, one CPU process.

    python benchmarks/training.py

Prints tokens per CPU-second (real tokens, padding not counted), which a busy machine disturbs less than seconds do.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from data.batch import Batch
from data.demo.tasks import instructions
from data.examples import build_examples
from data.feeds import Order
from data.sources import open_rows
from data.tokenizer_training import train_tokenizer
from rlhf.config.load import load_config
from rlhf.engine.device import init_distributed, resolve
from rlhf.engine.engine import Engine
from rlhf.interfaces import ModelBuild, OptimSettings
from rlhf.objectives import LanguageModel

ROWS, BATCH, STEPS, ROUNDS = 2000, 32, 12, 3


def main() -> None:
    device = resolve("cpu")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    init_distributed(0, 1, "127.0.0.1", port, device, 60)

    tokenizer = train_tokenizer((text for row in instructions(ROWS) for text in row.values()), 512)
    rows = open_rows("data.demo.tasks:instructions", args={"rows": ROWS})
    examples = build_examples("chat", rows, tokenizer, 128)
    order = Order.of_batches(len(examples), BATCH, seed=0)
    batches = [examples.batch(order.batch(step, BATCH)) for step in range(STEPS)]

    ways = {"plain PyTorch, padded": plain(build(len(tokenizer), 4096))}
    for budget in (1024, 4096):
        ways[f"engine, packed into {budget} tokens"] = engine(Engine(build(len(tokenizer), budget), device))
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):  # in turn, so that a machine that slows down slows all of them
        for name, step in ways.items():
            started = time.process_time()
            for batch in batches:
                step(batch)
            speeds[name].append(sum(int(batch.lengths.sum()) for batch in batches) / (time.process_time() - started))

    table = Table("way", "tokens per CPU-second", "of plain PyTorch")
    baseline = sorted(speeds["plain PyTorch, padded"])[ROUNDS // 2]
    for name, measured in speeds.items():
        median = sorted(measured)[ROUNDS // 2]
        table.add_row(name, f"{median:,.0f} ({min(measured):,.0f} to {max(measured):,.0f})", f"{median / baseline:.2f}")
    Console().print(table)


def build(vocabulary: int, budget: int) -> ModelBuild:
    architecture = load_config("configs/demo.yaml").models["policy"].architecture
    return ModelBuild(
        role="policy",
        path=None,
        architecture={**architecture, "vocab_size": vocabulary},
        head="lm",
        dtype="float32",
        zero_stage=2,
        microbatch_tokens=budget,
        activation_checkpointing=False,
        optim=OptimSettings(1e-3, (0.9, 0.95), 1e-8, 0.1, 0, "constant", 1.0, 1.0, 10_000),
        seed=0,
    )


def engine(trained: Engine) -> Callable[[Batch], object]:
    return lambda batch: trained.train(batch, LanguageModel())


def plain(spec: ModelBuild) -> Callable[[Batch], object]:
    """Cross-entropy over the trained tokens of right-padded rows, as a hand-written loop has it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**spec.architecture))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)

    def step(batch: Batch) -> None:
        labels = torch.where(batch.action_mask, batch.tokens, -100).long()
        mask = batch.attention_mask.long()
        loss = model(batch.tokens.long(), attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
