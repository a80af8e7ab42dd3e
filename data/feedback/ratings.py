"""Ratings: answers given a number each, or one for each attribute. What pointwise reward models learn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from data.errors import UserError
from data.feedback import values
from data.feedback.options import FeedbackOptions
from data.messages import dialogue_of
from data.render import Dialogue, Template
from data.sources import Rows
from data.unit import DataReport, Unit


def rating_units(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[Unit]:
    """Columns `response` and `rating`, or `responses` and `ratings`: answers to `prompt`, or, without that column, full
    dialogues. A rating is a number, or an object {attribute: number}. One unit an answer, with the column ratings.

    Dropped: empty answers, and answers longer than max_length; of rows of several answers each counts as a row.
    """
    template = Template(tokenizer)
    for example in template.encode(_dialogues(rows, template, report, options)):
        if len(example.tokens) > max_length:
            report.drop_long(len(example.tokens), max_length)
        else:
            yield (example,)


def rating_of(value: Any, where: str, options: FeedbackOptions) -> float:
    """One number: of several attributes the mean, weighted by options.attributes and divided by the sum of the weights'
    sizes, so that a weight below 0 counts against an answer.

    Raises UserError where the value is neither a number nor an object of numbers, or lacks an attribute that has a weight.
    """
    if not isinstance(value, Mapping):
        rating = values.number(value, where, wanted="a number, or an object of numbers by attribute")
        if options.attributes:
            named = ", ".join(options.attributes)
            raise UserError(
                f"{where} is one number, so that the attributes {named} cannot be weighted: remove attributes"
            )
        return rating
    # Arrow gives every object the keys of all
    rated = {name: values.number(each, f"{where}, {name!r}") for name, each in value.items() if each is not None}
    if not rated:
        raise UserError(f"{where} must be a number, or an object of numbers by attribute, found one without any")
    missing = next((name for name in options.attributes if name not in rated), None)
    if missing is not None:
        raise UserError(
            f"{where} has no attribute {missing!r}, to which attributes gives a weight; it has {', '.join(rated)}"
        )
    weights = options.attributes or dict.fromkeys(rated, 1.0)
    return sum(weight * rated[name] for name, weight in weights.items()) / sum(map(abs, weights.values()))


def _dialogues(rows: Rows, template: Template, report: DataReport, options: FeedbackOptions) -> Iterator[Dialogue]:
    several = "response" not in rows.columns and "responses" in rows.columns
    rows.require(*(("responses", "ratings") if several else ("response", "rating")))
    answers = 0
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        if several:
            responses = values.items(row, "responses", origin)
            ratings = values.items(row, "ratings", origin, like=("responses", len(responses)))
            rated = [
                ({**row, "response": response}, rating, values.item("ratings", origin, place))
                for place, (response, rating) in enumerate(zip(responses, ratings, strict=True))
            ]
        else:
            rated = [(row, row.get("rating"), f"{origin}: column 'rating'")]
        answers += len(rated)
        for each, rating, where in rated:
            columns = {"ratings": rating_of(rating, where, options)}
            messages = dialogue_of(each, "response", origin)
            if messages[-1]["content"].strip():
                meta = values.meta(number, row, messages[:-1], origin)
                yield template.dialogue(messages, origin, last_only=True, columns=columns, **meta)
            else:
                report.drop("with an empty answer")
    report.rows = answers
