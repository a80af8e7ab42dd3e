"""Reward functions in worker processes. Whatever a function does, the run goes on; a sample that it cannot score gets
no score."""

from __future__ import annotations

import importlib.machinery
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cloudpickle

from data.errors import UserError
from data.sample import Sample
from rlhf.config.rewards import Limits
from rlhf.rewards.worker_process import Lost, WorkerProcess

Value = float | Mapping[str, float]
NO_SCORE = float("nan")
TICK_S = 0.1  # between two checks of the limits
CHUNK = 64  # most tasks sent to a worker at once
HOPELESS = 8  # after so many lost processes without a single score, the other samples of the call are not tried


@dataclass(frozen=True)
class Call:
    """What a worker calls: a function of one sample, an object with score(samples), or a class of such objects, built
    in the worker."""

    target: Any
    args: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)

    @property
    def together(self) -> bool:
        """Whether one call scores all samples."""
        return hasattr(self.target, "score")


@dataclass(frozen=True)
class Failure:
    """Why a sample has no score; with several samples, why one call for all of them failed and each is scored alone."""

    reward: str
    samples: tuple[Sample, ...]
    what: str  # such as "raised ValueError"; equal for equal causes
    detail: str  # of this call, such as the error's text
    tries: int

    @property
    def dropped(self) -> int:
        """Number of samples left without a score."""
        return len(self.samples) if len(self.samples) == 1 else 0

    def __str__(self) -> str:
        tried = f", tried {self.tries} times" if self.tries > 1 else ""
        why = f"{self.what}{tried}" + (f" ({self.detail})" if self.detail else "")
        if len(self.samples) > 1:
            return f"reward {self.reward!r}: one call for {len(self.samples)} samples: {why}; each is asked for alone"
        sample = self.samples[0]
        words = " ".join(sample.prompt.text.split())
        words = words if len(words) <= 40 else words[:40] + "…"
        return (
            f'reward {self.reward!r}: prompt row {sample.prompt.row} ("{words}"), sample {sample.index}: {why}; dropped'
        )


