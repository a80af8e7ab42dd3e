"""Held-out documents: the wanted share, drawn by source row, independent of other draws."""

import pytest

from data.corpus.document import Document, draw
from data.tokens.write import is_held_out


def test_about_the_asked_share_is_held_out():
    many = [Document("a", f"web/{number}", "web", "web", "f", number) for number in range(20_000)]
    assert sum(is_held_out(document, 0.05) for document in many) / len(many) == pytest.approx(0.05, abs=0.006)
    assert not any(is_held_out(document, 0.0) for document in many)
    assert all(is_held_out(document, 1.0) for document in many)


def test_no_two_documents_of_one_row_are_on_both_sides():
    """The conversations of one tree begin alike."""
    trees = [
        [Document("a", f"chat/f#{row}.{leaf}", "chat", "dialogue", "f", row) for leaf in "123"] for row in range(500)
    ]
    sides = [{is_held_out(document, 0.3) for document in tree} for tree in trees]
    assert {len(each) for each in sides} == {1}
    assert sides.count({True}) / 500 == pytest.approx(0.3, abs=0.06)


def test_a_sample_drawn_for_another_purpose_has_its_share_of_both_sides():
    many = [Document("a", f"web/f#{row}", "web", "web", "f", row) for row in range(4000)]
    sampled = [each for each in many if draw(each, "tokenizer") < 0.2]
    assert sum(is_held_out(each, 0.3) for each in sampled) / len(sampled) == pytest.approx(0.3, abs=0.05)
