"""Tokenizers: loaded, or trained from the corpus; their chat template, and the tokens that end an answer."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data.errors import UserError

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


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE (Sennrich et al. 2016, over bytes as in GPT-2) with a ChatML template; equal texts give an equal
    tokenizer. A small corpus may give fewer than `vocab_size` tokens.

    Raises UserError where `vocab_size` has no room for the 256 bytes and the 4 special tokens, or there is no text.
    """
    special = [END_OF_TEXT, TURN_START, TURN_END, PADDING]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    smallest = len(alphabet) + len(special)
    if vocab_size < smallest:
        raise UserError(
            f"tokenizer.vocab_size is {vocab_size}; the 256 bytes and {len(special)} special tokens alone are {smallest}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() == smallest < vocab_size:
        raise UserError("the data has no text to train a tokenizer from")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
        extra_special_tokens=[TURN_START, TURN_END],
        chat_template=CHATML,
    )


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


def shared_prefix(first: str, second: str) -> int:
    """How many characters two texts have in common at their start."""
    pairs = enumerate(zip(first, second))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))
