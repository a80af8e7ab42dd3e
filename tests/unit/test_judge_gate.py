"""What vLLM's server of the judge is started with: the gate before its paths, and its share of the devices."""

import asyncio

import pytest

from actors.judge_gate import Gate
from actors.judge_server import device_options
from rlhf.config.schema import Rollout
from rlhf.interfaces import Served


def passed(path: str, kind: str = "http") -> tuple[bool, list[dict]]:
    """Whether the server itself is asked, and what the gate says instead."""
    asked, sent = [], []

    async def server(scope, receive, send):
        asked.append(scope)

    async def send(message):
        sent.append(message)

    asyncio.run(Gate(server)({"type": kind, "path": path}, None, send))
    return bool(asked), sent


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/health"])
def test_keyed_paths_and_health_pass(path):
    assert passed(path) == (True, [])


@pytest.mark.parametrize(
    "path", ["/", "/invocations", "/tokenize", "/metrics", "/v1", "/v11/x", "//v1/models", "/x/v1/models", "/health/x"]
)
def test_other_paths_are_not_there(path):
    through, sent = passed(path)
    assert not through and sent[0]["status"] == 404
    assert passed(path, "websocket") == (False, [{"type": "websocket.close"}])


def test_the_servers_own_start_passes():
    asked = []

    async def server(scope, receive, send):
        asked.append(scope["type"])

    asyncio.run(Gate(server)({"type": "lifespan"}, None, None))
    assert asked == ["lifespan"]


def test_a_server_asks_for_its_share_of_a_gpu_or_spans_several():
    settings = Rollout(gpu_memory_utilization=0.8, memory_gib=0.5)
    assert device_options(settings, 0.25) == ["--gpu-memory-utilization", "0.2", "--tensor-parallel-size", "1"]
    assert device_options(settings, 2) == ["--gpu-memory-utilization", "0.8", "--tensor-parallel-size", "2"]
    assert device_options(settings, 0.0) == ["--kv-cache-memory-bytes", str(2**29), "--enforce-eager"]


def test_a_key_is_never_shown():
    assert "sesame" not in repr(Served("http://127.0.0.1:1/v1", "judge", "sesame"))
