"""Pretraining by the engine against a plain PyTorch loop: the same model, rows and optimiser, in one CPU process.

    python benchmarks/pretraining.py TEXT_FILE [--minutes 5] [--plot FILE]

First part: rows without padding. The losses of every step are compared, and tokens per CPU-second, which a busy machine disturbs
less than seconds do. A machine's speed changes all the same: both take turns after every two steps, each first every other time, and
it is the ratios of neighbours that count. Second part: paragraphs of any length, which the engine packs and is also made to pad.
"""

from __future__ import annotations

import argparse
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import quantiles

import torch
from rich.console import Console
from rich.table import Table

from data.batch import Batch
from data.examples import Examples, build_examples
from data.feeds import Feed, Shuffled
from data.sources import open_rows
from data.tokenizer_training import train_tokenizer
from rlhf.engine.device import init_distributed, resolve
from rlhf.engine.engine import Engine
from rlhf.engine.microbatch import padded_tokens
from rlhf.interfaces import ModelBuild, OptimSettings
from rlhf.objectives import LanguageModel

LENGTH, BATCH, VOCABULARY, BLOCK = 128, 32, 1024, 2
PARAGRAPHS, PARAGRAPH_STEPS = 128, 12  # short ones: a step of 32 would be its optimizer's to a tenth
SHAPE = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4}
Step = Callable[[Batch], float]  # one optimizer step; the loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    device = resolve("cpu")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    init_distributed(0, 1, "127.0.0.1", port, device, 60)
    text = options.text.read_text()
    tokenizer = train_tokenizer([text], VOCABULARY)
    spec = build(len(tokenizer))

    whole = build_examples("text", open_rows(str(options.text)), tokenizer, LENGTH)
    ours, theirs = Engine(spec, device), plain(spec)
    compare(feed(whole), lambda batch: ours.train(batch, LanguageModel())["loss"], theirs, options)

    rows = open_rows("benchmarks.pretraining:paragraphs", args={"path": str(options.text)})
    spec = replace(spec, microbatch_tokens=PARAGRAPHS * LENGTH)
    padding(build_examples("text", rows, tokenizer, LENGTH), spec, theirs)


def paragraphs(path: str) -> Iterator[dict[str, str]]:
    for part in Path(path).read_text().split("\n\n"):
        if part.strip():
            yield {"text": part}


def build(vocabulary: int) -> ModelBuild:
    return ModelBuild(
        role="policy",
        path=None,
        architecture={"model_type": "llama", "vocab_size": vocabulary, "max_position_embeddings": LENGTH, **SHAPE},
        head="lm",
        dtype="float32",
        zero_stage=0,
        microbatch_tokens=BATCH * LENGTH,
        activation_checkpointing=False,
        optim=OptimSettings(1e-3, (0.9, 0.95), 1e-8, 0.1, 0, "constant", 1.0, 1.0, 10**6),
        seed=0,
    )


def feed(examples: Examples) -> Feed:
    return Shuffled(examples, len(examples), seed=0)


def plain(spec: ModelBuild) -> Step:
    """What one writes by hand: right-padded rows, transformers' own loss, torch's AdamW."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(spec.seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**spec.architecture))
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))

    def step(batch: Batch) -> float:
        labels = torch.where(batch.action_mask, batch.tokens, -100).long()
        padded = int(batch.lengths.min()) < batch.width
        mask = batch.attention_mask.long() if padded else None
        loss = model(batch.tokens.long(), attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def compare(rows: Feed, ours: Step, theirs: Step, options: argparse.Namespace) -> None:
    """Both in turn, a block of steps each, on the same rows, until the time is over."""
    losses: dict[str, list[float]] = {"engine": [], "plain PyTorch": []}
    speeds: dict[str, list[float]] = {"engine": [], "plain PyTorch": []}
    ways = {"engine": ours, "plain PyTorch": theirs}
    end, done = time.monotonic() + 60 * options.minutes, 0
    while time.monotonic() < end:
        batches = [rows.batch(range(step * BATCH, (step + 1) * BATCH)) for step in range(done, done + BLOCK)]
        tokens = sum(int(batch.lengths.sum()) for batch in batches)
        for name in sorted(ways, reverse=done // BLOCK % 2 == 1):  # each is first every other time
            started = time.process_time()
            losses[name] += [ways[name](batch) for batch in batches]
            speeds[name].append(tokens / (time.process_time() - started))
        done += BLOCK
    gap = max(abs(a - b) / b for a, b in zip(losses["engine"], losses["plain PyTorch"], strict=True))
    table = Table("way", "tokens per CPU-second, quartiles", "first and last loss")
    for name, found in speeds.items():
        table.add_row(name, quartiles(found, ",.0f"), f"{losses[name][0]:.4f}, {losses[name][-1]:.4f}")
    ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
    Console().print(table)
    Console().print(f"engine over plain PyTorch, of the same {BLOCK} steps, quartiles: {quartiles(ratios, '.3f')}")
    Console().print(f"{done} steps of {BATCH} rows; largest difference of a step's losses: {gap:.1e} relative")
    if options.plot:
        draw(losses, options.plot)


def padding(examples: Examples, spec: ModelBuild, theirs: Step) -> None:
    """The same rows, packed by the engine, padded by it, and padded by hand."""
    rows, packed, padded = feed(examples), Engine(spec, resolve("cpu")), Engine(spec, resolve("cpu"))
    # as the engine treats architectures that let packed documents see each other
    padded._packing, padded._runner._form = False, replace(padded._runner._form, packing=False)
    batches = [rows.batch(range(step * PARAGRAPHS, (step + 1) * PARAGRAPHS)) for step in range(PARAGRAPH_STEPS)]
    real = sum(int(batch.lengths.sum()) for batch in batches)
    ways = {
        "packed by the engine": lambda batch: packed.train(batch, LanguageModel()),
        "padded by the engine": lambda batch: padded.train(batch, LanguageModel()),
        "padded, plain PyTorch": theirs,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for batch in batches:
        for name, step in ways.items():
            started = time.process_time()
            step(batch)
            seconds[name].append(time.process_time() - started)
    seen = {
        name: sum(padded_tokens(batch.lengths.tolist(), name.startswith("packed")) for batch in batches)
        for name in seconds
    }
    table = Table("rows", "real tokens", "tokens computed", "tokens per CPU-second")
    for name, found in seconds.items():
        table.add_row(name, f"{real:,}", f"{seen[name]:,}", f"{real / sum(found):,.0f}")
    Console().print(table)
    own, *others = seconds
    for other in others:
        slower, more = sum(seconds[other]) / sum(seconds[own]), seen[other] / seen[own]
        Console().print(f"{other}: {more:.2f} times the tokens computed, {slower:.2f} times the CPU-seconds")


def draw(losses: dict[str, list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for (name, found), style in zip(losses.items(), ("-", "--"), strict=True):
        axes.plot(range(1, len(found) + 1), found, style, label=name)
    axes.set(xlabel="optimizer step", ylabel="loss, nats a token")
    axes.legend()
    figure.savefig(path, dpi=120)


def quartiles(values: Sequence[float], form: str) -> str:
    low, middle, high = quantiles(values, n=4)
    return f"{low:{form}}, {middle:{form}}, {high:{form}}"


if __name__ == "__main__":
    main()
