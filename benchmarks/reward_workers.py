"""What a process of its own costs a reward function: seconds until it can be asked, and calls a second of a function that does
nothing, against calling it here.

    python benchmarks/reward_workers.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

from data.sample import Prompt, Sample
from rlhf.config.rewards import Limits
from rlhf.rewards.workers import Call, Workers

SAMPLES, TOKENS, ROUNDS = 2048, 200, 5


def brevity(sample: Sample) -> float:
    return -float(len(sample.text))


def main() -> None:
    tokens, logprobs = tuple(range(TOKENS)), tuple(-0.1 * token for token in range(TOKENS))
    samples = [
        Sample(Prompt(tokens, "a question", row), 0, tokens, logprobs, "a word " * TOKENS, False, 1)
        for row in range(SAMPLES)
    ]
    here = rate(lambda: [brevity(sample) for sample in samples])
    print(f"{SAMPLES} samples of {TOKENS} tokens, the best of {ROUNDS} rounds")
    print(f"here: {here:,.0f} calls/s")
    for count in (1, 2, 4):
        start = time.perf_counter()
        with Workers("brevity", Call(brevity, limits=Limits(workers=count))) as workers:
            workers.score(samples[:count])
            started = time.perf_counter() - start
            there = rate(lambda workers=workers: workers.score(samples))
        print(f"{count} workers: {started:.2f} s until the first answer, then {there:,.0f} calls/s")


def rate(score: Callable[[], object]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        score()
        seconds.append(time.perf_counter() - start)
    return SAMPLES / min(seconds)


if __name__ == "__main__":
    main()
