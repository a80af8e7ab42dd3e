"""Training rows from token files: windows of the sources' streams, in the mixture's order.

Exact resume needs only the step s. Row r of a training is a pure function of r, the token files and (seed, weights, temperature,
schedule, total_rows, max_length), so training continues with row s * batch_size, at token position s * batch_size *
(max_length - 1), in any process and on any number of ranks. Each pass over a source has an order of its own, seeded by (seed,
source, pass), and a source's passes follow each other without a gap. The index records the token files' order and lengths and the
tokenizer's fingerprint.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import numpy as np

from data.batch import Batch
from data.errors import UserError
from data.tokenizer import Tokenizer, tokenizer_fingerprint
from data.tokens.mixture import Mixture
from data.tokens.store import Stream, TokenStore
from data.unit import DataReport, Example, pieces_of


class ShuffledWindows:
    """Visits the windows of all sources in the order of the training."""

    def __init__(self, mixture: Mixture):
        self.mixture = mixture
        # by source: its last used pass, the order of that pass
        self._permutations: dict[str, tuple[int, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.mixture.pass_rows

    def locate(self, row: int) -> tuple[str, int]:
        """(the row's source, the number of its window)."""
        source, drawn = self.mixture.locate(row)
        number, place = divmod(drawn, self.mixture.windows[source])
        if self._permutations.get(source, (None,))[0] != number:
            self._permutations[source] = number, self._permutation(source, number)
        return source, int(self._permutations[source][1][place])

    def _permutation(self, source: str, number: int) -> np.ndarray:
        """(windows,) uint32: 4 bytes a window."""
        name = int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "little")
        windows = np.arange(self.mixture.windows[source], dtype=np.uint32)
        return np.random.default_rng((self.mixture.seed, name, number)).permutation(windows)


class WindowsOnce:
    """Visits every window once, source after source; with a limit, only so many windows, evenly spaced."""

    def __init__(self, windows: Mapping[str, int], limit: int | None = None):
        self._sources = [source for source, count in windows.items() if count]
        self._starts = list(accumulate((windows[source] for source in self._sources), initial=0))
        self._length = min(limit or self._starts[-1], self._starts[-1])

    def __len__(self) -> int:
        return self._length

    def locate(self, row: int) -> tuple[str, int]:
        row = row * self._starts[-1] // self._length
        place = bisect_right(self._starts, row) - 1
        return self._sources[place], row - self._starts[place]


@dataclass(frozen=True)
class TokenRows:
    """The rows of token files, with the interface of `data.examples.Examples`. A unit is a window; it gives a row of the batch for
    each of its documents. A training set is also a `data.feeds.Feed`: its units are numbered over all passes."""

    store: TokenStore
    streams: Mapping[str, Stream]
    visits: ShuffledWindows | WindowsOnce
    tokenizer: Tokenizer
    max_length: int  # most tokens of a row
    rows_of_largest_unit: int = 1  # a window's rows need not stay together
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    token_columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, store: TokenStore, tokenizer: Tokenizer, mixture: Mixture, max_length: int) -> TokenRows:
        """The training set. mixture: over `store.windows(max_length)`.

        Raises UserError where another tokenizer made the tokens.
        """
        if tokenizer_fingerprint(tokenizer) != store.tokenizer:
            raise UserError(
                f"{store.directory}: its tokens were made by another tokenizer than this model's; use that tokenizer, or write the "
                "tokens again"
            )
        return cls(store, store.trained, ShuffledWindows(mixture), tokenizer, max_length)

    @cached_property
    def report(self) -> DataReport:
        documents = sum(stream.documents for stream in self.streams.values())
        tokens = sum(stream.tokens for stream in self.streams.values())
        return DataReport(str(self.store.directory), documents, len(self), tokens, tokens - documents)

    def held_out(self, limit: int | None = None) -> TokenRows:
        """The held-out windows, each once, or `limit` of them. May be empty."""
        streams = self.store.held_out
        windows = {source: stream.windows(self.max_length) for source, stream in streams.items()}
        return TokenRows(self.store, streams, WindowsOnce(windows, limit), self.tokenizer, self.max_length)

    def __len__(self) -> int:
        return len(self.visits)

    @property
    def pass_rows(self) -> int:
        return len(self)

    def rows(self, unit: int) -> list[Example]:
        """The window's rows, one for each document."""
        source, window = self.visits.locate(unit)
        return self.streams[source].window(window, self.max_length)

    def batch(self, units: Sequence[int]) -> Batch:
        """The rows of these windows: tokens, lengths, action_mask. meta has each row's source, and the file and row of its document
        in the corpus's shards."""
        rows = [row for unit in units for row in self.rows(unit)]
        return Batch.from_rows([row.tokens for row in rows], [row.mask for row in rows], [row.meta for row in rows])

    def spans(self, unit: int) -> list[tuple[str, bool]]:
        """The window's text as (piece, whether it is trained on), with a line break between documents."""
        return pieces_of(self.rows(unit), self.tokenizer)

    def epochs(self, units: int) -> dict[str, float]:
        """{source: passes over it in the first `units` units of the training}."""
        return self.visits.mixture.epochs(units)

    def position(self, unit: int) -> int:
        """The token position of a unit: the tokens that the units before it advance by, including documents' first tokens and the
        space after a source's last token."""
        return unit * (self.max_length - 1)

    def at_token(self, position: int) -> int:
        """The unit at this token position of the training."""
        return position // (self.max_length - 1)
