"""Trains byte-level BPE, WordPiece and Unigram tokenizers, and measures how many tokens a tokenizer takes for a byte.

All three read a text as UTF-8 bytes, each written as one printable character (Radford et al. 2019, GPT-2, section 2.2), and their
vocabularies have all 256 bytes: every text is encoded without an unknown token and decoded exactly.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Literal

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from data.corpus.document import Document
from data.errors import UserError
from data.tokenizer import CHATML, END_OF_TEXT, PADDING, TURN_END, TURN_START, Tokenizer
from data.tokens.encode import cuts, encode

Kind = Literal["bpe", "wordpiece", "unigram"]

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
CONTINUATION = "…"  # marks a WordPiece token inside a word; not "##", because "#" stands for a byte
LONGEST_WORD_BYTES = 64  # WordPiece cuts longer words: its search takes time quadratic in a word's length
WORD_BREAK = "\u2028"  # for sentencepiece; stands for no byte
UNIGRAM_THREADS = 8  # fixed: each thread sums up its own part, so another number of threads gives other scores


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, kind: Kind = "bpe", special_tokens: Sequence[str] = ()
) -> Tokenizer:
    """A tokenizer with a ChatML template. Equal texts in the same order give an equal tokenizer, byte for byte.

    kind: "bpe" (Sennrich et al. 2016), "wordpiece" (Schuster and Nakajima 2012; learnt by BPE's merges, as in `tokenizers`) or
        "unigram" (Kudo 2018).
    special_tokens: further special tokens, after the four that every tokenizer has.
    A small corpus may give fewer than `vocab_size` tokens. Memory grows with the number of distinct words.

    Raises UserError where `vocab_size` has no room for the bytes and the special tokens, where a special token is invalid, and
    where there is no text.
    """
    from transformers import PreTrainedTokenizerFast

    special = all_special(vocab_size, kind, special_tokens)
    parts = (text[start:stop] for text in texts for start, stop in cuts(text) if text)
    first = next(parts, None)
    if first is None:
        raise UserError("the data has no text to train a tokenizer from")
    train = {"bpe": _bpe, "wordpiece": _wordpiece, "unigram": _unigram}[kind]
    tokenizer = train(chain([first], parts), vocab_size, special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
        extra_special_tokens=[TURN_START, TURN_END, *special_tokens],
        chat_template=CHATML,
    )


def all_special(vocab_size: int, kind: Kind, special_tokens: Sequence[str]) -> list[str]:
    """All special tokens of a tokenizer to train. Raises UserError where `train_tokenizer` would refuse `vocab_size` or a token."""
    special = [END_OF_TEXT, TURN_START, TURN_END, PADDING, *special_tokens]
    _check_special(special)
    smallest = len(special) + (2 if kind == "wordpiece" else 1) * len(BYTES)
    if vocab_size < smallest:
        inside = ", at a word's beginning and inside," if kind == "wordpiece" else ""
        raise UserError(
            f"tokenizer.vocab_size is {vocab_size}; the 256 bytes{inside} and {len(special)} special tokens alone are {smallest}"
        )
    return special


def fertility(tokenizer: Tokenizer, documents: Iterable[Document]) -> dict[str, Any]:
    """Tokens per UTF-8 byte of the documents, without special tokens: {"tokens", "bytes", "tokens_per_byte"} over all documents,
    and the same by name under "sources" and "languages" (ISO 639-1; "" = unknown). JSON values."""
    tokens: Counter[tuple[str, str]] = Counter()
    size_bytes: Counter[tuple[str, str]] = Counter()

    def counted() -> Iterable[tuple[tuple[str, str], str]]:
        for document in documents:
            group = (document.source, document.language)
            size_bytes[group] += len(document.text.encode())
            yield group, document.text

    for group, ids, _ in encode(tokenizer, counted()):
        tokens[group] += len(ids)

    def figures(groups: Iterable[tuple[str, str]]) -> dict[str, Any]:
        groups = list(groups)
        counts = {"tokens": sum(tokens[group] for group in groups), "bytes": sum(size_bytes[group] for group in groups)}
        return {**counts, "tokens_per_byte": counts["tokens"] / max(counts["bytes"], 1)}

    result = figures(size_bytes)
    for place, name in enumerate(("sources", "languages")):
        parts = sorted({group[place] for group in size_bytes})
        result[name] = {part: figures(group for group in size_bytes if group[place] == part) for part in parts}
    return result


def _check_special(special: Sequence[str]) -> None:
    for token in special:
        if not token or not all(" " < character <= "~" for character in token):
            raise UserError(
                f"tokenizer.special_tokens: {token!r} cannot be one; use printable ASCII characters without blanks"
            )
        if special.count(token) > 1:
            raise UserError(f"tokenizer.special_tokens: {token!r} is there already; name each once")


def _byte_level() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _bpe(texts: Iterable[str], vocab_size: int, special: list[str]) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _byte_level()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=BYTES, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _wordpiece(texts: Iterable[str], vocab_size: int, special: list[str]) -> tokenizers.Tokenizer:
    learning = tokenizers.Tokenizer(models.WordPiece())
    words = pre_tokenizers.Sequence([_byte_level(), pre_tokenizers.FixedLength(LONGEST_WORD_BYTES)])
    learning.pre_tokenizer = words
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        # the trainer keeps every special token, so the vocabulary has all bytes inside words, whether the texts have them or not
        special_tokens=special + [CONTINUATION + byte for byte in BYTES],
        initial_alphabet=BYTES,
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    learning.train_from_iterator(texts, trainer)
    model = models.WordPiece(
        learning.get_vocab(with_added_tokens=False),
        unk_token=END_OF_TEXT,  # the model demands one; it is never used, since all bytes are known
        max_input_chars_per_word=LONGEST_WORD_BYTES,
        continuing_subword_prefix=CONTINUATION,
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.Sequence([decoders.Replace(CONTINUATION, ""), decoders.ByteLevel()])
    return tokenizer


def _unigram(texts: Iterable[str], vocab_size: int, special: list[str]) -> tokenizers.Tokenizer:
    """Trains with sentencepiece. The trainer of `tokenizers` gives other scores in each run, because it walks through hash tables
    with random seeds, and never finds a word that only occurs alone."""
    split = _byte_level()
    words = Counter(word for text in texts for word, _ in split.pre_tokenize_str(text))
    missing = sorted(set(BYTES).difference(*words))
    pieces = _unigram_pieces(words, vocab_size - len(special) - len(missing))
    lowest = min(score for _, score in pieces)
    unseen = [(byte, lowest - 1) for byte in missing]
    tokenizer = tokenizers.Tokenizer(models.Unigram([(token, lowest - 1) for token in special] + pieces + unseen))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _unigram_pieces(words: Counter[str], count: int) -> list[tuple[str, float]]:
    """(piece, log probability) of at most `count` pieces, including all characters of the words."""
    import sentencepiece

    def sentences() -> Iterator[str]:
        # sentencepiece ignores counts when it collects candidates, which must occur twice: so write frequent words twice
        for word, times in sorted(words.items()):
            if times > 1:
                yield f"{word}{WORD_BREAK}{word}\t{times // 2}"
            if times % 2:
                yield f"{word}\t1"

    model = io.BytesIO()
    characters = set().union(*words)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(),
        input_format="tsv",  # a sentence and its count
        pretokenization_delimiter=WORD_BREAK,
        model_writer=model,
        model_type="unigram",
        vocab_size=max(count, len(characters) + 1) + 1,  # one more for the unknown token
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_unicode_script=False,
        split_by_number=False,
        max_sentence_length=2**30,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        num_threads=UNIGRAM_THREADS,
        minloglevel=2,  # errors
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    scores = {trained.id_to_piece(number): trained.get_score(number) for number in range(1, trained.get_piece_size())}
    longer = [piece for piece in scores if len(piece) > 1][: count - len(characters)]
    return [(piece, score) for piece, score in scores.items() if len(piece) == 1 or piece in set(longer)]
