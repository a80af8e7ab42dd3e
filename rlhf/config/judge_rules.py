"""Rules about a judge: where it is, and whether its template asks what its kind answers."""

from __future__ import annotations

import re

from rlhf.config.model_rules import Advice
from rlhf.config.rewards import Judge
from rlhf.config.roles import reward_parts
from rlhf.config.schema import Config, Phase
from rlhf.judge.questions import ALLOWED, NEEDED, fields

URL = re.compile(r"^https?://[^/\s]+")


def judge_is_somewhere(config: Config, phase: Phase) -> Advice:
    judge = getattr(phase, "judge", None)
    if judge is None:
        return
    where = f"phases.{phase.name}.judge"
    if judge.model is None and judge.url is None:
        yield f"{where}: no model and no url; name a model to serve (phase:<name> or a directory), or a server's url"
    elif judge.model is not None and judge.url is not None:
        yield f"{where}: both a model and a url; a judge is either served by this run or elsewhere: remove one"
    elif judge.url is not None and not URL.match(judge.url):
        yield f"{where}.url: {judge.url!r} is no http address; wanted one such as http://127.0.0.1:8000/v1"


def judge_asks_what_it_must(config: Config, phase: Phase) -> Advice:
    judge: Judge | None = getattr(phase, "judge", None)
    if judge is None or judge.template is None:
        return
    where = f"phases.{phase.name}.judge.template"
    found, needed = fields(judge.template), NEEDED[judge.kind]
    for name in sorted(needed - found):
        yield f"{where}: a {judge.kind} judge needs {{{name}}} in it"
    for name in sorted(found - needed - ALLOWED[judge.kind]):
        known = ", ".join(f"{{{each}}}" for each in sorted(needed | ALLOWED[judge.kind]))
        yield f"{where}: {{{name}}} is no field of a {judge.kind} judge; those are {known}"
    if "principle" in found and not judge.principles:
        yield f"{where}: it names a {{principle}}, but judge.principles is empty; list some"
    if judge.principles and "principle" not in found:
        yield f"{where}: judge.principles are never asked about; put {{principle}} into it"


def judge_scores_where_it_is_asked(config: Config, phase: Phase) -> Advice:
    """A reward of source `judge` needs a judge; a pairwise one needs samples to compare."""
    asked = any(part.source == "judge" for part in reward_parts(phase))
    judge = getattr(phase, "judge", None)
    if asked and judge is None:
        yield f"phases.{phase.name}.reward: source `judge`, but there is no judge; set phases.{phase.name}.judge.model or .url"
    elif asked and judge.kind == "pairwise" and phase.sampling.samples < 2:
        yield (
            f"phases.{phase.name}.sampling.samples is 1, but a pairwise judge compares samples of one prompt: set at least 2, "
            f"or phases.{phase.name}.judge.kind=pointwise"
        )
    elif judge is not None and not asked and phase.kind != "label":
        yield f"phases.{phase.name}.judge: nobody asks it; list `judge` in phases.{phase.name}.reward, or remove it"


JUDGE_RULES = (judge_is_somewhere, judge_asks_what_it_must, judge_scores_where_it_is_asked)
