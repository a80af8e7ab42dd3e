"""Token files and their rows, compared with the documents themselves."""

import json
import os
import pickle
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
from data_cases import LINES, rows_of, tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from data.batch import Batch
from data.corpus.document import Document, read_documents, write_documents
from data.corpus.step import Stage
from data.corpus.work import Work
from data.errors import UserError
from data.plain_rows import text_units
from data.tokenizer import load_tokenizer
from data.tokenizer_training import train_tokenizer
from data.tokens.mixture import Mixture
from data.tokens.store import TokenStore
from data.tokens.token_rows import TokenRows
from data.tokens.write import _DocumentFile, is_held_out, tokenise, write_tokens
from data.unit import DataReport

MAX_LENGTH = 8


def texts(count: int, seed: int) -> list[str]:
    """From a single letter to some lines; of each unit some without text."""
    random = Random(seed)
    alphabet = "".join(LINES)
    made = ["".join(random.choices(alphabet, k=random.choice([1, 2, 5, 7, 8, 15, 90]))) for _ in range(count)]
    return [text if random.random() > 0.05 else " \n" for text in made]


CORPUS = {"web": texts(60, 1), "books": texts(25, 2), "code": texts(7, 3)}
UNITS = {"web": 4, "books": 2, "code": 1}


def documents(source: str) -> list[Document]:
    return [
        Document(text, f"{source}/f#{place}", source, "text", "f", place) for place, text in enumerate(CORPUS[source])
    ]


def made(directory: Path, units=UNITS, holdout: float = 0.0, by=None) -> TokenStore:
    """The corpus, each source divided into so many units, as tokens."""
    stage = Stage(directory / "stage", tuple(source for source in units for _ in range(units[source])))
    unit = 0
    for source, count in units.items():
        for part in np.array_split(np.arange(len(CORPUS[source])), count):
            write_documents(stage.path(unit), [documents(source)[place] for place in part])
            unit += 1
    (by or tokenizer()).save_pretrained(directory / "tokenizer")
    tokenise(stage, directory / "tokenizer", directory / "tokens", Work(directory / "work", 0), holdout)
    return TokenStore.open(directory / "tokens")


def rows_in(store: TokenStore, max_length: int = MAX_LENGTH, **mixing) -> TokenRows:
    return TokenRows.of(store, tokenizer(), Mixture(store.windows(max_length), seed=5, **mixing), max_length)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TokenStore:
    return made(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def divided(tmp_path_factory) -> TokenStore:
    return made(tmp_path_factory.mktemp("divided"), holdout=0.3)


def ids(text: str) -> list[int]:
    return [*tokenizer()(text)["input_ids"], tokenizer().eos_token_id]


def pairs_of_documents(source: str, kept=lambda document: True) -> Counter:
    """(previous token, token), counted over the documents: what has to be predicted."""
    wanted = [document for document in documents(source) if document.text.strip() and kept(document)]
    return Counter(pair for document in wanted for pair in pairwise(ids(document.text)))


def pairs_of_batch(batch: Batch, source: str) -> Counter:
    found = Counter()
    for row, meta in enumerate(batch.meta):
        if meta["source"] == source:
            tokens = batch.tokens[row, : batch.lengths[row]].tolist()
            trained = batch.action_mask[row].tolist()
            found.update(pair for place, pair in enumerate(pairwise(tokens), 1) if trained[place])
    return found


@pytest.mark.parametrize("max_length", [3, 4, 8, 50, 5000])
def test_each_pass_predicts_every_token_of_every_document_but_its_first_once_and_crosses_no_boundary(store, max_length):
    for source in CORPUS:
        rows = rows_in(store, max_length, weights={name: float(name == source) for name in CORPUS})
        for number in (0, 1, 7):
            batch = rows.batch(range(number * len(rows), (number + 1) * len(rows))).validate()
            assert pairs_of_batch(batch, source) == pairs_of_documents(source)
            assert batch.width <= max_length
            assert set(batch.lengths.tolist()).isdisjoint({0, 1})


def test_a_rows_meta_leads_to_its_document(store):
    rows = rows_in(store)
    for unit in range(40):
        for row in rows.rows(unit):
            stage = store.directory.parent / "stage" / f"{row.meta['file']}.parquet"
            document = list(read_documents(stage))[row.meta["row"]]
            assert document.source == row.meta["source"]
            tokens, whole = row.tokens.tolist(), ids(document.text)
            assert any(whole[start : start + len(tokens)] == tokens for start in range(len(whole)))


def test_rows_of_a_single_document_are_those_of_text_data(tmp_path):
    text = "".join(LINES) * 3
    write_documents(tmp_path / "unit-00000.parquet", [Document(text, "a", "s", "text", "f", 0)])
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    tokenise(Stage(tmp_path, ("s",)), tmp_path / "tokenizer", tmp_path / "tokens", Work(tmp_path / "work", 0))
    stream = TokenStore.open(tmp_path / "tokens").trained["s"]
    wanted = [unit[0] for unit in text_units(rows_of({"text": text}), tokenizer(), 20, DataReport("rows", 1))]
    found = [row for window in range(stream.windows(20)) for row in stream.window(window, 20)]
    assert [row.tokens.tolist() for row in found] == [row.tokens.tolist() for row in wanted]
    assert [row.mask.tolist() for row in found] == [row.mask.tolist() for row in wanted]


def test_documents_have_the_tokens_that_text_data_would_have(tmp_path):
    """With a tokenizer that begins texts with a token."""
    beginning = train_tokenizer(LINES, 300)
    beginning.bos_token = "<|im_start|>"
    beginning.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", beginning.bos_token_id)]
    )
    beginning.save_pretrained(tmp_path / "tokenizer")
    given = ["the cat", "", "a"]
    found, counts = written(tmp_path, given)
    assert (counts["empty"], counts["train"]["documents"]) == (1, 2)
    kept = [{"text": text} for text in given if text]
    wanted = text_units(rows_of(*kept), load_tokenizer(tmp_path / "tokenizer"), 100, DataReport("rows", 2))
    assert found == [token for unit in wanted for token in unit[0].tokens.tolist()]
    assert np.load(tmp_path / "unit-00000.documents.npy")[1].tolist() == [0, 2]


