"""Ray's dashboard, started beside the run: inside `ray.init` the run would wait for it, about as long as for all of Ray's other processes.

Ray has no public call for this. The class holds a private method of Ray 2.60's Node back during `ray.init` and calls it afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import ray
from ray._private.node import Node

WAIT_S = 60.0  # Ray's own limit for the dashboard's start


class LateDashboard:
    """The dashboard of the cluster that this process starts."""

    def __init__(self) -> None:
        self._started = Event()

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """`ray.init` in this context starts no dashboard."""
        start = Node.start_api_server
        Node.start_api_server = lambda node, **how: None
        try:
            yield
        finally:
            Node.start_api_server = start

    def start(self) -> None:
        """Starts it in the background, and prints its address once it answers."""
        Thread(target=self._start, daemon=True).start()

    def wait(self) -> None:
        """Waits until the start has ended, so that a cluster that stops leaves no half-started dashboard."""
        self._started.wait(WAIT_S)

    def _start(self) -> None:
        node = ray._private.worker._global_node
        try:
            node.start_api_server(include_dashboard=None, raise_on_failure=False)
            announce(node.webui_url)
        finally:
            self._started.set()
        Event().wait()  # never ends: the kernel kills a process of Ray's with the thread that started it


def announce(url: str | None) -> None:
    found = f"Ray dashboard: http://{url} (its token: ray get-auth-token)" if url else "Ray runs without its dashboard"
    print(found, file=sys.stderr)
