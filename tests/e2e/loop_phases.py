"""The phases of the fixture `loops`, and the judge that one of them asks: an HTTP server of this file's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROMPTS = {"path": "data.demo.tasks:prompts", "args": {"rows": 64}}
PAIRS = {"path": "data.demo.tasks:pairs", "args": {"rows": 48}, "holdout": 16}
TEXTS = {"path": "data.demo.tasks:corpus", "args": {"rows": 64}}
SFT = {"policy": "phase:sft", "reference": "phase:sft"}
SHORT_ANSWERS = ["tests.e2e.rewards:short"]
OPTIM = {"max_length": 128, "optim": {"lr": 1.0e-4, "schedule": "constant", "warmup": 0.0}}
LEARN = OPTIM | {"models": SFT, "steps": 2}
TO_ZERO = {"schedule": "linear", "warmup": 0.0, "final_lr_ratio": 0.0}  # the last step has a learning rate of 0
ROUNDING = 0.9999999  # the ratio trainer / engine of nearly half of the tokens is below it


def text(kind: str, rows: str, lr: float, **settings: Any) -> dict[str, Any]:
    data = {"path": f"data.demo.tasks:{rows}", "args": {"rows": 400}}
    return {"kind": kind, "data": data, "max_length": 128, "steps": 10, "optim": {"lr": lr}} | settings


def rl(name: str, algorithm: Any, reward: list[Any] = SHORT_ANSWERS, **settings: Any) -> dict[str, Any]:
    sampling = {"max_new_tokens": 24, "samples": 4} | settings.pop("sampling", {})
    phase = {"kind": "rl", "name": name, "data": PROMPTS, "algorithm": algorithm, "reward": reward}
    return phase | LEARN | {"sampling": sampling, "prompts_per_step": 8} | settings


def preference(loss: str, **settings: Any) -> dict[str, Any]:
    return {"kind": "dpo", "name": loss, "data": PAIRS, "loss": loss, "batch_size": 8} | LEARN | settings


def reward(name: str, loss: Any, source: str, **settings: Any) -> dict[str, Any]:
    data = {"path": source, "args": {"rows": 48}, "holdout": 12}
    phase = {"kind": "reward", "name": name, "loss": loss, "data": data, "batch_size": 8} | LEARN
    return phase | {"models": {"reward": {"path": "phase:sft", "pool": "train"}}} | settings


def loops_and_feedback(judge: str) -> list[dict[str, Any]]:
    """Pretraining and SFT, and what starts from them. judge: the URL of an OpenAI-compatible server."""
    start = [
        text("pretrain", "corpus", 3.0e-3, tokenizer={"vocab_size": 512}),
        text("sft", "instructions", 2.0e-3, models={"policy": "phase:pretrain"}),
    ]
    return start + LOOPS + REWARD_MODELS + REWARDS + [LABEL | {"judge": {"url": judge}}, LABELLED]


LOOPS = [
    rl("dapo", {"name": "dapo", "refills": 2}, ["tests.e2e.rewards:patchy"], correction={"kind": "masked", "low": 0.5}),
    rl("remax", "remax", sampling={"samples": 1}, correction={"kind": "masked", "low": ROUNDING}),
    rl("equal", "grpo", ["tests.e2e.rewards:equal"]),
    rl("nothing", {"name": "dapo", "refills": 1}, ["tests.e2e.rewards:equal"]),
    rl("online", "online_dpo", steps=3, optim={"lr": 1.0e-3, **TO_ZERO}, ema=0.5, store_every=1),
    rl(
        "panel",
        {"name": "ppo", "kl": {"place": "loss", "estimator": "k3", "target": 1.0}, "entropy": 0.01, "dual_clip": 3.0},
        models=SFT | {"critic": "phase:sft"},
        shaping={"normalise": True, "clip": 2.0, "missing_end": 0.5, "overlong": {"limit": 24, "buffer": 8}},
        ptx={"data": TEXTS, "coef": 0.5, "batch_size": 8},
        minibatches=2,
        epochs=3,
        max_kl=1.0e-9,
        critic_warmup=1,
        ema=0.5,
        store_every=2,
    ),
    rl(
        "guess",
        "grpo",
        ["environment"],
        data={"path": "examples.guess:secrets"},
        rollout="examples.guess:Guess",
        sampling={"max_new_tokens": 4},
    ),
    preference("kto", batch_size=16),
    preference("ipo"),
    preference("ipo", name="ipo_ahead", precompute_reference=True),
    preference("orpo"),
    {"kind": "best_of_n", "data": PROMPTS, "models": {"policy": "phase:sft"}, "max_length": 128}
    | {"sampling": {"max_new_tokens": 64, "samples": 4}, "reward": SHORT_ANSWERS},
    {"kind": "sft", "name": "again", "data": "phase:best_of_n", "batch_size": 4} | LEARN,
]
REWARD_MODELS = [
    reward("pairs", {"name": "pairwise", "centre": 0.01}, "data.demo.tasks:pairs"),
    reward("kwise", "kwise", "data.demo.feedback:rankings"),
    reward("order", "plackett_luce", "tests.e2e.feedback:judged_rankings", annotators="agreement"),
    reward("ratings", "pointwise", "data.demo.feedback:ratings", attributes={"helpful": 1.0, "safe": 3.0}),
    reward("rules", "binary", "tests.e2e.feedback:verdicts"),
    reward("steps", "process", "tests.e2e.feedback:steps"),
]
RULES_AND_STEPS = [
    {"source": "model", "name": "rules", "models": ["phase:rules"]},
    {"source": "model", "name": "steps", "models": ["phase:steps"]},
]
REWARDS = [
    rl(
        "ensemble",
        "grpo",
        [
            {"source": "model", "models": ["phase:pairs", "phase:kwise"], "std_penalty": 1.0},
            {"source": "length", "args": {"high": 10, "falloff": 20}},
            {"source": "tests.e2e.feedback:unsteady", "limits": {"timeout_s": 2, "retries": 0}},
        ],
        watch={
            "every": 1,
            "stop": False,
            "gold": [{"source": "model", "models": ["phase:ratings"]}],
            "format": "data.demo.gold:well_formed",
        },
    ),
    *(
        rl(name, "grpo", RULES_AND_STEPS, combine={"guard": "rules", "below": below}, steps=1)
        for name, below in (("guarded", 0.0), ("unguarded", -1.0e9))  # log-probabilities are between the two
    ),
]
LABEL = {"kind": "label", "data": PROMPTS, "sampling": {"max_new_tokens": 64}, "max_length": 128}
LABEL |= {"models": {"policy": "phase:sft"}}
LABELLED = {"kind": "dpo", "data": "phase:label", "batch_size": 4} | LEARN


@contextmanager
def serve_judge() -> Iterator[str]:
    """A judge that prefers the shorter answer; yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), PrefersShorter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()


class PrefersShorter(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        first, second = (question.partition(f"[Answer {letter}]\n")[2].partition("\n\n")[0] for letter in "AB")
        said = "A" if len(first) < len(second) else "B"
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "judge"}
        body["choices"] = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}]
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Prints nothing."""
