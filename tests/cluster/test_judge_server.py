"""The judge's server: vLLM's own behind Ray, against the same model in transformers; it leaves no process behind."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from actors.calls import WorkerError
from actors.judge_server import JudgeServer
from actors.placement import Resources, plan
from actors.runtime import ClusterRuntime
from data.tokenizer import stop_token_ids
from data.tokenizer_training import train_tokenizer
from rlhf.config.resolved import resolve
from rlhf.config.rewards import Judge
from rlhf.config.schema import Config, Rollout
from rlhf.judge.client import Client

ROLLOUT = Rollout(memory_gib=0.1, max_sequences=8)
NEW_TOKENS = 6
QUESTIONS = ["which one is better?", "A: yes B: no"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, and a tokenizer whose turns end with another token than texts do."""
    path = tmp_path_factory.mktemp("judge")
    tokenizer = train_tokenizer(QUESTIONS * 20, 280)
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, initializer_range=0.2, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def runtime(model: Path, ray_cluster: Resources) -> Iterator[ClusterRuntime]:
    judge = {"model": str(model), "pool": "helper", "max_length": 128}
    label = {"kind": "label", "data": "prompts.jsonl", "models": {"policy": str(model)}, "judge": judge}
    pools = {"train": {}, "helper": {}, "rollout": {}}
    config = Config.model_validate(
        {"device": "cpu", "pools": pools, "rollout": ROLLOUT.model_dump(), "phases": [label]}
    )
    with ClusterRuntime(config, plan(resolve(config), ray_cluster)) as runtime:
        yield runtime


def processes_of(word: str) -> list[psutil.Process]:
    """Those of a server: which name its port or its model, and what they have started."""
    named = [each for each in psutil.process_iter(["cmdline"]) if word in (each.info["cmdline"] or [])]
    return list({process for each in named for process in (each, *each.children(recursive=True))})


def left_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    return psutil.wait_procs(processes, timeout=20)[1]


@torch.no_grad()
def greedy(model: Path, question: str) -> str:
    """The reply by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    stop = list(stop_token_ids(tokenizer))
    written = network.generate(**asked, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=stop)
    return tokenizer.decode(written[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)


def test_a_served_judge_answers_as_transformers_wants_its_key_and_ends_with_release(runtime, model):
    served = runtime.serve("judge", str(model), "helper", 128)
    assert served.url.startswith("http://127.0.0.1:") and served.name == "judge"
    assert len(served.stop_token_ids) == 2

    client = Client(served, Judge(model="x", max_new_tokens=NEW_TOKENS))
    replies = [reply.text for reply in client.ask(QUESTIONS)]
    # vLLM holds back the bytes of a character that the limit cut short
    assert [reply.rstrip("�") for reply in replies] == [greedy(model, each).rstrip("�") for each in QUESTIONS]

    body = json.dumps({"model": "judge", "messages": [{"role": "user", "content": "A"}], "max_tokens": 1}).encode()
    for key in ("", "wrong"):
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        request = urllib.request.Request(f"{served.url}/chat/completions", body, headers)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request, timeout=10)
    headers["Authorization"] = f"Bearer {served.key}"
    for path in ("/invocations", "/tokenize", "/metrics", "/version"):  # which vLLM serves without a key
        for data in (body, None):
            request = urllib.request.Request(served.url.removesuffix("/v1") + path, data, headers)
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(request, timeout=10)

    port = served.url.removesuffix("/v1").rpartition(":")[2]
    running = processes_of(port)
    assert len(running) >= 2  # the server, its engine
    assert not any(served.key in " ".join(process.cmdline()) for process in running)
    sockets = [each for process in running for each in process.net_connections("tcp") if each.status == "LISTEN"]
    assert {each.laddr.ip for each in sockets} == {"127.0.0.1"}
    runtime.release("judge")
    assert not left_of(running) and not processes_of(port)


def test_a_server_ends_with_its_actor_where_that_is_killed(runtime, model):
    server = JudgeServer("doomed", {"num_cpus": 0})
    thread = ThreadPoolExecutor(1)
    start = thread.submit(server.start, str(model), 128, ROLLOUT, "float32", 0)
    deadline = time.monotonic() + 60
    while not (running := processes_of(str(model))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    server.kill()
    assert not left_of(running) and not processes_of(str(model))
    with pytest.raises(WorkerError):
        start.result(timeout=60)
    thread.shutdown()


def test_a_server_that_cannot_start_says_why(runtime, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    server = JudgeServer("broken", {"num_cpus": 0})
    with pytest.raises(WorkerError, match=r"(?s)vLLM's server of .* ended. The end of its log:.*Error"):
        server.start(str(tmp_path), 128, ROLLOUT, "float32", 0)