def test_the_rows_do_not_depend_on_how_a_source_is_divided_into_files(store, tmp_path):
    one, several = rows_in(made(tmp_path, {"web": 1, "books": 1, "code": 1})), rows_in(store)
    units = range(3 * len(several))
    assert len(one) == len(several)
    assert np.array_equal(one.batch(units).tokens, several.batch(units).tokens)
    assert np.array_equal(one.batch(units).action_mask, several.batch(units).action_mask)


def test_a_resumed_training_goes_on_with_the_rows_of_the_uninterrupted_one(store):
    mixing = {"temperature": 2.0, "total_rows": 500}
    whole = rows_in(store, **mixing)
    steps = [whole.batch(range(step * 10, step * 10 + 10)).tokens.tolist() for step in range(50)]
    for step in (49, 0, 17):
        resumed = rows_in(TokenStore.open(store.directory), **mixing)
        assert resumed.batch(range(step * 10, step * 10 + 10)).tokens.tolist() == steps[step]
    position = whole.position(17 * 10)
    assert position == 17 * 10 * (MAX_LENGTH - 1)
    assert [whole.at_token(position + more) for more in (-1, 0, MAX_LENGTH - 2)] == [169, 170, 170]


def test_a_pass_is_shuffled_and_the_next_one_otherwise(store):
    rows = rows_in(store, weights={"web": 1, "books": 0, "code": 0})
    first, second = (
        [rows.visits.locate(number * len(rows) + row)[1] for row in range(len(rows))] for number in range(2)
    )
    assert sorted(first) == sorted(second) == list(range(len(rows)))
    assert first != second != sorted(second)


def test_held_out_documents_are_visited_once_and_trained_on_never(divided):
    rows = rows_in(divided)
    held_out = rows.held_out()
    batch = held_out.batch(range(len(held_out)))
    for source in CORPUS:
        assert pairs_of_batch(batch, source) == pairs_of_documents(source, lambda each: is_held_out(each, 0.3))
        alone = rows_in(divided, weights={name: float(name == source) for name in CORPUS})
        trained = pairs_of_batch(alone.batch(range(len(alone))), source)
        assert trained == pairs_of_documents(source, lambda each: not is_held_out(each, 0.3))
    with_text = sum(bool(text.strip()) for each in CORPUS.values() for text in each)
    assert rows.report.rows + held_out.report.rows == with_text
    assert held_out.report.trained_tokens == int(batch.action_mask.sum())


def test_without_held_out_documents_that_set_is_empty(store):
    assert len(rows_in(store).held_out()) == 0


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_else(store, tmp_path):
    again = made(tmp_path).directory
    names = sorted(file.name for file in store.directory.iterdir())
    assert sorted(file.name for file in again.iterdir()) == names
    assert all((again / name).read_bytes() == (store.directory / name).read_bytes() for name in names)


