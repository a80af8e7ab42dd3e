"""What the tests of `data.denoising` share: a vocabulary in memory, and texts of its ordinary tokens."""

from functools import cache

import numpy as np

from data.denoising.denoisers import MixtureOfDenoisers
from data.denoising.spans import SENTINELS
from data.denoising.vocabulary import LETTER, MASK, SPECIAL, Vocabulary

END, MASK_ID = 0, 1
FIRST_SENTINEL = 10
ORDINARY = np.arange(200, 1200, dtype=np.int32)


@cache
def vocabulary() -> Vocabulary:
    """End of text 0, <mask> 1, the modes from 2 on, the sentinels from 10 on; ordinary tokens are 200 to 1199, and those that
    divide by 3 begin a word."""
    modes = (token for token in MixtureOfDenoisers().special_tokens if token not in SENTINELS)
    ids = {MASK: MASK_ID}
    ids |= {token: 2 + number for number, token in enumerate(modes)}
    ids |= {token: FIRST_SENTINEL + number for number, token in enumerate(SENTINELS)}
    special = np.arange(1200) < 200
    kinds = np.where(special, SPECIAL, LETTER).astype(np.int8)
    begins_word = special | (np.arange(1200) % 3 == 0)
    return Vocabulary(ORDINARY, special, begins_word, kinds, kinds, ids, END)


def text(length: int, seed: int, ends: bool = True) -> np.ndarray:
    """(length,) int32, of which the last is the end of text where it `ends`."""
    tokens = np.random.default_rng((seed, length)).choice(ORDINARY, length)
    if ends:
        tokens[-1] = END
    return tokens


def restored(row) -> np.ndarray:
    """The text of a row of source and target, read by a loop: each sentinel of the source is replaced by what follows it in the
    target. Without end of text."""
    source, target = row.tokens[: row.prefix_length], row.tokens[row.prefix_length :]
    assert source[-1] == target[-1] == END
    spans: dict[int, list[int]] = {}
    for token in target[:-1].tolist():
        if FIRST_SENTINEL <= token < FIRST_SENTINEL + len(SENTINELS):
            assert token == FIRST_SENTINEL + len(spans)  # in order, each once
            spans[token] = []
        else:
            spans[max(spans)].append(token)
    assert not spans.pop(max(spans))  # nothing follows the last sentinel
    assert all(spans.values())
    assert [token for token in source.tolist() if token in spans] == list(spans)
    return np.array([token for shown in source[:-1].tolist() for token in spans.get(shown, [shown])], np.int32)
