"""Is the reward still worth what it says? Where a gold reward turns down while the trained one rises, and alarms in
plain words.

Pure: a run's looks go in, a verdict comes out, so that a resumed run which has its looks again decides as it would
have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

# Chance that a gold reward which does not change is taken, at one look, for one that has turned down: of simulated runs
# of 40 looks of 8 prompts about 3 % are stopped for nothing with a patience of 2, 7 % of 1 (tests/unit/test_watch.py).
FALSE_ALARM = 0.02

# Alarms compare a look with the first one, that of the untouched policy. Each threshold is about three times what a
# look at some 64 answers varies by chance, and far from what learning a task asks for.
LENGTH_FACTOR = 1.5  # longer or shorter: lengths of answers of one task vary by some 10 % between looks
REPETITION_RISE = 0.2  # share of repeated n-grams: below 0.1 in prose, above 0.5 in an answer that goes in circles
TRUNCATED_RISE = 0.2  # share of answers that hit the length limit: a share's deviation is at most 0.06 of 64 answers
FORMAT_FALL = 0.2  # likewise a share
ENTROPY_COLLAPSE = 0.33  # of the first: the samples of a prompt are nearly alike, and there is nothing left to compare
ENTROPY_EXPLOSION = 2.0  # times the first, and
ENTROPY_RISE = 0.5  # nats more: twice a tiny entropy is still tiny
NGRAM = 4  # tokens; shorter ones recur in good prose, too


@dataclass(frozen=True)
class Look:
    """What a step's answers were like, before the step trained on them. JSON values; None = not measured."""

    step: int
    proxy: float  # mean reward that the policy is trained on, before shaping
    length: float  # mean tokens of an answer
    repetition: float  # mean share of an answer's n-grams that it has said before
    truncated: float  # share of answers that hit the length limit
    entropy: float  # nats a token: mean -log p of the sampled tokens
    kl: float | None = None  # per answer: sum over tokens of log(policy / reference), in nats
    gold: float | None = None  # mean gold reward
    gold_error: float | None = None  # its standard error
    format: float | None = None  # share of answers in the wanted format


@dataclass(frozen=True)
class Turn:
    """Gold went down while the proxy rose. Means of `patience` looks each."""

    peak: Look  # the best of the looks at gold's top
    before: float  # gold there
    now: float
    error: float  # standard error of before - now
    proxy_before: float
    proxy_now: float

    def __str__(self) -> str:
        kl = f" (KL {self.peak.kl:.2f} nats)" if self.peak.kl is not None else ""
        return (
            f"the gold reward has turned down, from {self.before:.3f} around step {self.peak.step}{kl} to"
            f" {self.now:.3f} (± {self.error:.3f}), while the reward rose from {self.proxy_before:.3f} to {self.proxy_now:.3f}"
        )


def turned_down(looks: Sequence[Look], patience: int) -> Turn | None:
    """Whether gold has stayed below its best for the last `patience` looks, by more than noise, while the proxy is
    above what it was there (over-optimisation: Gao, Schulman and Hilton 2023, figure 1). Looks without gold do not
    count.

    The mean of the last `patience` looks is compared with that of every `patience` looks in a row before them: a mean,
    since a single best look is best by luck in part. The gap must exceed z standard errors of the difference. The best
    of n is high by chance, and n looks make some n² such comparisons, so z is the normal quantile of 1 - FALSE_ALARM /
    n² (Bonferroni): 3.3 after 6 looks, 4.2 after 40. A look's noise is taken from all looks together (root mean square
    of their errors), since few prompts tell little of their own deviation.
    """
    looks = [look for look in looks if look.gold is not None and look.gold_error is not None]
    now, earlier = looks[-patience:], looks[:-patience]
    starts = range(len(earlier) - patience + 1)
    if not starts:
        return None
    peak = max((earlier[start : start + patience] for start in starts), key=_gold)
    noise = math.sqrt(fmean(look.gold_error**2 for look in looks))
    error = noise * math.sqrt(2 / patience)
    factor = NormalDist().inv_cdf(1 - FALSE_ALARM / len(looks) ** 2)
    stayed = all(look.gold < _gold(peak) for look in now)
    rose = _proxy(now) > _proxy(peak)
    if not (stayed and rose and _gold(peak) - _gold(now) > factor * error):
        return None
    return Turn(best(peak), _gold(peak), _gold(now), error, _proxy(peak), _proxy(now))


