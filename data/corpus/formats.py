"""Which files a source of each kind reads, by the files' endings."""

from __future__ import annotations

import os

ROWS = (".jsonl", ".json", ".parquet", ".arrow")
PLAIN = (".txt", ".md", ".rst", ".text")
PAGES = (".html", ".htm", ".xhtml")
PACKED = (".parquet", ".arrow")  # compressed formats: not read with .gz
LANGUAGES = {  # programming languages, by ending
    **dict.fromkeys((".py", ".pyi", ".pyw"), "python"),
    **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx"), "javascript"),
    **dict.fromkeys((".ts", ".tsx", ".mts"), "typescript"),
    **dict.fromkeys((".c", ".h"), "c"),
    **dict.fromkeys((".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".cu", ".cuh"), "c++"),
    **dict.fromkeys((".sh", ".bash", ".zsh"), "shell"),
    **dict.fromkeys((".kt", ".kts"), "kotlin"),
    **dict.fromkeys((".ex", ".exs"), "elixir"),
    **dict.fromkeys((".hs", ".lhs"), "haskell"),
    **dict.fromkeys((".ml", ".mli"), "ocaml"),
    **dict.fromkeys((".clj", ".cljs"), "clojure"),
    **dict.fromkeys((".f", ".f90", ".f95", ".for"), "fortran"),
    **dict.fromkeys((".pl", ".pm"), "perl"),
    **dict.fromkeys((".yaml", ".yml"), "yaml"),
    **dict.fromkeys((".html", ".htm"), "html"),
    **dict.fromkeys((".scss", ".sass"), "sass"),
    **dict.fromkeys((".v", ".sv"), "verilog"),
    **dict.fromkeys((".asm", ".s"), "assembly"),
    ".java": "java",
    ".go": "go",
    ".rs": "rust",
    ".rb": "ruby",
    ".php": "php",
    ".cs": "c#",
    ".fs": "f#",
    ".swift": "swift",
    ".scala": "scala",
    ".m": "objective-c",
    ".r": "r",
    ".jl": "julia",
    ".lua": "lua",
    ".dart": "dart",
    ".erl": "erlang",
    ".lisp": "lisp",
    ".el": "emacs lisp",
    ".scm": "scheme",
    ".zig": "zig",
    ".nim": "nim",
    ".pas": "pascal",
    ".vhd": "vhdl",
    ".sql": "sql",
    ".css": "css",
    ".xml": "xml",
    ".toml": "toml",
    ".cmake": "cmake",
    ".proto": "protobuf",
    ".ps1": "powershell",
    ".bat": "batch",
    ".md": "markdown",
    ".rst": "restructuredtext",
    ".tex": "latex",
}
READ = {  # endings, by kind of source
    "web": (*PAGES, ".warc", *ROWS),
    "text": (*PLAIN, *ROWS),
    "book": (*PLAIN, *ROWS),
    "code": (*LANGUAGES, *ROWS),
    "scientific": (".tex", *PLAIN, *ROWS),
    "dialogue": ROWS,
}


def ending_of(name: str) -> str:
    """In lower case, without .gz: ".jsonl" for "Rows.JSONL.gz"."""
    return os.path.splitext(name.lower().removesuffix(".gz"))[1]


def is_compressed(name: str) -> bool:
    return name.lower().endswith(".gz")


def is_read(name: str, kind: str) -> bool:
    ending = ending_of(name)
    return ending in READ[kind] and not (is_compressed(name) and ending in PACKED)


def splits(name: str, kind: str) -> bool:
    """Whether a source's `split` applies to this file."""
    return kind != "code" and ending_of(name) in (*PLAIN, ".tex")
