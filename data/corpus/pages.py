"""Decodes web pages by the charset that they declare, and reads the pages of WARC archives."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from data.corpus.places import Readable, Unreadable, megabytes

BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
READ_AT_ONCE_BYTES = 2**16
DECLARED_WITHIN_BYTES = 1024  # HTML Living Standard, 13.2.3.2: how far a page is scanned for its charset
DECLARED = re.compile(
    rb"""<meta[^>]*?charset\s*=\s*["']?\s*([\w.:+-]+)|<\?xml[^>]*?encoding\s*=\s*["']([\w.:+-]+)""", re.I
)
IN_HEADER = re.compile(r"""charset\s*=\s*["']?([\w.:+-]+)""", re.I)
# The encodings of the WHATWG Encoding Standard, section 4.2, by Python's names. A page may not declare others that
# Python has: some give lone surrogates, and some do not encode text.
WEB_ENCODINGS = {
    *("utf-8", "cp866", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "cp874"),
    *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
    *(f"cp{page}" for page in range(1250, 1259)),
    *("gb18030", "big5hkscs", "euc_jp", "iso2022_jp", "cp932", "cp949"),
}
MEANT = {  # the same section decodes these labels by other encodings
    **dict.fromkeys(("ascii", "iso8859-1"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **dict.fromkeys(("iso8859-11", "tis-620"), "cp874"),
    **dict.fromkeys(("utf-16", "utf-16-le", "utf-16-be"), "utf-8"),  # the declaration itself was readable as ASCII
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
}
LABELS = {  # labels that pages use and Python does not know, without their x-
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
    """Decodes by the byte order mark, else by the charset of the HTTP header, else by that of the page, else as UTF-8.

    Raises UnicodeError, with a reason, if the bytes cannot be decoded so.
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
    """Python's name of the encoding. Raises UnicodeError if the standard does not have it."""
    try:
        known = label.lower().removeprefix("x-").removeprefix("x-")  # x-x-big5
        found = codecs.lookup(LABELS.get(known, known)).name
    except (LookupError, ValueError):
        found = ""
    encoding = MEANT.get(found, found)
    if encoding not in WEB_ENCODINGS:
        raise UnicodeError(f"charset {label} is not an encoding of web pages")
    return encoding


def warc_pages(stream: BinaryIO, limit_bytes: int) -> Iterator[Readable | Unreadable]:
    """The HTML responses of an uncompressed archive. Places are the byte offsets of their records. Other responses are
    `Unreadable`; other records, such as requests, are skipped.

    Raises OSError if the archive is broken.
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
                yield Unreadable(None, f"broken WARC: the record at {offset} is cut off")
                return
            if found is not None:
                yield found
        if stream.tell() > archive.offset:  # more bytes follow the last record
            yield Unreadable(None, f"broken WARC: the record at {archive.offset} is cut off")
        if archive.err_count:  # warcio continues after these errors
            yield Unreadable(None, f"broken WARC: {archive.err_count} records are longer or shorter than they say")
    except (ArchiveLoadFailed, AttributeError) as error:  # AttributeError: a record lacks a header
        raise OSError(f"broken WARC: {' '.join(str(error).split())}") from error


class _Unended:
    """Raises OSError instead of the EOFError of truncated gzip, which warcio would take for the end of the archive."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.tell = stream.tell

    def read(self, size_bytes: int = -1) -> bytes:
        try:
            return self._stream.read1(size_bytes)  # returns the bytes before the truncation
        except EOFError as error:
            raise OSError(str(error)) from error


def _page(record: Any, offset: int, limit_bytes: int) -> Readable | Unreadable:
    if record.http_headers is None:
        return Unreadable(offset, "no HTTP response")
    status = record.http_headers.get_statuscode()
    content_type = record.http_headers.get_header("Content-Type") or ""
    kind = content_type.partition(";")[0].strip().lower()
    if status != "200":
        return Unreadable(offset, f"HTTP status {status}")
    if kind not in HTML_TYPES:
        return Unreadable(offset, f"not an HTML page but {kind or 'of an unknown type'}")
    content = record.content_stream().read(limit_bytes + 1)
    if len(content) > limit_bytes:
        return Unreadable(offset, f"a page longer than {megabytes(limit_bytes)}")
    charset = IN_HEADER.search(content_type)
    try:
        text = decode_page(content, charset[1] if charset else "")
    except UnicodeError as error:
        return Unreadable(offset, str(error))
    return Readable(offset, text, url=record.rec_headers.get_header("WARC-Target-URI") or "")


def _decode(content: bytes, encoding: str, why: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        wrong = f"byte {content[error.start]:#x} at {error.start}"
        raise UnicodeError(f"not {encoding.upper()} text ({wrong}), with {why}") from error
