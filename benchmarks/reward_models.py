"""Every loss of reward models on real data: four solutions of each of a thousand word problems, and dialogues with a harmless and
a harmful answer. Held out are other questions than were trained on.

    python benchmarks/reward_models.py DATA          # the directory of gsm8k_*.jsonl and hh_harmless.jsonl.gz; 20 minutes a seed

K-wise and pairwise losses are compared twice: on the same comparisons (one pass over the questions), and at the same tokens.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

import rlhf
from data.imports import load_object
from rlhf.config.schema import Config

SOURCES = "examples.gsm8k"
PASSES = 1
PAIRS_A_STEP = 16


def pretraining(data: Path) -> list[dict[str, Any]]:
    """Two small language models: of word problems, and of dialogues."""
    common = {"kind": "pretrain", "tokenizer": {"vocab_size": 2048}, "max_length": 256, "batch_size": 32, "steps": 150}
    common |= {"optim": {"lr": 3.0e-3}}
    problems = {"path": str(data / "gsm8k_train.jsonl"), "columns": {"text": "answer"}}
    dialogues = {"path": str(data / "hh_harmless.jsonl.gz"), "columns": {"text": "chosen"}, "limit": 1400}
    return [common | {"name": "problems", "data": problems}, common | {"name": "dialogues", "data": dialogues}]


def reward(name: str, loss: str, rows: dict[str, Any], start: str = "problems", **settings: Any) -> dict[str, Any]:
    phase = {
        "kind": "reward",
        "name": name,
        "loss": loss,
        "max_length": 512,
        "batch_size": PAIRS_A_STEP,
        "epochs": PASSES,
    }
    phase |= {"models": {"reward": {"path": f"phase:{start}", "pool": "train"}}, "optim": {"lr": 3.0e-4}}
    return phase | rows | settings


def solutions(kind: str, data: Path, **args: Any) -> dict[str, Any]:
    """Training rows, and those of other questions."""
    file = str(data / "gsm8k_model_solutions.jsonl")
    parts = [
        {"path": f"{SOURCES}:solution_{kind}", "args": {"path": file, "part": part, **args}}
        for part in ("train", "heldout")
    ]
    return dict(zip(("data", "eval_data"), parts))


def phases(data: Path) -> list[dict[str, Any]]:
    rankings = solutions("rankings", data)
    dialogues = {"path": str(data / "hh_harmless.jsonl.gz"), "holdout": 400}
    return [
        *pretraining(data),
        reward("pairwise", "pairwise", rankings),  # each ranking becomes its pairs
        reward("pairwise_same_tokens", "pairwise", rankings, epochs=1, steps=steps_of_as_many_tokens(data)),
        reward("kwise", "kwise", rankings, batch_size=8),
        reward("plackett_luce", "plackett_luce", rankings, batch_size=8),
        reward("pointwise", "pointwise", solutions("ratings", data), batch_size=32),
        reward("binary", "binary", solutions("thumbs", data), batch_size=32),
        reward("process", "process", solutions("steps", data, misplaced=0.5), batch_size=16, epochs=4),
        reward("dialogue_pairs", "pairwise", {"data": dialogues}, start="dialogues"),
    ]


def steps_of_as_many_tokens(data: Path) -> int:
    """Pairwise steps that read as many answers as K-wise's passes do, which read each answer of a question once."""
    file = str(data / "gsm8k_model_solutions.jsonl")
    useful = [
        row for row in load_object(f"{SOURCES}:solution_rankings")(file, "train") if len(set(row["correct"])) == 2
    ]
    return round(PASSES * sum(len(row["responses"]) for row in useful) / (2 * PAIRS_A_STEP))


def run(data: Path, output: Path, seed: int) -> list[dict[str, Any]]:
    demo = rlhf.load_config("configs/demo.yaml").model_dump(mode="json", exclude_unset=True)
    settings = demo | {"run": {"name": "reward_models", "seed": seed, "output": str(output / f"seed-{seed}")}}
    summary = rlhf.run(Config.model_validate(settings | {"phases": phases(data)}))
    lines = [json.loads(line) for line in (summary.directory / "metrics.jsonl").read_text().splitlines()]
    rows = []
    for phase in phases(data):
        if phase["kind"] == "reward":
            steps = [line for line in lines if line["phase"] == phase["name"] and "tokens" in line]
            figures = summary.figures["phases"][phase["name"]]
            found = {"name": phase["name"], "seed": seed, "steps": len(steps), "figures": figures}
            rows.append(found | {"tokens": sum(line["tokens"] for line in steps)})
    return rows


def chance(name: str, data: Path) -> float:
    """What a model without a clue reaches: one half of pairs, no correlation, the more frequent label of the others."""
    if name not in ("binary", "process"):
        return 0.0 if name == "pointwise" else 0.5
    settings = next(phase for phase in phases(data) if phase["name"] == name)["eval_data"]
    rows = load_object(settings["path"])(**settings["args"])
    labels = [label for row in rows for label in (row["labels"] if name == "process" else [row["label"]])]
    return max(mean(labels), 1 - mean(labels))


def table(rows: list[dict[str, Any]], data: Path) -> str:
    """Markdown: a line for each loss."""
    lines = ["| reward model | held-out accuracy (pointwise: correlation), each seed | chance | ECE | tokens | steps |"]
    lines.append("|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        figures = [row["figures"] for row in own]
        reached = (
            "rating_correlation"
            if name == "pointwise"
            else next(key for key in ("pair_accuracy", "accuracy") if key in figures[0])
        )
        cells = [
            name.replace("_", " "),
            " ".join(f"{each[reached]:.3f}" for each in figures),
            f"{chance(name, data):.3f}",
            f"{mean(each['ece'] for each in figures):.3f}" if "ece" in figures[0] else "",
            f"{mean(row['tokens'] for row in own):,.0f}",
            f"{own[0]['steps']}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/reward_models"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    rows = [row for seed in arguments.seeds for row in run(arguments.data.resolve(), arguments.output, seed)]
    (arguments.output / "rows.json").write_text(json.dumps(rows, indent=1))
    lines = table(rows, arguments.data.resolve())
    (arguments.output / "table.md").write_text(lines)
    print(lines)


if __name__ == "__main__":
    main()
