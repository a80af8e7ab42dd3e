"""Rollouts of several turns. An episode is a coroutine that talks with the policy and returns the episode's score, or
None if only the reward functions score it:

    async def rollout(prompt: Prompt, conversation: Conversation) -> float | None:
        for _ in range(3):
            answer = await conversation.answer()        # the policy's turn: trained on
            if answer == prompt.meta["word"]:
                return 1.0
            conversation.observe("No. Try again.")      # the user's turn: read, not trained on
        return 0.0

or an `Environment`. `play` runs all episodes of a step concurrently and sends their turns to the rollout engines in
batches.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from data.errors import UserError
from data.imports import load_object
from data.render import ChatTemplate
from data.sample import Prompt, Sample, Sampling
from rlhf.interfaces import RolloutPool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PATIENCE_S = 0.01  # how long asked turns wait for episodes that have not asked yet
TURNS = 2**20  # more turns than a dialogue can have, since each takes a token


class Environment(Protocol):
    """The other side of an episode; each sample gets an object of its own. Both methods should be fast, since all
    episodes share a thread: write an episode that waits for something outside as a coroutine."""

    def reset(self, prompt: Prompt) -> None:
        """Called before the first answer."""

    def step(self, answer: str) -> tuple[str | None, float]:
        """(the next observation, or None to end the episode; the reward of this turn). The score is the sum of
        rewards."""


class EpisodeOver(Exception):
    """Raised by `Conversation.answer` if the last answer was cut off, or if max_length leaves no room for another
    answer. A rollout that does not catch it returns no score. The sample is marked truncated in either case."""


class Conversation:
    """One sample's dialogue with the policy: the prompt, then answers and observations in turn."""

    def __init__(self, prompt: Prompt, index: int, rounds: _Rounds) -> None:
        self.prompt = prompt
        self._index = index
        self._rounds = rounds
        self._tokens: list[int] = []  # of answers, and of observations between answers
        self._logprobs: list[float] = []
        self._sampled: list[bool] = []
        self._texts: list[str] = []
        self._told: str | None = ""  # observation before the next answer; None: no answer is due
        self._turns = 0
        self._version = 0
        self._truncated = False

    async def answer(self) -> str:
        """The policy's next turn. An answer that was cut off at its token limit is returned too; it is the last one.

        Raises EpisodeOver where no further answer is possible.
        """
        if self._truncated:
            raise EpisodeOver
        if self._told is None:
            raise UserError("answer() was called twice in a row; call observe(text) in between")
        observed = self._rounds.template.observation(self._told, self._tokens[-1]) if self._turns else []
        context = (*self.prompt.tokens, *self._tokens, *observed)
        if len(context) >= self._rounds.max_length:
            self._truncated = True
            raise EpisodeOver
        told, self._told = self._told, None
        turn = await self._rounds.turn(context, self.prompt.row, self._index, self._turns)
        self._tokens += (*observed, *turn.tokens)
        self._logprobs += (*(0.0 for _ in observed), *turn.logprobs)
        self._sampled += (*(False for _ in observed), *(True for _ in turn.tokens))
        self._texts += (told, turn.text) if self._turns else (turn.text,)
        self._turns += 1
        self._version, self._truncated = turn.version, turn.truncated
        return turn.text

    def observe(self, text: str) -> None:
        """Adds an observation: a user turn, rendered by the chat template."""
        if not self._turns:
            raise UserError("observe(text) was called before the first answer; the policy reads the prompt first")
        if self._told is not None:
            raise UserError("observe(text) was called twice in a row; put both observations into one text")
        if not isinstance(text, str):
            raise UserError(f"observe(text) was given {text!r}; wanted a string")
        self._told = text

    def sample(self, score: Any) -> Sample:
        """The dialogue up to its last answer, as a sample. score: a number, or None."""
        if not self._turns:
            raise UserError("the episode ended before the first answer; await conversation.answer() at least once")
        return Sample(
            prompt=self.prompt,
            index=self._index,
            tokens=tuple(self._tokens),
            logprobs=tuple(self._logprobs),
            text="\n".join(self._texts),
            truncated=self._truncated,
            version=self._version,
            sampled=tuple(self._sampled),
            score=None if score is None else _number(score, "the score"),
        )


Rollout = Callable[[Prompt, Conversation], Awaitable[float | None]]


