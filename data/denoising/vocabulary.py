"""What denoising knows about a tokenizer: which tokens are special, where words begin, the ids of masks and sentinels."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.errors import UserError
from data.tokenizer import end_of_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASK = "<mask>"
BLANK = "▁"  # of sentencepiece, for a space
# what a piece begins or ends with: a new word begins where these change, but for ANY, which goes with all
ANY, LETTER, DIGIT, SPACE, MARK, SPECIAL = range(6)


@dataclass(frozen=True)
class Vocabulary:
    """size: the highest id, and one."""

    ordinary: np.ndarray  # (ordinary tokens,) int32: ids of all that are not special
    special: np.ndarray  # (size,) bool
    begins_word: np.ndarray  # (size,) bool, True = whatever stands before it
    first_kind: np.ndarray  # (size,) int8, of a token's first character
    last_kind: np.ndarray  # (size,) int8, of its last
    ids: dict[str, int]  # of the special tokens that a corruption asked for
    end: int  # end of text

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, special_tokens: Sequence[str] = ()) -> Vocabulary:
        """special_tokens: `<mask>` may be the tokenizer's mask token under another name, such as BERT's.

        Raises UserError where one is missing, or the tokenizer has no end of text.
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
        """(n,) bool: where a word begins in tokens (n,) int32. The first token begins one, and each special token is one.

        A word is what the tokenizer's continuation marks hold together (WordPiece); with other tokenizers a run of letters, of
        digits or of other marks, with a space before it (Radford et al. 2019, GPT-2, section 2.2).
        """
        starts = self.begins_word[tokens]
        before, after = self.last_kind[tokens[:-1]], self.first_kind[tokens[1:]]
        starts[1:] |= (before != after) & (before != ANY) & (after != ANY)
        starts[:1] = True
        return starts


def extend(tokenizer: PreTrainedTokenizerBase, special_tokens: Sequence[str]) -> None:
    """Adds those that the tokenizer lacks at the end of its vocabulary; `<mask>` becomes its mask token where it has none."""
    known = tokenizer.get_vocab()
    missing = [token for token in special_tokens if token not in known]
    if MASK in missing and tokenizer.mask_token is not None:
        missing.remove(MASK)
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    if MASK in missing:
        tokenizer.mask_token = MASK


def _edges(
    pieces: dict[int, str], tokenizer: PreTrainedTokenizerBase, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(size,) bool and twice (size,) int8: which pieces begin a word wherever they stand, and the kinds of their ends."""
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
        last[number] = _kind(text[-1:]) if not text.endswith(" ") else ANY  # a space belongs to the word after it
    return begins, first, last


def _texts(pieces: dict[int, str], tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """What each piece writes; U+FFFD stands for a part of a character."""
    from tokenizers import decoders, pre_tokenizers

    added = tokenizer.added_tokens_decoder.keys()  # these are written as they are
    learnt = {number: piece for number, piece in pieces.items() if number not in added}
    if set().union(*learnt.values()) <= set(pre_tokenizers.ByteLevel.alphabet()):
        decoder = decoders.ByteLevel()
        return pieces | {number: decoder.decode([piece]) for number, piece in learnt.items()}
    return pieces | {number: piece.replace(BLANK, " ") for number, piece in learnt.items()}


def _kind(character: str) -> int:
    if character in ("", "\ufffd"):  # a part of a character, which belongs to what stands around it
        return ANY
    if character.isspace():
        return SPACE
    return {"L": LETTER, "M": LETTER, "N": DIGIT}.get(unicodedata.category(character)[0], MARK)
