"""A group of gloo ranks that stays alive over tests and runs the functions that it is sent, on every rank at once."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable
from typing import Any

from torch import multiprocessing

from rlhf.engine.device import init_distributed, resolve

TIMEOUT_S = 120
PRELOADED = ["pytest", "deepspeed", "rlhf.engine.engine", "rlhf.objectives"]  # seconds of imports, once for all ranks


class Ranks:
    """The processes start at the first call, and anew after a failure, for its ranks no longer agree."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._members: list[tuple[Any, Any]] = []

    def run(self, function: Callable, *arguments: Any) -> list[Any]:
        """function(rank, world, *arguments) of every rank; fails with the first rank's traceback."""
        if not self._members:
            self._start()
        for _, pipe in self._members:
            pipe.send((function, arguments))
        results = [pipe.recv() if pipe.poll(TIMEOUT_S) else (False, "timed out") for _, pipe in self._members]
        failures = [f"rank {rank}: {result}" for rank, (succeeded, result) in enumerate(results) if not succeeded]
        if failures:
            self.stop()
            raise AssertionError("\n".join(failures))
        return [result for _, result in results]

    def stop(self) -> None:
        for process, pipe in self._members:
            pipe.close()
            process.terminate()
            process.join()
        self._members = []

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for rank in range(self.world):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self.world, port, theirs), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))


def _serve(rank: int, world: int, port: int, pipe: Any) -> None:
    init_distributed(rank, world, "127.0.0.1", port, resolve("cpu"), TIMEOUT_S)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, function(rank, world, *arguments)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