class Workers:
    """A context: while it is open, the worker processes of one reward function run."""

    def __init__(self, name: str, call: Call) -> None:
        """Raises UserError where the function cannot be sent to another process."""
        self.name, self.call = name, call
        self._function = pickled(name, call)
        self._count = 1 if call.together else call.limits.workers
        self._workers: list[WorkerProcess | None] = [None] * self._count
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix=f"reward-{name}")

    def __enter__(self) -> Workers:
        for place in range(self._count):
            self._worker(place)
        threading.Thread(target=self._watch, name=f"reward-{self.name}-limits", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._closed.set()
            workers = [worker for worker in self._workers if worker]
        for worker in workers:
            worker.kill()
        self._threads.shutdown(wait=True)
        for worker in workers:
            worker.close()

    def score(self, samples: Sequence[Sample]) -> tuple[list[Value], list[Failure]]:
        """(the samples' scores, NaN = no score; the failures).

        Raises UserError where the function raises it, or cannot be loaded.
        """
        work = Work(self.name, samples, self.call, self._count)
        for future in [self._threads.submit(self._serve, place, work) for place in range(self._count)]:
            future.result()
        return work.values, work.failures

    def _serve(self, place: int, work: Work) -> None:
        while tasks := work.take():
            worker = self._worker(place)
            if worker is None:
                return
            try:
                if not worker.loaded and (mistake := worker.load()):
                    raise UserError(f"reward {self.name!r} {mistake}")
                worker.send([[work.samples[row] for row in task.rows] for task in tasks])
                while tasks:
                    work.settle(tasks[0], *worker.receive())
                    tasks.popleft()
                worker.rest()
            except Lost as lost:
                self._workers[place] = None
                worker.close()
                if (why := str(lost)) and not worker.loaded:
                    raise UserError(f"reward {self.name!r} cannot be loaded in its own process: {why}") from lost
                if why:
                    what, _, last_words = why.partition("; ")
                    work.failed(tasks.popleft(), what, last_words, cost=1)
                work.give_back(tasks)

    def _worker(self, place: int) -> WorkerProcess | None:
        """The worker at this place, started if needed; None after the context's end."""
        with self._lock:
            if self._closed.is_set():
                return None
            if self._workers[place] is None:
                self._workers[place] = WorkerProcess(self._function, self.call.limits)
            return self._workers[place]

    def _watch(self) -> None:
        while not self._closed.wait(TICK_S):
            for worker in list(self._workers):
                if worker:
                    worker.check()


@dataclass
class Task:
    rows: tuple[int, ...]  # the samples that one call scores
    tries: int = 0


class Work:
    """The tasks, scores and failures of one call of `Workers.score`. Threads share it."""

    def __init__(self, name: str, samples: Sequence[Sample], call: Call, workers: int) -> None:
        self.samples = samples
        self.values: list[Value] = [NO_SCORE] * len(samples)
        self.failures: list[Failure] = []
        self._name, self._tries, self._share = name, call.limits.retries + 1, 4 * workers
        rows = range(len(samples))
        self._waiting = deque([Task(tuple(rows))] if call.together and rows else [Task((row,)) for row in rows])
        self._scored = self._cost = 0
        self._lock = threading.Lock()

    def take(self) -> deque[Task]:
        """The next tasks for a worker: many while many wait, so that fast functions do not wait for messages; one
        towards the end, so that all workers end at about the same time."""
        with self._lock:
            count = min(CHUNK, len(self._waiting) // self._share + 1, len(self._waiting))
            return deque(self._waiting.popleft() for _ in range(count))

    def give_back(self, tasks: deque[Task]) -> None:
        with self._lock:
            self._waiting.extendleft(reversed(tasks))
            if self._cost >= HOPELESS and not self._scored:
                what = f"not tried, since {self._cost} samples before it were all lost"
                self._drop(self._waiting, what, "")
                self._waiting.clear()

    def settle(self, task: Task, kind: str, what: Any) -> None:
        """Records a worker's reply. Raises UserError where the reply is a mistake of the user's."""
        if kind == "mistake":
            raise UserError(what)
        if kind == "failed":
            return self.failed(task, *what)
        with self._lock:
            self._scored += len(task.rows)
            for row, value in zip(task.rows, what):
                self.values[row] = value

    def failed(self, task: Task, what: str, detail: str, cost: int = 0) -> None:
        """Puts the task back for another try, or gives it up; the samples of a larger task are then tried one by one.
        cost: number of processes lost."""
        with self._lock:
            task.tries += 1
            if task.tries < self._tries:
                self._waiting.append(task)
                return
            self._cost += cost
            self._drop([task], what, detail)
            if len(task.rows) > 1:
                self._waiting.extend(Task((row,)) for row in task.rows)

    def _drop(self, tasks: Sequence[Task], what: str, detail: str) -> None:
        for task in tasks:
            samples = tuple(self.samples[row] for row in task.rows)
            self.failures.append(Failure(self._name, samples, what, detail, task.tries))


def pickled(name: str, call: Call) -> bytes:
    """The pickled (target, args) of the call; by value if another process could not import the target's module.

    Raises UserError where it cannot be pickled.
    """
    described = call.target.func if isinstance(call.target, partial) else call.target
    module = sys.modules.get(getattr(described, "__module__", None) or type(described).__module__)
    unknown = module is not None and module.__name__ != "__main__" and not importable(module.__name__)
    if unknown:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps((call.target, dict(call.args)))
    except Exception as error:  # from any object that the function refers to
        raise UserError(
            f"reward {name!r} runs in a process of its own and cannot be sent there: {error}; make what cannot be pickled "
            "in its first call, or name a class as module:Class, which is made there"
        ) from error
    finally:
        if unknown:
            with suppress(ValueError):  # registered twice: by us and by Ray
                cloudpickle.unregister_pickle_by_value(module)


def importable(module: str) -> bool:
    """Whether a new process with our sys.path finds the module."""
    top = module.partition(".")[0]
    if top in sys.builtin_module_names:
        return True
    return importlib.machinery.PathFinder.find_spec(top) is not None
