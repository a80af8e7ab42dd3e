"""Masked language modelling: BERT's own example, its shares within exact bounds, whole words and SpanBERT's spans."""

import numpy as np
import pytest
from denoising_cases import END, MASK_ID, ORDINARY, text, vocabulary
from scipy import stats

from data.batch import Batch
from data.denoising.corruption import Corrupted
from data.denoising.masking import Masking, apply_mask, arrange, length_probabilities
from data.errors import UserError

CASES = [Masking(), Masking(whole_words=True), Masking(mean_span=3.8), Masking(whole_words=True, mean_span=3.8)]
ALL_ALIKE = 1e-6  # how seldom a right count lies outside its bounds


def rows(masking: Masking, length: int, draws: int) -> list[Corrupted]:
    """Of one text, whose end is the end of text."""
    rng = np.random.default_rng(0)
    return [masking.corrupt(text(length, 0), vocabulary(), rng) for _ in range(draws)]


def runs(mask: np.ndarray) -> list[int]:
    """The lengths of the stretches where it is True, by a loop."""
    found, current = [], 0
    for each in [*mask.tolist(), False]:
        if not each and current:
            found.append(current)
        current = current + 1 if each else 0
    return found


def words_of(tokens: np.ndarray) -> list[list[int]]:
    """The places of each word's tokens, by a loop: ordinary tokens that divide by 3 begin one."""
    words: list[list[int]] = []
    for place, token in enumerate(tokens.tolist()):
        if place == 0 or token < 200 or token % 3 == 0 or tokens[place - 1] < 200:
            words.append([])
        words[-1].append(place)
    return words


def test_the_example_of_the_paper():
    # Devlin et al. 2019, appendix A.1: "my dog is hairy", where hairy is chosen: [MASK], apple, or hairy as it is
    my, dog, is_, hairy, apple = 300, 301, 302, 303, 304
    tokens, others = np.array([my, dog, is_, hairy], np.int32), np.full(4, apple, np.int32)
    chosen = np.array([False, False, False, True])
    for fate, read in ((0.0, MASK_ID), (0.79, MASK_ID), (0.8, apple), (0.89, apple), (0.91, hairy), (0.999, hairy)):
        row = apply_mask(tokens, chosen, np.full(4, fate), others, (0.8, 0.1), MASK_ID)
        assert row.tokens.tolist() == [my, dog, is_, hairy]
        assert row.inputs.tolist() == [my, dog, is_, read]
        assert row.mask.tolist() == [False, False, False, True] and row.prefix_length is None


@pytest.mark.parametrize("masking", [Masking(), Masking(0.5, 0.6, 0.3), Masking(0.3, 0.0, 0.0)])
def test_of_the_chosen_tokens_the_asked_shares_are_masked_swapped_and_kept(masking):
    drawn = rows(masking, 402, 60)
    chosen = np.concatenate([row.mask for row in drawn])
    tokens, read = (np.concatenate(each) for each in zip(*((row.tokens, row.inputs) for row in drawn), strict=True))
    by_chance = masking.random / len(ORDINARY)  # the swapped token is the same
    kept = 1 - masking.masked - masking.random + by_chance
    counts = {
        "masked": ((read == MASK_ID)[chosen].sum(), masking.masked),
        "kept": ((read == tokens)[chosen].sum(), kept),
        "swapped": (((read != tokens) & (read != MASK_ID))[chosen].sum(), masking.random - by_chance),
    }
    for count, share in counts.values():
        low, high = stats.binom.interval(1 - ALL_ALIKE, chosen.sum(), share)
        assert low <= count <= high
    assert np.array_equal(read[~chosen], tokens[~chosen])
    assert set(read[chosen & (read != MASK_ID)]) <= set(ORDINARY.tolist())


def test_exactly_the_rate_of_the_tokens_is_chosen():
    for length in (42, 102, 302):  # 40, 100 and 300 ordinary tokens after the first
        assert {row.mask.sum() for row in rows(Masking(), length, 5)} == {round(0.15 * (length - 2))}
        spans = {row.mask.sum() for row in rows(Masking(mean_span=3.8), length, 5)}
        assert spans == {round(0.15 * (length - 2))}


def test_every_ordinary_token_but_the_first_is_chosen_equally_often():
    often = np.sum([row.mask for row in rows(Masking(), 42, 1000)], axis=0)
    assert often[0] == often[-1] == 0
    low, high = stats.binom.interval(1 - ALL_ALIKE, 1000, 0.15)
    assert low <= often[1:-1].min() and often[1:-1].max() <= high


@pytest.mark.parametrize("masking", CASES)
def test_special_tokens_and_the_first_are_never_chosen(masking):
    rng = np.random.default_rng(0)
    for length in (2, 3, 8, 40):
        for _ in range(40):
            tokens = text(length, 1)
            tokens[rng.random(length) < 0.2] = END
            row = masking.corrupt(tokens, vocabulary(), rng)
            assert not row.mask[0] and not row.mask[tokens == END].any()
            assert np.array_equal(row.tokens, tokens)
            assert np.array_equal(row.inputs[~row.mask], tokens[~row.mask])
            assert row.inputs.dtype == row.tokens.dtype == np.int32


