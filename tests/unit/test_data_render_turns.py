"""Observations: a dialogue that is rendered turn by turn equals the whole dialogue."""

from __future__ import annotations

import pytest
from data_cases import assistant, tokenizer, user
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_render import REWRITING, THINKING, said, with_template
from transformers import AddedToken

from data.errors import UserError
from data.render import ChatTemplate
from data.tokenizer import CHATML, end_of_turn

LLAMA = (  # a header for each turn, blanks trimmed, nothing after the end of a turn
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}<|im_start|>\n\n{{ m['content'] | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_start|>\n\n{% endif %}"
)
MISTRAL = (  # words as markers, end-of-text after an answer, no generation prompt of its own, strict alternation
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }}<|endoftext|>{% endif %}"
    "{% endfor %}"
)
ZEPHYR = (  # every turn ends with end-of-text and a new line
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TWO_ENDS = (  # end-of-text as well, after the end of an answer
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>"
    "{% if m['role'] == 'assistant' %}<|endoftext|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ONE_QUESTION = (
    "{% if messages | length > 2 %}{{ raise_exception('one question only') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
)
END_AT_LAST = (  # MISTRAL's, but only the dialogue's last answer ends
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{% if loop.last %}<|endoftext|>{% endif %}{% endif %}{% endfor %}"
)


def turn_by_turn(turns: list[str], tokenizer) -> list[int]:
    """The tokens of a dialogue, question first, as a rollout puts them together: answers sampled, the rest observed."""
    template, end = ChatTemplate(tokenizer), end_of_turn(tokenizer)
    tokens = tokenizer.encode(template.prompt([user(turns[0])], "test"), add_special_tokens=False)
    for number, text in enumerate(turns[1:]):
        if number % 2 == 0:
            tokens += [*tokenizer.encode(text, add_special_tokens=False), end]
        else:
            tokens += template.observation(text, end)
    return tokens


def rendered(turns: list[str], tokenizer) -> list[int]:
    messages = [(user, assistant)[number % 2](text) for number, text in enumerate(turns)]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=len(turns) % 2 == 1)
    return tokenizer.encode(text, add_special_tokens=False)


DIALOGUE = ["What is 2 + 3?", "It is 5.", "the cat sat", "on the mat", "猫 — user\nassistant", "犬", "b"]


@pytest.mark.parametrize("template", [CHATML, LLAMA, ZEPHYR, TWO_ENDS])
def test_a_dialogue_turn_by_turn_is_the_whole_dialogue(template):
    templated = with_template(template)
    assert turn_by_turn(DIALOGUE, templated) == rendered(DIALOGUE, templated)


def test_a_template_without_a_generation_prompt_can_be_played():
    templated = with_template(MISTRAL)
    spoken = [
        text if number % 2 == 0 else f" {text}" for number, text in enumerate(DIALOGUE)
    ]  # its answers begin with a blank
    assert turn_by_turn(spoken, templated) == rendered(DIALOGUE, templated)


def test_blanks_that_a_tokenizer_strips_after_the_end_are_stripped():
    stripping = with_template(CHATML)
    stripping.add_special_tokens({"eos_token": AddedToken("<|end|>", rstrip=True, special=True)})
    stripping.chat_template = CHATML.replace("<|im_end|>", "<|end|>")
    assert stripping.decode(turn_by_turn(DIALOGUE[:3], stripping)).count("<|end|>\n") == 0
    assert turn_by_turn(DIALOGUE, stripping) == rendered(DIALOGUE, stripping)


@settings(deadline=None)
@given(st.lists(said, min_size=3, max_size=7))
def test_whatever_is_said_the_observed_tokens_are_the_templates(turns):
    observed = turns[: len(turns) - 1 + len(turns) % 2]  # ends with a question
    assert turn_by_turn(observed, tokenizer()) == rendered(observed, tokenizer())


def test_thoughts_that_were_sampled_stay_and_the_next_thought_is_opened():
    templated = with_template(THINKING)
    observed = ChatTemplate(templated).observation("two", end_of_turn(templated))
    assert templated.decode(observed) == "\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n<think>"


def test_an_answer_that_ended_with_the_end_of_text_is_closed_first():
    template, end = ChatTemplate(tokenizer()), end_of_turn(tokenizer())
    assert template.observation("two", tokenizer().eos_token_id) == [end, *template.observation("two", end)]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (ONE_QUESTION, "the chat template refuses these messages: one question only"),
        (REWRITING, "renders earlier turns differently"),
        (END_AT_LAST, "no end-of-turn token after an answer to be followed up"),
    ],
)
def test_a_template_that_is_not_made_for_several_turns_is_refused(template, message):
    templated = with_template(template)
    with pytest.raises(UserError, match=f"a rollout of several turns: .*{message}"):
        ChatTemplate(templated).observation("two", end_of_turn(templated))
