"""Prompt rows: what the policy is asked in reinforcement learning, and how answers are checked."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from data.errors import UserError
from data.messages import messages_of
from data.render import TOKENIZED_AT_ONCE, Template, batched
from data.sample import Prompt
from data.sources import Rows
from data.unit import DataReport


def build_prompts(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int
) -> tuple[list[Prompt], DataReport]:
    """Column `prompt`, a string or messages, rendered with the generation prompt; all other columns go into `meta`.

    A dialogue that ends with an answer is asked again from the turn before it, so that a preference file's `chosen` can
    serve as prompts. Dropped: empty prompts, and prompts of more than max_prompt_tokens.

    Raises UserError where nothing is left.
    """
    if max_prompt_tokens < 1:
        raise UserError("no room for a prompt: max_length must be greater than sampling.max_new_tokens")
    rows.require("prompt")
    report = DataReport(rows.name, len(rows))
    prompts = list(_prompts(rows, tokenizer, max_prompt_tokens, report))
    report.units = len(prompts)
    report.tokens = sum(len(prompt.tokens) for prompt in prompts)
    report.check_any_left(max_prompt_tokens, "raise max_length or lower sampling.max_new_tokens")
    return prompts, report


def _prompts(rows: Rows, tokenizer: PreTrainedTokenizerBase, limit: int, report: DataReport) -> Iterator[Prompt]:
    template = Template(tokenizer)
    for numbers in batched(range(len(rows)), TOKENIZED_AT_ONCE):
        asked = []  # (row number, messages, rendered text, meta)
        for number in numbers:
            row, origin = rows[number], rows.origin(number)
            messages = messages_of(row, "prompt", origin)
            if messages and messages[-1]["role"] == "assistant":
                messages = messages[:-1]
            if not messages or not messages[-1]["content"].strip():
                report.drop("with an empty prompt")
                continue
            meta = {name: value for name, value in row.items() if name != "prompt"}
            asked.append((number, messages, template.prompt(messages, origin), meta))
        if not asked:
            continue
        encoded = tokenizer([text for _, _, text, _ in asked], add_special_tokens=False, verbose=False)["input_ids"]
        for (number, messages, _, meta), tokens in zip(asked, encoded, strict=True):
            if len(tokens) > limit:
                report.drop_long(len(tokens), limit)
            else:
                yield Prompt(tuple(tokens), messages[-1]["content"], number, meta, tuple(messages))
