"""The rows of a pretraining phase on a corpus: its tokens, in the mixture that the config asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.feeds import shares
from data.tokens.mixture import Mixture
from data.tokens.store import TokenStore
from data.tokens.token_rows import TokenRows
from rlhf.config.corpus import Mixture as MixtureSettings
from rlhf.config.schema import Corpus
from rlhf.corpus import TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HELD_OUT_WINDOWS = 1000  # of the corpus; the default size of the held-out evaluation


def corpus_rows(
    artifact: Path,
    corpus: Corpus,
    settings: MixtureSettings,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    seed: int,
    total_rows: int | None = None,
    passes: int = 1,
    held_out_windows: int = 0,
) -> tuple[TokenRows, TokenRows]:
    """(rows to train on, held-out rows). total_rows: of the whole training, for the schedule of weights; default:
    `passes` passes over the corpus.

    Raises UserError if the weights do not fit the sources, or if another tokenizer made the tokens.
    """
    store = TokenStore.open(artifact / TOKENS)
    windows = store.windows(max_length)
    mixture = Mixture(
        windows,
        weights=weights_of(corpus, settings, windows),
        temperature=settings.temperature,
        schedule=[
            (share, shares(windows, weights, temperature=settings.temperature)) for share, weights in settings.schedule
        ],
        seed=seed,
    )
    mixture = replace(mixture, total_rows=total_rows or mixture.pass_rows * passes)
    train = TokenRows.of(store, tokenizer, mixture, max_length)
    return train, train.held_out(held_out_windows or HELD_OUT_WINDOWS)


def weights_of(corpus: Corpus, settings: MixtureSettings, windows: Mapping[str, int]) -> dict[str, float] | None:
    """The static weights by source: the phase's, else the corpus's, completed by `shares`; None if neither has any."""
    if settings.schedule:
        return None
    own = {source.name: source.weight for source in corpus.sources if source.weight is not None}
    given = settings.weights or {name: weight for name, weight in own.items() if name in windows}
    return shares(windows, given, temperature=settings.temperature) if given else None
