"""Rows are corrupted as they are drawn, by their number alone: texts and instructions."""

from dataclasses import dataclass

import numpy as np
import pytest
from denoising_cases import ORDINARY, vocabulary

from data.denoising.corruption import Corrupted, PrefixSplit
from data.denoising.denoised import Denoised, batch_of
from data.denoising.masking import Masking
from data.denoising.spans import SpanCorruption
from data.unit import Example

FEW, VOCABULARY = ORDINARY[:40], vocabulary()


@dataclass(frozen=True)
class Three:
    """A number's unit: as many rows as the number says, and one, of ten tokens each."""

    masks: tuple[bool, ...] = (False, *[True] * 9)

    def rows(self, number):
        shifted = [np.roll(FEW, -number * 3 - row)[:10] for row in range(number + 1)]
        return [Example(tokens, np.array(self.masks), {"number": number}) for tokens in shifted]


def same(one, other):
    return all(one.columns[name].equal(other.columns[name]) for name in one.columns)


@pytest.mark.parametrize("corruption", [PrefixSplit(), Masking(), SpanCorruption()])
def test_a_number_gives_the_same_rows_whatever_is_drawn_beside_it(corruption):
    rows = Denoised(Three(), corruption, VOCABULARY, seed=0)
    both, second = rows.batch([1, 2]), rows.batch([2])
    assert len(both) == 5 and [meta["number"] for meta in both.meta] == [1, 1, 2, 2, 2]
    assert same(rows.batch([1, 2]), both)
    assert same(both.select([2, 3, 4]), second.select([0, 1, 2]))
    assert not same(Denoised(Three(), corruption, VOCABULARY, seed=1).batch([1, 2]), both)


@pytest.mark.parametrize("corruption", [PrefixSplit(), SpanCorruption()])
def test_of_an_instruction_the_prompt_is_read_and_the_answer_predicted(corruption):
    masks = (*[False] * 4, *[True] * 3, False, *[True] * 2)  # two turns
    (plain,), found = Three(masks).rows(0), Denoised(Three(masks), corruption, VOCABULARY, 0).batch([0])
    assert found.tokens[0].tolist() == plain.tokens.tolist() and tuple(found.action_mask[0].tolist()) == masks
    assert found.prefix_lengths.tolist() == [4]


def test_a_row_without_an_answer_teaches_nothing_and_still_has_something_after_its_prefix():
    found = Denoised(Three((False,) * 10), SpanCorruption(), VOCABULARY, 0).batch([0])
    assert not found.action_mask.any() and found.prefix_lengths.tolist() == [9] and found.lengths.tolist() == [10]


def test_a_corruption_of_ones_own_needs_neither_prefix_nor_inputs():
    row = Corrupted(FEW[:4], np.array([False, True, False, True]))
    assert set(batch_of([row]).columns) == {"tokens", "lengths", "action_mask"}
