"""Pages are decoded by their declared charset; archives give every page once, with its URL, or quarantine it."""

import gzip
import io
import random
from encodings.aliases import aliases

import pytest
from corpus_cases import LIMIT_BYTES, quarantine, read_all, source_of
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data.corpus.pages import BYTE_ORDER_MARKS, WEB_ENCODINGS, decode_page


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("é".encode(), "é"),
        (b"\xef\xbb\xbf<meta charset=latin1>" + "é".encode(), "<meta charset=latin1>é"),
        ("é".encode("utf-16"), "é"),
        ('<meta charset="ISO-8859-1">“é”'.encode("cp1252"), '<meta charset="ISO-8859-1">“é”'),
        ("<meta http-equiv=x content='text/html; charset=koi8-r'>да".encode("koi8-r"), None),
        ("<?xml version='1.0' encoding='EUC-JP'?>日本".encode("euc-jp"), None),
        ('<meta charset="Shift_JIS">①'.encode("cp932"), None),
    ],
)
def test_a_page_is_decoded_by_its_mark_or_its_charset(content, expected):
    found = decode_page(content)
    assert found == expected if expected else found[-1] in "а本①"


@pytest.mark.parametrize(
    ("labels", "content", "text"),
    [
        ("windows-1252 latin1 iso88591 ISO_8859-1:1987 cp819 x-cp1252 us-ascii", "“é”".encode("cp1252"), "“é”"),
        ("utf-8 UTF8 unicode-1-1-utf-8 x-user-defined utf-16 utf-16be", "é".encode(), "é"),
        ("gbk x-gbk gb_2312-80 chinese gb18030", "汉€".encode("gb18030"), "汉€"),
        ("windows-31j x-sjis ms_kanji shift_jis", "①".encode("cp932"), "①"),
        ("euc-kr ks_c_5601-1987 windows-949", "똠".encode("cp949"), "똠"),
        ("big5 x-x-big5 big5-hkscs", "漢".encode("big5"), "漢"),
        ("windows-874 tis-620 iso-8859-11", "ก…".encode("cp874"), "ก…"),
        ("iso-8859-9 latin5 windows-1254", "ş€".encode("cp1254"), "ş€"),
        ("koi8-ru koi8-u", "ї".encode("koi8-u"), "ї"),
        ("x-mac-cyrillic x-mac-ukrainian", "ї".encode("mac-cyrillic"), "ї"),
        ("macintosh mac x-mac-roman", "é".encode("mac-roman"), "é"),
        ("iso-8859-8-i logical hebrew", "א".encode("iso8859-8"), "א"),
    ],
)
def test_labels_are_decoded_as_the_standard_says(labels, content, text):
    for label in labels.split():
        assert decode_page(content, label) == text


def test_labels_give_encodings_of_the_web_only():
    """Of all encodings that Python has, by all their names."""
    taken = set()
    for label in {*aliases, *aliases.values(), "idna", "punycode", "raw_unicode_escape", "unicode_escape", "undefined"}:
        try:
            assert decode_page(b"<p>A page \\ud800 +2AA-", label) == "<p>A page \\ud800 +2AA-"
            taken.add(aliases.get(label, label))
        except UnicodeError as error:
            assert str(error) == f"charset {label} is not an encoding of web pages"
    assert {"utf_8", "cp1252", "latin_1", "big5", "euc_jp", "koi8_r"} <= taken
    assert not taken & {"utf_7", "unicode_escape", "raw_unicode_escape", "idna", "punycode", "rot_13", "hz", "cp037"}


@pytest.mark.parametrize("encoding", sorted({*WEB_ENCODINGS, *BYTE_ORDER_MARKS.values()}))
def test_encodings_of_the_web_give_valid_unicode(encoding):
    """Of all two bytes, and of random ones."""
    pairs = b"".join(bytes([first, second]) + b"\n\n" for first in range(256) for second in range(256))
    for content in (pairs, random.Random(0).randbytes(200_000), b"\x1b$B" + random.Random(1).randbytes(200_000)):
        content.decode(encoding, "replace").encode()  # raises for half of a surrogate pair


