"""What every phase works with: its config, the cluster, the run directory, the artifacts of earlier phases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from data.errors import UserError
from data.sources import Rows, open_rows
from data.templates import Templated
from data.tokenizer import ensure_chat_template, load_tokenizer
from data.tokenizer_training import train_tokenizer
from data.unit import DataReport
from rlhf.config.corpus import Tokenizer
from rlhf.config.data import Data
from rlhf.config.kinds import JUDGE, PHASE
from rlhf.config.resolved import ResolvedPhase
from rlhf.config.schema import Config, Model, PhaseBase
from rlhf.config.training import Optim
from rlhf.interfaces import ModelBuild, ModelGroup, OptimSettings, Runtime
from rlhf.judge.client import Client, served_elsewhere
from rlhf.judge.judge import JudgeModel
from rlhf.metrics import Bar, MetricLog
from rlhf.rundir import Artifact, Checkpoints, RunDirectory

Metrics = dict[str, float]
ROWS = "rows.jsonl"  # in the artifact of a phase that writes a data set


@dataclass
class PhaseContext:
    """The inputs of one phase. The phase returns its metrics, and the controller writes them into the artifact."""

    resolved: ResolvedPhase
    runtime: Runtime
    run: RunDirectory
    artifacts: Mapping[str, Artifact]  # finished phases, by name
    id: str  # fingerprint of the phase's inputs
    staging: Path  # directory that becomes the artifact
    console: Console
    reward: Any = None  # the caller's own object, instead of the config's
    rollout: Any = None  # likewise
    opened: dict[str, Rows] = field(default_factory=dict)  # data sets opened so far, see `open_data`
    reports: list[DataReport] = field(default_factory=list)  # of each data set: rows read, dropped and why
    answers: list[dict[str, Any]] = field(default_factory=list)  # a few prompts with answers, for the summary
    reward_groups: dict[str, ModelGroup] = field(default_factory=dict)  # reward models built so far, by role

    @property
    def config(self) -> Config:
        return self.resolved.config

    @property
    def phase(self) -> PhaseBase:
        """The phase's own settings."""
        return self.resolved.settings

    @property
    def models(self) -> Mapping[str, Model]:
        return self.resolved.models

    @property
    def seed(self) -> int:
        return self.config.run.seed if self.phase.seed is None else self.phase.seed

    @cached_property
    def checkpoints(self) -> Checkpoints:
        return self.run.checkpoints(self.phase.name, self.id)

    def path_of(self, role: str) -> str | None:
        """The directory or name of the role's initial weights; None for a new model."""
        path = self.models[role].path
        return resolve_path(path, self.artifacts) if path else None

    def open(self, data: Data) -> Rows:
        """The data set's rows, see `open_data`."""
        return open_data(data, self.artifacts, self.opened)

    def read(self, report: DataReport) -> None:
        """Prints the report of a data set's rows and keeps it for the artifact."""
        self.reports.append(report)
        self.console.print(f"[bold]{self.phase.name:<9}[/] {escape(str(report))}", highlight=False, soft_wrap=True)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the policy, or of the reward model. A phase that trains a tokenizer assigns its own."""
        role = "policy" if "policy" in self.models else "reward"
        return ensure_chat_template(load_tokenizer(self.path_of(role)))

    @cached_property
    def judge(self) -> JudgeModel:
        """The phase's judge. A model of this run gets a server, which starts on first use and stops after the phase;
        else the judge is served elsewhere."""
        settings = self.phase.judge
        if settings.model:
            served = self.runtime.serve(JUDGE, self.path_of(JUDGE), settings.pool, settings.max_length)
        else:
            served = served_elsewhere(settings)
        return JudgeModel(settings, Client(served, settings), self.seed)

    def judge_figures(self) -> Metrics:
        """`judge/asked` and the other counts of all questions so far; empty if the phase has used no judge."""
        judge = vars(self).get("judge")  # the cached property, without starting a judge
        return {f"judge/{name}": value for name, value in judge.metrics().items()} if judge else {}

    def build(
        self,
        role: str,
        *,
        head: str = "lm",
        optim: OptimSettings | None = None,
        ema_decay: float | None = None,
        rows_together: int = 1,
        path: str | None = None,
    ) -> ModelGroup:
        """The role's group with its model loaded; trained if `optim` is given.

        rows_together: how many rows must share a micro-batch, so that it has room for as many rows of max_length.
        path: weights to load instead of the role's initial weights.
        """
        model, path = self.models[role], path or self.path_of(role)
        architecture = None if path else model.architecture
        implied = {} if architecture is None else implied_fields(self.tokenizer, self.phase.max_length)
        build = ModelBuild(
            role=role,
            path=path,
            architecture=architecture,
            head=head,
            dtype=model.dtype,
            zero_stage=model.zero_stage,
            microbatch_tokens=max(model.microbatch_tokens, rows_together * self.phase.max_length),
            activation_checkpointing=model.activation_checkpointing,
            optim=optim,
            seed=self.seed,
            ema_decay=ema_decay,
            tensor_parallel=model.tensor_parallel,
            pipeline_parallel=model.pipeline_parallel,
            implied=implied,
        )
        return self.runtime.group(build, model.pool)

    @contextmanager
    def tracking(self, total: int, start: int, shown: tuple[str, ...]) -> Iterator[Tracker]:
        """Opens the phase's metric log and progress bar. The data have been read by now: frees the opened data sets."""
        self.opened.clear()
        log = MetricLog(self.run.root, self.phase.name, start)
        try:
            with Bar(self.console, self.phase.name, total, start, shown) as bar:
                yield Tracker(self, log, bar)
        finally:
            log.close()


