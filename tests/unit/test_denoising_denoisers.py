"""The mixture of denoisers: UL2's seven, each behind its mode token, equally often."""

import numpy as np
import pytest
from denoising_cases import END, restored, text, vocabulary
from scipy import stats

from data.denoising.corruption import Corrupted
from data.denoising.denoisers import EXTREME, REGULAR, SEQUENTIAL, Continuation, MixtureOfDenoisers, after_mode
from data.denoising.spans import SENTINELS, SpanCorruption
from data.errors import UserError


def without_mode(row: Corrupted) -> Corrupted:
    return Corrupted(row.tokens[1:], row.mask[1:], row.prefix_length - 1)


def modes_drawn(mixture: MixtureOfDenoisers, draws: int, length: int = 64) -> list[str]:
    names = {vocabulary().ids[name]: name for name in (REGULAR, SEQUENTIAL, EXTREME)}
    rng = np.random.default_rng(0)
    return [names[int(mixture.corrupt(text(length, 0), vocabulary(), rng).tokens[0])] for _ in range(draws)]


def test_a_mode_comes_before_the_source():
    row = Corrupted(np.array([5, 10, END, 10, 6, 11, END], np.int32), np.arange(7) >= 3, 3)
    found = after_mode(row, 2)
    assert found.tokens.tolist() == [2, 5, 10, END, 10, 6, 11, END] and found.tokens.dtype == np.int32
    assert found.mask.tolist() == [False] * 4 + [True] * 4
    assert found.prefix_length == 4


def test_the_papers_seven_denoisers():
    # Tay et al. 2022, table 1
    assert [mode for mode, _ in MixtureOfDenoisers().denoisers] == [REGULAR] * 2 + [EXTREME] * 4 + [SEQUENTIAL]
    spans = [(each.mean_span, each.rate) for _, each in MixtureOfDenoisers().denoisers[:-1]]
    assert spans == [(3, 0.15), (8, 0.15), (3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5)]
    assert MixtureOfDenoisers().special_tokens == (REGULAR, EXTREME, SEQUENTIAL, *SENTINELS)


def test_all_denoisers_are_drawn_equally_often():
    drawn = modes_drawn(MixtureOfDenoisers(), 2100, length=8)
    counts = [drawn.count(mode) for mode in (REGULAR, SEQUENTIAL, EXTREME)]
    assert stats.chisquare(counts, [600, 300, 1200]).pvalue > 1e-4


def test_a_continuation_by_hand():
    tokens = np.array([300, 301, 302, 303, END], np.int32)
    ends = {
        1: [300, 301, 302, 10, END, 10, 303, 11, END],
        2: [300, 301, 10, END, 10, 302, 303, 11, END],
    }
    rng = np.random.default_rng(0)
    rows = [Continuation(0.25).corrupt(tokens, vocabulary(), rng).tokens.tolist() for _ in range(50)]
    assert {len(tokens) for tokens in rows} == {9}
    assert all(row in ends.values() for row in rows) and all(row in rows for row in ends.values())


def test_a_continuation_hides_a_quarter_on_average():
    rng = np.random.default_rng(0)
    hidden = np.array([Continuation(0.25).draw(100, rng)[1][0] for _ in range(2000)])
    assert (hidden.min(), hidden.max()) == (1, 50)
    assert abs(hidden.mean() - 25.5) < 4 * hidden.std() / 2000**0.5


def test_source_and_target_give_the_text_back_whatever_the_mode():
    rng = np.random.default_rng(0)
    for length in (2, 3, 5, 17, 130):
        for ends in (True, False):
            tokens = text(length, 1, ends)
            for _ in range(30):
                row = MixtureOfDenoisers().corrupt(tokens, vocabulary(), rng)
                assert np.array_equal(restored(without_mode(row)), tokens[:-1] if ends else tokens)
                assert row.mask.tolist() == [place >= row.prefix_length for place in range(len(row.tokens))]


@pytest.mark.parametrize(
    "mixture",
    [MixtureOfDenoisers(), MixtureOfDenoisers(regular=(), extreme=((3, 0.5),)), MixtureOfDenoisers((), (), 0.25)],
    ids=["the paper's", "one of spans", "sequential"],
)
def test_no_text_of_at_most_the_raw_length_outgrows_the_row(mixture):
    rng = np.random.default_rng(0)
    for length in (8, 9, 20, 64, 100):
        longest = mixture.raw_length(length)
        rows = [
            len(mixture.corrupt(text(longest, 2, ends), vocabulary(), rng).tokens)
            for ends in (True, False)
            for _ in range(60)
        ]
        assert max(rows) <= length
        longer = [len(mixture.corrupt(text(longest + 1, 2, False), vocabulary(), rng).tokens) for _ in range(80)]
        assert max(longer) > length


def test_a_row_that_holds_no_text_is_the_users_error():
    with pytest.raises(UserError, match=r"max_length is 7; .* needs 8"):
        MixtureOfDenoisers().raw_length(7)


def test_the_seed_decides():
    tokens = text(60, 3)
    rows = [MixtureOfDenoisers().corrupt(tokens, vocabulary(), np.random.default_rng(seed)) for seed in (1, 1, 3)]
    assert np.array_equal(rows[0].tokens, rows[1].tokens)
    assert not np.array_equal(rows[0].tokens, rows[2].tokens)


def test_a_mixture_has_only_the_modes_and_sentinels_that_it_uses():
    assert MixtureOfDenoisers((), ()).special_tokens == (SEQUENTIAL, *SENTINELS[:2])
    assert MixtureOfDenoisers(extreme=(), sequential=None).special_tokens == (REGULAR, *SENTINELS)
    assert set(modes_drawn(MixtureOfDenoisers(regular=()), 60)) == {EXTREME, SEQUENTIAL}
    assert MixtureOfDenoisers(extreme=()).denoisers[0][1] == SpanCorruption(0.15, 3)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"regular": (), "extreme": (), "sequential": None}, "none is left"),
        ({"regular": ((3, 1.5),)}, "rate is 1.5"),
        ({"extreme": ((0, 0.5),)}, "mean_span is 0"),
        ({"sequential": 0.75}, "sequential is 0.75"),
    ],
)
def test_what_is_no_denoiser_is_the_users_error(parameters, message):
    with pytest.raises(UserError, match=message):
        MixtureOfDenoisers(**parameters)
