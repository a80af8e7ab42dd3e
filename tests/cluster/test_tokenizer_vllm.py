"""A trained tokenizer of each kind is what vLLM loads from its directory."""

from __future__ import annotations

import pytest

from data.tokenizer_training import train_tokenizer

TEXTS = ["the cat sat on the mat\n", "What is 2 + 3? It is 5.\n\n", "Ünïcödé — 猫 と 犬\n"] * 3
ASKED = "##the …cat\r\n\0 猫<|im_end|>  sat"


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_vllm_gives_the_ids_of_transformers(kind, tmp_path):
    from vllm.tokenizers.registry import cached_get_tokenizer

    ours = train_tokenizer(TEXTS, 600, kind)
    ours.save_pretrained(tmp_path)
    theirs = cached_get_tokenizer(str(tmp_path))
    ids = ours.encode(ASKED)
    assert theirs.encode(ASKED) == ids
    assert theirs.decode(ids) == ASKED
    assert (theirs.eos_token_id, len(theirs)) == (ours.eos_token_id, len(ours))
    chat = [{"role": "user", "content": "hi"}]
    wanted = ours.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) == wanted