def best(looks: Sequence[Look]) -> Look | None:
    """The look with the highest gold, the first of equals; None where none has one."""
    return max((look for look in looks if look.gold is not None), key=lambda look: look.gold, default=None)


def _gold(looks: Sequence[Look]) -> float:
    return fmean(look.gold for look in looks)


def _proxy(looks: Sequence[Look]) -> float:
    return fmean(look.proxy for look in looks)


def alarms(looks: Sequence[Look]) -> list[str]:
    """What is wrong at the last look and was not at any look before: each alarm once, when it begins."""
    if not looks:
        return []
    *before, last = looks
    return [
        text
        for alarm in ALARMS
        if (text := alarm(looks[0], last)) and not any(alarm(looks[0], look) for look in before)
    ]


def _longer(first: Look, now: Look) -> str | None:
    factor = now.length / max(first.length, 1.0)
    if factor < LENGTH_FACTOR:
        return None
    return (
        f"answers have become {factor:.1f} times as long as at the start ({first.length:.0f} → {now.length:.0f} tokens):"
        " the reward may be paying for length"
    )


def _shorter(first: Look, now: Look) -> str | None:
    factor = now.length / max(first.length, 1.0)
    if factor > 1 / LENGTH_FACTOR:
        return None
    return (
        f"answers have shrunk to {factor:.0%} of their length at the start ({first.length:.0f} → {now.length:.0f}"
        " tokens): the reward may be paying for brevity, or for saying nothing"
    )


def _repetition(first: Look, now: Look) -> str | None:
    if now.repetition - first.repetition < REPETITION_RISE:
        return None
    return (
        f"answers repeat themselves: {now.repetition:.0%} of their {NGRAM}-token sequences were said before in the same"
        f" answer, {first.repetition:.0%} at the start: the reward may be paying for words, not for content"
    )


def _truncated(first: Look, now: Look) -> str | None:
    if now.truncated - first.truncated < TRUNCATED_RISE:
        return None
    return (
        f"{now.truncated:.0%} of the answers hit the length limit, {first.truncated:.0%} at the start: the policy is"
        " losing the end of its answers, and their reward is that of a torso"
    )


def _format(first: Look, now: Look) -> str | None:
    if first.format is None or now.format is None or first.format - now.format < FORMAT_FALL:
        return None
    return (
        f"{now.format:.0%} of the answers have the wanted format, {first.format:.0%} at the start: the reward may"
        " be easier to find outside of it"
    )


def _collapsed(first: Look, now: Look) -> str | None:
    if now.entropy > ENTROPY_COLLAPSE * first.entropy:
        return None
    return (
        f"entropy has collapsed ({first.entropy:.2f} → {now.entropy:.2f} nats a token): answers become alike, and there"
        " is little left to learn from"
    )


def _exploded(first: Look, now: Look) -> str | None:
    if now.entropy < max(ENTROPY_EXPLOSION * first.entropy, first.entropy + ENTROPY_RISE):
        return None
    return (
        f"entropy has exploded ({first.entropy:.2f} → {now.entropy:.2f} nats a token): the policy drifts into noise; a"
        " lower lr or a stronger KL penalty may hold it"
    )


ALARMS: tuple[Callable[[Look, Look], str | None], ...] = (
    _longer,
    _shorter,
    _repetition,
    _truncated,
    _format,
    _collapsed,
    _exploded,
)


def repetition(tokens: Sequence[int]) -> float:
    """Share of an answer's n-grams that occur earlier in it: 0 none, near 1 an answer in a circle; 0 for one shorter
    than n."""
    grams = [tuple(tokens[start : start + NGRAM]) for start in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def mean_and_error(values: Sequence[float], groups: Sequence[int]) -> tuple[float | None, float | None]:
    """(mean of the finite values, its standard error). Answers to one prompt are alike, so that prompts count and not
    answers: the error is that of a mean of clusters (Liang and Zeger 1986), sqrt(G / (G - 1) * sum over prompts of (sum
    of deviations)²) / n. None where there is no value, or but one prompt to tell it from."""
    known = [(value, group) for value, group in zip(values, groups, strict=True) if math.isfinite(value)]
    if not known:
        return None, None
    mean = fmean(value for value, _ in known)
    deviations: dict[int, float] = {}
    for value, group in known:
        deviations[group] = deviations.get(group, 0.0) + value - mean
    count = len(deviations)
    if count < 2:
        return mean, None
    return mean, math.sqrt(count / (count - 1) * sum(total**2 for total in deviations.values())) / len(known)
