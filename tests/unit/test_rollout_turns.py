"""Episodes against a pool that follows the RolloutPool protocol and answers by the seed alone."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from dataclasses import replace

import pytest
from data_cases import assistant, tokenizer, user

from data.errors import UserError
from data.render import ChatTemplate
from data.sample import Prompt, Sample, Sampling
from data.tokenizer import end_of_turn
from examples.guess import Guess
from rlhf.rollout import EpisodeOver, play, resolve_rollout

QUESTION = "What is 2 + 3?"
ROOM = 10_000
VERSION = 4


def ids(text: str) -> list[int]:
    return tokenizer().encode(text, add_special_tokens=False)


def prompt(row: int = 0, text: str = QUESTION, **meta) -> Prompt:
    return Prompt(tuple(ids(ChatTemplate(tokenizer()).prompt([user(text)], "test"))), text, row, meta)


class Scripted:
    """Answers with `script`, or with a number that the seed gives; keeps what it was asked."""

    def __init__(self, script=lambda number: f"say {number}"):
        self.script = script
        self.calls: list[list[Prompt]] = []
        self.keys: list[tuple] = []
        self.threads: set[int] = set()

    def generate(self, prompts, sampling):
        self.calls.append(list(prompts))
        self.threads.add(threading.get_ident())
        return [self._sample(one, index, sampling) for one in prompts for index in range(sampling.samples)]

    def _sample(self, asked: Prompt, index: int, sampling: Sampling) -> Sample:
        key = (*sampling.seed, asked.row, index)
        self.keys.append(key)
        number = random.Random(str(key)).randrange(10**6)
        text = self.script(number)
        tokens = (*ids(text), end_of_turn(tokenizer()))
        kept = tokens[: sampling.max_new_tokens]
        logprobs = tuple(-float(number + place) for place in range(1, len(kept) + 1))
        return Sample(asked, index, kept, logprobs, text, len(kept) < len(tokens), VERSION + len(self.calls))


def played(rollout, prompts=None, samples=1, pool=None, max_length=ROOM, max_new_tokens=100, seed=(7, 1)):
    sampling = Sampling(max_new_tokens, samples=samples, seed=seed)
    prompts = [prompt()] if prompts is None else prompts
    return play(resolve_rollout(rollout), prompts, sampling, pool or Scripted(), tokenizer(), max_length)


def turns_of(count: int):
    async def rollout(prompt, conversation):
        for turn in range(count):
            if turn:
                conversation.observe(f"and {turn}?")
            await conversation.answer()

    return rollout


class Counting:
    """Ends after three answers; each is worth 1, 2, 3."""

    def __init__(self):
        self.answers = 0

    def reset(self, prompt):
        self.row = prompt.row

    def step(self, answer):
        self.answers += 1
        return (None if self.answers == 3 else f"row {self.row}, turn {self.answers}"), self.answers


def test_the_tokens_are_those_of_the_whole_dialogue_and_the_mask_is_on_the_answers():
    (sample,) = played(turns_of(3), pool=Scripted(lambda number: "It is 5."))
    dialogue = [user(QUESTION), assistant("It is 5."), user("and 1?"), assistant("It is 5."), user("and 2?")]
    example = next(
        ChatTemplate(tokenizer()).encode(
            [ChatTemplate(tokenizer()).dialogue([*dialogue, assistant("It is 5.")], "test")]
        )
    )
    assert [*sample.prompt.tokens, *sample.tokens] == example.tokens.tolist()
    assert [*(False for _ in sample.prompt.tokens), *sample.sampled] == example.mask.tolist()
    assert sample.text == "It is 5.\nand 1?\nIt is 5.\nand 2?\nIt is 5."


def test_observations_have_logprob_0_and_answers_their_own():
    pool = Scripted()
    (sample,) = played(turns_of(2), pool=pool)
    assert len(sample.tokens) == len(sample.logprobs) == len(sample.sampled)
    assert all((logprob == 0) == (not sampled) for logprob, sampled in zip(sample.logprobs, sample.sampled))
    first, second = pool.keys
    starts = [-random.Random(str(key)).randrange(10**6) - 1 for key in (first, second)]
    again = sample.sampled.index(True, sample.sampled.index(False))
    assert [sample.logprobs[0], sample.logprobs[again]] == starts


def test_samples_are_ordered_by_prompt_and_index_whoever_ends_first():
    async def last_ones_first(prompt, conversation):
        if prompt.row == 5:
            await asyncio.wait_for(others_done.wait(), 20)
        await conversation.answer()
        if prompt.row == 3:
            others_done.set()

    others_done = asyncio.Event()
    prompts = [prompt(row) for row in (5, 2, 3)]
    samples = played(last_ones_first, prompts, samples=2)
    assert [(sample.prompt.row, sample.index) for sample in samples] == [(5, 0), (5, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert samples[0].prompt is prompts[0]  # rows are grouped by it
    assert [sample.version - VERSION for sample in samples] == [2, 2, 1, 1, 1, 1]


def test_all_episodes_share_one_call_a_round():
    pool = Scripted()
    played(turns_of(3), [prompt(row) for row in range(4)], samples=2, pool=pool)
    assert [len(call) for call in pool.calls] == [8, 8, 8]


def test_episodes_of_unequal_length_still_share_their_calls():
    async def rollout(prompt, conversation):
        await conversation.answer()
        for _ in range(prompt.row):
            conversation.observe("more")
            await conversation.answer()

    pool = Scripted()
    played(rollout, [prompt(row) for row in range(4)], pool=pool)
    assert [len(call) for call in pool.calls] == [4, 3, 2, 1]


def test_every_turn_of_every_sample_has_a_seed_of_its_own():
    pool = Scripted()
    played(turns_of(3), [prompt(row) for row in range(3)], samples=4, pool=pool)
    assert len(set(pool.keys)) == 3 * 4 * 3


def test_a_rerun_gives_the_same_samples_whatever_is_batched_with_what():
    async def one_row_after_the_other(prompt, conversation):
        if prompt.row:
            await asyncio.wait_for(done[prompt.row - 1].wait(), 20)
        await turns_of(3)(prompt, conversation)
        done[prompt.row].set()

    done = [asyncio.Event() for _ in range(3)]
    prompts = [prompt(row) for row in range(3)]
    pool = Scripted()
    together = played(turns_of(3), prompts, samples=2)
    apart = played(one_row_after_the_other, prompts, samples=2, pool=pool)
    assert len(pool.calls) >= 9
    assert [replace(sample, version=0) for sample in apart] == [replace(sample, version=0) for sample in together]
    assert played(turns_of(3), prompts, samples=2) == together
    assert played(turns_of(3), prompts[:1], samples=2) == together[:2]
    assert played(turns_of(3), prompts, samples=2, seed=(7, 2))[0].tokens != together[0].tokens


def test_an_episode_with_something_of_its_own_to_do_holds_up_no_other():
    async def rollout(prompt, conversation):
        await conversation.answer()
        if prompt.row == 0:
            await asyncio.wait_for(others_done.wait(), 20)
        conversation.observe("next")
        await conversation.answer()
        if prompt.row == 2:
            others_done.set()

    others_done = asyncio.Event()
    pool = Scripted()
    played(rollout, [prompt(row) for row in range(3)], pool=pool)
    assert [len(call) for call in pool.calls] == [3, 2, 1]


def test_episodes_at_different_turns_share_a_call():
    async def rollout(prompt, conversation):
        if prompt.row == 0:
            await asyncio.wait_for(first_answered.wait(), 20)
        await conversation.answer()
        first_answered.set()
        conversation.observe("next")
        await conversation.answer()

    first_answered = asyncio.Event()
    pool = Scripted()
    played(rollout, [prompt(row) for row in range(3)], pool=pool)
    assert [len(call) for call in pool.calls] == [2, 3, 1]


def test_episodes_go_on_while_the_engines_generate():
    class Waiting(Scripted):
        def generate(self, prompts, sampling):
            begun.set()
            assert released.wait(20)
            return super().generate(prompts, sampling)

    async def rollout(prompt, conversation):
        if prompt.row == 1:
            while not begun.is_set():
                await asyncio.sleep(0.001)
            released.set()
        await conversation.answer()

    begun, released = threading.Event(), threading.Event()
    pool = Waiting()
    played(rollout, [prompt(0), prompt(1)], pool=pool)
    assert [len(call) for call in pool.calls] == [1, 1]
    assert threading.get_ident() not in pool.threads


def test_an_environment_gives_the_sum_of_its_rewards_and_is_new_for_each_sample():
    samples = played(Counting, [prompt(3), prompt(4)], samples=2)
    assert [sample.score for sample in samples] == [6, 6, 6, 6]
    assert [f"row {sample.prompt.row}, turn 2" in sample.text for sample in samples] == [True] * 4
    assert not any(sample.truncated for sample in samples)


def test_a_coroutine_gives_the_score_that_it_returns():
    async def rollout(prompt, conversation):
        await conversation.answer()
        return prompt.row

    assert [sample.score for sample in played(rollout, [prompt(2), prompt(0)])] == [2.0, 0.0]
    assert played(turns_of(1))[0].score is None


def test_what_is_observed_after_the_last_answer_is_left_out():
    async def rollout(prompt, conversation):
        await conversation.answer()
        conversation.observe("well done")

    (sample,) = played(rollout)
    assert sample.tokens[-1] == end_of_turn(tokenizer())
    assert sample.sampled == (True,) * len(sample.tokens)


def test_no_room_for_another_answer_ends_the_episode_as_truncated():
    (whole,) = played(Counting)
    length = len(whole.prompt.tokens) + len(whole.tokens)
    last = length - len(ids(whole.text.split("\n")[-1])) - 1  # tokens before the last answer
    (cut,) = played(Counting, max_length=last)
    assert (cut.truncated, cut.score) == (True, 1 + 2)
    assert whole.tokens[: len(cut.tokens)] == cut.tokens
    assert cut.sampled[-1]
    assert len(cut.tokens) < len(whole.tokens)
    (fits,) = played(Counting, max_length=last + 1)
    assert (fits.truncated, fits.score) == (False, 6)


def test_an_answer_without_its_end_is_the_last_one_and_still_counts():
    pool = Scripted(lambda number: "the cat sat on the mat" if len(pool.calls) == 2 else "It")
    (sample,) = played(Counting, pool=pool, max_new_tokens=4)
    assert (sample.truncated, sample.score) == (True, 1 + 2)
    assert len(pool.calls) == 2
    assert sample.tokens[-1] != end_of_turn(tokenizer())


def test_a_coroutine_may_score_an_episode_that_is_cut_off():
    async def rollout(prompt, conversation):
        await conversation.answer()
        conversation.observe("more")
        try:
            await conversation.answer()
        except EpisodeOver:
            return -1.0

    assert played(rollout, max_new_tokens=1)[0].score == -1
    assert played(turns_of(2), max_new_tokens=1)[0].score is None


def test_a_turn_that_ended_with_the_end_of_text_is_closed_before_the_next():
    class EndOfText(Scripted):
        def generate(self, prompts, sampling):
            (sample,) = super().generate(prompts, sampling)
            object.__setattr__(sample, "tokens", (*sample.tokens[:-1], tokenizer().eos_token_id))
            return [sample]

    (sample,) = played(turns_of(2), pool=EndOfText())
    first = sample.sampled.index(False)
    assert (
        tokenizer().decode(sample.tokens[first - 1 :]).startswith("<|endoftext|><|im_end|>\n<|im_start|>user\nand 1?")
    )


def test_an_error_names_the_row_and_keeps_its_traceback():
    async def rollout(prompt, conversation):
        await conversation.answer()
        return 1 / (prompt.row - 8)

    with pytest.raises(RuntimeError, match="prompt row 8, sample 0 failed: ZeroDivisionError") as caught:
        played(rollout, [prompt(7), prompt(8)])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_waits_for_no_other_episode():
    async def rollout(prompt, conversation):
        if prompt.row == 1:
            raise KeyError("lost")
        await asyncio.sleep(60)

    started = time.monotonic()
    with pytest.raises(RuntimeError, match="prompt row 1, sample 0 failed: KeyError: 'lost'"):
        played(rollout, [prompt(0), prompt(1)])
    assert time.monotonic() - started < 30


def test_an_error_of_the_pool_goes_through():
    class Broken:
        def generate(self, prompts, sampling):
            raise ConnectionError("engine 0 is gone")

    with pytest.raises(ConnectionError, match="engine 0 is gone"):
        played(turns_of(2), pool=Broken())


async def silent(prompt, conversation):
    return 1.0


async def eager(prompt, conversation):
    conversation.observe("hello")


async def twice(prompt, conversation):
    await conversation.answer()
    await conversation.answer()


async def talkative(prompt, conversation):
    await conversation.answer()
    conversation.observe("one")
    conversation.observe("two")


async def wordy(prompt, conversation):
    await conversation.answer()
    return "1.0"


class Bare(Counting):
    def step(self, answer):
        return "again"


class Unrewarding(Counting):
    def step(self, answer):
        return "again", None


@pytest.mark.parametrize(
    ("rollout", "advice"),
    [
        (silent, "ended before the first answer; await conversation.answer"),
        (eager, "was called before the first answer; the policy reads the prompt first"),
        (twice, r"call observe\(text\) in between"),
        (talkative, "put both observations into one text"),
        (wordy, "the score is '1.0'; wanted a number"),
        (Bare, "returned 'again'; wanted"),
        (Unrewarding, "is None; wanted a number"),
    ],
)
def test_a_mistake_is_told_with_its_row_and_advice(rollout, advice):
    with pytest.raises(UserError, match=f"prompt row 3, sample 0: .*{advice}"):
        played(rollout, [prompt(3)])


def test_a_prompt_without_room_for_an_answer_is_named():
    with pytest.raises(UserError, match=r"row 6 has \d+ tokens; .* raise max_length"):
        played(turns_of(1), [prompt(6)], max_length=3)


def test_no_prompts_are_no_samples():
    assert played(turns_of(1), []) == []


def test_a_rollout_is_found_by_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "my_rollouts_a.py").write_text(
        "async def episode(prompt, conversation):\n    await conversation.answer()\n    return 2.0\n"
    )
    monkeypatch.chdir(tmp_path)
    assert played("my_rollouts_a:episode")[0].score == 2
    assert played(lambda: Counting())[0].score == 6


def test_the_example_is_an_environment():
    answers = iter(["m", "no idea", "Q"])
    (sample,) = played("examples.guess:Guess", [prompt(secret="q")], pool=Scripted(lambda number: next(answers)))
    assert sample.text.split("\n")[::2] == ["m", "no idea", "Q"]
    assert "later" in sample.text.split("\n")[1]
    assert sample.score == 1


@pytest.mark.parametrize(
    "given",
    [
        Guess(),
        object,
        lambda prompt, conversation: None,
        lambda: "no environment",
        "math:pi",
        "random:random",
        5,
    ],
)
def test_what_is_no_rollout_is_refused_with_advice(given):
    with pytest.raises(UserError, match="wanted `async def rollout"):
        resolve_rollout(given)


def test_a_coroutine_function_of_other_arguments_is_refused():
    async def rollout(prompt):
        return 1.0

    with pytest.raises(UserError, match="wanted `async def rollout"):
        resolve_rollout(rollout)
