"""Finds contradictory preferences: pairs judged both ways, and cycles such as A > B > C > A."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import combinations

from data.feedback.annotators import key
from data.unit import TrainingUnit

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Votes = Counter[tuple[bytes, bytes]]  # (better answer, worse answer) -> number of judgments


def contradictions(units: Iterable[TrainingUnit]) -> list[str]:
    """At most two warnings: of pairs judged both ways, and of cycles. Cycles follow the majority: where a pair was judged both ways
    equally often, neither answer is better."""
    votes: dict[str, Votes] = defaultdict(Counter)
    rows: dict[str, dict[int, None]] = defaultdict(dict)  # of each prompt, in order
    for unit in units:
        prompt, answers = unit[0].meta["prompt_key"], [key(row.tokens) for row in unit]
        rows[prompt][unit[0].meta["row"]] = None
        for better, worse in combinations(range(len(unit)), 2):
            if unit[better].columns["ranks"] < unit[worse].columns["ranks"]:
                votes[prompt][answers[better], answers[worse]] += 1
    # one row cannot contradict itself
    several = {prompt: said for prompt, said in votes.items() if len(rows[prompt]) > 1}
    both_ways = {prompt: count for prompt, said in several.items() if (count := _both_ways(said))}
    cycles = {prompt: cycle for prompt, said in several.items() if (cycle := _cycle(said))}
    found = []
    if both_ways:
        numbers = _numbers(rows[next(iter(both_ways))])
        found.append(f"{_count(sum(both_ways.values()), 'pair')} of answers judged both ways, e.g. in rows {numbers}")
    if cycles:
        prompt, cycle = next(iter(cycles.items()))
        found.append(
            f"{_count(len(cycles), 'prompt')} with contradictory preferences, e.g. rows {_numbers(rows[prompt])}: {cycle}"
        )
    return found


def _both_ways(votes: Votes) -> int:
    return sum((worse, better) in votes and better < worse for better, worse in votes)


def _cycle(votes: Votes) -> str:
    """A cycle of the majority's preferences, with letters for answers; "" where there is none."""
    majority = [pair for pair, count in votes.items() if count > votes.get(pair[::-1], 0)]
    if len(majority) < 3:
        return ""
    import networkx

    graph = networkx.DiGraph(majority)
    for component in networkx.strongly_connected_components(graph):
        if len(component) > 1:
            edges = networkx.find_cycle(graph.subgraph(component))
            names = [LETTERS[place % len(LETTERS)] for place in range(len(edges))]
            return " > ".join([*names, names[0]])
    return ""


def _numbers(rows: Iterable[int]) -> str:
    """The first four row numbers, counted from 1."""
    first = [str(row + 1) for row in rows]
    return ", ".join(first[:4]) + (", …" if len(first) > 4 else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
