"""Readers of rows with several answers to one prompt: pairs, rankings, ratings, answers that can be checked. They give pairs, or
rankings of K answers, the best first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from typing import Any

import numpy as np

from data.errors import UserError
from data.feedback.columns import (
    FeedbackOptions,
    checked_flag,
    checked_items,
    checked_number,
    item_place,
    order_column,
    rating_of,
    row_meta,
)
from data.messages import Message, dialogue_of, number_in, text_of
from data.render import ChatTemplate, Dialogue
from data.sources import Rows
from data.tokenizer import Tokenizer
from data.unit import DataReport, Example, TrainingUnit


@dataclass(frozen=True)
class RankedAnswers:
    """A row's answers, each at the end of its whole dialogue, with their ranks and scores."""

    answers: Sequence[list[Message]]
    ranks: Sequence[float]  # lower is better, equal = a tie
    scores: Sequence[float]  # their difference is the margin of two answers; all 0 = only the order is known

    def take(self, places: Sequence[int]) -> RankedAnswers:
        """These answers, in this order."""
        return RankedAnswers(*([part[place] for place in places] for part in (self.answers, self.ranks, self.scores)))


Reader = Callable[[Mapping[str, Any], str], RankedAnswers]  # of a row and its place


def preference_units(
    rows: Rows, tokenizer: Tokenizer, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[TrainingUnit]:
    """Pairs, the better answer first, with ranks and margins (0 = unknown): every two answers of a row whose ranks differ. With
    options.ties also answers of equal rank, unless both are equal because both are right.

    `ranked_units` says which columns are read and which rows are dropped.
    """
    for ranking in ranked_units(rows, tokenizer, max_length, report, options):
        for better, worse in combinations(ranking, 2):
            ranks = [row.columns["ranks"] for row in (better, worse)]
            if ranks[0] < ranks[1] or keeps_ties(rows, options):
                margin = better.columns["scores"] - worse.columns["scores"]
                dense = (1.0, 1.0 + (ranks[0] < ranks[1]))
                yield tuple(
                    replace(row, columns={"ranks": rank, "margins": margin})
                    for row, rank in zip((better, worse), dense, strict=True)
                )


def ranking_units(
    rows: Rows, tokenizer: Tokenizer, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[TrainingUnit]:
    """All answers of a row, the best first, with ranks 1, 2, …; ties share a rank. A pair is a ranking of two.

    `ranked_units` says which columns are read and which rows are dropped.
    """
    for ranking in ranked_units(rows, tokenizer, max_length, report, options):
        dense = _dense([row.columns["ranks"] for row in ranking])
        yield tuple(replace(row, columns={"ranks": rank}) for row, rank in zip(ranking, dense, strict=True))


def ranked_units(
    rows: Rows, tokenizer: Tokenizer, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[list[Example]]:
    """Each row's answers, the best first, as examples with the columns `ranks` and `scores`. Only the answers are trained on.

    Columns: `chosen` and `rejected`, optionally `margin` and `tie`; or `responses` and one of `ratings`, `ranks`, `correct` and
    `answer` (the number that a response must give); without these, responses are listed from best to worst. All are answers to
    `prompt` or, without that column, full dialogues (message lists or hh-rlhf text) that differ in their last answer.

    Drops rows with fewer than two usable answers: answers that are not empty, not longer than max_length, and differ in more than
    the blanks around them, which many templates strip. Drops rows whose dialogues differ before the last answer, rows with equal
    answers of different rank and, unless ties are kept, rows where no answer is better than another.
    """
    read = _reader(rows, options)
    template, ties = ChatTemplate(tokenizer), keeps_ties(rows, options)
    examples = template.encode(_dialogues(rows, read, template, report, ties))
    for _, group in groupby(examples, key=lambda example: example.meta["row"]):
        ranking = list(group)
        fitting = [example for example in ranking if len(example.tokens) <= max_length]
        if len(fitting) < 2:
            # the max_length that would keep two answers
            report.drop_long(sorted(len(example.tokens) for example in ranking)[1], max_length)
            continue
        if len(fitting) < len(ranking):
            report.dropped[f"single answers longer than {max_length} tokens"] += len(ranking) - len(fitting)
        if ties or fitting[0].columns["ranks"] < fitting[-1].columns["ranks"]:
            yield fitting
        else:
            report.drop("without a better answer")


def keeps_ties(rows: Rows, options: FeedbackOptions) -> bool:
    """Whether to keep answers of equal rank. Two answers that are both right need not be equally good."""
    checked = "chosen" not in rows.columns and order_column(rows.columns) in ("correct", "answer")
    return options.ties and not checked


def _dialogues(rows: Rows, read: Reader, template: ChatTemplate, report: DataReport, ties: bool) -> Iterator[Dialogue]:
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        comparison = read(row, origin)
        usable = _usable(comparison, report)
        if usable is None:
            continue
        if usable.ranks[0] == usable.ranks[-1] and not ties:
            report.drop("without a better answer")
            continue
        meta = row_meta(number, row, usable.answers[0][:-1], origin)
        for messages, rank, score in zip(usable.answers, usable.ranks, usable.scores, strict=True):
            columns = {"ranks": rank, "scores": score}
            yield template.dialogue(messages, origin, last_only=True, columns=columns, **meta)


def _usable(comparison: RankedAnswers, report: DataReport) -> RankedAnswers | None:
    """The usable answers, the best first. None where fewer than two are left; the report then counts the row."""
    answers, ranks = comparison.answers, comparison.ranks
    order = sorted(range(len(answers)), key=lambda place: ranks[place])
    filled = [place for place in order if answers[place][-1]["content"].strip()]
    if len(filled) < 2:
        report.drop("with an empty answer")
        return None
    if any(answers[place][:-1] != answers[0][:-1] for place in order):
        report.drop("with dialogues that part before the last answer")
        return None
    different: list[int] = []
    for place in filled:
        same = [other for other in different if answer_of(answers[other]) == answer_of(answers[place])]
        if any(ranks[other] != ranks[place] for other in same):
            report.drop("with equal answers")
            return None
        if not same:
            different.append(place)
    if len(different) < 2:
        report.drop("with equal answers")
        return None
    if len(filled) < len(order):
        report.dropped["single answers that are empty"] += len(order) - len(filled)
    if len(different) < len(filled):
        report.dropped["single answers that repeat another"] += len(filled) - len(different)
    return comparison.take(different)


def _reader(rows: Rows, options: FeedbackOptions) -> Reader:
    """The reader of rows with these columns."""
    columns = set(rows.columns)
    if not {"chosen", "rejected", "responses"} & columns:
        raise UserError(
            f"{rows.name}: rows that compare answers need the columns chosen and rejected, or responses (and ratings, ranks, "
            f"correct or answer); the columns are {', '.join(rows.columns)}; name them with data.columns: {{chosen: <column>, "
            "rejected: <column>}"
        )
    if "responses" not in columns or {"chosen", "rejected"} <= columns:
        rows.require("chosen", "rejected")
        return pair_of
    column = order_column(rows.columns)

    def read(row: Mapping[str, Any], origin: str) -> RankedAnswers:
        responses = checked_items(row, "responses", origin)
        if len(responses) < 2:
            raise UserError(f"{origin}: column 'responses' must list two answers or more, found {len(responses)}")
        answers = [
            dialogue_of({"prompt": row.get("prompt"), "responses": answer}, "responses", f"{origin}, answer {place}")
            for place, answer in enumerate(responses, 1)
        ]
        ranks, scores = _order(row, column, answers, origin, options)
        return RankedAnswers(answers, ranks, scores)

    return read


def answer_of(messages: Sequence[Message]) -> Message:
    """A dialogue's last message, without the blanks around its content, for comparison."""
    return {**messages[-1], "content": messages[-1]["content"].strip()}


def pair_of(row: Mapping[str, Any], origin: str) -> RankedAnswers:
    """The answers `chosen` and `rejected`, with ranks and scores from `margin` and `tie`. Raises UserError where these have wrong
    values, or contradict each other."""
    margin, tie = row.get("margin"), row.get("tie")
    margin = (
        0.0
        if margin is None
        else checked_number(margin, f"{origin}: column 'margin'", 0, wanted="a number not below 0")
    )
    tie = tie is not None and checked_flag(tie, f"{origin}: column 'tie'")
    if tie and margin:
        raise UserError(f"{origin}: column 'margin' is {margin:g}, but column 'tie' says that no answer is better")
    answers = [dialogue_of(row, column, origin) for column in ("chosen", "rejected")]
    return RankedAnswers(answers, (1.0, 1.0 if tie else 2.0), (margin, 0.0))


def _order(
    row: Mapping[str, Any], column: str | None, answers: Sequence[list[Message]], origin: str, options: FeedbackOptions
) -> tuple[Sequence[float], Sequence[float]]:
    """(ranks, scores) of the row's answers from the column; None = the answers are listed from best to worst."""
    unknown = [0.0] * len(answers)
    if column is None:
        return range(1, len(answers) + 1), unknown
    if column == "answer":
        right = _gives(row, answers, origin)
        return [1.0 if each else 2.0 for each in right], unknown
    found = list(enumerate(checked_items(row, column, origin, like=("responses", len(answers)))))
    wheres = [item_place(column, origin, place) for place, _ in found]
    if column == "correct":
        return [1.0 if checked_flag(value, wheres[place]) else 2.0 for place, value in found], unknown
    if column == "ranks":
        wanted = "a number from 1 (the best)"
        return [checked_number(value, wheres[place], 1, wanted=wanted) for place, value in found], unknown
    ratings = [rating_of(value, wheres[place], options) for place, value in found]
    return [-rating for rating in ratings], ratings


def _gives(row: Mapping[str, Any], answers: Sequence[list[Message]], origin: str) -> list[bool]:
    """Whether each answer gives the number in the column `answer`."""
    value = row.get("answer")
    asked = (
        str(value) if isinstance(value, int | float) and not isinstance(value, bool) else text_of(row, "answer", origin)
    )
    expected = number_in(asked)
    if expected is None:
        raise UserError(f"{origin}: column 'answer' must hold the number that a response must give, found {asked!r}")
    return [number_in(messages[-1]["content"]) == expected for messages in answers]


def _dense(ranks: Sequence[float]) -> list[float]:
    """The ranks, renumbered 1, 2, … without gaps."""
    return (np.unique(ranks, return_inverse=True)[1] + 1.0).tolist()
