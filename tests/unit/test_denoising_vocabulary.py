"""The vocabulary for denoising: special tokens, and words where the tokenizers' own pre-tokenizers find them."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from data_cases import LINES, shared_file
from tokenizers import BertWordPieceTokenizer, SentencePieceUnigramTokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data.denoising.denoisers import MixtureOfDenoisers
from data.denoising.masking import Masking
from data.denoising.spans import SENTINELS
from data.denoising.vocabulary import MASK, Vocabulary, extend
from data.errors import UserError
from data.tokenizer import load_tokenizer
from data.tokenizer_training import train_tokenizer

KINDS = ("bpe", "wordpiece", "unigram")
ALL = (MASK, *MixtureOfDenoisers().special_tokens)


@cache
def ours(kind: str) -> PreTrainedTokenizerBase:
    return train_tokenizer(LINES, 800, kind, ALL)


@cache
def play() -> str:
    return Path(shared_file("tinyshakespeare.txt")).read_text()[:60_000]


@cache
def of_the_play(kind: str) -> PreTrainedTokenizerBase:
    return train_tokenizer(play().split("\n\n"), 1200, kind, [MASK])


def bert() -> PreTrainedTokenizerBase:
    public = BertWordPieceTokenizer(lowercase=True)
    public.train_from_iterator(LINES, vocab_size=120, show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=public._tokenizer, mask_token="[MASK]", eos_token="[SEP]", pad_token="[PAD]", cls_token="[CLS]"
    )


def sentencepiece() -> PreTrainedTokenizerBase:
    public = SentencePieceUnigramTokenizer()
    public.train_from_iterator(
        LINES, vocab_size=90, special_tokens=["</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    return PreTrainedTokenizerFast(tokenizer_object=public._tokenizer, eos_token="</s>")


def starts_by_ids(word_ids: list[int | None]) -> list[bool]:
    return [place == 0 or word != word_ids[place - 1] for place, word in enumerate(word_ids)]


def found(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[str], list[bool], list[bool]]:
    """The text's pieces, where we say that words begin, and where the tokenizer says so."""
    encoded = tokenizer(text, add_special_tokens=False)
    starts = Vocabulary.of(tokenizer).word_starts(np.array(encoded["input_ids"], np.int32))
    return encoded.tokens(), starts.tolist(), starts_by_ids(encoded.word_ids())


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_found_by_name_and_no_ordinary_one(kind):
    tokenizer = ours(kind)
    vocabulary = Vocabulary.of(tokenizer, ALL)
    assert {name: tokenizer.convert_ids_to_tokens(number) for name, number in vocabulary.ids.items()} == dict(
        zip(ALL, ALL, strict=True)
    )
    assert vocabulary.end == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert set(np.flatnonzero(vocabulary.special)) == set(range(4 + len(ALL)))
    assert vocabulary.ordinary.tolist() == list(range(4 + len(ALL), len(tokenizer)))
    assert vocabulary.ordinary.dtype == np.int32


def test_words_of_wordpiece_begin_where_the_pre_tokenizer_says():
    _, starts, by_tokenizer = found(of_the_play("wordpiece"), play())
    assert starts == by_tokenizer and 0.3 < np.mean(starts) < 0.9


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_words_of_bytes_begin_where_the_pre_tokenizer_says_but_that_an_apostrophe_is_a_mark(kind):
    pieces, starts, by_tokenizer = found(of_the_play(kind), play())
    differ = [place for place in range(len(starts)) if starts[place] != by_tokenizer[place]]
    assert all("'" in pieces[place - 1] for place in differ)  # "'re" is one of its words, "'st" two
    assert len(differ) < 0.002 * len(starts)


def test_words_by_hand():
    # pieces of a small byte-level vocabulary: Ġ is a space, Ċ a line end, and 猫 three bytes
    pieces, starts, _ = found(ours("bpe"), "the cat\n\non 12x, mat — 猫 と")
    assert pieces == ["the", "Ġcat", "Ċ", "Ċ", "on", "Ġ", "1", "2", "x", ",", "Ġmat", "ĠâĢĶ", "ĠçĮ«", "Ġãģ¨"]
    assert starts == [True, True, True, True, True, True, False, False, True, True, True, True, True, True]


