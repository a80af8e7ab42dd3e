"""How a weak reward model is over-optimised, when the watch stops it, and what an ensemble changes: PPO without a KL penalty
against a reward model of few pairs with wrong labels, gold scored beside it (Gao et al. 2023; ensembles: Coste et al. 2023).

    python benchmarks/overoptimisation.py            # seeds 0 and 1: about a quarter of an hour each on two cores
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from algorithms import base

import rlhf
from rlhf.config.schema import Config

PAIRS, WRONG = 240, 0.2  # of the reward model, and the share of them with exchanged answers
MEMBERS, PENALTY = 4, 1.0  # of the ensemble, each trained on the same pairs from another seed
STEPS, EVERY = 40, 2  # rollout steps of 128 answers, and between two looks
TASKS = "data.demo.tasks"
RUNS = ("one model", "one model, watched", "ensemble")


def reward_model(number: int, sft: str) -> dict[str, Any]:
    return {
        "kind": "reward",
        "name": f"weak_{number}",
        "models": {"reward": {"path": sft, "pool": "train"}},
        "data": {"path": "data.demo.feedback:noisy_pairs", "args": {"rows": PAIRS, "wrong": WRONG}},
        "eval_data": {"path": f"{TASKS}:pairs", "args": {"rows": 400, "split": "heldout"}},
        "max_length": 128,
        "batch_size": 16,
        "steps": 60,
        "seed": number,
        "optim": {"lr": 5.0e-4},
    }


def ppo(name: str, sft: str) -> dict[str, Any]:
    count = MEMBERS if name == "ensemble" else 1
    models = [f"phase:weak_{number}" for number in range(count)]
    return {
        "kind": "rl",
        "name": name.replace(", ", "_").replace(" ", "_"),
        "models": {"policy": sft, "reference": sft, "critic": models[0]},
        "data": {"path": f"{TASKS}:prompts", "args": {"rows": 128 * STEPS}},
        "max_length": 128,
        "prompts_per_step": 128,
        "sampling": {"max_new_tokens": 64},
        "steps": STEPS,
        "minibatches": 2,
        "epochs": 2,
        "checkpoint_every": 0,
        "optim": {"lr": 2.0e-4, "schedule": "constant"},
        "critic_optim": {"lr": 1.0e-3, "schedule": "constant"},
        "algorithm": {"name": "ppo", "value_clip": 1.0, "kl": {"coef": 0.0}},
        "reward": [{"source": "model", "models": models, "std_penalty": PENALTY if count > 1 else 0.0}],
        "watch": {"gold": ["data.demo.gold:gold"], "every": EVERY, "stop": name.endswith("watched")},
    }


def run(output: Path, seed: int, sft: str) -> dict[str, list[dict[str, float]]]:
    """The looks of each run: kl, proxy and gold."""
    demo = rlhf.load_config("configs/demo.yaml").model_dump(mode="json", exclude_unset=True)
    phases = [*(reward_model(number, sft) for number in range(MEMBERS)), *(ppo(name, sft) for name in RUNS)]
    settings = demo | {"run": {"name": "overoptimisation", "seed": seed, "output": str(output / f"seed-{seed}")}}
    summary = rlhf.run(Config.model_validate(settings | {"phases": phases}))
    lines = [json.loads(line) for line in (summary.directory / "metrics.jsonl").read_text().splitlines()]
    looks = {}
    for name, phase in zip(RUNS, phases[MEMBERS:]):
        own = [line for line in lines if line["phase"] == phase["name"] and "watch/gold" in line]
        looks[name] = [
            {"step": line["step"], **{key: line[f"watch/{key}"] for key in ("kl", "proxy", "gold")}} for line in own
        ]
    return looks


def table(found: dict[int, dict[str, list[dict[str, float]]]]) -> str:
    """Markdown: of each run its start, its best gold, and where it ended."""
    lines = [
        "| run | seed | gold at start | best gold | KL there | proxy there | last gold | KL there | proxy there | steps |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for seed, runs in found.items():
        for name, looks in runs.items():
            best, last = max(looks, key=lambda look: look["gold"]), looks[-1]
            cells = [name, str(seed), f"{looks[0]['gold']:.3f}"]
            for look in (best, last):
                cells += [f"{look['gold']:.3f}", f"{look['kl']:.1f}", f"{look['proxy']:.2f}"]
            lines.append(f"| {' | '.join([*cells, str(last['step'])])} |")
    return "\n".join([*lines, ""])


def plot(found: dict[int, dict[str, list[dict[str, float]]]], path: Path) -> None:
    """Gold and proxy against the distance from the SFT model, a column a seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, len(found), figsize=(5.5 * len(found), 7), layout="constrained", sharex="col", squeeze=False
    )
    for column, (seed, runs) in enumerate(found.items()):
        for row, what in enumerate(("gold", "proxy")):
            axis = axes[row][column]
            for name, colour in zip(RUNS, ("tab:red", "black", "tab:blue")):
                looks = runs[name]
                axis.plot(
                    [look["kl"] for look in looks], [look[what] for look in looks], "o-", ms=3, color=colour, label=name
                )
                best = max(looks, key=lambda look: look["gold"])
                axis.axvline(best["kl"], color=colour, linestyle=":", alpha=0.6)
            # another run than the red one: its samples are drawn by its own name
            stopped = runs[RUNS[1]][-1]
            axis.plot(stopped["kl"], stopped[what], "k*", ms=14, label="stopped here")
            axis.set(title=f"{what}, seed {seed}", xlabel="KL to the SFT model, nats an answer" if row else "")
            axis.grid(alpha=0.3)
    axes[0][0].legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/overoptimisation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    sft, _ = base(Path("runs"))
    found = {seed: run(arguments.output, seed, sft) for seed in arguments.seeds}
    (arguments.output / "looks.json").write_text(json.dumps(found, indent=1))
    (arguments.output / "table.md").write_text(table(found))
    plot(found, arguments.output / "overoptimisation.png")
    print(table(found))


if __name__ == "__main__":
    main()
