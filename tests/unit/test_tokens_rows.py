"""Tokens at rest and the rows cut from them, against the documents themselves."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
from data_cases import LINES, rows_of, tokenizer
from tokenizers import processors

from data.batch import Batch
from data.corpus.document import Document, read_documents, write_documents
from data.corpus.step import Stage
from data.corpus.work import Work
from data.text import text_units
from data.tokenizer import load_tokenizer
from data.tokenizer_training import train_tokenizer
from data.tokens.mixture import Mixture
from data.tokens.rows import TokenRows
from data.tokens.store import TokenStore
from data.tokens.write import tokenise, write_tokens
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
