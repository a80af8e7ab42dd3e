"""Turns messages into tokens and loss masks with the tokenizer's chat template.

The mask comes from rendering: an answer starts where the dialogue before it, rendered with the generation prompt as the model
sees it when asked, ends. The answer ends with the first end-of-turn token after its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from data.errors import UserError
from data.messages import Message
from data.tokenizer import Tokenizer, end_of_turn, ensure_chat_template, shared_prefix
from data.unit import Example

STEP = "\n"  # separates the steps of an answer
TOKENIZED_AT_ONCE = 1024  # texts per call: enough for all of the tokenizer's threads, with bounded memory


@dataclass(frozen=True)
class Dialogue:
    """Rendered messages and the parts to train on: answers, the ends of an answer's steps, or the last token."""

    text: str
    starts: tuple[int, ...]  # character offsets of the trained answers' starts; () = train on the last token alone
    origin: str
    meta: dict[str, Any]
    columns: Mapping[str, float] = field(default_factory=dict)  # for the row's Example
    steps: tuple[int, ...] | None = None  # character offsets of the ends of the only answer's steps


class ChatTemplate:
    """The chat template of a tokenizer, or ChatML where the tokenizer has none.

    Raises UserError where the template writes no end-of-turn token: no model could learn when to stop.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = ensure_chat_template(tokenizer)
        end = end_of_turn(tokenizer)
        if end is None:
            raise UserError(
                f"tokenizer {tokenizer.name_or_path}: its chat template writes no end-of-turn token after an answer"
            )
        self._end = end

    def prompt(self, messages: Sequence[Message], origin: str) -> str:
        """The text that asks for the next answer, generation prompt included."""
        return self._render(messages, origin, add_generation_prompt=True)

    def observation(self, text: str, answer_end: int) -> list[int]:
        """The tokens between two answers where the user says `text` after the first, which ended with the token `answer_end`: the
        rest of the answer's turn, the user's turn and the generation prompt.

        Raises UserError where the template refuses a second question, or renders an answer differently when one follows.
        """
        origin, asked = "a rollout of several turns", [{"role": "user", "content": "a"}]
        messages = [*asked, {"role": "assistant", "content": "b"}, {"role": "user", "content": text}]
        dialogue = self._render(messages, origin, add_generation_prompt=True)
        place = dialogue.find(self._tokenizer.convert_ids_to_tokens(self._end), self._start(asked, dialogue, origin))
        if place < 0:
            raise UserError(
                f"{origin}: the chat template writes no end-of-turn token after an answer to be followed up"
            )
        # include the end-of-turn token, because some tokenizers strip or add blanks after it
        tokens = self._tokenizer.encode(dialogue[place:], add_special_tokens=False)
        # an answer that ended with the end-of-text token still needs its end-of-turn token
        return tokens[1:] if answer_end == self._end else tokens

    def dialogue(
        self,
        messages: Sequence[Message],
        origin: str,
        *,
        last_only: bool = False,
        columns: Mapping[str, float] | None = None,
        **meta: Any,
    ) -> Dialogue:
        """Renders messages and finds the starts of all answers, or of the last message only.

        Raises UserError where there is no answer, or where the template renders earlier turns differently when later turns follow.
        """
        answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers or (last_only and answers[-1] != len(messages) - 1):
            raise UserError(f"{origin}: no assistant message to train on")
        if answers[0] == 0:
            raise UserError(f"{origin}: the first message is the assistant's, so it answers nothing")
        text = self._render(messages, origin)
        starts = tuple(
            self._start(messages[:place], text, origin) for place in (answers[-1:] if last_only else answers)
        )
        return Dialogue(text, starts, origin, meta, columns or {})

    def stepwise(self, prompt: Sequence[Message], steps: Sequence[str], origin: str, **meta: Any) -> Dialogue:
        """The prompt and an answer with one step a line. Only step ends are trained on: the token after each step's last character,
        and the end-of-turn token for the last step.

        steps: not blank, without line breaks. Raises UserError where the template changes the answer.
        """
        answer = STEP.join(steps).strip()  # many templates strip it
        messages = [*prompt, {"role": "assistant", "content": answer}]
        dialogue = self.dialogue(messages, origin, last_only=True, **meta)
        start = dialogue.text.find(answer, dialogue.starts[0])
        if start < 0:
            raise UserError(f"{origin}: the chat template changes the answer, so that its steps cannot be found")
        lengths = np.cumsum([len(step) + len(STEP) for step in answer.split(STEP)]) if steps else np.array([], int)
        return replace(dialogue, steps=tuple((start + lengths - len(STEP)).tolist()))

    def question(
        self, messages: Sequence[Message], origin: str, *, columns: Mapping[str, float] | None = None, **meta: Any
    ) -> Dialogue:
        """The dialogue with the generation prompt. Only its last token is trained on."""
        return Dialogue(self.prompt(messages, origin), (), origin, meta, columns or {})

    def encode(self, dialogues: Iterable[Dialogue]) -> Iterator[Example]:
        """Tokens and mask of each dialogue, in order, cut after the last trained token: a sampled answer has nothing after it.

        Raises UserError where an answer has no end-of-turn token, and where the mask would be all True.
        """
        for batch in batched(dialogues, TOKENIZED_AT_ONCE):
            encoded = self._tokenizer(
                [dialogue.text for dialogue in batch],
                add_special_tokens=False,  # the template has written them
                return_offsets_mapping=True,
                verbose=False,
            )
            for dialogue, tokens, offsets in zip(batch, encoded["input_ids"], encoded["offset_mapping"], strict=True):
                yield self._example(dialogue, np.array(tokens, np.int32), np.array(offsets).reshape(-1, 2)[:, 0])

    def _example(self, dialogue: Dialogue, tokens: np.ndarray, offsets: np.ndarray) -> Example:
        mask = np.zeros(len(tokens), bool)
        last = len(tokens) - 1
        if not dialogue.starts:
            mask[last] = True
        for start in dialogue.starts:
            # a token across the border belongs to the question: it starts before the answer
            first = np.searchsorted(offsets, start)
            last = self._answer_end(dialogue, tokens, first)
            if dialogue.steps is None:
                mask[first : last + 1] = True
        if dialogue.steps:
            mask[np.searchsorted(offsets, dialogue.steps[:-1])] = True
            mask[last] = True
        if mask.all():
            raise UserError(
                f"{dialogue.origin}: every token would be trained on; the chat template writes nothing before the answer"
            )
        return Example(tokens[: last + 1], mask[: last + 1], dialogue.meta, dialogue.columns)

    def _answer_end(self, dialogue: Dialogue, tokens: np.ndarray, first: int) -> int:
        """The place of the end-of-turn token of the answer that starts at token `first`."""
        ends = np.flatnonzero(tokens[first:] == self._end)
        if not len(ends):
            raise UserError(f"{dialogue.origin}: the chat template writes no end-of-turn token after this answer")
        return int(first + ends[0])

    def _start(self, before: Sequence[Message], text: str, origin: str) -> int:
        """The character offset in `text` of the answer to the messages `before`."""
        prompt = self._render(before, origin, add_generation_prompt=True)
        if text.startswith(prompt):
            return len(prompt)
        # a generation prompt may open a thought, which a finished answer lacks
        shared = shared_prefix(prompt, text)
        if shared < len(self._render(before, origin)):
            raise UserError(
                f"{origin}: the chat template renders earlier turns differently when later ones follow, so they cannot be "
                "masked; keep one answer a row, or set another chat template"
            )
        return shared

    def _render(self, messages: Sequence[Message], origin: str, **options: Any) -> str:
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
        except TemplateError as error:
            raise UserError(f"{origin}: the chat template refuses these messages: {error}") from error


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Consecutive lists of `size` items; the last list may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
