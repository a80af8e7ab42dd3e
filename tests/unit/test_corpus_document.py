"""Document files: the documents read are those written, in bounded memory, with any number of writers."""

import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
from corpus_stages import document

from data.corpus.document import ROW_GROUP_BYTES, DocumentFile, read_documents, write_documents


def test_documents_come_back_as_they_were(tmp_path):
    held = [
        document("one\n\u00e9\U0001f600"),
        document("", number=1, language="de", url="u", marks={"\u00e9": [1, {"a": None}]}),
    ]
    write_documents(tmp_path / "a.parquet", held)
    assert list(read_documents(tmp_path / "a.parquet")) == held


def test_many_short_documents_are_not_held_at_once(tmp_path):
    path = tmp_path / "a.parquet"
    write_documents(path, (document("short text", number=number) for number in range(20_000)))
    file = pq.ParquetFile(path).metadata
    rows = [file.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert sum(rows) == 20_000
    assert max(rows) <= ROW_GROUP_BYTES / 500
    assert [each.place for each in read_documents(path)] == list(range(20_000))


def test_all_fields_of_a_document_count_for_the_row_group_size(tmp_path):
    million = "x" * 10**6
    heavy = [
        document(million),
        replace(document(""), id=million),
        document("", marks={"long": million}),
        document("", url=million),
    ]
    for held in heavy:
        path = tmp_path / "a.parquet"
        write_documents(path, [held] * 6)
        assert pq.ParquetFile(path).metadata.num_row_groups == 2


def test_a_reader_holds_a_few_mib_of_large_documents(tmp_path):
    """In Arrow's memory; none of the 64 documents that it reads together where they are small."""
    path = tmp_path / "a.parquet"
    write_documents(path, (document(str(number) * 10**6, number=number) for number in range(64)))
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in read_documents(path)]
    assert len(held) == 64
    assert max(held) < 8 * ROW_GROUP_BYTES


def test_two_writers_of_the_same_file_do_not_disturb_each_other(tmp_path, monkeypatch):
    """The worker of a run that was killed may still be there when the run goes on."""
    held = [document(f"text {number}", number=number) for number in range(100)]
    write_documents(tmp_path / "alone.parquet", held)
    with DocumentFile.writing(tmp_path / "a.parquet") as ours:
        for each in held[:50]:
            ours.add(each)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        write_documents(tmp_path / "a.parquet", held)
        assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "alone.parquet").read_bytes()
        for each in held[50:]:
            ours.add(each)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "alone.parquet").read_bytes()
    assert not list(tmp_path.glob(".*"))
