"""A tokenizer's vocabulary for denoising: special tokens, tokens that begin words, ids of masks and sentinels."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.errors import UserError
from data.tokenizer import Tokenizer, end_of_text

MASK = "<mask>"
BLANK = "▁"  # sentencepiece writes it for a space
# kinds of a piece's first or last character: a new word begins where the kind changes, except from or to ANY
ANY, LETTER, DIGIT, SPACE, MARK, SPECIAL = range(6)


@dataclass(frozen=True)
class Vocabulary:
    """Arrays over token ids. size: the highest id + 1."""

    ordinary: np.ndarray  # (ordinary tokens,) int32: ids of all tokens that are not special
    special: np.ndarray  # (size,) bool
    begins_word: np.ndarray  # (size,) bool, True = the token begins a word after any token
    first_kind: np.ndarray  # (size,) int8, kind of a token's first character
    last_kind: np.ndarray  # (size,) int8, kind of a token's last character
    ids: dict[str, int]  # of the special tokens that the corruption needs
    end: int  # id of the end of text

    @classmethod
    def of(cls, tokenizer: Tokenizer, special_tokens: Sequence[str] = ()) -> Vocabulary:
        """special_tokens: needed by the corruption. `<mask>` also stands for a mask token of another name, such as BERT's.

        Raises UserError where a special token or the end of text is missing.
        """
        known = tokenizer.get_vocab()
        if MASK not in known and tokenizer.mask_token_id is not None:
            known = {**known, MASK: tokenizer.mask_token_id}
        if missing := [token for token in special_tokens if token not in known]:
            others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
            raise UserError(
                f"tokenizer {tokenizer.name_or_path}: it lacks {missing[0]}{others}, which the objective needs; list them in "
                "tokenizer.special_tokens where it is trained, or start from a model that has them"
            )
        ids = {token: known[token] for token in special_tokens}
        added = [number for number, token in tokenizer.added_tokens_decoder.items() if token.special]
        end = end_of_text(tokenizer)
        special = np.zeros(max(known.values()) + 1, bool)
        special[[*tokenizer.all_special_ids, *added, *ids.values(), end]] = True
        ordinary = {number: piece for piece, number in known.items() if not special[number]}
        begins, first, last = _edges(ordinary, tokenizer, len(special))
        begins[special] = True
        first[special] = last[special] = SPECIAL
        return cls(np.array(sorted(ordinary), np.int32), special, begins, first, last, ids, end)

    def word_starts(self, tokens: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the tokens, (n,) int32, begin a word. The first token does; each special token is a word.

        In WordPiece, continuation marks tell the parts of a word. With other tokenizers a word is a run of letters, of digits or of
        other marks, with a space before it (Radford et al. 2019, GPT-2, section 2.2).
        """
        starts = self.begins_word[tokens]
        before, after = self.last_kind[tokens[:-1]], self.first_kind[tokens[1:]]
        starts[1:] |= (before != after) & (before != ANY) & (after != ANY)
        starts[:1] = True
        return starts


def extend(tokenizer: Tokenizer, special_tokens: Sequence[str]) -> None:
    """Adds missing special tokens to the end of the tokenizer's vocabulary. `<mask>` becomes its mask token if it has none."""
    known = tokenizer.get_vocab()
    missing = [token for token in special_tokens if token not in known]
    if MASK in missing and tokenizer.mask_token is not None:
        missing.remove(MASK)
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    if MASK in missing:
        tokenizer.mask_token = MASK


def _edges(pieces: dict[int, str], tokenizer: Tokenizer, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`begins_word`, `first_kind` and `last_kind` of the pieces, (size,) each."""
    from tokenizers import models

    begins, first, last = np.zeros(size, bool), np.zeros(size, np.int8), np.zeros(size, np.int8)
    model = tokenizer.backend_tokenizer.model
    if isinstance(model, models.WordPiece):
        for number, piece in pieces.items():
            begins[number] = not piece.startswith(model.continuing_subword_prefix)
        return begins, first, last
    for number, text in _texts(pieces, tokenizer).items():
        begins[number] = text[:1].isspace()
        first[number] = _kind(text[:1])
        last[number] = _kind(text[-1:]) if not text.endswith(" ") else ANY  # a trailing space belongs to the next word
    return begins, first, last


def _texts(pieces: dict[int, str], tokenizer: Tokenizer) -> dict[int, str]:
    """The text of each piece; U+FFFD stands for a part of a character."""
    from tokenizers import decoders, pre_tokenizers

    added = tokenizer.added_tokens_decoder.keys()  # added tokens are their own text
    learnt = {number: piece for number, piece in pieces.items() if number not in added}
    if set().union(*learnt.values()) <= set(pre_tokenizers.ByteLevel.alphabet()):
        decoder = decoders.ByteLevel()
        return pieces | {number: decoder.decode([piece]) for number, piece in learnt.items()}
    return pieces | {number: piece.replace(BLANK, " ") for number, piece in learnt.items()}


def _kind(character: str) -> int:
    if character in ("", "\ufffd"):  # a part of a character goes with its neighbours
        return ANY
    if character.isspace():
        return SPACE
    return {"L": LETTER, "M": LETTER, "N": DIGIT}.get(unicodedata.category(character)[0], MARK)
