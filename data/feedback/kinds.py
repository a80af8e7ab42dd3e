"""All kinds of feedback: reads rows into units, and reports conversions, contradictions and annotators' agreement."""

from __future__ import annotations

from data.errors import UserError
from data.feedback.annotators import annotator_of, tell_agreement, weighted
from data.feedback.columns import FeedbackOptions, conversion_of, counted
from data.feedback.comparisons import preference_units, ranking_units
from data.feedback.consistency import contradictions
from data.feedback.single_answers import (
    binary_dialogues,
    expect_both_thumbs,
    rating_dialogues,
    thumb_dialogues,
    warn_of_one_side,
)
from data.feedback.step_labels import step_units
from data.render import ChatTemplate
from data.sources import Rows
from data.tokenizer import Tokenizer
from data.unit import DataReport, TrainingUnit

DIALOGUES = {"rating": rating_dialogues, "thumbs": thumb_dialogues, "binary": binary_dialogues}  # a unit has one
READERS = {"preference": preference_units, "ranking": ranking_units, "steps": step_units, **DIALOGUES}


def feedback_units(
    kind: str,
    rows: Rows,
    tokenizer: Tokenizer,
    max_length: int,
    report: DataReport,
    options: FeedbackOptions,
) -> list[TrainingUnit]:
    """All units of the kind. Raises UserError where a row is wrong, and where an option needs a missing column."""
    if options.attributes and not {"rating", "ratings"} & set(rows.columns):
        raise UserError(
            f"{rows.name}: attributes are given weights, but no column 'rating' or 'ratings' has attributes"
        )
    if options.annotators and "annotator" not in rows.columns:
        raise UserError(f"{rows.name}: annotators are given weights, but there is no column 'annotator'")
    if kind in DIALOGUES:
        template = ChatTemplate(tokenizer)
        dialogues = DIALOGUES[kind](rows, template, report, options)
        units = list(report.fitting(template.encode(dialogues), max_length))
    else:
        units = list(READERS[kind](rows, tokenizer, max_length, report, options))
    if not units:
        return units
    if kind == "thumbs":
        expect_both_thumbs(units, rows.name)
    if kind == "binary":
        warn_of_one_side(units, report)
    conversion = conversion_of(kind, rows.columns)
    if conversion:
        report.converted = counted(conversion, len({unit[0].meta["row"] for unit in units}), len(units))
    if kind in ("preference", "ranking"):
        report.warnings += contradictions(units)
    if any(annotator_of(unit) is not None for unit in units):
        tell_agreement(kind, units, report)
    return weighted(units, options, report) if options.annotators else units
