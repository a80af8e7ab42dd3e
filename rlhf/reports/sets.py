"""What a phase's training came to on each of its data sets: held-out loss and perplexity, before and after, and passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HEADINGS = ("data set", "perplexity before", "after", "change", "loss before", "after", "passes")


@dataclass(frozen=True)
class SetFigures:
    """None: not known, as of a data set without held-out rows."""

    name: str
    perplexity_before: float | None
    perplexity: float | None
    loss_before: float | None
    loss: float | None
    passes: float | None  # over its training rows

    @property
    def cells(self) -> list[str]:
        """As text, in the order of `HEADINGS`."""
        change = None
        if self.perplexity and self.perplexity_before:
            change = f"{self.perplexity / self.perplexity_before - 1:+.1%}"
        before, after = _shown(self.perplexity_before, ".2f"), _shown(self.perplexity, ".2f")
        losses = [_shown(self.loss_before, ".3f"), _shown(self.loss, ".3f")]
        return [self.name, before, after, change or "", *losses, _shown(self.passes, ".2f")]


def sets_of(metrics: Mapping[str, float]) -> list[SetFigures]:
    """Of a phase that trained on a mix; none of one with a single data set."""
    suffix = "/loss"
    names = [name.removesuffix(suffix) for name in metrics if name.endswith(suffix)]
    return [
        SetFigures(
            name,
            *(metrics.get(f"{name}/{figure}") for figure in ("perplexity_before", "perplexity", "loss_before", "loss")),
            metrics.get(f"epochs/{name}"),
        )
        for name in names
    ]


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
