"""Messages to tokens and loss masks through the tokenizer's chat template.

The mask comes from rendering, never from searching text: what the template writes up to an answer is the dialogue before
it rendered with the generation prompt, exactly what the model sees when it is asked; the answer ends with the first
end-of-turn token after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jinja2
import numpy as np
from transformers import PreTrainedTokenizerBase

from data.errors import UserError
from data.messages import Message
from data.tokenizer import end_of_turn, ensure_chat_template, shared_prefix
from data.unit import Example

TOKENIZED_AT_ONCE = 1024  # texts: enough to keep the tokenizer's threads busy, few enough to bound memory


@dataclass(frozen=True)
class Dialogue:
    """Rendered messages, and the character offsets where the answers to be trained on start."""

    text: str
    starts: tuple[int, ...]
    origin: str
    meta: dict[str, Any]


class Template:
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

    def dialogue(self, messages: Sequence[Message], origin: str, *, last_only: bool = False, **meta: Any) -> Dialogue:
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
        return Dialogue(text, starts, origin, meta)

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
        ends = np.flatnonzero(tokens == self._end)
        for start in dialogue.starts:
            # a token that spans the border belongs to the question: it starts before the answer
            first = np.searchsorted(offsets, start)
            after = ends[ends >= first]
            if not len(after):
                raise UserError(f"{dialogue.origin}: the chat template writes no end-of-turn token after this answer")
            mask[first : after[0] + 1] = True
        if mask.all():
            raise UserError(
                f"{dialogue.origin}: every token would be trained on; the chat template writes nothing before the answer"
            )
        length = int(np.flatnonzero(mask)[-1]) + 1
        return Example(tokens[:length], mask[:length], dialogue.meta)

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
