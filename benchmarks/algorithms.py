"""Every algorithm from the demo's SFT model, on the demo's task, with the same number of rollouts (pairs, for losses that
learn from a data set): gold score, KL, tokens and seconds of each, as a table and a plot.

    python benchmarks/algorithms.py                     # all, seeds 0 and 1: about an hour on two cores
    python benchmarks/algorithms.py --only ppo grpo --seeds 0
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import rlhf
from data.demo.tasks import prompts
from data.tokenizer import end_of_turn
from rlhf.config.schema import Config
from rlhf.ops.logprobs import logprobs_from_logits

STEPS, SAMPLES = 16, 128  # rollout steps, and answers of each
ONE = {"prompts_per_step": SAMPLES, "sampling": {"max_new_tokens": 64}}
FOUR = {"prompts_per_step": SAMPLES // 4, "sampling": {"max_new_tokens": 64, "samples": 4}}
FLAT = {"schedule": "constant", "warmup": 0.0}


def learning(lr: float, updates: int = 2) -> dict[str, Any]:
    """updates: passes, each of as many mini-batches; 1 for what has no ratio."""
    return {"optim": {"lr": lr, **FLAT}, "minibatches": updates, "epochs": updates}


# Learning rates were chosen on seed 5, that of dr_grpo once more after seeds 0 and 1 had been seen. Without a
# penalty for leaving the SFT model a high one soon exploits the reward model.
ONLINE: dict[str, dict[str, Any]] = {
    "ppo": {
        **ONE,
        **learning(1.5e-4),
        "critic_optim": {"lr": 1e-3, **FLAT},
        "algorithm": {"name": "ppo", "value_clip": 1.0, "kl": {"coef": 0.06}},
    },
    "reinforce": {**ONE, **learning(6e-4, updates=1)},
    "reinforce_pp": {**ONE, **learning(3e-4)},
    "reinforce_pp_baseline": {**FOUR, **learning(3e-4)},
    "remax": {**ONE, **learning(4e-4, updates=1)},
    "rloo": {**FOUR, **learning(3e-4)},
    "opo": {**FOUR, **learning(2e-4, updates=1)},
    "grpo": {**FOUR, **learning(2e-4), "algorithm": {"name": "grpo", "kl": {"coef": 0.04}}},
    "dr_grpo": {**FOUR, **learning(1.2e-4), "algorithm": {"name": "dr_grpo", "divisor": 64}},
    "dapo": {**FOUR, **learning(1e-4)},
    "gspo": {**FOUR, **learning(3e-4)},
    "cispo": {**FOUR, **learning(1e-4)},
    "online_dpo": {**FOUR, **learning(1e-4), "algorithm": {"name": "online_dpo", "beta": 0.5}},
}
PAIR_STEPS, PAIRS = 64, 32  # optimizer steps, and pairs of each
OFFLINE: dict[str, dict[str, Any]] = {
    "dpo": {"beta": 0.5},
    "cdpo": {"name": "dpo", "beta": 0.5, "label_smoothing": 0.1},
    "ipo": {"beta": 4.0},
    "hinge": {"beta": 0.5},
    "robust": {"beta": 0.5, "label_smoothing": 0.1},
    "kto": {"beta": 0.5},
    "orpo": {"beta": 1.0},
    "simpo": {"beta": 2.0, "gamma": 0.5},
    "cpo": {"beta": 0.5},
}
ROUNDS = 2  # of rejection sampling, which share the rollouts
NAMES = [*ONLINE, *OFFLINE, "best_of_n"]
TASKS = "data.demo.tasks"


def phases_of(name: str, sft: str, reward: str) -> list[dict[str, Any]]:
    """The phases of one algorithm; the last leaves its policy."""
    common = {
        "name": name,
        "models": {"policy": sft, "reference": sft, "critic": reward, "reward": reward},
        "max_length": 128,
        "checkpoint_every": 0,
        "answers": {
            "data": {"path": f"{TASKS}:prompts", "args": {"rows": 400, "split": "heldout"}},
            "sampling": {"max_new_tokens": 64},
            "scores": {"gold": {"source": "data.demo.gold:gold", "best": 1.0}},
        },
    }
    if name in ONLINE:
        asked = {"path": f"{TASKS}:prompts", "args": {"rows": 4096}}
        own = {"algorithm": {"name": name}, "steps": STEPS, "reward": ["model"]} | ONLINE[name]
        return [{"kind": "rl", "data": asked, **common, **own}]
    if name in OFFLINE:
        pairs = {"path": f"{TASKS}:pairs", "args": {"rows": PAIR_STEPS * PAIRS, "seed": 1}}
        own = {"loss": {"name": name} | OFFLINE[name], "batch_size": PAIRS, "steps": PAIR_STEPS, "optim": {"lr": 2e-4}}
        if name == "kto":  # each answer of a pair is a row of its own
            own["batch_size"] = 2 * PAIRS
        return [{"kind": "dpo", "data": pairs, **common, **own}]
    return rejection_sampling(common, sft, reward)


def rejection_sampling(common: Mapping[str, Any], sft: str, reward: str) -> list[dict[str, Any]]:
    """Rounds of: generate, keep the best of four, SFT on what was kept."""
    rows = STEPS * SAMPLES // 4 // ROUNDS
    phases, policy = [], sft
    for turn in range(1, ROUNDS + 1):
        asked = {"path": f"{TASKS}:prompts", "args": {"rows": rows, "seed": turn}}
        best = {"kind": "best_of_n", "name": f"best{turn}", "data": asked, "max_length": 128, "reward": ["model"]}
        best |= {"models": {"policy": policy, "reward": reward}, "sampling": {"max_new_tokens": 64, "samples": 4}}
        learn = dict(common) | {"kind": "sft", "name": f"sft{turn}", "data": f"phase:best{turn}", "epochs": 2}
        learn |= {"models": {"policy": policy}, "batch_size": 16, "optim": {"lr": 3e-4, **FLAT}}
        if turn < ROUNDS:
            del learn["answers"]
        phases += [best, learn]
        policy = f"phase:sft{turn}"
    phases[-1]["name"] = "best_of_n"
    return phases


def base(output: Path) -> tuple[str, str]:
    """The demo's SFT and reward models, trained if they are not there."""
    demo = rlhf.load_config("configs/demo.yaml", [f"run.output={output}/base"])
    first = [phase for phase in demo.phases if phase.kind in ("pretrain", "sft", "reward")]
    rlhf.run(demo.model_copy(update={"phases": first}))
    return str(output / "base/artifacts/sft"), str(output / "base/artifacts/reward")


