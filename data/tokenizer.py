"""Tokenizers: loaded and told apart; their chat template, and the tokens that end an answer. Training: data/tokenizer_training.py."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT, TURN_START, TURN_END, PADDING = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def load_tokenizer(path: str | os.PathLike[str]) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory, or of a model in the Hugging Face cache. Nothing is downloaded.

    Raises UserError where there is none, or where it has no fast implementation, which gives character offsets.
    """
    from transformers import AutoTokenizer

    directory = Path(path).expanduser()
    is_directory = directory.is_dir()
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory) if is_directory else str(path), local_files_only=True)
    except (OSError, ValueError) as error:
        if is_directory:
            raise UserError(
                f"{directory}: no tokenizer that transformers can load; it needs a tokenizer.json"
            ) from error
        raise UserError(
            f"tokenizer {path}: neither a directory nor a model in the Hugging Face cache (fetch one with: hf download {path})"
        ) from error
    if not tokenizer.is_fast:
        raise UserError(f"tokenizer {path}: it has no fast version (tokenizer.json), which masks need")
    return tokenizer


def ensure_chat_template(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, with ChatML set on it where it has no chat template of its own.

    Where `<|im_end|>` is not one of its tokens, turns end with its end-of-text token instead: the model then needs no
    new embeddings to learn when to stop.

    Raises UserError where it has neither.
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


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a document. Raises UserError where the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path}: no end-of-text token to end documents with; set its eos_token"
        )
    return tokenizer.eos_token_id


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the chat template writes after an answer; None where it writes none.

    What two dialogues that differ in the answer's last character have in common at their end is the template's.
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


def stop_token_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Where generation stops: the end-of-text token and the chat template's end-of-turn token."""
    ids = (tokenizer.eos_token_id, end_of_turn(tokenizer))
    return tuple(sorted({token for token in ids if token is not None}))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash, in hexadecimal, of what makes tokens of a text; the chat template is no part of it, nor are special tokens that were
    added behind the vocabulary, as a denoising objective does."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    size = len(described["model"]["vocab"])
    described["added_tokens"] = [
        token for token in described["added_tokens"] if token["id"] < size or not token["special"]
    ]
    for passing in ("truncation", "padding"):  # left there by the last call
        described.pop(passing, None)
    described = [described, tokenizer.eos_token_id]
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=16).hexdigest()


def shared_prefix(first: str, second: str) -> int:
    """How many characters two texts have in common at their start."""
    pairs = enumerate(zip(first, second))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))
