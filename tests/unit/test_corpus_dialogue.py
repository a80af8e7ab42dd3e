"""Dialogues of every form become their conversations, every turn of them and no other."""

import gzip
import json
import random

import pytest
from corpus_cases import read_all, record_of, source_of
from data_cases import shared_file

from data.corpus.extract import extract
from data.corpus.step import Dropped


def leaves(node: dict) -> list[list[tuple[str, str]]]:
    """Brute force: every path of a tree, by recursion."""
    turn = ("user" if node["role"] == "prompter" else node["role"], node["text"])
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
    found = [[(turn["role"], turn["content"]) for turn in each.marks["messages"]] for each in documents]
    assert found == leaves(tree)
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
    assert document.marks == {
        "messages": [{"role": "user", "content": "Hi\nyou"}, {"role": "assistant", "content": "Hello"}]
    }
    json.dumps(document.marks)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"text": "no dialogue"},
        {"messages": []},
        {"messages": [1]},
        {"messages": [{"role": "user", "content": None}]},
        {"prompt": "x"},
    ],
)
def test_a_row_without_a_dialogue_is_dropped(row):
    assert isinstance(extract(record_of(row, "dialogue", "a.jsonl")), Dropped)


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
        assert turns >= len(document.marks["messages"]) >= 1
        spoken = row["chosen"].replace("\n\nHuman:", " ").replace("\n\nAssistant:", " ")
        assert " ".join(turn["content"] for turn in document.marks["messages"]).split() == spoken.split()
