"""Closes the paths of vLLM's server that its API key does not guard: /invocations, /metrics and others.

vLLM's server imports this module (`--middleware`), so the module imports nothing of ours.
"""

from __future__ import annotations

from typing import Any

KEYED = "/v1/"  # vLLM checks the key for these paths
OPEN = "/health"


class Gate:
    """ASGI middleware that answers 404 to every path but /health and /v1/…."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] == "lifespan" or path == OPEN or path.startswith(KEYED):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
