"""The watch against reward hacking: whether gold turns down while the trained reward rises, and alarms in plain words.

Pure functions from a run's looks to a decision: a resumed run, which has its looks again, decides as an uninterrupted
run does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

# Probability, at one look, that a constant gold reward is taken for one that has turned down. In simulated runs of 40
# looks at 8 prompts, about 3 % are stopped wrongly with a patience of 2, and 7 % with 1 (tests/unit/test_watch.py).
FALSE_ALARM = 0.02

# Alarms compare a look with the first look, at the untrained policy. Each threshold is about three times the random
# variation of a look at 64 answers, and larger than the change that learning a task needs.
LENGTH_FACTOR = 1.5  # longer or shorter: mean lengths vary by about 10 % between looks
REPETITION_RISE = 0.2  # share of repeated n-grams: below 0.1 in prose, above 0.5 in an answer that repeats itself
TRUNCATED_RISE = 0.2  # share of answers at the length limit: over 64 answers its standard deviation is at most 0.06
FORMAT_FALL = 0.2  # share of answers in the wanted format
ENTROPY_COLLAPSE = 0.33  # of the first look's: samples of a prompt are nearly equal, which leaves nothing to compare
ENTROPY_EXPLOSION = 2.0  # times the first look's, and
ENTROPY_RISE = 0.5  # nats more: twice a tiny entropy is still tiny
NGRAM = 4  # tokens; shorter n-grams recur in good prose, too


@dataclass(frozen=True)
class Look:
    """Figures of a step's answers, from before the step trained on them. JSON values; None = not measured."""

    step: int
    proxy: float  # mean reward that the policy is trained on, before shaping
    length: float  # mean tokens of an answer
    repetition: float  # mean share of an answer's n-grams that occur earlier in it
    truncated: float  # share of answers that hit the length limit
    entropy: float  # nats a token: mean -log p of the sampled tokens
    kl: float | None = None  # per answer: sum over tokens of log(policy / reference), in nats
    gold: float | None = None  # mean gold reward
    gold_error: float | None = None  # its standard error
    format: float | None = None  # share of answers in the wanted format


@dataclass(frozen=True)
class Turn:
    """Gold went down while the proxy rose. Each figure is a mean over `patience` looks."""

    peak: Look  # the best look among those with the highest mean gold
    before: float  # gold there
    now: float  # gold at the last looks
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
    """A Turn if gold has stayed below its best for the last `patience` looks, by more than noise, while the proxy is
    higher than it was at gold's best (over-optimisation: Gao, Schulman and Hilton 2023, figure 1); else None. Looks
    without gold do not count.

    Compares the mean gold of the last `patience` looks with that of every `patience` consecutive looks before them; a
    single best look would be high partly by luck. The gap must exceed z standard errors of the difference. n looks make
    about n² comparisons, so z is the normal quantile of 1 - FALSE_ALARM / n² (Bonferroni): 3.3 after 6 looks, 4.2 after
    40. The standard error comes from all looks together (the root mean square of their errors), since the few prompts
    of one look estimate it poorly.
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
    """The look with the highest gold, the first among equals; None if no look has gold."""
    return max((look for look in looks if look.gold is not None), key=lambda look: look.gold, default=None)


def _gold(looks: Sequence[Look]) -> float:
    return fmean(look.gold for look in looks)


def _proxy(looks: Sequence[Look]) -> float:
    return fmean(look.proxy for look in looks)


def alarms(looks: Sequence[Look]) -> list[str]:
    """Alarms whose condition holds at the last look and held at no look before: each alarm is raised once."""
    if not looks:
        return []
    *before, last = (_alarms(looks[0], look) for look in looks)
    return [text for name, text in last.items() if not any(name in earlier for earlier in before)]


def _alarms(first: Look, now: Look) -> dict[str, str]:
    """{name: text} of the alarms whose condition holds at the look `now`."""
    found = {}
    factor = now.length / max(first.length, 1.0)
    if factor >= LENGTH_FACTOR:
        found["longer"] = (
            f"answers have become {factor:.1f} times as long as at the start ({first.length:.0f} → {now.length:.0f} tokens):"
            " the reward may be paying for length"
        )
    if factor <= 1 / LENGTH_FACTOR:
        found["shorter"] = (
            f"answers have shrunk to {factor:.0%} of their length at the start ({first.length:.0f} → {now.length:.0f}"
            " tokens): the reward may be paying for brevity, or for saying nothing"
        )
    if now.repetition - first.repetition >= REPETITION_RISE:
        found["repetition"] = (
            f"answers repeat themselves: {now.repetition:.0%} of their {NGRAM}-token sequences occur earlier in the same"
            f" answer, {first.repetition:.0%} at the start: the reward may be paying for words, not for content"
        )
    if now.truncated - first.truncated >= TRUNCATED_RISE:
        found["truncated"] = (
            f"{now.truncated:.0%} of the answers hit the length limit, {first.truncated:.0%} at the start: the ends of"
            " answers are cut off, so rewards are computed on cut-off answers"
        )
    if first.format is not None and now.format is not None and first.format - now.format >= FORMAT_FALL:
        found["format"] = (
            f"{now.format:.0%} of the answers have the wanted format, {first.format:.0%} at the start: the reward may"
            " be easier to get without the format"
        )
    if now.entropy <= ENTROPY_COLLAPSE * first.entropy:
        found["collapsed"] = (
            f"entropy has collapsed ({first.entropy:.2f} → {now.entropy:.2f} nats a token): the samples of a"
            " prompt become equal, which leaves little to learn from"
        )
    if now.entropy >= max(ENTROPY_EXPLOSION * first.entropy, first.entropy + ENTROPY_RISE):
        found["exploded"] = (
            f"entropy has exploded ({first.entropy:.2f} → {now.entropy:.2f} nats a token): the policy drifts into noise; a"
            " lower lr or a stronger KL penalty may hold it"
        )
    return found


def repetition(tokens: Sequence[int]) -> float:
    """Share of an answer's n-grams of NGRAM tokens that occur earlier in it: near 1 for an endless repetition; 0 for an
    answer shorter than NGRAM."""
    grams = [tuple(tokens[start : start + NGRAM]) for start in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def mean_and_error(values: Sequence[float], groups: Sequence[int]) -> tuple[float | None, float | None]:
    """(mean of the finite values, its standard error); the mean is None without values, the error None with fewer than
    two prompts.

    values: of answers. groups: their prompts. Answers to one prompt are correlated, so the error is that of a mean of
    clusters (Liang and Zeger 1986): sqrt(G / (G - 1) * sum over the G prompts of (sum of deviations)²) / n.
    """
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