def run(output: Path, names: list[str], seed: int, sft: str, reward: str) -> list[dict[str, Any]]:
    """One row for each algorithm."""
    demo = rlhf.load_config("configs/demo.yaml").model_dump(mode="json", exclude_unset=True)
    chain = {name: phases_of(name, sft, reward) for name in names}
    settings = demo | {"run": {"name": "algorithms", "seed": seed, "output": str(output / f"seed-{seed}")}}
    config = Config.model_validate(settings | {"phases": [phase for phases in chain.values() for phase in phases]})
    summary = rlhf.run(config)
    lines = [json.loads(line) for line in (summary.directory / "metrics.jsonl").read_text().splitlines()]
    rows = []
    for name, phases in chain.items():
        own = [phase["name"] for phase in phases]
        figures = summary.figures["phases"][own[-1]]
        steps = [line for line in lines if line["phase"] in own]
        rows.append(
            {
                "name": name,
                "seed": seed,
                "before": figures.get("gold_before"),
                "gold": figures.get("gold_after", figures.get("gold")),
                "kl": divergence(summary.directory / "artifacts" / own[-1], sft),
                "tokens": sum(line.get("tokens", 0) for line in steps),
                "seconds": sum(
                    loop_seconds([line["time"] for line in steps if line["phase"] == phase]) for phase in own
                ),
                "rewards": [line["reward"] for line in steps if name in ONLINE],
            }
        )
    return rows


def loop_seconds(times: list[float]) -> float:
    """Of a phase's steps, without its start and its held-out answers: what lies between its log lines, and one step more."""
    return (times[-1] - times[0]) * len(times) / max(len(times) - 1, 1)


