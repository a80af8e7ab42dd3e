"""Every kind of reward on the demo's task, each through PPO: reward models from pairs, rankings and ratings of as many labelled
answers, an ensemble, and two models (helpful and safe) combined as in Llama 2.

    python benchmarks/rewards.py                     # all, seeds 0 and 1: about 25 minutes on two cores
    python benchmarks/rewards.py --only kwise --seeds 0
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

from algorithms import base

import rlhf
from rlhf.config.schema import Config

ANSWERS = 4000  # labelled ones, of every kind
PASSES, ANSWERS_A_STEP = 2, 64  # of the reward models' training
STEPS = 16  # rollout steps of 128 answers
TASKS, FEEDBACK = "data.demo.tasks", "data.demo.feedback"
PAIRS = {"path": f"{TASKS}:pairs", "args": {"rows": ANSWERS // 2}}
RANKINGS = {"path": f"{FEEDBACK}:rankings", "args": {"rows": ANSWERS // 4}}
RATINGS = {"path": f"{FEEDBACK}:ratings", "args": {"rows": ANSWERS}}
GOODS = {"helpful": 0.55, "safe": 0.45}  # their shares of gold
HELPFUL, SAFE = (
    {"path": f"{FEEDBACK}:pairs_of", "args": {"good": good, "rows": ANSWERS // 4}} for good in ("helpful", "safe")
)

SIZES = {"pairs": 2, "pairs_of": 2, "rankings": 4, "ratings": 1}  # answers of a row

# name: the reward models as (loss, data), and the settings of the RL phase's reward
KINDS: dict[str, tuple[list[tuple[str, dict]], dict[str, Any]]] = {
    "pairwise": ([("pairwise", PAIRS)], {}),
    "kwise": ([("kwise", RANKINGS)], {}),
    "plackett_luce": ([("plackett_luce", RANKINGS)], {}),
    "pointwise": ([("pointwise", RATINGS)], {"weight": 4.0}),  # from 0 to 1, where the others span some units
    "ensemble": ([("pairwise", PAIRS)] * 3, {"std_penalty": 1.0}),
    "helpful and safe": ([("pairwise", HELPFUL), ("pairwise", SAFE)], {}),
}


def reward_model(name: str, loss: str, data: dict[str, Any], seed: int, sft: str) -> dict[str, Any]:
    source, rows = data["path"].rpartition(":")[2], data["args"]["rows"]
    return {
        "kind": "reward",
        "name": name,
        "loss": loss,
        "data": data,
        "eval_data": {**data, "args": {**data["args"], "split": "heldout", "rows": 200}},
        "attributes": GOODS if data is RATINGS else {},
        "models": {"reward": {"path": sft, "pool": "train"}},
        "max_length": 128,
        "batch_size": ANSWERS_A_STEP // SIZES[source],
        "steps": PASSES * rows * SIZES[source] // ANSWERS_A_STEP,
        "seed": seed,
        "optim": {"lr": 1.0e-3},
    }


def phases_of(name: str, sft: str) -> list[dict[str, Any]]:
    """The reward phases of one kind, and PPO with them."""
    losses, settings = KINDS[name]
    label = name.replace(" ", "_")
    models = [f"{label}_{number}" for number in range(len(losses))]
    phases = [
        reward_model(model, loss, data, seed, sft) for seed, (model, (loss, data)) in enumerate(zip(models, losses))
    ]
    paths = [f"phase:{model}" for model in models]
    if name == "helpful and safe":
        reward = [{"source": "model", "name": good, "models": [path]} for good, path in zip(GOODS, paths)]
        settings = {"combine": {"guard": "safe", "below": 0.0}}
    else:
        reward, settings = [{"source": "model", "models": paths, **settings}], {}
    ppo = {
        "kind": "rl",
        "name": f"{label}_ppo",
        "models": {"policy": sft, "reference": sft, "critic": paths[0]},
        "data": {"path": f"{TASKS}:prompts", "args": {"rows": 4096}},
        "max_length": 128,
        "prompts_per_step": 128,
        "sampling": {"max_new_tokens": 64},
        "steps": STEPS,
        "minibatches": 2,
        "epochs": 2,
        "checkpoint_every": 0,
        "optim": {"lr": 1.5e-4, "schedule": "constant"},
        "critic_optim": {"lr": 1.0e-3, "schedule": "constant"},
        "algorithm": {"name": "ppo", "value_clip": 1.0, "kl": {"coef": 0.06}},
        "reward": reward,
        "answers": {
            "data": {"path": f"{TASKS}:prompts", "args": {"rows": 400, "split": "heldout"}},
            "sampling": {"max_new_tokens": 64},
            "scores": {"gold": {"source": "data.demo.gold:gold", "best": 1.0}},
        },
    }
    return [*phases, ppo | settings]


def run(output: Path, names: list[str], seed: int, sft: str) -> list[dict[str, Any]]:
    """One row for each kind."""
    demo = rlhf.load_config("configs/demo.yaml").model_dump(mode="json", exclude_unset=True)
    chain = {name: phases_of(name, sft) for name in names}
    settings = demo | {"run": {"name": "rewards", "seed": seed, "output": str(output / f"seed-{seed}")}}
    summary = rlhf.run(
        Config.model_validate(settings | {"phases": [each for phases in chain.values() for each in phases]})
    )
    figures, seconds = summary.figures["phases"], summary.figures["seconds"]
    rows = []
    for name, phases in chain.items():
        *models, ppo = [phase["name"] for phase in phases]
        found = [figures[model] for model in models]
        rows.append(
            {
                "name": name,
                "seed": seed,
                "accuracy": [each.get("pair_accuracy", each.get("rating_correlation")) for each in found],
                "ece": [each.get("ece") for each in found],
                "before": figures[ppo]["gold_before"],
                "gold": figures[ppo]["gold_after"],
                "kl": figures[ppo]["kl"],
                "seconds": [sum(seconds[model] for model in models), seconds[ppo]],
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each kind, means over the seeds."""
    lines = [f"SFT model: gold {mean(row['before'] for row in rows):.3f}", ""]
    lines += [
        "| reward | held-out accuracy (pointwise: correlation) | gold after PPO, each seed | KL, nats an answer | seconds: models, PPO |"
    ]
    lines += ["|---|---|---|---|---|"]
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        cells = [
            name,
            ", ".join(f"{mean(values):.3f}" for values in zip(*(row["accuracy"] for row in own))),
            " ".join(f"{row['gold']:.3f}" for row in own),
            f"{mean(row['kl'] for row in own):.2f}",
            ", ".join(f"{mean(values):.0f}" for values in zip(*(row["seconds"] for row in own))),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/rewards"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="NAME", help=", ".join(KINDS))
    arguments = parser.parse_args()
    sft, _ = base(Path("runs"))
    rows = [row for seed in arguments.seeds for row in run(arguments.output, arguments.only, seed, sft)]
    (arguments.output / "rows.json").write_text(json.dumps(rows, indent=1))
    (arguments.output / "table.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