def play(
    rollout: Rollout,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    pool: RolloutPool,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> list[Sample]:
    """Runs sampling.samples episodes of each prompt concurrently; returns their samples ordered by (prompt, index).
    max_length: tokens of a dialogue, including the prompt. A turn's seed depends only on sampling.seed, the prompt's
    row, the sample's index and the turn's number, so a rerun gives the same samples however turns are batched.

    Raises the first error of an episode, as UserError if it is one and as RuntimeError otherwise, with the row in its
    message. An error of the pool is raised unchanged.
    """
    for prompt in prompts:
        if not 0 < len(prompt.tokens) < max_length:
            raise UserError(
                f"the prompt of row {prompt.row} has {len(prompt.tokens)} tokens; wanted at least 1 and fewer than "
                f"max_length={max_length}, which holds the whole dialogue: raise max_length or drop the row"
            )
    thread = ThreadPoolExecutor(1, thread_name_prefix="generate")
    rounds = _Rounds(pool, sampling, ChatTemplate(tokenizer), max_length, len(prompts) * sampling.samples, thread)
    try:
        return asyncio.run(_play(rollout, prompts, sampling.samples, rounds))
    finally:
        thread.shutdown(wait=False)  # after an error or Ctrl-C, do not wait for turns in flight


def resolve_rollout(given: str | Rollout | Callable[[], Environment]) -> Rollout:
    """A rollout from `module:attribute` or from the object itself: a coroutine function of (prompt, conversation), or
    an environment's class, or a function that makes environments.

    Raises UserError where it is none of these.
    """
    found = load_object(given) if isinstance(given, str) else given
    if inspect.iscoroutinefunction(found) and _takes(found, 2):
        return found
    if callable(found) and not inspect.iscoroutinefunction(found) and _takes(found, 0):
        made = found()
        if callable(getattr(made, "reset", None)) and callable(getattr(made, "step", None)):
            return _in_environment(found)
    raise UserError(
        f"rollout {given!r} is {found!r}; wanted `async def rollout(prompt, conversation)`, or an environment's class, or a "
        "function without arguments that makes one: an object with reset(prompt) and step(answer), a new one for each sample"
    )


class _Rounds:
    """Collects the turns that episodes wait for into batches, one call of the pool each."""

    def __init__(
        self,
        pool: RolloutPool,
        sampling: Sampling,
        template: ChatTemplate,
        max_length: int,
        episodes: int,
        thread: Executor,
    ) -> None:
        self.template = template
        self.max_length = max_length
        self._pool = pool
        self._samples = sampling.samples
        self._sampling = replace(sampling, samples=1)
        self._live = episodes
        self._thread = thread
        self._asked: list[tuple[Prompt, asyncio.Future[Sample]]] = []
        self._news = asyncio.Event()  # a turn was asked for, or an episode ended

    async def turn(self, tokens: tuple[int, ...], row: int, index: int, number: int) -> Sample:
        """The policy's answer to these tokens."""
        own_row = (row * self._samples + index) * TURNS + number  # the pool derives the seed from it
        answer = asyncio.get_running_loop().create_future()
        self._asked.append((Prompt(tokens, "", own_row), answer))
        self._news.set()
        return await answer

    def leave(self) -> None:
        """An episode ended."""
        self._live -= 1
        self._news.set()

    async def serve(self) -> None:
        """Answers until no episode is left."""
        while await self._settled():
            asked, self._asked = self._asked, []
            samples = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._pool.generate, [prompt for prompt, _ in asked], self._sampling
            )
            for (_, answer), sample in zip(asked, samples, strict=True):
                if not answer.done():  # the rollout may have cancelled it by a timeout
                    answer.set_result(sample)

    async def _settled(self) -> bool:
        """Waits until all live episodes have asked, or some have and no other asks within PATIENCE_S; False if no
        episode is left."""
        while len(self._asked) < self._live:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), PATIENCE_S if self._asked else None)
            except TimeoutError:
                break
        return self._live > 0


async def _play(rollout: Rollout, prompts: Sequence[Prompt], samples: int, rounds: _Rounds) -> list[Sample]:
    episodes = [
        _episode(rollout, Conversation(prompt, index, rounds), f"prompt row {prompt.row}, sample {index}", rounds)
        for prompt in prompts
        for index in range(samples)
    ]
    _, *played = await asyncio.gather(rounds.serve(), *episodes)
    return played


async def _episode(rollout: Rollout, conversation: Conversation, where: str, rounds: _Rounds) -> Sample:
    try:
        score = None
        with suppress(EpisodeOver):
            score = await rollout(conversation.prompt, conversation)
        return conversation.sample(score)
    except UserError as error:
        raise UserError(f"rollout of {where}: {error}") from error
    except Exception as error:  # any error of the user's code: the message names the row
        raise RuntimeError(f"rollout of {where} failed: {type(error).__name__}: {error}") from error
    finally:
        rounds.leave()


def _in_environment(make: Callable[[], Environment]) -> Rollout:
    async def rollout(prompt: Prompt, conversation: Conversation) -> float:
        environment, score = make(), 0.0
        environment.reset(prompt)
        with suppress(EpisodeOver):
            while True:
                told, reward = _told_and_reward(environment.step(await conversation.answer()))
                score += reward
                if told is None:
                    break
                conversation.observe(told)
        return score

    return rollout


def _told_and_reward(returned: Any) -> tuple[str | None, float]:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise UserError(f"step(answer) returned {returned!r}; wanted (the next observation or None, the reward)")
    told, reward = returned
    return told, _number(reward, "the reward of step(answer)")


def _number(value: Any, what: str) -> float:
    advice = f"{what} is {value!r}; wanted a number"
    if isinstance(value, str | bytes):  # float() would read a number from them
        raise UserError(advice)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserError(advice) from error


def _takes(function: Callable, arguments: int) -> bool:
    """Whether the function can be called with this number of positional arguments."""
    try:
        inspect.signature(function).bind(*range(arguments))
    except (TypeError, ValueError):  # ValueError: some built-in functions have no signature
        return False
    return True