def divergence(policy: Path, start: str, count: int = 200) -> float:
    """KL(policy || start) in nats an answer, from answers that transformers samples: phases measure it only where they
    build a reference."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    models = [AutoModelForCausalLM.from_pretrained(path).eval() for path in (policy, start)]
    asked = [[{"role": "user", "content": row["prompt"]}] for row in prompts(count, split="heldout")]
    inputs = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    width = inputs["input_ids"].shape[1]
    with torch.no_grad():
        tokens = models[0].generate(**inputs, do_sample=True, top_k=0, max_new_tokens=64)
        answered = tokens[:, width:] != tokenizer.pad_token_id
        ended = (tokens[:, width:] == end_of_turn(tokenizer)).cumsum(1)
        mask = answered & ((ended == 0) | ((ended == 1) & (tokens[:, width:] == end_of_turn(tokenizer))))
        attention = torch.cat([inputs["attention_mask"], mask.long()], 1)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        policy_logprobs, start_logprobs = (
            logprobs_from_logits(model(tokens, attention_mask=attention, position_ids=positions).logits, tokens)
            for model in models
        )
    ratios = (policy_logprobs - start_logprobs)[:, width:]
    return float(torch.where(mask, ratios, 0).sum(1).mean())


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each algorithm, means over the seeds."""
    start = mean(row["before"] for row in rows if row["before"] is not None)
    head = "| algorithm | gold, each seed | gained | seed spread | KL, nats an answer | tokens | seconds | |\n"
    lines = [head + "|---|---|---|---|---|---|---|---|"]
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        golds = [row["gold"] for row in own]
        gained, spread = mean(golds) - start, max(golds) - min(golds)
        cells = [
            name,
            " ".join(f"{gold:.3f}" for gold in golds),
            f"{gained:+.3f}",
            f"{spread:.3f}",
            f"{mean(row['kl'] for row in own):.2f}",
            f"{mean(row['tokens'] for row in own):,.0f}",
            f"{mean(row['seconds'] for row in own):.0f}",
            "" if gained > 2 * spread else "**gained no more than twice its seed spread**",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"SFT model: gold {start:.3f}", "", *lines, ""])


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Gold and KL of each algorithm, a dot a seed, and the reward model's score over the rollouts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (golds, kls, course) = pyplot.subplots(
        1, 3, figsize=(15, 6.5), layout="constrained", width_ratios=(3, 2, 4)
    )
    names = list(dict.fromkeys(row["name"] for row in rows))
    names.sort(key=lambda name: mean(row["gold"] for row in rows if row["name"] == name))
    for axis, figure_of, title in (
        (golds, "gold", "gold score of held-out answers"),
        (kls, "kl", "KL to SFT, nats an answer"),
    ):
        axis.plot([row[figure_of] for row in rows], [names.index(row["name"]) for row in rows], "o", alpha=0.7)
        axis.set(yticks=range(len(names)), yticklabels=names if axis is golds else [], title=title)
        axis.grid(alpha=0.3)
    golds.axvline(
        mean(row["before"] for row in rows if row["before"] is not None), color="grey", linestyle=":", label="SFT"
    )
    golds.legend()
    online = [name for name in ONLINE if name in names]
    for name, colour in zip(online, pyplot.get_cmap("tab20").colors):
        curves = [row["rewards"] for row in rows if row["name"] == name]
        steps = [SAMPLES * (step + 1) for step in range(len(curves[0]))]
        course.plot(steps, [mean(values) for values in zip(*curves)], color=colour, label=name)
    course.set(xlabel="rollouts", title="reward model's score on the way, mean over the seeds")
    course.grid(alpha=0.3)
    course.legend(ncols=2)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/algorithms"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    arguments = parser.parse_args()
    models = base(arguments.output)
    rows = [row for seed in arguments.seeds for row in run(arguments.output, arguments.only, seed, *models)]
    (arguments.output / "rows.json").write_text(json.dumps(rows, indent=1))
    (arguments.output / "table.md").write_text(table(rows))
    plot(rows, arguments.output / "algorithms.png")
    print(table(rows))


if __name__ == "__main__":
    main()
