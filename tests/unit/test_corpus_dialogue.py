"""Dialogues of every form become their conversations, every turn of them and no other."""

import gzip
import json
import random
import tracemalloc

import pytest
from corpus_cases import read_all, record_of, source_of
from data_cases import shared_file
from hypothesis import given, settings
from hypothesis import strategies as st

from data.corpus.extract import extract
from data.corpus.extract.dialogue import extract_dialogues
from data.corpus.source import Quarantined
from data.corpus.step import Dropped


def leaves(node: dict) -> list[list[tuple[str, str]]]:
    """Brute force: every path of a tree, by recursion."""
    turn = ("User" if node["role"] == "prompter" else "Assistant", node["text"])
    replies = [path for reply in node["replies"] for path in leaves(reply)]
    return [[turn, *path] for path in replies] if replies else [[turn]]


def grown(random_numbers: random.Random, depth: int = 0) -> dict:
    return {
        "role": "assistant" if depth % 2 else "prompter",
        "text": f"turn {random_numbers.random()}",
        "replies": [grown(random_numbers, depth + 1) for _ in range(random_numbers.randint(0, 3) if depth < 4 else 0)],
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stored", ["prompt", "conversation tree", "", "tree"])
def test_a_tree_of_turns_becomes_its_conversations(seed, stored):
    tree = grown(random.Random(seed))
    row = {"message_tree_id": "x", stored: tree} if stored else tree
    documents = extract(record_of(row, "dialogue", "trees.jsonl.gz", column="tree", place=3))
    assert [each.text for each in documents] == [
        "\n\n".join(f"{role}: {text}" for role, text in path) for path in leaves(tree)
    ]
    assert len({each.id for each in documents}) == len(documents)
    ids = (
        ["some/trees.jsonl.gz#3"]
        if len(documents) == 1
        else [f"some/trees.jsonl.gz#3.{n + 1}" for n in range(len(documents))]
    )
    assert [each.id for each in documents] == ids


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi\r\nyou "}, {"role": "assistant", "content": "Hello"}]},
        {"conversations": [{"from": "human", "value": "Hi\nyou"}, {"from": "gpt", "value": "Hello"}]},
        {"text": "\n\nHuman: Hi\nyou\n\nAssistant: Hello"},
        {"text": "\n\nHuman: Hi\nyou\n\nAssistant: Hello\n\nHuman: "},
        {"text": [{"role": "user", "text": "Hi\nyou"}, {"role": "assistant", "text": "Hello"}], "messages": []},
    ],
)
def test_a_dialogue_of_every_form_is_one_text(row):
    document = extract(record_of(row, "dialogue", "a.jsonl"))[0]
    assert document.text == "User: Hi\nyou\n\nAssistant: Hello"
    assert document.marks == {}  # the turns there would keep what steps mask in the text


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"text": "no dialogue"},
        {"messages": []},
        {"messages": [1]},
        {"messages": [{"role": "user", "content": None}]},
        {"prompt": "x"},
        {"messages": [{"role": None, "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": ["user"], "content": {"text": "x"}}]},
        {"messages": [{"from": 1, "value": 2}, {"from": "gpt", "value": "x"}]},
    ],
)
def test_a_row_without_a_dialogue_is_dropped(row):
    assert isinstance(extract(record_of(row, "dialogue", "a.jsonl")), Dropped)


@pytest.mark.parametrize("replies", [3, 0, None, "two", {"count": 2}, [], [None, "x"], [7]])
def test_replies_that_are_no_turns_end_a_conversation(replies):
    turn = {"role": "prompter", "text": "Hi", "replies": replies}
    for row in ({"prompt": turn}, turn, {"messages": [turn]}):
        assert [each.text for each in extract(record_of(row, "dialogue", "a.jsonl"))] == ["User: Hi"]


odd = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.just("\n\nHuman: x"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "from", "content", "text", "replies", "messages", "prompt", "lang"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["messages", "prompt", "role", "text", "replies"]), odd, max_size=4))
def test_a_row_of_any_shape_gives_texts_or_a_reason(row):
    found = extract_dialogues(record_of(row, "dialogue", "a.jsonl"))
    assert isinstance(found, Dropped) or all(each.text.strip() for each in found)


def test_a_tree_whose_conversations_repeat_it_too_often_is_named_in_bounded_memory():
    question = {"role": "prompter", "text": "q" * 100_000}
    answers = [{"role": "assistant", "text": "yes"} for _ in range(3000)]
    record = record_of({"prompt": {**question, "replies": answers}}, "dialogue", "a.jsonl", place=7)
    tracemalloc.start()
    found = extract(record)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found, Quarantined)
    assert (found.source, found.file, found.place) == ("some", "a.jsonl", 7)
    own, together = 6 + 100_000 + 3000 * 14, 3000 * (100_006 + 2 + 14 + 2)
    assert found.reason == f"a tree of 3,000 conversations, together {together // own:,} times as long as the tree"
    assert peak_bytes < 4e6, "300 MB of conversations"


def test_a_long_question_may_have_many_answers():
    tree = {"role": "prompter", "text": "q" * 10_000}
    tree["replies"] = [{"role": "assistant", "text": f"answer {n}"} for n in range(90)]
    texts = [each.text for each in extract(record_of({"prompt": tree}, "dialogue", "a.jsonl"))]
    assert texts == [f"User: {'q' * 10_000}\n\nAssistant: answer {n}" for n in range(90)]


def test_more_conversations_than_memory_should_hold_are_named(monkeypatch):
    monkeypatch.setattr("data.corpus.extract.dialogue.MAX_CONVERSATIONS", 1000)
    tree = {"role": "prompter", "text": "q", "replies": [{"role": "bot", "text": "y" * 20}] * 1001}
    found = extract(record_of({"prompt": tree}, "dialogue", "a.jsonl"))
    assert isinstance(found, Quarantined)
    assert "a tree of 1,001 conversations" in found.reason


def test_a_trees_language_is_what_its_first_turn_says():
    tree = {"role": "prompter", "text": "Hola", "lang": "es", "replies": []}
    assert extract(record_of({"prompt": tree}, "dialogue", "a.jsonl"))[0].language == "es"


def test_every_turn_of_real_dialogues_is_in_their_text():
    path = shared_file("hh_harmless.jsonl.gz")
    records, quarantined = read_all(source_of(path, kind="dialogue", column="chosen"))
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    assert (len(records), quarantined) == (len(rows), [])
    for record, row in zip(records, rows, strict=True):
        document = extract(record)[0]
        turns = document.text.count("User: ") + document.text.count("Assistant: ")
        assert turns >= 1
        spoken = row["chosen"].rstrip().removesuffix("\n\nAssistant:").replace("\n\nHuman:", "\n\nUser:")
        assert document.text.split() == spoken.split()
