"""Web pages as text: the charset that a page declares, and the pages of WARC archives."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from data.corpus.reasons import megabytes
from data.corpus.rows import Found, Trouble

BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
READ_AT_ONCE_BYTES = 2**16
DECLARED_WITHIN_BYTES = 1024  # HTML Living Standard, 13.2.3.2: how far a page is scanned for its charset
DECLARED = re.compile(
    rb"""<meta[^>]*?charset\s*=\s*["']?\s*([\w.:+-]+)|<\?xml[^>]*?encoding\s*=\s*["']([\w.:+-]+)""", re.I
)
IN_HEADER = re.compile(r"""charset\s*=\s*["']?([\w.:+-]+)""", re.I)
# The encodings that the WHATWG Encoding Standard, section 4.2, names, by Python's names of them. A page must not choose any
# other of Python's: some of them make half surrogates, or are no encodings of text.
WEB_ENCODINGS = {
    *("utf-8", "cp866", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "cp874"),
    *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
    *(f"cp{page}" for page in range(1250, 1259)),
    *("gb18030", "big5hkscs", "euc_jp", "iso2022_jp", "cp932", "cp949"),
}
MEANT = {  # by these, says the same section
    **dict.fromkeys(("ascii", "iso8859-1"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **dict.fromkeys(("iso8859-11", "tis-620"), "cp874"),
    **dict.fromkeys(("utf-16", "utf-16-le", "utf-16-be"), "utf-8"),  # declared in bytes that can be read as ASCII
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
}
LABELS = {  # that pages use, and that Python does not know; without their x-
    **{f"iso8859{part}": f"iso8859-{part}" for part in range(1, 17)},
    **dict.fromkeys(("iso-8859-8-i", "iso-8859-8-e", "logical", "visual"), "iso8859-8"),
    **dict.fromkeys(("iso-8859-6-i", "iso-8859-6-e"), "iso8859-6"),
    **dict.fromkeys(("gb_2312", "gb_2312-80", "csgb2312"), "gb2312"),
    **dict.fromkeys(("ksc_5601", "ks_c_5601-1989", "iso-ir-149", "windows-949"), "cp949"),
    **dict.fromkeys(("windows-874", "dos-874"), "cp874"),
    **dict.fromkeys(("unicode-1-1-utf-8", "user-defined"), "utf-8"),
    **{"windows-31j": "cp932", "cn-big5": "big5", "koi8": "koi8-r", "koi8-ru": "koi8-u"},
    **{"mac": "mac-roman", "mac-ukrainian": "mac-cyrillic"},
}
HTML_TYPES = ("text/html", "application/xhtml+xml")


def decode_page(content: bytes, header_charset: str = "") -> str:
    """By its byte order mark, else the charset of the HTTP header or of the page itself, else as UTF-8.

    Raises UnicodeError, with a reason, where the bytes are no such text.
    """
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return _decode(content[len(mark) :], encoding, f"the byte order mark of {encoding}")
    declared = DECLARED.search(content[:DECLARED_WITHIN_BYTES])
    label = header_charset or (next(filter(None, declared.groups())).decode("ascii") if declared else "")
    if not label:
        return _decode(content, "utf-8", "no charset")
    return _decode(content, _web_encoding(label), f"charset {label}")


def _web_encoding(label: str) -> str:
    """Python's name of it. Raises UnicodeError where the standard has no such encoding."""
    try:
        known = label.lower().removeprefix("x-").removeprefix("x-")  # x-x-big5
        found = codecs.lookup(LABELS.get(known, known)).name
    except (LookupError, ValueError):
        found = ""
    encoding = MEANT.get(found, found)
    if encoding not in WEB_ENCODINGS:
        raise UnicodeError(f"charset {label} is none that web pages have")
    return encoding


def warc_pages(stream: BinaryIO, limit_bytes: int) -> Iterator[Found | Trouble]:
    """HTML responses of an uncompressed archive, at their records' byte offsets; other responses are troubles, requests and
    the like nothing.

    Raises OSError where the archive is broken.
    """
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    archive = ArchiveIterator(_Unended(stream))
    try:
        for record in archive:
            offset = archive.offset
            found = _page(record, offset, limit_bytes) if record.rec_type == "response" else None
            while record.raw_stream.read(READ_AT_ONCE_BYTES):
                pass
            if record.rec_headers.get_header("Content-Length") is None or record.raw_stream.limit:
                yield Trouble(None, f"broken WARC: the record at {offset} is cut off")
                return
            if found is not None:
                yield found
        if stream.tell() > archive.offset:  # where the next record would begin
            yield Trouble(None, f"broken WARC: the record at {archive.offset} is cut off")
        if archive.err_count:  # warcio goes on after these
            yield Trouble(None, f"broken WARC: {archive.err_count} records are longer or shorter than they say")
    except (ArchiveLoadFailed, AttributeError) as error:  # the latter where a record lacks a header
        raise OSError(f"broken WARC: {' '.join(str(error).split())}") from error


class _Unended:
    """A stream whose EOFError, of gzip that is cut off, warcio does not take for the end of the archive."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.tell = stream.tell

    def read(self, size_bytes: int = -1) -> bytes:
        try:
            return self._stream.read1(size_bytes)  # what there is before it breaks
        except EOFError as error:
            raise OSError(str(error)) from error


def _page(record: Any, offset: int, limit_bytes: int) -> Found | Trouble:
    if record.http_headers is None:
        return Trouble(offset, "no HTTP response")
    status = record.http_headers.get_statuscode()
    content_type = record.http_headers.get_header("Content-Type") or ""
    kind = content_type.partition(";")[0].strip().lower()
    if status != "200":
        return Trouble(offset, f"HTTP status {status}")
    if kind not in HTML_TYPES:
        return Trouble(offset, f"no HTML page but {kind or 'of an unknown type'}")
    content = record.content_stream().read(limit_bytes + 1)
    if len(content) > limit_bytes:
        return Trouble(offset, f"a page longer than {megabytes(limit_bytes)}")
    charset = IN_HEADER.search(content_type)
    try:
        text = decode_page(content, charset[1] if charset else "")
    except UnicodeError as error:
        return Trouble(offset, str(error))
    return Found(offset, text, url=record.rec_headers.get_header("WARC-Target-URI") or "")


def _decode(content: bytes, encoding: str, why: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        wrong = f"byte {content[error.start]:#x} at {error.start}"
        raise UnicodeError(f"not {encoding.upper()} text ({wrong}), with {why}") from error
