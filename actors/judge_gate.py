"""What vLLM's server lets in, beside its own check of the key: that one leaves /invocations, /metrics and others open.

The server imports this module itself (`--middleware`), so it imports nothing of ours.
"""

from __future__ import annotations

from typing import Any

KEYED = "/v1/"  # here vLLM wants the key
OPEN = "/health"


class Gate:
    """ASGI middleware that answers 404 to every path but /health and those under /v1, as if there were nothing."""

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
