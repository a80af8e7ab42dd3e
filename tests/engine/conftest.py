"""Groups of one, two and four ranks for the whole directory, and tiny models that transformers itself wrote."""

import pytest
import torch
from ranks import Ranks
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="session")
def groups():
    """{1: one rank, 2: two ranks, 4: four ranks}; they start when they are first used."""
    groups = {world: Ranks(world) for world in (1, 2, 4)}
    yield groups
    for group in groups.values():
        group.stop()


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """Directory of a tiny llama, its output layer of its own."""
    return _write(tmp_path_factory.mktemp("llama"), "llama", initializer_range=0.2)


@pytest.fixture(scope="session")
def tied_qwen(tmp_path_factory):
    """Directory of a tiny qwen2 whose output layer is its embedding."""
    return _write(tmp_path_factory.mktemp("qwen"), "qwen2", tie_word_embeddings=True, initializer_range=0.2)


@pytest.fixture(scope="session")
def deep(tmp_path_factory):
    """Directory of a tiny qwen3 of four layers: grouped queries, and norms of queries and keys."""
    fields = {"num_hidden_layers": 4, "head_dim": 8, "initializer_range": 0.2}
    return _write(tmp_path_factory.mktemp("deep"), "qwen3", **fields)


@pytest.fixture(scope="session")
def scalar(tmp_path_factory):
    """Directory of a tiny llama with a scalar head."""
    return _write(tmp_path_factory.mktemp("scalar"), "llama", num_labels=1, initializer_range=0.2, pad_token_id=0)


def _write(directory, model_type, num_labels=None, **fields):
    torch.manual_seed(1)
    config = AutoConfig.for_model(model_type, **SHAPE | fields)
    auto = AutoModelForCausalLM
    if num_labels is not None:
        config.num_labels, auto = num_labels, AutoModelForSequenceClassification
    # an initializer_range far from zero, so that a wrong mask or position shows
    auto.from_config(config).save_pretrained(directory)
    return str(directory)
