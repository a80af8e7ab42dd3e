"""Tokenizers: loading, fingerprint, chat template, and the tokens that end an answer. Training: data/tokenizer_training.py."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from data.errors import UserError
from data.lean_transformers import import_transformers

if TYPE_CHECKING:
    import transformers

# transformers' import takes seconds: only functions that load or train a tokenizer pay for it
Tokenizer: TypeAlias = "transformers.PreTrainedTokenizerBase"

# The class names under which transformers saves a tokenizer that is no model's own. It reads these as they were saved beside
# a model of no type or of one of these types (a test compares); for others, such as qwen2, it takes the model's class.
SAVED_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")
MODEL_TYPES = (
    None,
    *[
        "llama",
        "qwen3",
        "qwen3_moe",
        "gemma",
        "gemma3_text",
        "olmo2",
        "gpt2",
        "bloom",
        "mpt",
        "bert",
        "roberta",
        "distilbert",
        "t5",
        "umt5",
    ],
)

END_OF_TEXT, TURN_START, TURN_END, PADDING = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a directory, or of a model in the Hugging Face cache. Nothing is downloaded.

    Raises UserError where there is no tokenizer, or none with a fast implementation: masks need its character offsets.
    """
    directory = Path(path).expanduser()
    is_directory = directory.is_dir()
    try:
        name = str(directory) if is_directory else str(path)
        tokenizer = _class_of(directory).from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        if is_directory:
            raise UserError(
                f"{directory}: no tokenizer that transformers can load; it needs a tokenizer.json"
            ) from error
        raise UserError(
            f"tokenizer {path}: neither a directory nor a model in the Hugging Face cache (fetch one with: hf download {path})"
        ) from error
    if not tokenizer.is_fast:
        raise UserError(f"tokenizer {path}: it has no fast version (tokenizer.json); masks need its offsets")
    return tokenizer


def _class_of(directory: Path) -> type[Tokenizer]:
    """The class whose `from_pretrained` reads the directory's tokenizer. `AutoTokenizer` finds the class for every model, but it
    imports torch and text generation, so it is only asked where the saved tokenizer may belong to a class of its own."""
    config = directory / "config.json"
    try:
        saved = json.loads((directory / "tokenizer_config.json").read_text())
        model = json.loads(config.read_text()) if config.exists() else {}
        as_saved = saved.get("tokenizer_class") in SAVED_CLASSES and "auto_map" not in saved
    except (OSError, ValueError):
        as_saved = False
    if as_saved and model.get("model_type") in MODEL_TYPES:
        return import_transformers().PreTrainedTokenizerFast
    return import_transformers().AutoTokenizer


def ensure_chat_template(tokenizer: Tokenizer) -> Tokenizer:
    """Sets ChatML as chat template on a tokenizer that has none, and returns the tokenizer.

    Where the vocabulary lacks `<|im_end|>`, turns end with the end-of-text token instead: the model then learns when to stop
    without new embeddings.

    Raises UserError where the tokenizer has neither a chat template nor one of these tokens.
    """
    if tokenizer.chat_template is None:
        if TURN_END in tokenizer.get_vocab():
            tokenizer.chat_template = CHATML
        elif tokenizer.eos_token:
            tokenizer.chat_template = CHATML.replace(TURN_END, tokenizer.eos_token)
        else:
            raise UserError(
                f"tokenizer {tokenizer.name_or_path}: no chat template and no end-of-text token; set one of them"
            )
    return tokenizer


def end_of_text(tokenizer: Tokenizer) -> int:
    """The token that ends a document. Raises UserError where the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path}: no end-of-text token to end documents with; set its eos_token"
        )
    return tokenizer.eos_token_id


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """The special token that the chat template writes after an answer; None where it writes none.

    Renders two dialogues whose answers differ: their common ending is the template's.
    """
    if tokenizer.chat_template is None:
        return None
    asked = [{"role": "user", "content": "a"}]
    first, second = (
        tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": content}], tokenize=False)
        for content in "ab"
    )
    tail = first[len(first) - shared_prefix(first[::-1], second[::-1]) :]
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return next((token for token in tokenizer.encode(tail, add_special_tokens=False) if token in special), None)


def stop_token_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that stop generation: end of text, and the chat template's end of turn."""
    ids = (tokenizer.eos_token_id, end_of_turn(tokenizer))
    return tuple(sorted({token for token in ids if token is not None}))


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Hex hash of vocabulary and merges. Ignores the chat template, and special tokens that were added after the vocabulary, as
    denoising objectives do."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    size = len(described["model"]["vocab"])
    described["added_tokens"] = [
        token for token in described["added_tokens"] if token["id"] < size or not token["special"]
    ]
    for passing in ("truncation", "padding"):  # left over from the last call
        described.pop(passing, None)
    described = [described, tokenizer.eos_token_id]
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=16).hexdigest()


def shared_prefix(first: str, second: str) -> int:
    """The length in characters of the longest common prefix of two texts."""
    pairs = enumerate(zip(first, second))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))