@pytest.mark.parametrize(
    "content",
    [
        b"n\xe9",
        b"<meta charset=utf-8>n\xe9",
        b"<meta charset=klingon>a",
        b"<meta charset=hex>61",
        b'<meta charset="unicode_escape">\\ud800',
        b'<meta charset="raw_unicode_escape">\\ud800',
        b"<meta charset=utf-7>+2AA-",
        b"<meta charset=idna>a",
        b"<meta charset=utf-8>\xed\xa0\x80",
    ],
)
def test_a_page_that_its_charset_cannot_decode_is_in_quarantine(tmp_path, content):
    texts, quarantined = quarantine(tmp_path / "a.html", content, kind="web")
    assert texts == []
    assert [place for place, _, _ in quarantined] == [0]
    assert "charset" in quarantined[0][1]


def warc(*responses: tuple[str, str, bytes], packed: bool = True) -> bytes:
    """As warcio writes it: (status, type, page) each, with the request before."""
    stream = io.BytesIO()
    writer = WARCWriter(stream, gzip=packed)
    for number, (status, kind, page) in enumerate(responses):
        url = f"https://example.org/{number}"
        headers = StatusAndHeaders("GET / HTTP/1.1", [], is_http_request=True)
        writer.write_record(writer.create_warc_record(url, "request", http_headers=headers))
        headers = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.1")
        record = writer.create_warc_record(url, "response", payload=io.BytesIO(page), http_headers=headers)
        writer.write_record(record)
    return stream.getvalue()


@pytest.mark.parametrize("packed", [True, False])
def test_pages_of_an_archive_are_records_and_other_responses_are_named(tmp_path, packed):
    path = tmp_path / ("a.warc.gz" if packed else "a.warc")
    content = warc(
        ("200 OK", "text/html; charset=latin1", "né".encode("latin1")),
        ("404 Not Found", "text/html", b"gone"),
        ("200 OK", "image/png", b"x"),
        ("200 OK", "text/html", b"x" * (LIMIT_BYTES + 1)),
        ("200 OK", "text/html", "é".encode()),
        packed=packed,
    )
    path.write_bytes(content)
    records, quarantined = read_all(source_of(path, kind="web"))
    assert [(record.content, record.url) for record in records] == [
        ("né", "https://example.org/0"),
        ("é", "https://example.org/4"),
    ]
    assert [each.reason for each in quarantined] == [
        "HTTP status 404",
        "not an HTML page but image/png",
        "a page longer than 0.1 MB",
    ]
    places = [each.place for each in (*records, *quarantined)]
    assert len(set(places)) == 5
    if not packed:
        assert all(content[place:].startswith(b"WARC/1") for place in places)


@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_that_is_cut_off_anywhere_is_named_and_its_beginning_kept(tmp_path, packed):
    path = tmp_path / ("a.warc.gz" if packed else "a.warc")
    response = ("200 OK", "text/html", b"page " * 20)
    whole, two = (len(warc(*[response] * count, packed=packed)) for count in (3, 2))
    content = warc(*[response] * 3, packed=packed)
    for cut in range(two + 10, whole - 10, 13):
        path.write_bytes(content[:cut])
        records, quarantined = read_all(source_of(path, kind="web"))
        assert len(records) >= 2
        assert {record.content for record in records} == {"page " * 20}
        between = packed and gzip_members_end(content, cut)
        assert [each.place for each in quarantined] == ([] if between else [None])


def gzip_members_end(content: bytes, cut: int) -> bool:
    try:
        gzip.decompress(content[:cut])
    except (EOFError, gzip.BadGzipFile):  # the latter with half of a member's first two bytes
        return False
    return True


def test_a_file_that_is_no_archive_is_named(tmp_path):
    for name in ("a.warc", "a.warc.gz"):
        _, quarantined = quarantine(tmp_path / name, b"no archive", kind="web")
        assert [place for place, _, _ in quarantined] == [None]
