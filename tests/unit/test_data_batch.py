"""The batch keeps its columns' shapes and types through selection, concatenation and pickling, and names what breaks them."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.batch import COLUMNS, Batch

rows = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def batch_of(lengths: list[int], first_token: int = 1) -> Batch:
    """Rows of distinct tokens with every column that a step may have."""
    tokens = [[first_token + 10 * row + place for place in range(length)] for row, length in enumerate(lengths)]
    masks = [[place > 0 for place in range(length)] for length in lengths]
    batch = Batch.from_rows(tokens, masks, [{"row": row} for row in range(len(lengths))])
    generator = torch.Generator().manual_seed(0)
    shapes = {"row": (len(lengths),), "token": batch.tokens.shape}
    values = {
        name: torch.rand(shapes[kind], generator=generator) for name, (kind, _) in COLUMNS.items() if name not in batch
    }
    return batch.with_columns(**values)


def same(first: Batch, second: Batch) -> bool:
    return (
        first.meta == second.meta
        and first.columns.keys() == second.columns.keys()
        and all(torch.equal(first.columns[name], second.columns[name]) for name in first.columns)
        and all(first.columns[name].dtype == second.columns[name].dtype for name in first.columns)
    )


@given(rows)
def test_a_batch_survives_pickling(lengths):
    batch = batch_of(lengths)
    restored = pickle.loads(pickle.dumps(batch))
    assert same(restored, batch.validate())
    restored.tokens[0, 0] = 7  # the restored tensors are writable


@given(rows)
def test_rows_are_padded_to_the_right(lengths):
    batch = batch_of(lengths)
    assert batch.width == max(lengths)
    assert batch.attention_mask.sum(1).tolist() == lengths
    assert not batch.tokens[~batch.attention_mask].any()
    assert not batch.action_mask[~batch.attention_mask].any()


@given(
    rows.flatmap(
        lambda lengths: st.tuples(st.just(lengths), st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    )
)
def test_selected_rows_are_the_asked_ones_trimmed_to_the_longest(case):
    lengths, picked = case
    batch = batch_of(lengths)
    part = batch.select(picked).validate()
    assert part.width == max(lengths[row] for row in picked)
    assert [meta["row"] for meta in part.meta] == picked
    for place, row in enumerate(picked):
        for name, value in part.columns.items():
            expected = batch.columns[name][row]
            assert torch.equal(value[place], expected[: part.width] if expected.ndim else expected)


@given(rows, rows)
def test_concatenated_batches_give_their_rows_back(first, second):
    one, two = batch_of(first), batch_of(second, first_token=1000)
    joined = Batch.cat([one, two]).validate()
    assert joined.width == max(first + second)
    assert same(joined.select(range(len(one))), one)
    assert same(joined.select(range(len(one), len(joined))), two)


def test_batches_of_different_columns_are_not_concatenated():
    batch = batch_of([2])
    with pytest.raises(ValueError, match="cannot concatenate"):
        Batch.cat([batch, batch.keep(["tokens", "lengths", "action_mask"])])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_groups_hold_every_row_once_in_order_of_appearance(ids):
    groups = batch_of([2] * len(ids)).with_columns(group_ids=ids).groups()
    assert sorted(row for group in groups for row in group.tolist()) == list(range(len(ids)))
    assert [ids[group[0]] for group in groups] == list(dict.fromkeys(ids))
    assert all({ids[row] for row in group.tolist()} == {ids[group[0]]} for group in groups)


def test_kept_columns_travel_without_meta():
    kept = batch_of([2, 3]).keep(["tokens", "lengths", "unknown"])
    assert (set(kept.columns), kept.meta) == ({"tokens", "lengths"}, ())


def test_columns_are_cast_to_their_declared_type():
    batch = batch_of([2, 3]).with_columns(rewards=[1, 2], group_ids=[0.0, 1.0])
    assert (batch.rewards.dtype, batch.group_ids.dtype) == (torch.float32, torch.int32)


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("rewards", (3,), "(2,)"),
        ("rewards", (2, 3), "(2,)"),
        ("values", (2,), "(2, 3)"),
        ("own", (3,), "(2,) or (2, 3)"),
    ],
)
def test_a_column_of_the_wrong_shape_is_refused(name, shape, wanted):
    with pytest.raises(ValueError) as error:
        batch_of([2, 3]).with_columns(**{name: torch.zeros(shape)})
    assert repr(name) in str(error.value)
    assert str(error.value).endswith(f"wanted {wanted}")


def test_an_unknown_column_names_those_that_are_there():
    with pytest.raises(AttributeError, match="no column 'reward'; it has action_mask, advantages"):
        _ = batch_of([2]).reward


def test_validation_finds_what_breaks_the_rules():
    batch = batch_of([2, 3])
    with pytest.raises(ValueError, match="row 0: action_mask is set beyond"):
        batch.with_columns(action_mask=[[False, True, True]] * 2).validate()
    with pytest.raises(ValueError, match="first token"):
        batch.with_columns(action_mask=[[True, True, False]] * 2).validate()
    with pytest.raises(ValueError, match="lengths must lie in"):
        batch.with_columns(lengths=[0, 3]).validate()
    with pytest.raises(ValueError, match=r"'rewards' is torch\.float64"):
        Batch({**batch.columns, "rewards": batch.rewards.double()}).validate()
    with pytest.raises(ValueError, match="row 0: 2 tokens but 1 mask"):
        Batch.from_rows([[1, 2]], [[True]])
