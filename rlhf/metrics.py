"""Where a phase's metrics go: `metrics.jsonl` (one line a step), TensorBoard event files, and a progress bar."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rlhf.rundir import write_atomically

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

QUIET_INTERVAL_S = 15.0  # between lines where there is no terminal for a bar


class MetricLog:
    """One phase's metrics, for every step a line of `metrics.jsonl` and an event for TensorBoard."""

    def __init__(self, root: Path, phase: str, start: int) -> None:
        """start: steps that are done. Lines that an interrupted attempt wrote after it are dropped: they are written
        again."""
        self.root, self.phase = root, phase
        self._open(start)

    def _open(self, start: int) -> None:
        path = self.root / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
            keep = [line for line in lines if (row := json.loads(line))["phase"] != self.phase or row["step"] <= start]
            write_atomically(path, "".join(f"{line}\n" for line in keep))
        self.file = open(path, "a", buffering=1)  # noqa: SIM115  closed in close()
        self._start = start
        self._board: EventFileWriter | None = (
            None  # opened by the first write: its import must not delay the first step
        )

    def rewind(self, step: int) -> None:
        """Drops all lines after this step: they will be written again."""
        self.close()
        self._open(step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs after `step` finished steps. metrics.jsonl has null for a value that is not finite, never 0."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        now = time.time()
        values = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self.file.write(json.dumps({"phase": self.phase, "step": step, "time": round(now, 3), **values}) + "\n")
        self._board = self._board or self._open_board()
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._board.add_event(Event(wall_time=now, step=step, summary=Summary(value=scalars)))

    def _open_board(self) -> EventFileWriter:
        """An event file, read by TensorBoard together with those of earlier attempts, whose later steps it declares
        void."""
        # not torch.utils.tensorboard, whose import takes longer
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        board = EventFileWriter(str(self.root / "tensorboard" / self.phase))
        begun = SessionLog(status=SessionLog.START)
        board.add_event(Event(wall_time=time.time(), step=self._start + 1, session_log=begun))
        return board

    def close(self) -> None:
        self.file.close()
        if self._board:
            self._board.close()


class Timer:
    """Seconds of each part of a step, as metrics `seconds/<part>`. A part that comes several times is added up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start, name = time.monotonic(), f"seconds/{part}"
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


class Bar:
    """A phase's progress: a bar on a terminal; elsewhere a line every QUIET_INTERVAL_S."""

    def __init__(
        self, console: Console, phase: str, total: int, done: int, shown: Sequence[str], keep: bool = True
    ) -> None:
        """total, done: steps. shown: metrics beside the bar. keep: leave the finished bar on screen."""
        self.console, self.phase, self.total, self.shown, self.keep = console, phase, total, shown, keep
        self.last_line = time.monotonic()
        self.progress = Progress(
            TextColumn(f"[bold]{phase:<9}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
            transient=not keep,
        )
        self.task = self.progress.add_task(phase, total=total, completed=done, numbers="")

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.progress.stop()

    def update(self, done: int, metrics: Mapping[str, float]) -> None:
        numbers = "  ".join(f"{name} {metrics[name]:,.4g}" for name in self.shown if name in metrics)
        self.progress.update(self.task, completed=done, numbers=numbers)
        if not self.console.is_terminal and (
            (self.keep and done == self.total) or time.monotonic() - self.last_line > QUIET_INTERVAL_S
        ):
            self.console.print(f"{self.phase} {done}/{self.total}  {numbers}", highlight=False, soft_wrap=True)
            self.last_line = time.monotonic()
