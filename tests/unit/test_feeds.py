"""Feeds: a number alone decides its row, full batches follow the order of passes, and blends keep the wanted shares."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_cases import rows_of, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tokens_rows import made, rows_in

from data.errors import UserError
from data.examples import Examples, build_examples
from data.feeds import Blend, Feed, Order, Shuffled, permutation, seed_of, shares
from data.tokens.mixture import Mixture

LENGTH = 32


def examples(count: int, said: str = "row") -> Examples:
    """Each unit is one row, whose meta names its row in the data."""
    return build_examples("text", rows_of(*({"text": f"{said} {n}"} for n in range(count))), tokenizer(), LENGTH)


def dialogues(count: int) -> Examples:
    rows = rows_of(*({"prompt": f"What is {n}?", "response": f"It is {n}."} for n in range(count)))
    return build_examples("chat", rows, tokenizer(), 4 * LENGTH)


FORTY = examples(40)
sizes = st.integers(1, 40).flatmap(lambda units: st.tuples(st.just(units), st.integers(1, units)))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return made(tmp_path_factory.mktemp("tokens"))


def blend(feeds: dict[str, Feed], seed: int = 3, **weights: float) -> Blend:
    return Blend(feeds, Mixture({name: feed.pass_rows for name, feed in feeds.items()}, weights or None, seed=seed))


def numbers_of(batch) -> list[int]:
    return [meta["row"] for meta in batch.meta]


def same(a, b) -> bool:
    return a.meta == b.meta and all(torch.equal(a.columns[name], b.columns[name]) for name in a.columns)


@given(sizes, st.integers(0, 2**32), st.integers(0, 5))
def test_a_pass_visits_each_unit_at_most_once_in_full_batches(size, seed, epoch):
    units, batch_size = size
    order = Order.of_batches(units, batch_size, seed)
    steps = units // batch_size
    batches = [order.batch(step, batch_size) for step in range(epoch * steps, (epoch + 1) * steps)]
    visited = [unit for batch in batches for unit in batch]
    assert {len(batch) for batch in batches} == {batch_size}
    assert len(set(visited)) == len(visited) > units - batch_size
    assert set(visited) <= set(range(units))
    assert visited == permutation(units, seed, epoch)[: len(visited)].tolist()


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_step_does_not_depend_on_those_before_it(seed, step):
    order = Order.of_batches(37, 4, seed)
    for earlier in range(0, 60, 7):
        order.batch(earlier, 4)
    assert order.batch(step, 4) == Order.of_batches(37, 4, seed).batch(step, 4)


def test_passes_and_seeds_differ():
    order = Order(50, 50, 0)
    assert order.batch(0, 50) != order.batch(1, 50) != Order(50, 50, 1).batch(1, 50)


def test_fewer_units_than_a_batch_is_the_users_error():
    with pytest.raises(UserError, match="a step takes 32 rows, but the data has 20"):
        Order.of_batches(20, 32, 0)


@settings(max_examples=50, deadline=None)
@given(sizes, st.integers(0, 2**32))
def test_a_shuffled_set_gives_the_rows_of_its_order(size, seed):
    units, batch_size = size
    data = replace(FORTY, order=FORTY.order[:units])
    feed, order = Shuffled(data, units - units % batch_size, seed), Order.of_batches(units, batch_size, seed)
    for step in range(2 * (units // batch_size) + 1):
        found = feed.batch(range(step * batch_size, (step + 1) * batch_size))
        assert numbers_of(found) == order.batch(step, batch_size)


def test_a_pass_of_all_units_shows_each_once_and_the_next_in_another_order():
    feed = Shuffled(examples(17), 17, 0)
    first, second = numbers_of(feed.batch(range(17))), numbers_of(feed.batch(range(17, 34)))
    assert sorted(first) == sorted(second) == list(range(17))
    assert first != second


def test_a_batch_over_the_end_of_a_pass_is_its_parts_under_each_other():
    feed = Shuffled(examples(10), 10, 4)
    assert numbers_of(feed.batch(range(7, 13))) == [
        number for n in range(7, 13) for number in numbers_of(feed.batch([n]))
    ]


def test_a_pass_cannot_take_more_than_there_is():
    with pytest.raises(ValueError, match="over 3 units cannot take 4"):
        Shuffled(examples(3), 4, 0)
    with pytest.raises(ValueError, match="cannot take 0"):
        Shuffled(examples(3), 0, 0)


def test_sets_of_the_same_rows_are_shown_in_different_orders():
    forth, back = (Shuffled(examples(30), 30, seed_of(7, name)) for name in ("forth", "back"))
    assert numbers_of(forth.batch(range(30))) != numbers_of(back.batch(range(30)))
    assert seed_of(7, "forth") == seed_of(7, "forth") != seed_of(8, "forth")


def test_a_blend_gives_the_asked_shares_in_every_stretch_and_each_set_in_its_own_order():
    feeds = {"small": Shuffled(examples(9), 9, 1), "large": Shuffled(examples(50), 50, 2)}
    mixed = blend(feeds, small=0.3, large=0.7)
    named = [(meta["data_set"], meta["row"]) for meta in mixed.batch(range(400)).meta]
    for start in range(0, 400, 100):
        share = Counter(name for name, _ in named[start : start + 100])["small"] / 100
        assert share == pytest.approx(0.3, abs=0.02)
    for name, feed in feeds.items():
        own = [row for each, row in named if each == name]
        assert own == numbers_of(feed.batch(range(len(own))))


def test_a_blends_batch_does_not_depend_on_how_the_numbers_are_dealt(corpus):
    feeds = {"web": rows_in(corpus), "plain": Shuffled(examples(20), 20, 1)}
    mixed = blend(feeds, web=0.5, plain=0.5)
    whole = mixed.batch(range(5, 45))
    parts = [mixed.batch(numbers) for numbers in (range(5, 6), range(6, 25), range(25, 45))]
    assert [meta for part in parts for meta in part.meta] == list(whole.meta)
    lengths = torch.cat([part.lengths for part in parts])
    assert torch.equal(lengths, whole.lengths)
    skipped = mixed.batch([40, 7])  # in any order, with gaps
    again = [mixed.batch([40]), mixed.batch([7])]
    assert same(skipped, type(skipped).cat(again))


def test_windows_of_several_documents_keep_all_of_their_rows(corpus):
    rows, plain = rows_in(corpus), Shuffled(examples(20), 20, 1)
    mixed = blend({"web": rows, "plain": plain}, web=0.9, plain=0.1)
    batch, located = mixed.batch(range(60)), [mixed.mixture.locate(number) for number in range(60)]
    assert len(batch) > 60
    windows = [number for name, number in located if name == "web"]
    tokens = [row.tokens.tolist() for window in windows for row in rows.rows(window)]
    found = [
        batch.tokens[row, : batch.lengths[row]].tolist()
        for row, meta in enumerate(batch.meta)
        if meta["data_set"] == "web"
    ]
    assert found == tokens
    batch.validate()


def test_texts_and_dialogues_go_into_one_batch():
    feeds = {"texts": Shuffled(examples(8), 8, 1), "chat": Shuffled(dialogues(8), 8, 1)}
    batch = blend(feeds, texts=1, chat=1).batch(range(16)).validate()
    trained = batch.action_mask.sum(1) + 1 == batch.lengths  # of texts, every token but the first
    assert trained.tolist() == [meta["data_set"] == "texts" for meta in batch.meta]


def test_a_set_of_weight_0_gives_no_row_and_counts_in_no_pass():
    feeds = {"used": Shuffled(examples(8), 8, 1), "unused": Shuffled(examples(5), 5, 1)}
    mixed = blend(feeds, used=1, unused=0)
    assert {meta["data_set"] for meta in mixed.batch(range(100)).meta} == {"used"}
    assert mixed.pass_rows == 8
    assert mixed.epochs(100) == {"used": 12.5}


def test_passes_are_told_by_set_and_of_a_corpus_by_source(corpus):
    feeds = {"web": rows_in(corpus), "plain": Shuffled(examples(20), 20, 1)}
    mixed = blend(feeds)
    rows = 3 * mixed.pass_rows
    count = Counter(mixed.mixture.locate(number)[0] for number in range(rows))
    passes = mixed.epochs(rows)
    assert passes["plain"] == count["plain"] / 20 == pytest.approx(3, rel=0.05)
    assert passes["web/books"] == feeds["web"].epochs(count["web"])["books"]
    assert set(passes) == {"web", "plain", "web/web", "web/books", "web/code"}


def test_rows_with_columns_that_others_lack_are_refused_by_name():
    plain, rated = examples(4), replace(examples(4), columns={"ratings": np.ones(4, np.float32)})
    with pytest.raises(UserError, match=r"data\.mix\.plain: its rows lack ratings, which rated has"):
        blend({"plain": Shuffled(plain, 4, 0), "rated": Shuffled(rated, 4, 0)})


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)), min_size=1),
    st.floats(1, 20),
)
def test_shares_without_weights_are_the_papers_rates(sets, temperature):
    """Raffel et al. 2020, section 3.5.2: r_m = min(e_m, K) / sum; then raised to 1/T and normalised."""
    rows, caps = {name: n for name, (n, _) in sets.items()}, {name: cap for name, (_, cap) in sets.items()}
    rates = np.array([min(rows[name], caps[name]) for name in rows], float)
    rates = (rates / rates.sum()) ** (1 / temperature)
    found = shares(rows, {}, caps, temperature)
    np.testing.assert_allclose(list(found.values()), rates / rates.sum(), rtol=1e-9)


def test_sets_without_a_weight_share_what_is_left():
    found = shares({"old": 900, "new": 50, "chat": 150}, {"old": 0.2})
    assert found == pytest.approx({"old": 0.2, "new": 0.2, "chat": 0.6})
    assert shares({"a": 5, "b": 7}, {"a": 20, "b": 80}) == {"a": 20, "b": 80}
    assert shares({"a": 5, "b": 7}, {"a": 1}) == {"a": 1, "b": 0}


def test_a_numbers_rows_are_those_of_its_batch():
    parts = {"a": Shuffled(examples(5), 5, 0), "b": Shuffled(examples(7), 7, 1)}
    for feed in (parts["a"], Blend(parts, Mixture({"a": 5, "b": 7}, seed=0))):
        for number in range(20):
            (row,), batch = feed.rows(number), feed.batch([number])
            assert row.tokens.tolist() == batch.tokens[0].tolist() and row.meta == batch.meta[0]