@pytest.mark.parametrize("masking", CASES)
def test_at_least_one_token_is_chosen_where_one_may_be(masking):
    tokens = np.array([END, 300, 301, END], np.int32)
    assert masking.corrupt(tokens, vocabulary(), np.random.default_rng(0)).mask.any()
    first_and_end = np.array([300, END], np.int32)
    assert not masking.corrupt(first_and_end, vocabulary(), np.random.default_rng(0)).mask.any()


@pytest.mark.parametrize("mean_span", [None, 2.0])
def test_whole_words_are_chosen_with_all_their_tokens(mean_span):
    masking = Masking(0.3, whole_words=True, mean_span=mean_span)
    words = words_of(text(200, 0))
    candidates = [word for word in words[1:] if word != [199]]
    assert {len(word) for word in candidates} >= {1, 2, 3}
    for row in rows(masking, 200, 40):
        assert all(row.mask[word].all() or not row.mask[word].any() for word in words)
        assert sum(row.mask[word].all() for word in candidates) == round(0.3 * len(candidates))
        assert not row.mask[words[0]].any()


def test_spans_have_the_geometric_lengths_of_the_paper():
    # Joshi et al. 2020, section 3.1: p = 0.2, at most 10, mean 3.8
    lengths = np.arange(1, 11)
    wanted = 0.2 * 0.8 ** (lengths - 1.0)
    wanted /= wanted.sum()
    assert abs((wanted * lengths).sum() - 3.8) < 0.005
    assert np.allclose(length_probabilities(float((wanted * lengths).sum())), wanted, atol=1e-9)


@pytest.mark.parametrize("mean_span", [1.0, 1.01, 2.0, 3.8, 5.0, 5.5])
def test_spans_are_as_long_as_asked_on_average(mean_span):
    assert abs((length_probabilities(mean_span) * np.arange(1, 11)).sum() - mean_span) < 1e-9
    rng = np.random.default_rng(0)
    tokens = text(4002, 2)
    # nothing is swapped or kept by chance: touching spans are told apart by their fates, of which there are two
    drawn = [Masking(0.02, 1.0, 0.0, mean_span=mean_span).corrupt(tokens, vocabulary(), rng) for _ in range(30)]
    lengths = np.concatenate([runs(row.mask) for row in drawn])
    touching = 0.02 * mean_span  # the share of spans that have another one right after them, about
    assert abs(lengths.mean() - mean_span) < 5 * lengths.std() / len(lengths) ** 0.5 + touching * mean_span + 0.1


def test_all_arrangements_are_alike():
    rng = np.random.default_rng(0)
    drawn = [tuple(arrange(np.array([2, 1]), 5, rng).tolist()) for _ in range(3000)]
    wanted = {
        (0, 0, 1, -1, -1),
        (0, 0, -1, 1, -1),
        (0, 0, -1, -1, 1),
        (-1, 0, 0, 1, -1),
        (-1, 0, 0, -1, 1),
        (-1, -1, 0, 0, 1),
    }
    assert set(drawn) == wanted
    assert stats.chisquare([drawn.count(each) for each in wanted]).pvalue > 1e-4


def test_a_span_is_read_in_one_way_as_a_whole():
    rng = np.random.default_rng(0)
    masking = Masking(0.1, 0.5, 0.0, mean_span=5.0)
    apart = 0
    for _ in range(40):
        row = masking.corrupt(text(402, 3), vocabulary(), rng)
        hidden = row.inputs == MASK_ID
        apart += len(runs(row.mask)) < len(runs(hidden)) + len(runs(row.mask & ~hidden))
    assert apart < 10  # only where two spans touch
    assert {len(set((row.inputs[row.mask] == MASK_ID).tolist())) for row in rows(masking, 402, 5)} == {2}


def test_each_draw_is_another_and_the_seed_decides():
    for masking in CASES:
        first, second = rows(masking, 100, 2)
        assert not np.array_equal(first.mask, second.mask)
        again = rows(masking, 100, 2)
        assert np.array_equal(again[1].mask, second.mask) and np.array_equal(again[1].inputs, second.inputs)


def test_rows_make_a_batch_that_keeps_its_rules():
    drawn = rows(Masking(0.9), 20, 3)
    Batch.from_rows([row.tokens for row in drawn], [row.mask for row in drawn]).with_columns(
        group_ids=[0, 1, 2]
    ).validate()
    assert Masking().raw_length(20) == 20


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rate": 0.0}, "rate is 0.0"),
        ({"rate": 1.0}, "rate is 1.0"),
        ({"masked": 0.8, "random": 0.3}, "at most 1"),
        ({"masked": -0.1}, "at most 1"),
        ({"mean_span": 0.5}, "mean_span is 0.5"),
        ({"mean_span": 6.0}, "from 1 to 5.5"),
    ],
)
def test_what_is_no_share_or_length_is_the_users_error(parameters, message):
    with pytest.raises(UserError, match=message):
        Masking(**parameters)
