"""Tokenizers of three kinds: every text comes back, training is repeatable, and they are as short as the plain library's."""

import hashlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from data_cases import LINES, shared_file
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    BertWordPieceTokenizer,
    ByteLevelBPETokenizer,
    SentencePieceUnigramTokenizer,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)

from data.corpus.document import Document
from data.denoising.vocabulary import extend
from data.errors import UserError
from data.tokenizer import CHATML, load_tokenizer, stop_token_ids, tokenizer_fingerprint
from data.tokenizer_training import BYTES, fertility, train_tokenizer
from data.tokens.encode import PIECE_CHARACTERS, cuts, encode

KINDS = ("bpe", "wordpiece", "unigram")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
awkward = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            ["##", "##a", "…", "…a", "▁", "\u2028", "<|im_end|>", "<|endoftext|>", "<|im", "[UNK]", "<unk>"]
        ),
        st.sampled_from(["\r\n", "\0", "\t ", "  \n\n ", " ", "a" * 200, "猫" * 90, "'ll", "\U0001f600", "\u0301"]),
    ),
    max_size=8,
).map("".join)


@cache
def trained(kind: str):
    return train_tokenizer(LINES, 600, kind, ["<|tool|>"])


@cache
def play() -> tuple[str, ...]:
    return tuple(Path(shared_file("tinyshakespeare.txt")).read_text()[:150_000].split("\n\n"))