def test_bytes_of_one_character_stay_with_the_letters_beside_them():
    pieces, starts, _ = found(ours("bpe"), "cat犭 猫é x犭at")
    assert pieces.count("ç") == 2 and "ĠçĮ«" in pieces  # 犭 comes in bytes, 猫 whole
    words = "".join(" " * start + piece for piece, start in zip(pieces, starts, strict=True)).split()
    assert words == ["catçĬŃ", "ĠçĮ«Ã©", "ĠxçĬŃat"]


def test_words_of_berts_pieces():
    pieces, starts, by_tokenizer = found(bert(), "the cats sat, user assistants!")
    assert any(piece.startswith("##") for piece in pieces)
    assert starts == [not piece.startswith("##") for piece in pieces] == by_tokenizer


def test_words_of_sentencepiece_begin_at_its_blanks_and_at_marks():
    pieces, starts, by_tokenizer = found(sentencepiece(), "the cats sat user mat? assistants")
    assert [start for start, piece in zip(starts, pieces, strict=True) if piece != "?"] == [
        start for start, piece in zip(by_tokenizer, pieces, strict=True) if piece != "?"
    ]
    assert starts[pieces.index("?")] and not by_tokenizer[pieces.index("?")]


def test_special_tokens_are_words_of_their_own():
    tokenizer = ours("bpe")
    pieces, starts, _ = found(tokenizer, f"on{MASK}{MASK}on<|endoftext|>on")
    assert pieces == ["on", MASK, MASK, "on", "<|endoftext|>", "on"]
    assert starts == [True] * 6


def test_berts_mask_stands_for_ours():
    tokenizer = bert()
    vocabulary = Vocabulary.of(tokenizer, Masking().special_tokens)
    assert vocabulary.ids == {MASK: tokenizer.mask_token_id}
    assert tokenizer.mask_token_id not in vocabulary.ordinary


def test_words_added_to_a_tokenizer_are_ordinary():
    tokenizer = train_tokenizer(LINES, 300, "bpe")
    tokenizer.add_tokens(["猫犬"])
    vocabulary = Vocabulary.of(tokenizer)
    added = tokenizer.convert_tokens_to_ids("猫犬")
    assert added in vocabulary.ordinary and not vocabulary.special[added]
    pieces, starts, _ = found(tokenizer, "on the 猫犬on")
    assert list(zip(pieces, starts, strict=True)) == [
        ("on", True), ("Ġthe", True), ("Ġ", True), ("猫犬", False), ("on", False)
    ]  # fmt: skip


def test_missing_special_tokens_are_named_with_the_way_out():
    tokenizer = train_tokenizer(LINES, 300, "bpe")
    with pytest.raises(UserError, match=r"lacks <mask>, .*tokenizer\.special_tokens"):
        Vocabulary.of(tokenizer, Masking().special_tokens)
    with pytest.raises(UserError, match="lacks <extra_id_0> and 99 others"):
        Vocabulary.of(tokenizer, SENTINELS)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end-of-text token"):
        Vocabulary.of(tokenizer)


def test_a_tokenizer_gains_what_it_lacks_and_keeps_what_it_has(tmp_path):
    tokenizer = train_tokenizer(["the king and the queen"], 300)
    size, special = len(tokenizer), set(tokenizer.all_special_tokens)
    for _ in range(2):  # the second time nothing is missing
        extend(tokenizer, ("<mask>", "<extra_id_0>"))
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert len(again) == size + 2 and again.mask_token == "<mask>"
    assert set(again.all_special_tokens) == special | {"<mask>", "<extra_id_0>"}
    assert Vocabulary.of(again, ("<mask>", "<extra_id_0>")).ids == {"<mask>": size, "<extra_id_0>": size + 1}
