"""The perplexity step against transformers' own loss, one text at a time."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from data.corpus.document import Document
from data.corpus.step import Dropped, Placed
from data.tokenizer_training import train_tokenizer
from rlhf.corpus.perplexity import Perplexity

TEXTS = ["the cat sat on the mat " * 30, "a dog", "x", "", "and then the dog ran to the cat", "the mat the mat"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(TEXTS, 300)
    torch.manual_seed(0)
    small = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    AutoModelForCausalLM.from_config(small).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def placed(texts):
    documents = (Document(text, f"s/{n}", "s", "text", "f", n) for n, text in enumerate(texts))
    return [Placed(document, 0, row) for row, document in enumerate(documents)]


def expected(path, text, limit):
    from data.tokenizer import load_tokenizer

    ids = load_tokenizer(path)(text)["input_ids"][:limit]
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    tokens = torch.tensor([ids])
    with torch.no_grad():
        return math.exp(model(input_ids=tokens, labels=tokens).loss.item())


def test_it_is_exp_of_transformers_loss_over_the_first_tokens(model):
    outcomes = Perplexity(model=model, max_tokens=40).apply(placed(TEXTS))
    for text, outcome in zip(TEXTS, outcomes):
        if len(text) > 1:
            assert outcome.marks["perplexity"] == pytest.approx(expected(model, text, 40), rel=1e-2)  # three digits


def test_texts_of_one_token_or_none_have_no_perplexity(model):
    outcomes = Perplexity(model=model).apply(placed(TEXTS))
    assert [outcomes[n] for n in (2, 3)] == [Dropped("too short for a perplexity")] * 2


def test_the_bounds_drop_what_lies_outside(model):
    values = [outcome.marks["perplexity"] for outcome in Perplexity(model=model).apply(placed(TEXTS[4:]))]
    assert values[0] != values[1]
    middle = sum(values) / 2
    above = Perplexity(model=model, at_most=middle).apply(placed(TEXTS[4:]))
    below = Perplexity(model=model, at_least=middle).apply(placed(TEXTS[4:]))
    assert [isinstance(outcome, Dropped) for outcome in above] == [value > middle for value in values]
    assert [isinstance(outcome, Dropped) for outcome in below] == [value < middle for value in values]


def test_the_number_of_threads_changes_nothing(model):
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(Perplexity(model=model).apply(placed(TEXTS)))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert found[0] == found[1]