def one_long_text() -> list[str]:
    return ["\n\n".join(play()) * (PIECE_CHARACTERS // 150_000 + 1)]


@cache
def of_the_play(kind: str):
    return train_tokenizer(play(), 2000, kind)


def tokens_per_byte(lengths: list[int]) -> float:
    return sum(lengths) / sum(len(text.encode()) for text in play())


@pytest.mark.parametrize("kind", KINDS)
@given(awkward)
def test_every_text_survives_encoding(kind, text):
    assert trained(kind).decode(trained(kind).encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_all_bytes_are_known_and_no_token_stands_for_the_unknown(kind):
    vocabulary = trained(kind).get_vocab()
    assert len(BYTES) == 256 and set(BYTES) <= vocabulary.keys()
    if kind == "wordpiece":
        assert {"…" + byte for byte in BYTES} <= vocabulary.keys()
    assert trained(kind).unk_token is None
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_come_first_and_are_one_token_each(kind):
    for number, token in enumerate([*SPECIAL, "<|tool|>"]):
        assert trained(kind)(f"a{token}b")["input_ids"].count(number) == 1
        assert trained(kind).convert_ids_to_tokens(number) == token


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_is_as_large_as_asked_where_the_text_allows(kind):
    assert len(of_the_play(kind)) == 2000
    assert len(trained(kind)) <= 600


@pytest.mark.parametrize("texts", [play, one_long_text], ids=["play", "longer than is read at once"])
def test_bpe_is_that_of_the_plain_trainer(texts):
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=SPECIAL, initial_alphabet=BYTES, show_progress=False)
    plain.train_from_iterator(texts(), trainer)
    ours, theirs = (json.loads(each.to_str()) for each in (train_tokenizer(texts(), 2000).backend_tokenizer, plain))
    ours.pop("post_processor"), theirs.pop("post_processor")  # transformers sets one that adds nothing
    assert ours == theirs


def test_bpe_takes_as_many_tokens_as_the_public_byte_level_tokenizer():
    public = ByteLevelBPETokenizer()
    public.train_from_iterator(play(), vocab_size=2000, special_tokens=SPECIAL, min_frequency=0, show_progress=False)
    ours = of_the_play("bpe")(list(play()))["input_ids"]
    print(f"tokens per byte, bpe: {tokens_per_byte([len(ids) for ids in ours]):.4f}")
    assert ours == [encoding.ids for encoding in public.encode_batch(list(play()))]


def test_wordpiece_takes_at_most_as_many_tokens_more_as_the_public_one_loses_line_ends_and_has_bytes_in_its_vocabulary():
    public = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    public.train_from_iterator(play(), vocab_size=2000, min_frequency=0, show_progress=False)
    lost = [text.count("\n") for text in play()]
    theirs = [len(encoding.ids) for encoding in public.encode_batch(list(play()), add_special_tokens=False)]
    ours = [len(ids) for ids in of_the_play("wordpiece")(list(play()))["input_ids"]]
    print(f"tokens per byte, wordpiece: {tokens_per_byte(ours):.4f}, the public one {tokens_per_byte(theirs):.4f}")
    assert tokens_per_byte(ours) - tokens_per_byte(lost) < 1.15 * tokens_per_byte(theirs)


def test_unigram_takes_fewer_tokens_than_the_plain_trainer_with_the_same_words_and_a_tenth_more_than_the_public_one():
    plain = Tokenizer(models.Unigram())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.UnigramTrainer(
        vocab_size=2000, special_tokens=SPECIAL, initial_alphabet=BYTES, show_progress=False
    )
    plain.train_from_iterator(play(), trainer)
    public = SentencePieceUnigramTokenizer()  # its words end at blanks alone, and it loses line ends
    public.train_from_iterator(
        play(), vocab_size=2000, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    lost = [text.count("\n") for text in play()]
    same_words, theirs = (
        [len(encoding.ids) for encoding in other.encode_batch(list(play()))] for other in (plain, public)
    )
    ours = [len(ids) for ids in of_the_play("unigram")(list(play()))["input_ids"]]
    others = f"the plain trainer {tokens_per_byte(same_words):.4f}, the public one {tokens_per_byte(theirs):.4f}"
    print(f"tokens per byte, unigram: {tokens_per_byte(ours):.4f}, {others}")
    assert tokens_per_byte(ours) < 0.97 * tokens_per_byte(same_words)
    assert tokens_per_byte(ours) - tokens_per_byte(lost) < 1.1 * tokens_per_byte(theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_loaded_by_transformers_with_the_same_ids(kind, tmp_path):
    of_the_play(kind).save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded(list(play()[:50]))["input_ids"] == of_the_play(kind)(list(play()[:50]))["input_ids"]
    assert loaded.chat_template == CHATML
    assert stop_token_ids(loaded) == stop_token_ids(of_the_play(kind))
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(of_the_play(kind))


def test_fingerprints_are_of_the_tokens_and_of_nothing_that_a_call_leaves_behind():
    fingerprints = {kind: tokenizer_fingerprint(trained(kind)) for kind in KINDS}
    assert len(set(fingerprints.values())) == 3
    trained("bpe")(LINES, padding=True, truncation=True, max_length=4)
    assert tokenizer_fingerprint(trained("bpe")) == fingerprints["bpe"]


TRAIN_ALL = """
import hashlib, sys
from pathlib import Path
from data.tokenizer_training import train_tokenizer
texts = Path(sys.argv[1]).read_text()[:100_000].split("\\n\\n")
for kind in ("bpe", "wordpiece", "unigram"):
    print(hashlib.md5(train_tokenizer(texts, 1200, kind).backend_tokenizer.to_str().encode()).hexdigest())
"""


def test_training_gives_the_same_bytes_in_another_process_with_another_number_of_threads():
    file = shared_file("tinyshakespeare.txt")
    elsewhere = subprocess.run(
        [sys.executable, "-c", TRAIN_ALL, file],
        cwd=Path(__file__).parents[2],
        env={"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    texts = Path(file).read_text()[:100_000].split("\n\n")
    here = [train_tokenizer(texts, 1200, kind).backend_tokenizer.to_str() for kind in KINDS]
    assert elsewhere.stdout.split() == [hashlib.md5(each.encode()).hexdigest() for each in here]


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_long_text_have_the_ids_of_the_whole(kind):
    text = "\n\n".join(play()[:200])
    parts = [text[start:stop] for start, stop in cuts(text, 500)]
    assert "".join(parts) == text and len(parts) > 30
    whole = of_the_play(kind).encode(text)
    assert [token for part in parts for token in of_the_play(kind).encode(part)] == whole


def test_long_texts_come_in_parts_and_a_word_without_end_is_cut_all_the_same():
    long = "word " * (PIECE_CHARACTERS // 5) + "x" * 300
    found = list(encode(trained("bpe"), [("long", long), ("empty", ""), ("short", "the cat")]))
    assert [(key, last) for key, _, last in found] == [
        ("long", False), ("long", True), ("empty", True), ("short", True)
    ]  # fmt: skip
    assert trained("bpe").decode(found[0][1] + found[1][1]) == long
    assert [stop - start for start, stop in cuts("x" * 25, 10)] == [10, 10, 5]


def document(text: str, source: str, language: str) -> Document:
    return Document(text, f"{source}/{text}", source, "text", "f", 0, language)


def test_fertility_counts_tokens_and_bytes_by_source_and_by_language():
    texts = [("the cat", "a", "en"), ("猫 と 犬", "a", "ja"), ("mat sat", "b", "en"), ("", "b", "")]
    found = fertility(trained("bpe"), (document(*each) for each in texts))

    def wanted(*chosen: str) -> dict:
        tokens = sum(len(trained("bpe").encode(text)) for text in chosen)
        size_bytes = sum(len(text.encode()) for text in chosen)
        return {"tokens": tokens, "bytes": size_bytes, "tokens_per_byte": tokens / max(size_bytes, 1)}

    assert found.pop("sources") == {"a": wanted("the cat", "猫 と 犬"), "b": wanted("mat sat")}
    assert found.pop("languages") == {"": wanted(""), "en": wanted("the cat", "mat sat"), "ja": wanted("猫 と 犬")}
    assert found == wanted("the cat", "猫 と 犬", "mat sat")


@pytest.mark.parametrize("kind", KINDS)
def test_tiny_texts_give_a_tokenizer_too(kind):
    for text in ("a", "some text", " "):
        small = train_tokenizer(["", text], 700, kind)
        assert small.decode(small.encode(text)) == text


@pytest.mark.parametrize(("kind", "smallest"), [("bpe", 260), ("wordpiece", 516), ("unigram", 260)])
def test_a_vocabulary_of_bytes_alone_is_the_smallest(kind, smallest):
    assert len(train_tokenizer(LINES, smallest, kind)) == smallest
    with pytest.raises(UserError, match="256 bytes"):
        train_tokenizer(LINES, smallest - 1, kind)


@pytest.mark.parametrize("token", ["", "a b", "é", "<|pad|>"])
def test_special_tokens_that_would_not_come_back_are_the_users_error(token):
    with pytest.raises(UserError, match="special_tokens"):
        train_tokenizer(LINES, 300, "bpe", [token])


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_added_behind_the_vocabulary_leave_the_fingerprint(kind, tmp_path):
    """Texts become the same tokens: a corpus's tokens are still those of a model that a denoising objective has extended."""
    trained(kind).save_pretrained(tmp_path)
    extended = load_tokenizer(str(tmp_path))
    extend(extended, ("<mask>", "<extra_id_0>"))
    assert tokenizer_fingerprint(extended) == tokenizer_fingerprint(trained(kind))
    extended.add_tokens(["king"])  # another matter: it cuts texts otherwise
    assert tokenizer_fingerprint(extended) != tokenizer_fingerprint(trained(kind))
