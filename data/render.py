"""Messages to tokens and loss masks through the tokenizer's chat template.

The mask comes from rendering, never from searching text: what the template writes up to an answer is the dialogue before
it rendered with the generation prompt, exactly what the model sees when it is asked; the answer ends with the first
end-of-turn token after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from data.errors import UserError
from data.messages import Message
from data.tokenizer import end_of_turn, ensure_chat_template, shared_prefix
from data.unit import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STEP = "\n"  # between the steps of an answer
TOKENIZED_AT_ONCE = 1024  # texts: enough to keep the tokenizer's threads busy, few enough to bound memory


@dataclass(frozen=True)
class Dialogue:
    """Rendered messages, and what of them is trained on: answers, or the ends of an answer's steps, or the last token."""

    text: str
    starts: tuple[int, ...]  # character offsets where the answers to be trained on start; () = the last token alone
    origin: str
    meta: dict[str, Any]
    columns: Mapping[str, float] = field(default_factory=dict)  # for the row's Example
    steps: tuple[int, ...] | None = None  # character offsets where the steps of the one answer end


class ChatTemplate:
    """The chat template of a tokenizer, ChatML where it has none.

    Raises UserError where it writes no end-of-turn token, so that no model could learn from it when to stop.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
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
        """The tokens between an answer, whose last token is answer_end, and the next one where the user says `text` in
        between: what the template still writes of the answer's turn, the user's turn, the generation prompt.

        Raises UserError where the template refuses a second question, or writes an answer differently before one.
        """
        origin, asked = "a rollout of several turns", [{"role": "user", "content": "a"}]
        messages = [*asked, {"role": "assistant", "content": "b"}, {"role": "user", "content": text}]
        dialogue = self._render(messages, origin, add_generation_prompt=True)
        place = dialogue.find(self._tokenizer.convert_ids_to_tokens(self._end), self._start(asked, dialogue, origin))
        if place < 0:
            raise UserError(
                f"{origin}: the chat template writes no end-of-turn token after an answer to be followed up"
            )
        # from the end-of-turn token on, because some tokenizers strip or add blanks after it
        tokens = self._tokenizer.encode(dialogue[place:], add_special_tokens=False)
        # an answer may have ended with the end-of-text token instead: then its turn is closed here
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
        """Renders messages and finds where their answers start: all of them, or the last message only.

        Raises UserError where there is no answer, or where the template does not render earlier turns alike when later
        ones follow.
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
        """An answer to the prompt, made of steps on lines of their own, of which only the step ends are trained on: the token
        right after each step's last character, for the last step the end-of-turn token.

        steps: without line breaks, none of them blank. Raises UserError where the template changes the answer.
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
        """The dialogue up to where the next answer would start, generation prompt included; only its last token is
        marked."""
        return Dialogue(self.prompt(messages, origin), (), origin, meta, columns or {})

    def encode(self, dialogues: Iterable[Dialogue]) -> Iterator[Example]:
        """Tokens and masks of each dialogue, in order, up to its last trained token: what the template writes after that
        is nothing that a sampled answer would have.

        Raises UserError where the mask would be all False or all True.
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
            # a token that spans the border belongs to the question: it starts before the answer
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
        """The place of the end-of-turn token of the answer whose first token is this."""
        ends = np.flatnonzero(tokens[first:] == self._end)
        if not len(ends):
            raise UserError(f"{dialogue.origin}: the chat template writes no end-of-turn token after this answer")
        return int(first + ends[0])

    def _start(self, before: Sequence[Message], text: str, origin: str) -> int:
        """The offset in `text` of the answer to the messages `before`."""
        prompt = self._render(before, origin, add_generation_prompt=True)
        if text.startswith(prompt):
            return len(prompt)
        # a generation prompt may open with words (of a thought) that a finished answer does not have
        shared = shared_prefix(prompt, text)
        if shared < len(self._render(before, origin)):
            raise UserError(
                f"{origin}: the chat template renders earlier turns differently when later ones follow, so that no mask fits; "
                "keep one answer a row, or set a chat template without this"
            )
        return shared

    def _render(self, messages: Sequence[Message], origin: str, **options: Any) -> str:
        try:
            return self._tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
        except jinja2.TemplateError as error:
            raise UserError(f"{origin}: the chat template refuses these messages: {error}") from error


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Consecutive lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
