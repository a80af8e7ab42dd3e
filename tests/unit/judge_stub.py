"""A stub of an OpenAI-compatible server: real HTTP on this machine, replies by a function of the question."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from data.sample import Prompt, Sample
from rlhf.config.rewards import Judge
from rlhf.interfaces import Served
from rlhf.judge.client import Client
from rlhf.judge.judge import JudgeModel

KEY = "sesame"
TEMPLATE = "{prompt}|{first}|{second}"
RATING = "{prompt}|{answer}"
Reply = str | tuple[int, Any]  # the verdict's text, or an HTTP status and a body


class Stub:
    """requests: the bodies so far; most: how many were in flight at once."""

    def __init__(self, reply: Callable[[str], Reply]) -> None:
        self.reply, self.requests = reply, []
        self.headers: list[dict[str, str]] = []
        self.flying = self.most = 0
        self.lock = threading.Lock()

    def answer(self, body: dict, headers: dict[str, str]) -> tuple[int, Any]:
        with self.lock:
            self.requests.append(body)
            self.headers.append(headers)
            self.flying += 1
            self.most = max(self.most, self.flying)
        try:
            reply = self.reply(body["messages"][0]["content"])
        finally:
            with self.lock:
                self.flying -= 1
        if isinstance(reply, tuple):
            return reply
        return 200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": reply}}]}


@contextmanager
def serving(reply: Callable[[str], Reply]) -> Iterator[tuple[Stub, str]]:
    """The stub and its url. The key is KEY, the model `judge`, the only path /v1/chat/completions."""
    stub = Stub(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/chat/completions" or body["model"] != "judge":
                status, answer = 404, {"error": {"message": "no such model"}}
            elif self.headers["Authorization"] != f"Bearer {KEY}":
                status, answer = 401, {"error": {"message": "who are you"}}
            else:
                status, answer = stub.answer(body, dict(self.headers))
            content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("retry-after-ms", "5")
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):  # the client has stopped waiting
                pass

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stub, f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def client(url: str, key: str = KEY, name: str = "judge", **settings: Any) -> Client:
    return Client(Served(url, name, key), Judge(url=url, name=name, **{"retries": 1, "timeout_s": 5, **settings}))


def judge(url: str, seed: int = 0, **settings: Any) -> JudgeModel:
    pointwise = settings.get("kind") == "pointwise"
    settings = {"retries": 1, "timeout_s": 5, "template": RATING if pointwise else TEMPLATE, **settings}
    made = Judge(url=url, **settings)
    return JudgeModel(made, Client(Served(url, "judge", KEY), made), seed)


def longer(question: str) -> str:
    """Prefers the longer answer, wherever it stands."""
    _, first, second = question.split("|")
    return "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"


def always_first(question: str) -> str:
    return "A"


def prompt(row: int, **meta: Any) -> Prompt:
    text = f"question {row}"
    return Prompt((1,), text, row, meta, ({"role": "user", "content": text},))


def samples(of: Prompt, *texts: str, truncated: bool = False) -> list[Sample]:
    return [Sample(of, index, (2,), (-1.0,), text, truncated, 0) for index, text in enumerate(texts)]