@dataclass(frozen=True)
class Tracker:
    """Reports a step everywhere: metrics.jsonl, TensorBoard, the progress bar, Ray's metrics."""

    context: PhaseContext
    log: MetricLog
    bar: Bar
    noted: set[str] = field(default_factory=set)

    def note(self, step: int, text: str) -> None:
        """Prints a message, once for each text."""
        if text not in self.noted:
            self.noted.add(text)
            line = f"[bold]{self.context.phase.name:<9}[/] step {step}: {escape(text)}"
            self.context.console.print(line, highlight=False, soft_wrap=True)

    def back_to(self, step: int, wrong: int, text: str) -> None:
        """Prints what went wrong at step `wrong`; drops the metrics after `step`, where the phase continues."""
        self.note(wrong, text)
        self.log.rewind(step)

    def step(self, done: int, metrics: Metrics) -> None:
        self.log.write(done, metrics)
        self.bar.update(done, metrics)
        self.context.runtime.report(metrics, self.context.phase.name)


def implied_fields(tokenizer: Any, max_length: int) -> dict[str, Any]:
    """Architecture fields of a new model that follow from its tokenizer and the length of rows."""
    return {
        "bos_token_id": None,
        "max_position_embeddings": max_length,
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def tokenizer_of_data(settings: Tokenizer, texts: Iterable[str]) -> Any:
    """The tokenizer at `settings.path`, or one trained on the texts."""
    if settings.path is not None:
        return ensure_chat_template(load_tokenizer(settings.path))
    return train_tokenizer(texts, settings.vocab_size, settings.kind, settings.special_tokens)


def resolve_path(path: str, artifacts: Mapping[str, Artifact]) -> str:
    """The artifact's directory for `phase:x`; any other path unchanged."""
    return str(artifacts[path.removeprefix(PHASE)].path) if path.startswith(PHASE) else path


def open_data(data: Data, artifacts: Mapping[str, Artifact], opened: dict[str, Rows] | None = None) -> Rows:
    """The data set's rows, with its templates filled; `phase:x` is the data set that an earlier phase wrote.

    opened: rows by settings; a data set that is in it is not opened again, so that its function is called once.
    Raises UserError where the rows cannot be read, or the earlier phase has not run.
    """
    opened, key = {} if opened is None else opened, data.model_dump_json()
    if key in opened:
        return opened[key]
    names = [data.path] if isinstance(data.path, str) else data.path
    for name in names:
        if name.startswith(PHASE) and name.removeprefix(PHASE) not in artifacts:
            raise UserError(f"{name}: this phase has not written its rows yet; run the config first")
    paths = [f"{resolve_path(name, artifacts)}/{ROWS}" if name.startswith(PHASE) else name for name in names]
    path = paths[0] if isinstance(data.path, str) else paths
    rows = open_rows(path, split=data.split, columns=data.columns, args=data.args, limit=data.limit)
    if data.templates:
        rows = Templated(rows, [template.wording for template in data.templates])
    opened[key] = rows
    return rows


def optim_settings(optim: Optim, total_steps: int) -> OptimSettings:
    """The config's optimizer settings, with shares of the training converted to step counts.

    Raises UserError where warm-up and decay take more steps than the phase has.
    """
    warmup_steps = round(optim.warmup * total_steps) if optim.warmup_steps is None else optim.warmup_steps
    decay_steps = round(optim.decay * total_steps) if optim.schedule == "wsd" else 0
    if warmup_steps + decay_steps > total_steps:
        decay = f" and the decay of {decay_steps}" if decay_steps else ""
        raise UserError(
            f"optim: the warm-up of {warmup_steps} steps{decay} are more than the phase's {total_steps} steps: lower warmup_steps"
        )
    own = optim.model_dump(exclude={"warmup", "warmup_steps", "decay"})
    return OptimSettings(**own, warmup_steps=warmup_steps, decay_steps=decay_steps, total_steps=total_steps)


def export(context: PhaseContext, group: ModelGroup) -> None:
    """Writes the group's model and the tokenizer into the artifact."""
    group.export(context.staging).result()
    context.tokenizer.save_pretrained(context.staging)


def following(step: int, every: int) -> float:
    """The next multiple of `every` after `step`, when a checkpoint or evaluation is due; infinity if `every` is 0."""
    return (step // every + 1) * every if every else math.inf
