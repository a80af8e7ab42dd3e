"""The mixture: every stretch of rows has the wanted shares, and every count equals the count by walking over the rows."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.tokens.mixture import Mixture, sum_of_floors

WINDOWS = {"web": 9000, "books": 700, "code": 40}
SCHEDULE = ((0.2, {"web": 8, "books": 1, "code": 1}), (0.7, {"web": 1, "books": 0, "code": 3}))


def walked(mixture: Mixture, stop: int) -> list[tuple[str, int]]:
    """What `locate` must say, from the sources alone: each row's place is the number of its source's rows before."""
    seen: Counter[str] = Counter()
    places = []
    for row in range(stop):
        source, _ = mixture.locate(row)
        places.append((source, seen[source]))
        seen[source] += 1
    return places


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 50), st.integers(0, 200), st.integers(-300, 300))
def test_the_sum_of_floors_is_the_one_added_up(count, divisor, factor, offset):
    assert sum_of_floors(count, divisor, factor, offset) == sum((factor * i + offset) // divisor for i in range(count))


@pytest.mark.parametrize(
    "mixture",
    [
        Mixture(WINDOWS, seed=1),
        Mixture(WINDOWS, {"web": 0, "books": 2, "code": 0.01}, seed=2),
        Mixture(WINDOWS, schedule=SCHEDULE, total_rows=2500, seed=3),
        Mixture(WINDOWS, schedule=SCHEDULE, total_rows=7, seed=3),
        Mixture({"alone": 5}, seed=4),
    ],
    ids=["sizes", "weights", "schedule", "short schedule", "one source"],
)
def test_a_rows_place_in_its_source_is_the_number_of_the_sources_rows_before(mixture):
    places = walked(mixture, 3000)
    assert [mixture.locate(row) for row in range(3000)] == places
    counts = Counter(source for source, _ in places[:2000])
    assert mixture.rows_before(2000) == {source: counts[source] for source in mixture.windows}
    assert mixture.epochs(2000) == {name: counts[name] / count for name, count in mixture.windows.items()}


@settings(deadline=None)
@given(st.integers(0, 10**12), st.integers(0, 2**40), st.lists(st.floats(0.01, 1), min_size=1, max_size=6))
def test_every_stretch_of_a_thousand_rows_has_the_asked_shares_within_one_percent(start, seed, weights):
    names = [f"s{number}" for number in range(len(weights))]
    mixture = Mixture(dict.fromkeys(names, 10), dict(zip(names, weights)), seed=seed)
    before, after = mixture.rows_before(start), mixture.rows_before(start + 1000)
    for name, weight in zip(names, weights):
        assert abs((after[name] - before[name]) / 1000 - weight / sum(weights)) < 0.01


def test_a_schedule_is_followed_and_holds_beyond_its_ends():
    mixture = Mixture(WINDOWS, schedule=SCHEDULE, total_rows=100_000)

    def shares(start: int, stop: int) -> list[float]:
        before, after = mixture.rows_before(start), mixture.rows_before(stop)
        return [(after[name] - before[name]) / (stop - start) for name in WINDOWS]

    assert shares(0, 20_000) == pytest.approx([0.8, 0.1, 0.1], abs=0.002)
    assert shares(70_000, 100_000) == pytest.approx([0.25, 0, 0.75], abs=0.002)
    assert shares(100_000, 300_000) == pytest.approx([0.25, 0, 0.75], abs=0.002)
    # halfway between the two, weights are 4.5, 0.5 and 2
    assert shares(44_500, 45_500) == pytest.approx([4.5 / 7, 0.5 / 7, 2 / 7], abs=0.01)


def test_temperature_lifts_small_sources_as_the_root_of_their_size():
    shares = Mixture({"large": 10_000, "small": 100}, temperature=2.0).shares(0)
    assert shares == pytest.approx({"large": 10 / 11, "small": 1 / 11})
    assert Mixture({"large": 10_000, "small": 100}).shares(0)["small"] == pytest.approx(100 / 10_100)
    assert Mixture({"large": 10_000, "small": 100}, temperature=1e9).shares(0)["small"] == pytest.approx(0.5)


def test_far_rows_are_found_without_walking_there():
    mixture = Mixture(WINDOWS, {"web": 1, "books": 1, "code": 2}, seed=9)
    far = 10**15
    assert sum(mixture.rows_before(far).values()) == far
    source, place = mixture.locate(far)
    assert mixture.rows_before(far)[source] == place
    assert mixture.rows_before(far + 1)[source] == place + 1


def test_another_seed_gives_another_sequence_and_the_same_seed_the_same():
    def sources(seed):
        return [Mixture(WINDOWS, temperature=3, seed=seed).locate(row)[0] for row in range(200)]

    assert sources(0) == sources(0) != sources(1)


def test_a_pass_has_the_windows_of_all_sources_that_have_a_weight():
    assert Mixture(WINDOWS).pass_rows == 9740
    assert Mixture(WINDOWS, {"web": 1, "books": 0, "code": 1}).pass_rows == 9040
    assert Mixture(WINDOWS, schedule=SCHEDULE).pass_rows == 9740


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"web": 1, "books": 1}}, "no weight for source 'code'"),
        ({"weights": {"web": 1, "books": 1, "code": 1, "cod": 1}}, "there is no source 'cod'"),
        ({"weights": {"web": -1, "books": 1, "code": 1}}, "must be 0 or more"),
        ({"weights": {"web": float("nan"), "books": 1, "code": 1}}, "must be 0 or more"),
        ({"weights": dict.fromkeys(WINDOWS, 0)}, "all weights are 0"),
        ({"weights": dict.fromkeys(WINDOWS, 1), "schedule": SCHEDULE}, "keep one of them"),
        ({"schedule": SCHEDULE[::-1]}, "must ascend"),
        ({"temperature": 0}, "above 0"),
        ({"windows": {"web": 0}}, "no source has any tokens"),
        ({"windows": {"web": 0, "books": 3}, "weights": {"web": 1, "books": 1}}, "has no tokens"),
    ],
)
def test_weights_that_do_not_fit_are_the_users_error(options, message):
    with pytest.raises(UserError, match=message):
        Mixture(**{"windows": WINDOWS, **options})
