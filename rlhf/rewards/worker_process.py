"""A worker process of a reward function, seen from the driver: started, sent samples, limited, and killed with its
children."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from data.sample import Sample
from rlhf import lifeline
from rlhf.config.rewards import Limits

SCRIPT = Path(__file__).with_name("worker_script.py")
TAIL = 300  # bytes of its last output, for messages
LOAD_S = 300.0  # limit for importing the function's module and building its object
EXIT_S = 1.0  # limit between the end of the connection and the end of the process
FAMILY_S = 0.5  # between two readings of its children's memory: each reads the table of all processes


class Lost(Exception):
    """The process is gone. The text says why; it is empty if the sample in work did not cause the end."""


class WorkerProcess:
    """Starts the process, which loads the function. Call `load` once; then `send` tasks, `receive` a reply for each,
    and `rest`. Another thread calls `check` every fraction of a second."""

    def __init__(self, function: bytes, limits: Limits) -> None:
        """function: pickled (function, its arguments)."""
        self.loaded = False
        self._limits = limits
        self._lock = threading.RLock()
        self._looked = 0.0  # monotonic: when its children's memory was last read
        self._since: float | None = None  # monotonic: when the present task began; None: idle
        self._killed, self._reason = False, ""
        self._printed, self._tail = 0, b""
        self._socket, conversation = socket.socketpair()
        alive, self._lifeline = os.pipe()
        self._output, output = os.pipe()
        try:
            command = [sys.executable, "-P", "-u", str(SCRIPT), str(conversation.fileno())]
            self.process = subprocess.Popen(
                [sys.executable, "-I", lifeline.__file__, str(alive), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(conversation.fileno(), alive),
                start_new_session=True,
            )
        finally:
            conversation.close()
            os.close(alive)
            os.close(output)
        self._requests, self._replies = self._socket.makefile("wb"), self._socket.makefile("rb")
        threading.Thread(target=self._drain, name="reward-output", daemon=True).start()
        with suppress(Lost):  # `load` raises it again
            self._write(([path for path in sys.path if isinstance(path, str)], function))

    def load(self) -> str:
        """Waits until the function is loaded. Returns "", or a message to the user if loading raised an error. Raises
        Lost."""
        self._begin()
        kind, what = self._read()
        self.loaded = kind == "ready"
        return "" if self.loaded else what

    def send(self, tasks: Sequence[Sequence[Sample]]) -> None:
        """Sends tasks, each the samples of one call of the function. Raises Lost."""
        self._begin()
        self._write(tasks)

    def receive(self) -> tuple[str, Any]:
        """The next task's reply, as `worker_script.evaluate` returns it. Raises Lost."""
        reply = self._read()
        self._begin()
        return reply

    def rest(self) -> None:
        """All tasks are answered: no limit applies until the next `send`."""
        with self._lock:
            self._since = None

    def check(self) -> None:
        """Kills the process if it has passed its limit of time or memory."""
        with self._lock:
            if self._since is None or self._killed:
                return
            seconds, allowed = time.monotonic() - self._since, self._limits.timeout_s if self.loaded else LOAD_S
            if seconds > allowed:
                limit = "(limits.timeout_s)" if self.loaded else "to its loading"
                self.kill(f"no answer within {allowed:g} s {limit}")
            elif self._memory_gib(seconds) > self._limits.memory_gib:
                self.kill(f"used more than {self._limits.memory_gib:g} GiB (limits.memory_gib)")

    def kill(self, reason: str = "") -> None:
        """Kills the process and all its children, also those in other sessions. A waiting `receive` raises Lost with
        the reason."""
        with self._lock:
            if self._killed:
                return
            self._killed, self._reason = True, reason
            family = self._family()
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Kills the process, waits for its end and closes its files."""
        self.kill()
        with suppress(subprocess.TimeoutExpired):  # it is in a system call that cannot be interrupted
            self.process.wait(EXIT_S)
        for file in (self._replies, self._requests, self._socket):
            with suppress(OSError):  # the rest of a buffer could not be written
                file.close()
        with self._lock:
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1

    def _begin(self) -> None:
        with self._lock:
            self._since, self._printed, self._reason = time.monotonic(), 0, ""

    def _write(self, value: Any) -> None:
        try:
            pickle.dump(value, self._requests)
            self._requests.flush()
        except OSError as error:
            raise Lost(self._end()) from error

    def _read(self) -> Any:
        try:
            return pickle.load(self._replies)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise Lost(self._end()) from error

    def _end(self) -> str:
        """Why the process ended, for `Lost`."""
        if self._killed:
            return self._reason and self._reason + self._last_words()
        ended, deadline = None, time.monotonic() + EXIT_S
        while ended is None and time.monotonic() < deadline:
            # WNOWAIT: it is not reaped, so that nobody else gets its id before it is killed
            ended = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            time.sleep(0.002)
        if self._killed:
            return self._reason and self._reason + self._last_words()
        if ended is None:
            return "closed its connection to the run" + self._last_words()
        if ended.si_code == os.CLD_EXITED:
            return f"its process ended with exit code {ended.si_status}" + self._last_words()
        return f"its process died of {signal.Signals(ended.si_status).name}" + self._last_words()

    def _last_words(self) -> str:
        text = " ".join(self._tail.decode(errors="replace").split())
        return f"; it last printed {text[-TAIL:]!r}" if text else ""

    def _drain(self) -> None:
        most = self._limits.output_mib * 2**20
        with open(self._output, "rb", buffering=0) as output:
            while data := output.read(2**16):
                self._tail = (self._tail + data)[-TAIL:]
                self._printed += len(data)
                if self._printed > most:
                    self.kill(f"printed more than {self._limits.output_mib:g} MiB (limits.output_mib)")

    def _family(self) -> list[psutil.Process]:
        try:
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _memory_gib(self, seconds: float) -> float:
        """Resident memory of the process; of a call that has taken `seconds` > FAMILY_S, also that of its children."""
        total, now = 0, time.monotonic()
        family = seconds > FAMILY_S and now - self._looked > FAMILY_S
        self._looked = now if family else self._looked
        with suppress(psutil.Error):
            for process in self._family() if family else [psutil.Process(self.process.pid)]:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    total += process.memory_info().rss
        return total / 2**30
