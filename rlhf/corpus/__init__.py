"""Makes a corpus from a config: cleaning steps, reserved texts, report and page, and the mixture for training.

The names of the files and folders in a corpus's artifact, beside those of the tokenizer.
"""

DOCUMENTS = "documents"  # parquet
TOKENS = "tokens"
REPORT = "report.json"
PAGE = "corpus.html"
QUARANTINE = "quarantine.jsonl"
