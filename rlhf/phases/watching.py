"""The watch in the RL loop: every few steps it measures the step's answers, raises alarms, and may stop the run."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlhf.config.rewards import Watch
from rlhf.interfaces import ModelGroup
from rlhf.ops import masked
from rlhf.phases.base import Metrics, PhaseContext, Tracker
from rlhf.phases.experience import Draw, Experience
from rlhf.phases.scoring import Scorer
from rlhf.rundir import write_atomically
from rlhf.watch import Look, Turn, alarms, best, mean_and_error, repetition, turned_down

ALARMS = "alarms.jsonl"  # in the run directory: phase, step, time, text


@dataclass
class Watcher:
    """Measures answers (a `Look` every few steps) and detects the turn: the step after which the gold score falls.

    If the watch may stop the run, the policy of the look with the best gold score is kept in
    RUN/checkpoints/<phase>.best/step-<N>. An interrupted run repeats the looks after its last checkpoint, so that its
    best look may be an earlier one: the policy of the best look at the last checkpoint is kept, too, until the next
    checkpoint. Enter it as a context, in which the workers of the scorers live.
    """

    context: PhaseContext
    settings: Watch | None  # None: the watch is off
    groups: Mapping[str, ModelGroup]  # the policy and, if KL is measured, the reference
    gold: Scorer | None = None
    format: Scorer | None = None
    looks: list[Look] = field(default_factory=list)
    turn: Turn | None = None
    saved_best: Look | None = None  # the look with the best gold score at the last checkpoint
    stack: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(cls, context: PhaseContext, groups: Mapping[str, ModelGroup]) -> Watcher:
        """Builds the scorers of the phase's `watch`. Raises UserError where a source is wrong."""
        settings = context.phase.watch
        gold = Scorer.of(context, settings.gold) if settings and settings.gold else None
        wanted = Scorer.of(context, [settings.format]) if settings and settings.format else None
        return cls(context, settings, groups, gold, wanted)

    @property
    def reward_groups(self) -> dict[str, ModelGroup]:
        """The watch's reward models by role. A step's batch must be staged for them."""
        return {role: group for scorer in self._scorers() for role, group in scorer.groups.items()}

    def _scorers(self) -> list[Scorer]:
        return [scorer for scorer in (self.gold, self.format) if scorer]

    def __enter__(self) -> Watcher:
        with ExitStack() as stack:
            for scorer in self._scorers():
                stack.enter_context(scorer)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stack.close()

    @property
    def stopped(self) -> bool:
        return self.settings is not None and self.settings.stop and self.turn is not None

    def look(self, step: int, experience: Experience, track: Tracker) -> bool:
        """Measures the step before it trains: the first step, every few steps, and the last; not if no sample has a
        reward. Returns whether the run should stop."""
        if self.settings is None:
            return False
        due = self.settings.due(step, self.context.phase.steps)
        if not due or not experience.first.batch.rewards.isfinite().any():
            return False
        look = self.measured(step, experience.first, track)
        self.looks.append(look)
        values = {name: value for name, value in asdict(look).items() if value is not None and name != "step"}
        track.log.write(step, {f"watch/{name}": value for name, value in values.items()})
        for text in alarms(self.looks):
            self.tell(step, text, track)
        if self.gold and look.gold is None:
            self.tell(step, "no answer has a gold score: this look does not count", track)
        elif self.gold and look.gold_error is None:
            text = "one prompt alone has a gold score, and no standard error: this look tells no turn"
            self.tell(step, text, track)
        if self.settings.stop and best(self.looks) is look:
            self.keep_policy()
        if self.turn is None:
            self.turn = turned_down(self.looks, self.settings.patience)
            if self.turn:
                self.tell(step, str(self.turn) + ("; the run stops here" if self.settings.stop else ""), track)
        return self.stopped

    def measured(self, step: int, draw: Draw, track: Tracker) -> Look:
        """The look at all samples of the draw, also those without a reward."""

        def scores(scorer: Scorer | None) -> list[float]:
            if scorer is None:
                return [math.nan] * len(samples)
            found = scorer.score(samples, draw.staged)
            for text in found.news:
                track.note(step, text)
            return found.rewards.tolist()

        batch, samples = draw.batch, draw.samples
        mask, prompts = batch.action_mask, batch.group_ids.tolist()
        gold, gold_error = mean_and_error(scores(self.gold), prompts)
        return Look(
            step=step,
            proxy=mean_and_error(batch.rewards.tolist(), prompts)[0],
            length=float(mask.sum(1).float().mean()),
            repetition=sum(repetition(sample.tokens) for sample in samples) / len(samples),
            truncated=float(batch.truncated.float().mean()),
            entropy=-float(masked.mean(batch.rollout_logprobs, mask)),
            kl=self.kl(draw),
            gold=gold,
            gold_error=gold_error,
            format=mean_and_error(scores(self.format), prompts)[0],
        )

    def kl(self, draw: Draw) -> float | None:
        """KL(policy || reference) in nats: mean over answers of the sum over tokens of log(policy / reference).
        Computes the log-probs that the draw lacks. None without a reference."""
        if "reference" not in self.groups:
            return None
        temperature = self.context.phase.sampling.temperature
        pending = {
            name: self.groups[role].forward(draw.staged, "logprobs", temperature)
            for name, role in (("old_logprobs", "policy"), ("ref_logprobs", "reference"))
            if name not in draw.batch
        }
        batch = draw.batch.with_columns(**{name: work.result() for name, work in pending.items()})
        return float(masked.sum(batch.old_logprobs - batch.ref_logprobs, batch.action_mask, dim=1).mean())

    def tell(self, step: int, text: str, track: Tracker) -> None:
        """Prints an alarm, and writes it to alarms.jsonl for the report."""
        track.note(step, text)
        row = {"phase": self.context.phase.name, "step": step, "time": round(time.time(), 3), "text": text}
        with open(self.context.run.root / ALARMS, "a") as file:
            file.write(json.dumps(row) + "\n")

    @property
    def kept(self) -> Path:
        """The directory of the kept policies, each in step-<N>. No phase has a dot in its name."""
        return self.context.run.root / "checkpoints" / f"{self.context.phase.name}.best"

    def path_of(self, look: Look) -> Path:
        """The directory of the policy that sampled the look's answers."""
        return self.kept / f"step-{look.step}"

    def keep_policy(self) -> None:
        """Keeps the policy of the last look, and deletes all others but the best at the last checkpoint."""
        self.drop_policies(self.saved_best)
        path = self.path_of(self.looks[-1])
        partial = path.with_name(f".{path.name}.partial")
        partial.mkdir(parents=True)
        self.groups["policy"].export(partial).result()
        self.context.tokenizer.save_pretrained(partial)
        os.replace(partial, path)

    def drop_policies(self, but: Look | None) -> None:
        """Deletes the kept policies of all looks except `but`, and exports that were interrupted."""
        if but is None:
            shutil.rmtree(self.kept, ignore_errors=True)
            return
        for path in self.kept.glob("*"):
            if path != self.path_of(but):
                shutil.rmtree(path)

    def best_policy(self) -> ModelGroup:
        """Loads the policy with the best gold score, in place of the last policy."""
        self.context.runtime.release("policy")
        return self.context.build("policy", path=str(self.path_of(best(self.looks))))

    def figures(self) -> Metrics:
        """Figures of the last look and of the look with the best gold score. `stopped_at`: the step at which the watch
        stopped the run."""
        if not self.looks:
            return {}
        last, top = self.looks[-1], best(self.looks)
        found = {"watch_proxy": last.proxy, "watch_gold": last.gold, "watch_kl": last.kl}
        if top is not None:
            found |= {"gold_at_best": top.gold, "kl_at_best": top.kl, "step_at_best": top.step}
        if self.stopped:
            found["stopped_at"] = last.step
        return {name: value for name, value in found.items() if value is not None}

    def state(self) -> dict[str, Any]:
        """The looks as JSON values, for the checkpoint."""
        return {"looks": [asdict(look) for look in self.looks]}

    def saved(self) -> None:
        """Call after a checkpoint with the looks so far: an interrupted run continues from them."""
        self.saved_best = best(self.looks)
        self.drop_policies(self.saved_best)

    def resume(self, state: Mapping[str, Any], step: int) -> None:
        """Restores the looks of a checkpoint after `step`. Deletes alarms and policies of later steps, which an
        interrupted or an earlier run left, even if the watch is off."""
        file = self.context.run.root / ALARMS
        if file.exists():
            rows = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
            keep = [row for row in rows if row["phase"] != self.context.phase.name or row["step"] <= step]
            write_atomically(file, "".join(json.dumps(row) + "\n" for row in keep))
        self.looks = [Look(**look) for look in state.get("looks", ())]
        self.saved()
        if self.settings is None:
            return
        turns = (turned_down(self.looks[:count], self.settings.patience) for count in range(1, len(self.looks) + 1))
        self.turn = next((turn for turn in turns if turn), None)
