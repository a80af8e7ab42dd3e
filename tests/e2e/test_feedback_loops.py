"""Every kind of reward model, two steps each, and the rewards made of them, on real Ray, vLLM and DeepSpeed; a judge that is a
small HTTP server of this file's own."""

from __future__ import annotations

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import launch_phases, lines

PROMPTS = {"path": "data.demo.tasks:prompts", "args": {"rows": 64}}
LEARN = {"max_length": 128, "optim": {"lr": 1.0e-4, "schedule": "constant", "warmup": 0.0}}
POLICY = {"policy": "phase:sft", "reference": "phase:sft"}
UNSTEADY = {"source": "tests.e2e.feedback:unsteady", "limits": {"timeout_s": 2, "retries": 0}}


def reward(name: str, loss: object, source: str, rows: int = 48, **settings: object) -> dict:
    data = {"path": source, "args": {"rows": rows}, "holdout": 12}
    phase = {"kind": "reward", "name": name, "loss": loss, "data": data, "batch_size": 8, "steps": 2}
    return phase | LEARN | {"models": {"reward": {"path": "phase:sft", "pool": "train"}}} | settings


def rl(name: str, parts: list, **settings: object) -> dict:
    phase = {"kind": "rl", "name": name, "data": PROMPTS, "algorithm": "grpo", "reward": parts, "steps": 2}
    sampling = {"max_new_tokens": 24, "samples": 4}
    return phase | LEARN | {"models": POLICY, "sampling": sampling, "prompts_per_step": 8} | settings


def phases(judge: str) -> list[dict]:
    text = {"max_length": 128, "steps": 10, "batch_size": 32}
    return [
        {
            "kind": "pretrain",
            "tokenizer": {"vocab_size": 512},
            "data": {"path": "data.demo.tasks:corpus", "args": {"rows": 400}},
            "optim": {"lr": 3.0e-3},
            **text,
        },
        {
            "kind": "sft",
            "models": {"policy": "phase:pretrain"},
            "data": {"path": "data.demo.tasks:instructions", "args": {"rows": 400}},
            "optim": {"lr": 2.0e-3},
            **text,
        },
        reward("pairs", {"name": "pairwise", "centre": 0.01}, "data.demo.tasks:pairs"),
        reward("kwise", "kwise", "data.demo.feedback:rankings"),
        reward("order", "plackett_luce", "tests.e2e.feedback:judged_rankings", annotators="agreement"),
        reward("ratings", "pointwise", "data.demo.feedback:ratings", attributes={"helpful": 1.0, "safe": 3.0}),
        reward("rules", "binary", "tests.e2e.feedback:verdicts"),
        reward("steps", "process", "tests.e2e.feedback:steps"),
        rl(
            "ensemble",
            [
                {"source": "model", "models": ["phase:pairs", "phase:kwise"], "std_penalty": 1.0},
                {"source": "length", "args": {"high": 10, "falloff": 20}},
                UNSTEADY,
            ],
            watch={
                "every": 1,
                "stop": False,
                "gold": [{"source": "model", "models": ["phase:ratings"]}],
                "format": "data.demo.gold:well_formed",
            },
        ),
        *(
            rl(
                name,
                [
                    {"source": "model", "name": "rules", "models": ["phase:rules"]},
                    {"source": "model", "name": "steps", "models": ["phase:steps"]},
                ],
                combine={"guard": "rules", "below": below},
                steps=1,
            )
            for name, below in (("guarded", 0.0), ("unguarded", -1.0e9))  # log-probabilities are always below the one
        ),
        {
            "kind": "label",
            "data": PROMPTS,
            "judge": {"url": judge},
            "sampling": {"max_new_tokens": 64},
            "models": {"policy": "phase:sft"},
            "max_length": 128,
        },
        {"kind": "dpo", "data": "phase:label", "models": POLICY, "batch_size": 4, "steps": 2, **LEARN},
    ]


class Shorter(BaseHTTPRequestHandler):
    """Prefers the shorter answer."""

    def do_POST(self):
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

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run's directory and what it printed."""
    directory = tmp_path_factory.mktemp("feedback")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shorter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = launch_phases(directory, phases(f"http://127.0.0.1:{server.server_port}/v1"))
    finally:
        server.shutdown()
    return directory / "run", done


@pytest.mark.parametrize("phase", ["pairs", "kwise", "order", "ratings", "rules", "steps"])
def test_every_loss_trains_a_reward_model_that_tells_how_it_is_read(run, phase):
    directory, _ = run
    assert all(math.isfinite(step["loss"]) for step in lines(directory, phase))
    artifact = directory / "artifacts" / phase
    reads = {"rules": "questions", "steps": "steps"}.get(phase, "answer")
    assert json.loads((artifact / "reward.json").read_text())["reads"] == reads
    assert json.loads((artifact / "calibration.json").read_text())
    assert (artifact / "calibration.png").stat().st_size > 10_000


def test_annotators_agreement_is_told(run):
    directory, done = run
    (report,) = json.loads((directory / "artifacts/order/phase.json").read_text())["data"]
    assert 0 < report["agreement"]["alpha"] < 1
    assert "pairs of answers judged both ways" in done.stderr


def test_an_ensemble_disagrees_and_what_a_function_cannot_score_is_dropped_and_counted(run):
    directory, done = run
    for step in lines(directory, "ensemble"):
        if "reward" in step:
            assert step["reward/model/std"] > 0
            assert 0 <= step["reward/length"] <= 1
    ends = [step for step in lines(directory, "ensemble") if "dropped" in step]
    assert sum(step["dropped"] for step in ends) == sum(step.get("reward/unsteady/failed", 0) for step in ends) > 0
    assert "no answer within 2 s (limits.timeout_s)" in done.stderr and "not today" in done.stderr


def test_the_watch_sees_gold_kl_and_format(run):
    directory, _ = run
    looks = [line for line in lines(directory, "ensemble") if "watch/gold" in line]
    assert [look["step"] for look in looks] == [1, 2]
    assert looks[0]["watch/kl"] == pytest.approx(0, abs=1e-4)  # the policy is still the reference
    assert looks[1]["watch/kl"] != looks[0]["watch/kl"]
    assert 0 <= looks[0]["watch/format"] <= 1


def test_the_guard_stands_before_the_other_reward(run):
    directory, _ = run
    (guarded,), (unguarded,) = lines(directory, "guarded"), lines(directory, "unguarded")
    assert guarded["reward"] == pytest.approx(guarded["reward/rules"]) and guarded["reward"] < 0
    assert unguarded["reward"] == pytest.approx(unguarded["reward/steps"]) and 0 < unguarded["reward"] < 1


def test_a_judge_s_labels_are_pairs_to_learn_from(run):
    directory, _ = run
    rows = [json.loads(line) for line in (directory / "artifacts/label/rows.jsonl").read_text().splitlines()]
    figures = json.loads((directory / "summary.json").read_text())["phases"]["label"]
    assert len(rows) > 1 and all(len(row["chosen"]) < len(row["rejected"]) for row in rows)
    assert all(row["annotator"] == "judge" for row in rows)
    assert figures["rows"] == len(rows) <= figures["pairs"] and figures["asked"] > figures["rows"]
    assert len(lines(directory, "dpo")) == 2


def test_the_report_shows_every_phase_and_needs_nothing_from_outside(run):
    directory, _ = run
    page = (directory / "report.html").read_text()
    assert all(name in page for name in ("pairs", "ensemble", "label", "Krippendorff"))
    assert "http" not in page.replace("http://www.w3.org", "")  # the names of SVG's vocabulary
