"""Tokenizers: trained ones give every text back, templates tell where an answer ends."""

import json

import pytest
from data_cases import LINES, assistant, tokenizer, user
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from data.errors import UserError
from data.tokenizer import (
    CHATML,
    MODEL_TYPES,
    SAVED_CLASSES,
    end_of_turn,
    ensure_chat_template,
    load_tokenizer,
    stop_token_ids,
)
from data.tokenizer_training import train_tokenizer

HEADERS = (  # in the manner of templates with named headers, the answer's end not the end of text
    "{% for m in messages %}<|im_start|>{{ m['role'] }}<|pad|>\n\n{{ m['content'] | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|pad|>\n\n{% endif %}"
)
INSTRUCTIONS = (  # in the manner of templates that end answers with the end of text
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def with_template(template: str | None):
    copy = train_tokenizer(LINES, 280)
    copy.chat_template = template
    return copy


@given(st.text())
def test_every_text_survives_encoding(text):
    assert tokenizer().decode(tokenizer().encode(text, add_special_tokens=False)) == text


def test_training_is_deterministic():
    assert train_tokenizer(iter(LINES), 320).get_vocab() == tokenizer().get_vocab()


def test_the_special_tokens_are_single_tokens():
    for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"):
        assert tokenizer().encode(token) == [tokenizer().convert_tokens_to_ids(token)]
    assert (tokenizer().eos_token, tokenizer().pad_token) == ("<|endoftext|>", "<|pad|>")


def test_a_saved_tokenizer_is_loaded_with_its_template(tmp_path):
    tokenizer().save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == tokenizer().get_vocab()
    assert loaded.chat_template == CHATML
    assert stop_token_ids(loaded) == stop_token_ids(tokenizer())


@pytest.mark.parametrize("model_type", [*MODEL_TYPES, "qwen2", "mixtral", "phi3"])
def test_beside_a_model_a_saved_tokenizer_is_what_transformers_makes_of_it(tmp_path, model_type):
    tokenizer().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] in SAVED_CLASSES
    if model_type is not None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded, wanted = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    assert type(loaded) is type(wanted)
    assert loaded.backend_tokenizer.to_str() == wanted.backend_tokenizer.to_str()
    assert loaded.init_kwargs == wanted.init_kwargs
    assert loaded.special_tokens_map == wanted.special_tokens_map


def test_a_vocabulary_without_room_for_bytes_is_refused():
    with pytest.raises(UserError, match="256 bytes"):
        train_tokenizer(LINES, 100)


def test_no_text_to_train_from_is_the_users_error():
    with pytest.raises(UserError, match="no text"):
        train_tokenizer(["", ""], 300)


def test_a_missing_tokenizer_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="neither a directory nor a model"):
        load_tokenizer("nobody/nothing")


@pytest.mark.parametrize(
    ("template", "end"), [(CHATML, "<|im_end|>"), (HEADERS, "<|im_end|>"), (INSTRUCTIONS, "<|endoftext|>")]
)
def test_the_end_of_a_turn_is_what_the_template_writes_after_an_answer(template, end):
    templated = with_template(template)
    assert end_of_turn(templated) == templated.convert_tokens_to_ids(end)
    assert stop_token_ids(templated) == tuple(sorted({templated.eos_token_id, end_of_turn(templated)}))


def test_chatml_is_set_only_where_there_is_no_template():
    assert ensure_chat_template(with_template(None)).chat_template == CHATML
    assert ensure_chat_template(with_template(HEADERS)).chat_template == HEADERS


def test_chatml_ends_turns_with_the_end_of_text_where_its_own_token_is_unknown():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    plain.train_from_iterator(
        LINES, trainers.BpeTrainer(special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False)
    )
    base = ensure_chat_template(PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>"))
    assert end_of_turn(base) == base.eos_token_id
    assert base.apply_chat_template([user("hi"), assistant("yes")], tokenize=False).endswith("yes</s>\n")
