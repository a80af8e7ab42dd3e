"""Reward functions in processes of their own: whatever one does, the run goes on, and the sample that it could not score is
left without a score."""

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
from rlhf.rewards.worker_process import Lost, Worker

Value = float | Mapping[str, float]
NO_SCORE = float("nan")
TICK_S = 0.1  # between two looks at the limits
CHUNK = 64  # samples sent at once, at most
HOPELESS = 8  # samples that each cost a process, before any has a score: the others of the call are not tried


@dataclass(frozen=True)
class Call:
    """What a worker calls: a function of one sample, or an object with score(samples), or a class that is made into one there."""

    target: Any
    args: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)

    @property
    def together(self) -> bool:
        """Whether all samples are scored by one call."""
        return hasattr(self.target, "score")


@dataclass(frozen=True)
class Failure:
    """Why a sample has no score; or, of several samples, why each of them was asked for alone."""

    reward: str
    samples: tuple[Sample, ...]
    what: str  # such as "raised ValueError"
    detail: str  # of this very call
    tries: int

    @property
    def dropped(self) -> int:
        """Samples that are left without a score."""
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
    """The processes of one reward function, from entering it as a context until its end."""

    def __init__(self, name: str, call: Call) -> None:
        """Raises UserError where the function cannot be sent to another process."""
        self.name, self.call = name, call
        self._function = pickled(name, call)
        self._count = 1 if call.together else call.limits.workers
        self._workers: list[Worker | None] = [None] * self._count
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
        """(each sample's score, NaN = none; why some have none).

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

    def _worker(self, place: int) -> Worker | None:
        """None once all is over."""
        with self._lock:
            if self._closed.is_set():
                return None
            if self._workers[place] is None:
                self._workers[place] = Worker(self._function, self.call.limits)
            return self._workers[place]

    def _watch(self) -> None:
        while not self._closed.wait(TICK_S):
            for worker in list(self._workers):
                if worker:
                    worker.check()


@dataclass
class Task:
    rows: tuple[int, ...]  # of the samples that one call scores
    tries: int = 0


class Work:
    """The samples of one call of `Workers.score`: which wait, and what became of the others. Shared by threads."""

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
        """The next tasks for one worker: many where many wait, so that cheap functions do not wait for messages, and single
        ones towards the end, so that all workers end together."""
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
        """Takes a worker's answer in. Raises UserError where it is a mistake of the user's."""
        if kind == "mistake":
            raise UserError(what)
        if kind == "failed":
            return self.failed(task, *what)
        with self._lock:
            self._scored += len(task.rows)
            for row, value in zip(task.rows, what):
                self.values[row] = value

    def failed(self, task: Task, what: str, detail: str, cost: int = 0) -> None:
        """The task is tried again, or given up; of several samples, each is then tried alone. cost: processes."""
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
    """(target, args) for another process; by value where that could not import the target's module.

    Raises UserError where it cannot be pickled.
    """
    described = call.target.func if isinstance(call.target, partial) else call.target
    module = sys.modules.get(getattr(described, "__module__", None) or type(described).__module__)
    unknown = module is not None and module.__name__ != "__main__" and not importable(module.__name__)
    if unknown:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps((call.target, dict(call.args)))
    except Exception as error:  # of any object that the function refers to
        raise UserError(
            f"reward {name!r} runs in a process of its own and cannot be sent there: {error}; make what cannot be pickled "
            "in its first call, or name a class as module:Class, which is made there"
        ) from error
    finally:
        if unknown:
            with suppress(ValueError):  # registered twice: by us and by Ray
                cloudpickle.unregister_pickle_by_value(module)


def importable(module: str) -> bool:
    """Whether a fresh process with our sys.path would find it."""
    top = module.partition(".")[0]
    if top in sys.builtin_module_names:
        return True
    return importlib.machinery.PathFinder.find_spec(top) is not None
