"""The example rows of docs/feedback.md are read by every kind that the table there names for them."""

import json
import re
from pathlib import Path

import pytest
from data_cases import rows_of, tokenizer

from data.examples import FEEDBACK, KINDS, build_examples
from data.feedback.columns import CONVERSIONS, FeedbackOptions

DOCS = (Path(__file__).resolve().parents[2] / "docs/feedback.md").read_text()
BLOCKS = [(name, text.splitlines()) for name, text in re.findall(r"```json ([\w ]+)\n(.*?)```", DOCS, re.DOTALL)]


def table(heading: str) -> list[list[str]]:
    """Cells of the section's table, without its head."""
    section = DOCS.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


FORMATS = {name: re.findall(r"`(\w+)`", kinds) for name, _, kinds in table("Formats")}
CASES = [(kind, name, lines) for name, lines in BLOCKS for kind in FORMATS[name]]


@pytest.mark.parametrize(("kind", "name", "lines"), CASES)
def test_an_example_is_read_by_the_kinds_that_the_table_names(kind, name, lines):
    rows = rows_of(*map(json.loads, lines))
    examples = build_examples(kind, rows, tokenizer(), 200, FeedbackOptions(ties=True))
    tied = name == "pairs" and kind in ("thumbs", "binary")  # the second line, of which neither answer is good or bad
    assert examples.report.dropped == ({"without a better answer": 2} if tied else {})
    examples.batch(range(len(examples))).validate()


@pytest.mark.parametrize(("name", "lines"), BLOCKS)
def test_an_example_has_only_columns_that_the_table_names(name, lines):
    [columns] = [cells[1] for cells in table("Formats") if cells[0] == name]
    for line in lines:
        assert set(json.loads(line)) <= {*re.findall(r"`(\w+)`", columns), "prompt", "annotator"}


def test_every_format_has_an_example_and_every_kind_a_row():
    assert FORMATS.keys() == {name for name, _ in BLOCKS}
    assert {cells[0].strip("`") for cells in table("Kinds")} == set(FEEDBACK) == set(KINDS) - {"text", "chat"}


def test_every_kind_makes_the_columns_that_its_table_names():
    for kind, _, columns, _ in table("Kinds"):
        found = next(lines for case, _, lines in CASES if case == kind.strip("`"))
        examples = build_examples(kind.strip("`"), rows_of(*map(json.loads, found)), tokenizer(), 200)
        named = re.findall(r"`(\w+)`", columns)
        assert set(named) == {*examples.columns, *examples.token_columns}


def test_every_conversion_is_told():
    told = {name for cells in table("Conversions") for name in cells[0].split(", ")}
    assert told == set(CONVERSIONS.values())
