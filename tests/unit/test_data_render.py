"""Loss masks: compared with transformers' own assistant mask, which reads `generation` marks of the template."""

import numpy as np
import pytest
from data_cases import LINES, assistant, tokenizer, user
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.render import ChatTemplate
from data.tokenizer import CHATML
from data.tokenizer_training import train_tokenizer

MARKED = (  # ChatML with transformers' marks around what the assistant says
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
)
THINKING = (  # drops thoughts of all but the last answer, and opens a thought in the generation prompt
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think></think>{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
)
REWRITING = (  # numbers turns from the end
    "{% for m in messages %}<|im_start|>{{ loop.revindex }} {{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>0 assistant\n{% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ m['content'] }}<|im_end|>{% endfor %}"
)
said = st.text(min_size=1).filter(lambda text: text == text.strip() and "<|" not in text)


def with_template(template: str):
    copy = train_tokenizer(LINES, 280)
    copy.chat_template = template
    return copy


def encode(messages: list[dict], tokenizer, **options):
    template = ChatTemplate(tokenizer)
    return next(template.encode([template.dialogue(messages, "file, row 1", **options)]))


def trained_text(example, tokenizer) -> str:
    return tokenizer.decode(example.tokens[example.mask])


@settings(deadline=None)
@given(st.lists(st.tuples(said, said), min_size=1, max_size=4))
def test_the_mask_is_the_one_that_transformers_finds(turns):
    messages = [message for question, answer in turns for message in (user(question), assistant(answer))]
    example = encode(messages, tokenizer())
    expected = tokenizer().apply_chat_template(
        messages, chat_template=MARKED, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    length = len(example.tokens)
    assert example.tokens.tolist() == expected["input_ids"][:length]
    assert example.mask.tolist() == [bool(value) for value in expected["assistant_masks"][:length]]
    assert not any(expected["assistant_masks"][length:])


@settings(deadline=None)
@given(st.lists(st.tuples(said, said), min_size=1, max_size=3))
def test_trained_tokens_are_the_answers_and_their_ends(turns):
    messages = [message for question, answer in turns for message in (user(question), assistant(answer))]
    assert trained_text(encode(messages, tokenizer()), tokenizer()) == "".join(
        f"{answer}<|im_end|>" for _, answer in turns
    )
    last = encode(messages, tokenizer(), last_only=True)
    assert trained_text(last, tokenizer()) == f"{turns[-1][1]}<|im_end|>"


def test_an_answer_that_repeats_the_question_or_quotes_the_template_is_found():
    messages = [
        user("assistant"),
        assistant("assistant"),
        user("assistant\nassistant"),
        assistant("im_start assistant\n"),
    ]
    assert (
        trained_text(encode(messages, tokenizer()), tokenizer()) == "assistant<|im_end|>im_start assistant\n<|im_end|>"
    )


def test_a_row_ends_with_its_last_trained_token():
    example = encode([user("hi"), assistant("yes"), user("and now?")], tokenizer())
    assert tokenizer().decode(example.tokens).endswith("yes<|im_end|>")
    assert example.mask[-1]
    assert (example.tokens.dtype, example.mask.dtype) == (np.int32, bool)


def test_what_precedes_the_answer_is_the_prompt_that_asks_for_it():
    messages = [{"role": "system", "content": "be kind"}, user("What is 2 + 3?"), assistant("It is 5.")]
    example = encode(messages, tokenizer())
    asked = tokenizer().encode(ChatTemplate(tokenizer()).prompt(messages[:2], "row"), add_special_tokens=False)
    assert example.tokens[~example.mask].tolist() == asked


def test_a_token_across_the_border_belongs_to_the_question():
    merging = train_tokenizer(["\n\n\na" * 50], 261)
    merging.chat_template = CHATML
    newlines = merging.encode("\n\n", add_special_tokens=False)
    assert len(newlines) == 1
    example = encode([user("a"), assistant("\n\na")], merging)
    assert not example.mask[example.tokens.tolist().index(newlines[0])]
    assert trained_text(example, merging) == "\na<|im_end|>"


def test_a_template_that_drops_thoughts_of_earlier_turns_is_understood():
    templated = with_template(THINKING)
    example = encode([user("one"), assistant("yes"), user("two"), assistant("no")], templated)
    assert trained_text(example, templated) == "yes<|im_end|></think>no<|im_end|>"


def test_a_template_that_rewrites_earlier_turns_is_refused():
    with pytest.raises(UserError, match="file, row 1: the chat template renders earlier turns differently"):
        encode([user("one"), assistant("yes"), user("two"), assistant("no")], with_template(REWRITING))


def test_a_template_without_an_end_of_turn_is_refused():
    with pytest.raises(UserError, match="no end-of-turn"):
        ChatTemplate(with_template("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"))


def test_messages_that_the_template_refuses_are_named():
    with pytest.raises(UserError, match=r"file, row 1: .*no system role"):
        encode([{"role": "system", "content": "x"}, user("a"), assistant("b")], with_template(STRICT))


@pytest.mark.parametrize("messages", [[], [user("hi")], [{"role": "system", "content": "x"}, user("hi")]])
def test_a_mask_of_nothing_is_an_error(messages):
    with pytest.raises(UserError, match="row 1: no assistant message"):
        encode(messages, tokenizer())


def test_a_mask_of_everything_is_an_error():
    with pytest.raises(UserError, match="row 1: the first message is the assistant's"):
        encode([assistant("hello")], tokenizer())
    silent = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
    )
    with pytest.raises(UserError, match="every token would be trained on"):
        encode([user("hi"), assistant("hello")], with_template(silent))
