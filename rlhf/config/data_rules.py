"""Rules about data: files exist, mixes and their shares are possible, templates make the rows that are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rlhf.config.data import Data, Part
from rlhf.config.explain import did_you_mean
from rlhf.config.kinds import CORPUS, LEAVING_ROWS, OF_TEXT, PHASE
from rlhf.config.resolved import Resolved, ResolvedPhase

# paths that must be files or directories; other paths may be names of data sets or models
FILE = re.compile(r"^(?!.*://)(\.{0,2}/|.*\.(txt|json|jsonl|jsonl\.gz|json\.gz|parquet|arrow|csv)$)")
OF_PARTS = ("split", "columns", "args", "limit", "holdout", "templates")  # settings of a mix's parts, not of the mix
# by kind of rows: what a template must make
FORMS = {"text": ("text",), "chat": ("prompt", "response"), "prompts": ("prompt",)}


def data_exists(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for name, data in phase.data_sets.items():
        for path in data.paths:
            if path.startswith(PHASE):
                yield from _leaves_a_data_set(phase, name, path)
            elif FILE.match(path) and not Path(path).exists():
                yield f"{phase.where}.{name}.path: there is no {path}; relative paths start at {Path.cwd()}"


def _leaves_a_data_set(phase: ResolvedPhase, name: str, path: str) -> Iterator[str]:
    where, source, wanted = f"{phase.where}.{name}.path", phase.parent(path), path.removeprefix(PHASE)
    if source is None:
        yield f"{where}: no phase {wanted!r} runs before {phase.name!r}{did_you_mean(wanted, [other.name for other in phase.earlier])}"
    elif source.kind.name == CORPUS:
        if phase.kind.name != "pretrain" or name.partition(".")[0] != "data":
            yield f"{where}: phase {wanted!r} leaves a corpus, which only the data of a pretrain phase can be; name files of rows"
    elif not source.kind.leaves_rows:
        yield f"{where}: phase {wanted!r} leaves a model and no data set; name a phase of kind {' or '.join(LEAVING_ROWS)}"


def mixes_are_trained_on(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for name, data in phase.data.items():
        where = f"{phase.where}.{name}"
        if data.mix and (name != "data" or not phase.kind.of_text):
            yield f"{where}.mix: only the data of phases of kind {' and '.join(OF_TEXT)} can be a mix; name one data set's path"
        elif data.mix and data.path:
            yield f"{where}: path and mix; make the path a part of the mix, or remove one"
        elif "temperature" in data.given and not data.mix:
            yield f"{where}.temperature: it is of a mix's shares, and there is no mix; remove it"
        if data.mix and (misplaced := [setting for setting in OF_PARTS if setting in data.given]):
            yield f"{where}: in a mix, {', '.join(misplaced)} are of the parts; set {where}.mix.<part>.{misplaced[0]}"


def mix_shares_can_be_had(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    data, where = phase.settings.data, f"{phase.where}.data"
    if not data.mix:
        return
    given = {name: part.weight for name, part in data.mix.items() if part.weight is not None}
    if given:
        yield from weights_fit(f"{where}.mix", given, list(data.mix))
    if len(given) == len(data.mix) and "temperature" in data.given:
        yield f"{where}.temperature: every part has its weight, so it would do nothing; remove it, or the weights"
    for name, part in data.mix.items():
        if part.weight is not None and part.cap is not None:
            yield f"{where}.mix.{name}.cap: a part with a weight has its share whatever its rows are; remove cap or weight"
        if "temperature" in part.given:
            yield f"{where}.mix.{name}.temperature: it is of the whole mix; set {where}.temperature"
        corpus = phase.corpora.get(f"data.mix.{name}")
        # a corpus sets documents aside; `holdout` is the number of windows to use of them
        if part.weight == 0 and not part.holdout and (corpus is None or not corpus.holdout):
            holdout = "its holdout" if corpus is None else f"phases.{corpus.name}.holdout"
            yield (
                f"{where}.mix.{name}: of weight 0 nothing is trained on, and nothing is held out to be evaluated on; set "
                f"{holdout}, or remove it"
            )


def weights_fit(where: str, weights: Mapping[str, float], names: Sequence[str]) -> Iterator[str]:
    """weights: shares of the sources of a corpus, or of the parts of a mix, which have these names."""
    for name in weights:
        if name not in names:
            yield f"{where}: the corpus has no source {name!r}{did_you_mean(name, names)}"
    total, others = sum(weights.values()), [name for name in names if name not in weights]
    if weights and (min(weights.values()) < 0 or (not total > 0 and not others)):
        yield f"{where}: weights are shares, none below 0 and one above; found {dict(weights)}"
    elif weights and others and total > 1 - 1e-9:
        yield (
            f"{where}: weights of {total:g} in all leave nothing for {', '.join(others)}: lower them, or give these a weight, too "
            "(0 leaves one out)"
        )


def mixes_are_evaluated_by_part(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    if phase.settings.data.mix and "eval_data" in phase.data:
        yield (
            f"{phase.where}.eval_data: a mix is evaluated on what each part holds out; remove it, and set holdout in the "
            "parts (one of weight 0 is only evaluated)"
        )


def templates_make_what_is_read(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for name, data in phase.data_sets.items():
        if not data.templates or name in phase.corpora:
            continue
        where, rows = f"{phase.where}.{name}.templates", _rows(phase, name, data)
        if rows not in FORMS:
            yield f"{where}: a phase of kind {phase.kind.name} reads comparisons and labels, which no template makes; remove them"
            continue
        for place, template in enumerate(data.templates):
            if missing := [form for form in FORMS[rows] if getattr(template, form) is None]:
                yield f"{where}[{place}]: {' and '.join(missing)} missing: the rows are read as {rows}{_other_rows(data, rows)}"


def _rows(phase: ResolvedPhase, name: str, data: Data) -> str | None:
    """The kind of rows that the phase reads from this data set."""
    if name == "answers.data":
        return "prompts"
    if name == "ptx.data":
        return "text"
    return (data.rows if isinstance(data, Part) else None) or phase.kind.rows


def _other_rows(data: Data, rows: str) -> str:
    if isinstance(data, Part) and rows in ("text", "chat"):
        return f"; for the other kind, set the part's rows: {'chat' if rows == 'text' else 'text'}"
    return ""
