"""A data set is drawn in whole units, split without overlap, and reported in numbers that add up."""

import json

import pytest
import torch
from data_cases import rows_of, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.examples import build_examples

PAIRS = rows_of(*({"prompt": f"{n} + 1?", "chosen": str(n + 1) * (n + 1), "rejected": "no"} for n in range(9)))
CHATS = rows_of(*({"prompt": f"{n} + 1?", "response": str(n + 1) * (n + 1)} for n in range(9)))


def pairs():
    return build_examples("preference", PAIRS, tokenizer(), 100)


def chats():
    return build_examples("chat", CHATS, tokenizer(), 100)


def test_a_batch_holds_the_asked_rows_in_order():
    batch = chats().batch([4, 0]).validate()
    assert [row["row"] for row in batch.meta] == [4, 0]
    for place, unit in enumerate([4, 0]):
        [row] = chats().rows(unit)
        length = len(row.tokens)
        assert batch.lengths[place] == length
        assert batch.tokens[place, :length].tolist() == row.tokens.tolist()
        assert batch.action_mask[place, :length].tolist() == row.mask.tolist()
        assert not batch.action_mask[place, length:].any()
    assert "group_ids" not in batch


def test_a_preference_batch_keeps_the_chosen_row_before_the_rejected():
    batch = pairs().batch([5, 2, 7]).validate()
    assert batch.group_ids.tolist() == [0, 0, 1, 1, 2, 2]
    assert [row["row"] for row in batch.meta] == [5, 5, 2, 2, 7, 7]
    answers = [tokenizer().decode(tokens[mask]) for tokens, mask in zip(batch.tokens, batch.action_mask)]
    assert answers == [text + "<|im_end|>" for text in ("666666", "no", "333", "no", "88888888", "no")]


def test_a_token_column_follows_its_rows_through_splits_and_batches():
    examples = pairs()
    numbered = examples.with_token_column("ref_logprobs", torch.arange(float(len(examples.tokens))).numpy())
    _, held_out = numbered.split(4, seed=0)
    batch = held_out.batch([3, 1])
    for row, span in zip(batch.ref_logprobs, held_out.spans_of([3, 1]), strict=True):
        length = span.stop - span.start
        assert row[:length].tolist() == list(range(span.start, span.stop))
        assert (row[length:] == 0).all()
    assert [int(batch.tokens[0, 0])] == examples.tokens[int(batch.ref_logprobs[0, 0])].reshape(1).tolist()


@settings(deadline=None)
@given(st.integers(0, 8), st.integers(0, 2**32))
def test_a_split_holds_every_unit_once(holdout, seed):
    train, held_out = pairs().split(holdout, seed)
    assert len(held_out) == holdout
    drawn = [examples.rows(unit)[0].meta["row"] for examples in (train, held_out) for unit in range(len(examples))]
    assert sorted(drawn) == list(range(9))
    again = pairs().split(holdout, seed)[1]
    assert [again.rows(unit)[0].meta for unit in range(holdout)] == [
        held_out.rows(unit)[0].meta for unit in range(holdout)
    ]


def test_a_split_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(UserError, match=r"data\.holdout is 9, but there are 9"):
        pairs().split(9, 0)


def test_the_report_counts_what_the_batches_hold():
    for examples in (chats(), pairs()):
        batch = examples.batch(range(len(examples)))
        report = json.loads(json.dumps(examples.report.as_dict()))
        assert (report["rows"], report["units"]) == (9, 9)
        assert report["tokens"] == int(batch.lengths.sum())
        assert report["trained_tokens"] == int(batch.action_mask.sum())


def test_spans_are_the_text_in_pieces():
    assert chats().spans(0) == [
        ("<|im_start|>user\n0 + 1?<|im_end|>\n<|im_start|>assistant\n", False),
        ("1<|im_end|>", True),
    ]
    pieces = pairs().spans(0)
    assert [text for text, trained in pieces if trained] == ["1<|im_end|>", "no<|im_end|>"]
    assert "".join(text for text, _ in pieces).count("0 + 1?") == 2


def test_a_unit_of_a_split_is_the_same_row_as_before():
    _, held_out = chats().split(3, seed=1)
    for unit in range(3):
        row = held_out.rows(unit)[0].meta["row"]
        assert torch.equal(held_out.batch([unit]).tokens, chats().batch([row]).tokens)
