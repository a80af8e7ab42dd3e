"""Texts that a corpus must not contain: this run's evaluation data and RL prompts, and the config's `reserved`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from data.messages import strings_in
from data.sources import Rows, open_rows
from rlhf.config.corpus import Reserved
from rlhf.config.data import Data
from rlhf.config.kinds import KINDS, PHASE
from rlhf.config.schema import Config, Corpus, Phase
from rlhf.phases.base import open_data


def reserved_sets(config: Config, corpus: Corpus) -> dict[str, Data | Reserved]:
    """{name: data set}: the config's `reserved`, and of every phase its evaluation data, prompts whose answers are
    scored, the prompts of rl, best_of_n and label, and all data that held-out rows are drawn from (which rows is not
    yet known). Leaves out data that a phase writes, because they are sampled from reserved prompts."""
    found: dict[str, Data | Reserved] = dict(corpus.reserved)
    for phase in config.model_phases:
        for name, data in _evaluated(phase):
            if own := [path for path in data.paths if not path.startswith(PHASE)]:
                # do not reserve template text
                found[f"{phase.name}.{name}"] = data.model_copy(update={"path": own, "templates": []})
    return found


def _evaluated(phase: Phase) -> Iterator[tuple[str, Data]]:
    for name, data in phase.data.sets("data").items():
        if KINDS[phase.kind].samples or data.holdout:
            yield name, data
    if eval_data := getattr(phase, "eval_data", None):
        yield "eval_data", eval_data
    if phase.answers:
        yield "answers", phase.answers.data


def open_reserved(data: Data | Reserved, opened: dict[str, Rows] | None = None) -> Rows:
    """The rows of the data set. opened: see `open_data`. Raises UserError if they cannot be read."""
    if isinstance(data, Reserved):
        rows = open_rows(data.path)
        rows.require(*data.columns)
        return rows
    return open_data(data, {}, opened)


def reserved_texts(
    sets: Mapping[str, Rows], columns: Mapping[str, list[str]]
) -> dict[str, Callable[[], Iterable[str]]]:
    """For `data.corpus.work.Work`: by the set's name, a function that yields its texts. columns default to all."""
    return {name: partial(_texts, rows, columns.get(name, [])) for name, rows in sets.items()}


def _texts(rows: Rows, columns: list[str]) -> Iterator[str]:
    for row in rows:
        yield from strings_in([row[name] for name in columns] if columns else row)
