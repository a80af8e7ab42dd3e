"""What a corpus's artifact holds, beside the tokenizer's files."""

DOCUMENTS = "documents"  # parquet
TOKENS = "tokens"
REPORT = "report.json"
PAGE = "corpus.html"
QUARANTINE = "quarantine.jsonl"