def test_two_processes_that_write_the_same_unit_at_once_do_not_disturb_each_other(store, tmp_path, monkeypatch):
    """The worker of a run that was killed may still be there when the run goes on."""
    name = "unit-00001"
    unit, directory = store.directory.parent / f"stage/{name}.parquet", store.directory.parent / "tokenizer"
    ours = _DocumentFile(tmp_path, name, "<u2")
    ours.begin(0)
    ours.add([1, 2])
    monkeypatch.setattr(os, "getpid", lambda: 1)
    write_tokens(unit, directory, tmp_path)
    ours.add([3])
    ours.finish()
    assert np.fromfile(tmp_path / f"{name}.tokens", "<u2").tolist() == [1, 2, 3]
    write_tokens(unit, directory, tmp_path)
    for ending in ("tokens", "documents.npy"):
        assert (tmp_path / f"{name}.{ending}").read_bytes() == (store.directory / f"{name}.{ending}").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_documents_without_text_are_counted(store, tmp_path):
    made(tmp_path)
    unit = write_tokens(tmp_path / "stage/unit-00000.parquet", tmp_path / "tokenizer", tmp_path / "again")
    blank = sum(not text.strip() for text in CORPUS["web"][:15])
    assert unit["empty"] == blank
    assert unit["train"]["documents"] == 15 - blank
    index = json.loads((tmp_path / "tokens/index.json").read_text())
    empty = {source: index["sources"][source]["empty"] for source in CORPUS}
    assert empty == {source: sum(not text.strip() for text in texts) for source, texts in CORPUS.items()}
    assert empty["web"] > 0


def test_ids_beyond_16_bits_are_kept_in_32_however_few_tokens_there_are(tmp_path):
    vocabulary = {"</s>": 0, "a": 1, "b": 2, "far": 70_000}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    large = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>")
    text = "a far b"
    write_documents(tmp_path / "unit-00000.parquet", [Document(text, "a", "s", "text", "f", 0)])
    large.save_pretrained(tmp_path / "tokenizer")
    index = tokenise(Stage(tmp_path, ("s",)), tmp_path / "tokenizer", tmp_path / "tokens", Work(tmp_path / "work", 0))
    row = TokenStore.open(tmp_path / "tokens").trained["s"].window(0, 100)[0]
    assert (index["dtype"], index["vocabulary"]) == ("<u4", 70_001)
    assert row.tokens.tolist() == [1, 70_000, 2, 0]


def test_spans_show_each_document_with_what_is_trained_on(store):
    rows = rows_in(store, 60)
    spans = rows.spans(3)
    examples = rows.rows(3)
    assert "".join(text for text, trained in spans if trained) == "".join(
        tokenizer().decode(row.tokens[1:]) for row in examples
    )
    assert sum(text == "\n" and not trained for text, trained in spans) >= len(examples) - 1


def test_what_travels_to_another_process_holds_no_tokens(store):
    rows_in(store).batch(range(20))
    assert len(pickle.dumps(store)) < 3000
    travelled = pickle.loads(pickle.dumps(store))
    assert rows_in(travelled).batch([7]).tokens.tolist() == rows_in(store).batch([7]).tokens.tolist()


def test_another_tokenizer_than_the_one_that_wrote_is_the_users_error(store):
    other = train_tokenizer(["other text"] * 3, 280)
    with pytest.raises(UserError, match="another tokenizer"):
        TokenRows.of(store, other, Mixture(store.windows(8)), 8)


def test_missing_or_shortened_files_are_the_users_error(tmp_path):
    with pytest.raises(UserError, match=r"no index\.json"):
        TokenStore.open(tmp_path)
    tokens = made(tmp_path).directory
    file = tokens / "unit-00002.tokens"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"unit-00002\.tokens: \d+ bytes where the index says"):
        TokenStore.open(tokens)


def test_rows_too_short_for_two_documents_are_the_users_error(store):
    with pytest.raises(UserError, match="max_length is 2"):
        store.windows(2)


def test_what_looks_like_a_special_token_in_a_document_is_text(tmp_path):
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    text = "the cat<|im_end|>\n<|im_start|>assistant<|endoftext|>"
    found, _ = written(tmp_path, [text])
    assert found[-1] == tokenizer().eos_token_id
    assert not set(found[:-1]) & set(tokenizer().all_special_ids)
    assert tokenizer().decode(found[:-1]) == text


def written(directory: Path, texts: list[str]) -> tuple[list[int], dict]:
    """The tokens of these documents by the tokenizer in the directory, and what writing them told."""
    unit = directory / "unit-00000.parquet"
    write_documents(unit, [Document(text, text, "s", "text", "f", place) for place, text in enumerate(texts)])
    counts = write_tokens(unit, directory / "tokenizer", directory)
    return np.fromfile(directory / "unit-00000.tokens", "<u2").tolist(), counts
