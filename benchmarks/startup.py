"""How long a user waits: from the command to the first optimizer step, what of a GRPO run is not steps, and the quick commands.

    python benchmarks/startup.py --old ../before       # beside another checkout of this repository, with a .venv of its own

Each checkout runs the same tiny model and the same rows in turn, `--rounds` times; the table has the median of the wall seconds. The
machine should do nothing else.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

GRPO_STEPS = 21
TRAINING = {"max_length": 128, "optim": {"lr": 1.0e-4}}
SFT = {"kind": "sft", "data": "rows.jsonl", "batch_size": 16, "steps": 10, **TRAINING}
GRPO = {
    "kind": "rl",
    "data": "rows.jsonl",
    "sampling": {"max_new_tokens": 64, "samples": 8},
    "prompts_per_step": 8,
    "steps": GRPO_STEPS,
    "algorithm": {"name": "grpo"},
    "reward": [{"source": "length", "args": {"high": 0, "falloff": 64, "unit": "characters"}}],
    **TRAINING,
}


def make_inputs(root: Path) -> None:
    """A Llama of 1M parameters with a tokenizer, rows of additions, and the configs of the runs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    rows = [
        {"prompt": f"What is {a} plus {b}?", "response": f"The sum is {a + b}.", "answer": str(a + b)}
        for a in range(32)
        for b in range(32)
    ]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator((row["prompt"] + row["response"] for row in rows), trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[2], pad_token=special[0]).save_pretrained(
        root / "model"
    )
    config = LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(root / "model")
    base = {
        "models": {"policy": {"path": str(root / "model")}},
        "pools": {"train": {"devices": 1}, "rollout": {"devices": 1}},
        "rollout": {"memory_gib": 0.5},
    }
    for name, phase in {"sft": SFT, "grpo": GRPO}.items():
        phase = phase | {"data": str(root / "rows.jsonl")}
        config = base | {"run": {"name": name, "output": str(root / "run")}, "phases": [phase]}
        (root / f"{name}.yaml").write_text(yaml.safe_dump(config))
    (root / "wrong.yaml").write_text(yaml.safe_dump({"phases": [SFT | {"batchsize": 4}]}))


def launch(checkout: Path, *words: str, status: int = 0) -> float:
    """Wall seconds of the command in the checkout."""
    started = time.monotonic()
    command = [str(checkout / ".venv/bin/python"), "launch.py", *words]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    if done.returncode != status:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.monotonic() - started


def run(checkout: Path, root: Path, name: str) -> dict[str, float]:
    """{figure: seconds} of a whole run of this config."""
    shutil.rmtree(root / "run", ignore_errors=True)
    started = time.time()
    total = launch(checkout, "run", str(root / f"{name}.yaml"))
    rows = [json.loads(line) for line in (root / "run/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "tokens/s" in row]
    figures = {f"{name}: first optimizer step": steps[0]["time"] - started, f"{name}: whole run": total}
    if name == "grpo":
        first = steps[0]["tokens"] / steps[0]["tokens/s"]
        figures[f"{name}: all but its {len(steps)} steps"] = total - (steps[-1]["time"] - steps[0]["time"]) - first
    return figures


def measure(checkout: Path, root: Path) -> dict[str, float]:
    figures = run(checkout, root, "sft") | run(checkout, root, "grpo")
    figures["launch.py plan configs/demo.yaml"] = launch(checkout, "plan", "configs/demo.yaml")
    figures["launch.py status"] = launch(checkout, "status", str(root / "run"))
    figures["a mistake in a config"] = launch(checkout, "run", str(root / "wrong.yaml"), status=2)
    return figures


def table(measured: dict[str, list[dict[str, float]]], say: Callable[[str], None] = print) -> None:
    medians = {
        name: {figure: statistics.median(each[figure] for each in rounds) for figure in rounds[0]}
        for name, rounds in measured.items()
    }
    figures = next(iter(medians.values()))
    say(
        f"{'seconds (median)':<40}"
        + "".join(f"{name:>10}" for name in medians)
        + ("     ratio" if "old" in medians else "")
    )
    for figure in figures:
        values = [medians[name][figure] for name in medians]
        ratio = f"{values[1] / values[0]:10.2f}" if len(values) == 2 else ""
        say(f"{figure:<40}" + "".join(f"{value:10.1f}" for value in values) + ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="another checkout, with its own .venv")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    new = Path(__file__).resolve().parents[1]
    checkouts = ({"old": arguments.old.resolve()} if arguments.old else {}) | {"new": new}
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as directory:
        make_inputs(Path(directory))
        for number in range(arguments.rounds):
            for name, checkout in checkouts.items():
                print(f"round {number + 1} of {arguments.rounds}: {name}", file=sys.stderr)
                measured[name].append(measure(checkout, Path(directory)))
    table(measured)


if __name__ == "__main__":
    main()
