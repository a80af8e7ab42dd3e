"""Where metrics go: `metrics.jsonl` (one line a step), TensorBoard files, and a progress bar with the numbers that matter."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

QUIET_INTERVAL_S = 15.0  # between lines where there is no terminal for a bar


class MetricLog:
    """One phase's metrics. Lines after `start` from an interrupted attempt are dropped: the resumed run writes them again."""

    def __init__(self, root: Path, phase: str, start: int) -> None:
        self.root, self.phase = root, phase
        self._open(start)

    def _open(self, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = self.root / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
            keep = [line for line in lines if (row := json.loads(line))["phase"] != self.phase or row["step"] <= start]
            path.write_text("".join(f"{line}\n" for line in keep))
        self.file = open(path, "a", buffering=1)  # noqa: SIM115  closed in close()
        self.board = SummaryWriter(str(self.root / "tensorboard" / self.phase), purge_step=start + 1)

    def rewind(self, step: int) -> None:
        """Drops all lines after this step: they will be written again."""
        self.close()
        self._open(step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs after `step` finished steps. A value that is not finite is written as null, never as 0."""
        values = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self.file.write(json.dumps({"phase": self.phase, "step": step, "time": round(time.time(), 3), **values}) + "\n")
        for name, value in metrics.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.file.close()
        self.board.close()


class Timer:
    """Seconds of each part of a step, as metrics; a part may come several times."""

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
    """A phase's progress: a bar on a terminal, a line now and then elsewhere. keep: whether the end of it stays to be read."""

    def __init__(
        self, console: Console, phase: str, total: int, done: int, shown: Sequence[str], keep: bool = True
    ) -> None:
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
