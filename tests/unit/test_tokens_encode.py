"""The parts of a long text have the ids of the whole text, except with tokenizers that put a prefix before every text."""

import pytest
from data_cases import LINES
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from data.tokens import encode as encoding
from data.tokens.encode import encode

TEXT = " ".join(LINES * 8) + " and, in the end: it's  done\n\n at 10 o'clock"


def tokenizer_of(normalizer, pre_tokenizer) -> PreTrainedTokenizerFast:
    plain = Tokenizer(models.BPE())
    if normalizer:
        plain.normalizer = normalizer
    if pre_tokenizer:
        plain.pre_tokenizer = pre_tokenizer
    plain.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() + ["\u2581"] + sorted(set(TEXT))
    plain.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=plain)


def in_parts(tokenizer, monkeypatch) -> tuple[list[int], int]:
    """The ids, and the number of parts."""
    monkeypatch.setattr(encoding, "PIECE_CHARACTERS", 40)
    monkeypatch.setattr(encoding.cuts, "__defaults__", (40,))
    found = list(encode(tokenizer, [("key", TEXT)]))
    assert [last for _, _, last in found] == [False] * (len(found) - 1) + [True]
    return [token for _, ids, _ in found for token in ids], len(found)


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Metaspace(prepend_scheme="always"),
    ],
    ids=["byte-level", "byte-level with a space before", "metaspace"],
)
def test_the_parts_ids_are_those_of_the_whole(pre_tokenizer, monkeypatch):
    tokenizer = tokenizer_of(None, pre_tokenizer)
    whole = tokenizer.backend_tokenizer.encode(TEXT).ids
    ids, parts = in_parts(tokenizer, monkeypatch)
    assert parts > 5
    assert ids == whole


def test_a_normalizer_that_puts_something_before_a_text_does_so_before_each_part(monkeypatch):
    before = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer = tokenizer_of(before, pre_tokenizers.Split("\u2581", "merged_with_next"))
    whole = tokenizer.backend_tokenizer.encode(TEXT).ids
    ids, parts = in_parts(tokenizer, monkeypatch)
    assert len(ids) == len(whole) + parts - 1
