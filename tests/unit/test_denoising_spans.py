"""Span corruption: T5's own example, rows that give the text back, and shares and lengths as asked."""

import numpy as np
import pytest
from denoising_cases import END, FIRST_SENTINEL, restored, text, vocabulary

from data.denoising.spans import MOST_SPANS, SENTINELS, SpanCorruption, apply_spans
from data.errors import UserError

SETTINGS = [(0.15, 3.0), (0.5, 3.0), (0.5, 8.0), (0.15, 64.0), (0.9, 1.0), (0.99, 1.0), (0.01, 1.0), (0.5, 1.0)]


def test_the_example_of_the_paper():
    # Raffel et al. 2020, figure 2: "for inviting" and "last" drop out
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    ids = {word: 300 + number for number, word in enumerate(words)} | {"X": 10, "Y": 11, "Z": 12, "end": END}
    tokens = np.array([ids[word] for word in words], np.int32)
    row = apply_spans(tokens, np.array([2, 8]), np.array([2, 1]), np.array([10, 11, 12], np.int32), END)
    source = "Thank you X me to your party Y week end"
    target = "X for inviting Y last Z end"
    assert row.tokens.tolist() == [ids[word] for word in f"{source} {target}".split()]
    assert (row.prefix_length, row.tokens.dtype) == (10, np.int32)
    assert row.mask.tolist() == [False] * 10 + [True] * 7


def test_spans_at_both_ends_of_a_text():
    row = apply_spans(np.array([5, 6, 7], np.int32), np.array([0, 2]), np.array([1, 1]), np.array([10, 11, 12]), END)
    assert row.tokens.tolist() == [10, 6, 11, END, 10, 5, 11, 7, 12, END]


def test_the_papers_counts():
    assert SpanCorruption(0.15, 3.0).counts(500) == (75, 25)  # section 3.3.4
    assert SpanCorruption(0.15, 3.0).counts(512) == (77, 26)


@pytest.mark.parametrize("setting", SETTINGS)
def test_source_and_target_give_the_text_back(setting):
    spans = SpanCorruption(*setting)
    rng = np.random.default_rng(0)
    for length in (2, 3, 4, 5, 7, 16, 33, 100, 257):
        for ends in (True, False):
            tokens = text(length, 1, ends)
            for _ in range(3):
                row = spans.corrupt(tokens, vocabulary(), rng)
                assert np.array_equal(restored(row), tokens[:-1] if ends else tokens)
                assert row.mask.tolist() == [place >= row.prefix_length for place in range(len(row.tokens))]
                assert row.tokens.dtype == np.int32


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("ends", [True, False])
def test_as_many_tokens_and_spans_drop_out_as_are_counted(setting, ends):
    spans = SpanCorruption(*setting)
    rng = np.random.default_rng(0)
    for length in (2, 20, 128, 400):
        row = spans.corrupt(text(length, 2, ends), vocabulary(), rng)
        dropped, count = spans.counts(length - ends)
        assert len(row.tokens) - row.prefix_length == dropped + count + 2
        assert len(row.tokens) == length - ends + 2 * count + 3


def test_a_share_of_the_tokens_drops_out_in_spans_of_the_mean_length():
    for length in range(200, 500):
        dropped, count = SpanCorruption(0.15, 3.0).counts(length)
        assert abs(dropped - 0.15 * length) <= 0.5
        assert abs(dropped / count - 3.0) < 0.15
    assert SpanCorruption(0.5, 3.0).counts(10_000) == (5000, MOST_SPANS)
    assert SpanCorruption(0.9, 1.0).counts(10) == (9, 2)  # only one token sets spans apart


def test_all_divisions_are_alike():
    # 5 tokens, 3 of which drop out in 2 spans: 2 divisions of the 3 times 3 pairs of places among the 2 that stay
    spans = SpanCorruption(0.6, 1.5)
    rng = np.random.default_rng(0)
    drawn = [tuple(np.concatenate(spans.draw(5, rng)).tolist()) for _ in range(3000)]
    counts = {each: drawn.count(each) for each in set(drawn)}
    assert len(counts) == 6
    assert all(abs(count - 500) < 5 * (3000 * 1 / 6 * 5 / 6) ** 0.5 for count in counts.values())


def test_every_place_drops_out_about_equally_often_apart_from_the_ends():
    spans = SpanCorruption(0.25, 3.0)
    rng = np.random.default_rng(0)
    often = np.zeros(48)
    for _ in range(2000):
        for start, length in zip(*spans.draw(48, rng), strict=True):
            often[start : start + length] += 1
    assert abs(often.mean() / 2000 - 0.25) < 1e-9
    assert often[3:-3].min() / 2000 > 0.2 and often[0] > 0 and often[-1] > 0


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_text_of_at_most_the_raw_length_outgrows_the_row(setting):
    spans = SpanCorruption(*setting)
    rng = np.random.default_rng(0)
    longest_row = {}  # by the text's length
    for count in range(2, 140):
        rows = [spans.corrupt(text(count, 3, ends), vocabulary(), rng) for ends in (True, False)]
        longest_row[count] = max(len(row.tokens) for row in rows)
    for length in range(7, 140):
        fits = [count for count in longest_row if max(longest_row[each] for each in range(2, count + 1)) <= length]
        assert spans.raw_length(length) == max(fits)


def test_a_row_that_holds_no_text_is_the_users_error():
    assert SpanCorruption().raw_length(7) == 2
    with pytest.raises(UserError, match=r"max_length is 6; .* needs 7"):
        SpanCorruption().raw_length(6)


def test_the_cap_of_sentinels_holds_for_long_texts_too():
    spans = SpanCorruption(0.5, 1.0)
    longest = spans.raw_length(2048)
    assert longest == 2048 - 3 - 2 * MOST_SPANS
    row = spans.corrupt(text(longest, 4, ends=False), vocabulary(), np.random.default_rng(0))
    assert len(row.tokens) == 2048
    assert row.tokens[-2] == FIRST_SENTINEL + len(SENTINELS) - 1


def test_an_end_of_text_within_is_part_of_no_span():
    rng = np.random.default_rng(0)
    for length in (2, 4, 30):
        for _ in range(50):
            tokens = text(length, 5)
            tokens[rng.integers(length, size=1 + length // 5)] = END
            row = SpanCorruption(0.5, 3.0).corrupt(tokens, vocabulary(), rng)
            body = tokens[:-1] if tokens[-1] == END else tokens
            assert np.array_equal(restored(row), body)
            assert END not in row.tokens[row.prefix_length : -1]


def test_the_seed_decides():
    tokens = text(60, 6)
    rows = [SpanCorruption().corrupt(tokens, vocabulary(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(rows[0].tokens, rows[1].tokens)
    assert not np.array_equal(rows[0].tokens, rows[2].tokens)


@pytest.mark.parametrize("setting", [(0.0, 3.0), (1.0, 3.0), (0.15, 0.5), (float("nan"), 3.0), (0.15, float("nan"))])
def test_what_is_no_rate_or_length_is_the_users_error(setting):
    with pytest.raises(UserError, match="spans"):
        SpanCorruption(*setting)
