"""The watch in the RL loop: every few steps it looks at the step's answers, tells what is wrong, and says where to
stop."""

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
    """The looks so far, and what they need: the policy, the reference, the gold reward and the wanted format.

    `turn` is set where gold has turned down. Where the watch may stop the run, the policy of gold's best look is kept
    in RUN/checkpoints/<phase>.best/step-<N>, N the look's. An interrupted run repeats the looks after its last checkpoint,
    and gold's best may then be an earlier one than before: the policy of the best look that `saved` tells of stays until
    the next checkpoint. The scorers' workers live while the watcher is entered as a context.
    """

    context: PhaseContext
    settings: Watch | None  # None: it never looks
    groups: Mapping[str, ModelGroup]  # the step's policy and, where KL is measured, reference
    gold: Scorer | None = None
    format: Scorer | None = None
    looks: list[Look] = field(default_factory=list)
    turn: Turn | None = None
    saved_best: Look | None = None  # gold's best of the looks that the last checkpoint knows
    stack: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(cls, context: PhaseContext, groups: Mapping[str, ModelGroup]) -> Watcher:
        """As the phase's config says. Raises UserError where a source is wrong."""
        settings = context.phase.watch
        gold = Scorer.of(context, settings.gold) if settings and settings.gold else None
        wanted = Scorer.of(context, [settings.format]) if settings and settings.format else None
        return cls(context, settings, groups, gold, wanted)

    @property
    def reward_groups(self) -> dict[str, ModelGroup]:
        """Reward models that score for the watch: a step's batch must be staged for them, too."""
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
        """Looks at the first step, every few after it and the last, before the step trains; not where nothing has a
        reward. True where the run should stop."""
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
        """All samples of the draw, those without a reward among them."""

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
        """KL(policy || reference) per answer in nats: mean over answers of the sum over tokens of log(policy /
        reference). What the algorithm has not asked for is computed here. None without a reference."""
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
        """On the console, and for the report."""
        track.note(step, text)
        row = {"phase": self.context.phase.name, "step": step, "time": round(time.time(), 3), "text": text}
        with open(self.context.run.root / ALARMS, "a") as file:
            file.write(json.dumps(row) + "\n")

    @property
    def kept(self) -> Path:
        """Of the policies that are kept, each in step-<N>. No phase has a dot in its name, so this is no phase's own."""
        return self.context.run.root / "checkpoints" / f"{self.context.phase.name}.best"

    def path_of(self, look: Look) -> Path:
        """Of the policy that sampled the look's answers, once it is kept."""
        return self.kept / f"step-{look.step}"

    def keep_policy(self) -> None:
        """Exports the policy of the last look. Beside it stays the one that the last checkpoint knows, and no other."""
        self.drop_policies(self.saved_best)
        path = self.path_of(self.looks[-1])
        partial = path.with_name(f".{path.name}.partial")
        partial.mkdir(parents=True)
        self.groups["policy"].export(partial).result()
        self.context.tokenizer.save_pretrained(partial)
        os.replace(partial, path)

    def drop_policies(self, but: Look | None) -> None:
        """Deletes what is kept of other looks, or was left of one by an interruption."""
        if but is None:
            shutil.rmtree(self.kept, ignore_errors=True)
            return
        for path in self.kept.glob("*"):
            if path != self.path_of(but):
                shutil.rmtree(path)

    def best_policy(self) -> ModelGroup:
        """The policy of gold's best look, in the place of the one that was trained on."""
        self.context.runtime.release("policy")
        return self.context.build("policy", path=str(self.path_of(best(self.looks))))

    def figures(self) -> Metrics:
        """Of the last look, and of the one where gold was best; `stopped_at` is the step at which the watch stopped the
        run."""
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
        """JSON values, for the checkpoint."""
        return {"looks": [asdict(look) for look in self.looks]}

    def saved(self) -> None:
        """A checkpoint has the looks so far: an interrupted run goes on from these."""
        self.saved_best = best(self.looks)
        self.drop_policies(self.saved_best)

    def resume(self, state: Mapping[str, Any], step: int) -> None:
        """Goes on after `step`; what an interrupted attempt, or a run before, told of later steps and kept of them is
        deleted, be there a watch or not."""
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
