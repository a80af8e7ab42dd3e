"""Drops documents that contain reserved texts: those of this run's evaluation sets and RL prompts."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data.corpus.document import Document
from data.corpus.step import Dropped, Outcome, Preparation, Single, Stage, Step
from data.corpus.words import WORDS, simplified
from data.corpus.work import Work, open_array, save_array
from data.errors import UserError

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C17)  # odd: an even one would shift out bits of earlier words
_Grams = dict[int, np.ndarray]  # hashes of n-grams, by n


@dataclass(frozen=True, kw_only=True)
class Decontaminate(Preparation):
    """Drops a document that shares an n-gram of `words` words with a reserved text, or contains a shorter reserved text
    whole (Brown et al. 2020, appendix C). Ignores letter case, accents, punctuation, white space and the format of
    numbers (1,000.50 equals 1 000.5).

    words: n of the n-grams.
    least_words: skips shorter reserved texts, because other documents contain them by chance. `figures` counts them.
    common: an n-gram of words / 2 words is a template if it is in more different texts of one set than this, and in
        more than 1 % of them. Skips n-grams that are mostly template words. If a text has nothing else, uses its least
        template-like n-grams. `figures` counts the texts that are all template.

    The prepared step's figures, by the set's name: different texts, skipped texts by reason, n-grams in the index.

    In memory: 10 bytes for each word of the reserved texts; about 60 while the index is made, which happens in this
    process and not on the workers.
    """

    needs_corpus: ClassVar[bool] = False
    words: int = 12
    least_words: int = 8
    common: int = 5

    def __post_init__(self) -> None:
        if not 1 <= self.least_words <= self.words:
            given = f"least_words is {self.least_words} and words {self.words}"
            raise UserError(f"Decontaminate: {given}; give 1 <= least_words <= words")

    def prepare(self, stage: Stage, work: Work) -> Step:
        figures, hashes, numbers, lengths = {}, [np.zeros(0, np.uint64)], [np.zeros(0, np.uint16)], set()
        for number, (name, texts) in enumerate(work.reserved.items()):
            grams, figures[name] = self._runs(texts)
            lengths |= grams.keys()
            hashes += grams.values()
            numbers += [np.full(len(each), number, np.uint16) for each in grams.values()]
        index, first = np.unique(np.concatenate(hashes), return_index=True)
        save_array(work.directory / "runs.npy", index)
        save_array(work.directory / "sets.npy", np.concatenate(numbers)[first])
        return WithoutReserved(
            directory=work.directory,
            lengths=tuple(sorted(lengths)),
            sets=tuple(work.reserved),
            figures=figures,
            kinds=self.kinds,
            sources=self.sources,
        )

    def _runs(self, texts: Callable[[], Iterable[str]]) -> tuple[_Grams, dict[str, int]]:
        """The hashes of the index, and the set's figures."""
        different = list({each.tobytes(): each for each in map(_word_hashes, texts())}.values())
        long = [each for each in different if len(each) >= self.least_words]
        templates = self._templates(long)

        def length_of(text: np.ndarray) -> int:
            return min(len(text), self.words)

        by_length = {
            length: [self._of_its_own(each, length, templates) for each in same]
            for length, same in groupby(sorted(long, key=length_of), length_of)
        }
        grams = {length: np.unique(np.concatenate(found)) for length, found in by_length.items()}
        return {length: each for length, each in grams.items() if len(each)}, {
            "texts": len(different),
            "too short": len(different) - len(long),
            "only common phrases": sum(not len(each) for found in by_length.values() for each in found),
            "runs": sum(map(len, grams.values())),
        }

    def _templates(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Hashes of the template n-grams (of words / 2 words), ascending."""
        short = [np.unique(_runs(each, max(self.words // 2, 1))) for each in texts]
        found, count = np.unique(np.concatenate([np.zeros(0, np.uint64), *short]), return_counts=True)
        return found[count > max(self.common, len(texts) / 100)]

    def _of_its_own(self, text: np.ndarray, length: int, templates: np.ndarray) -> np.ndarray:
        """Hashes of the text's n-grams that distinguish it from others of its set."""
        short = max(self.words // 2, 1)
        own = np.ones(len(text), bool)
        for start in np.flatnonzero(np.isin(_runs(text, short), templates)):
            own[start : start + short] = False
        total = np.concatenate([[0], np.cumsum(own)])
        own_words = total[length:] - total[:-length]
        return _runs(text, length)[own_words >= max(min(length / 2, own_words.max()), 1)]


@dataclass(frozen=True, kw_only=True)
class WithoutReserved(Single):
    """The prepared Decontaminate.

    directory: holds the index. lengths: of its n-grams, in words. sets: names of the reserved sets.
    """

    directory: Path
    lengths: tuple[int, ...]
    sets: tuple[str, ...]
    figures: Mapping[str, Any] = field(compare=False)

    def look(self, document: Document) -> Outcome:
        index, sets = _index(self.directory)
        text = _word_hashes(document.text)
        for length in self.lengths:
            runs = _runs(text, length)
            place = np.minimum(np.searchsorted(index, runs), len(index) - 1)
            found = place[index[place] == runs]
            if len(found):
                return Dropped(f"contains text of {self.sets[sets[found].min()]}")
        return document


@lru_cache(maxsize=1)
def _index(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    return open_array(directory / "runs.npy"), open_array(directory / "sets.npy")


def simple_words(text: str) -> list[str]:
    """The words that are compared, simplified. Adjacent numbers are joined, without their last zeros: both
    1,000.50 and 1 000.5 give 10005."""
    words: list[str] = []
    for number, together in groupby(
        WORDS.word_tokenize(simplified(unicodedata.normalize("NFKC", text))), str.isdecimal
    ):
        if number:
            words.append("".join(together).rstrip("0") or "0")
        else:
            words += [word for word in together if word.isalnum() or any(map(str.isalnum, word))]
    return words


def _word_hashes(text: str) -> np.ndarray:
    """(W,) uint64, one hash for each word."""
    import xxhash

    words = simple_words(text)
    return np.fromiter(map(xxhash.xxh64_intdigest, words), np.uint64, len(words))


def _runs(words: np.ndarray, length: int) -> np.ndarray:
    """(W - length + 1,) uint64: the hash of each n-gram of `length` words. A polynomial in the words' hashes modulo
    2^64 (Karp and Rabin 1987) that starts with the length."""
    count = max(len(words) - length + 1, 0)
    hashes = np.full(count, length, np.uint64)
    for place in range(length):
        hashes = hashes * _MULTIPLIER + words[place : place + count]
    return hashes
