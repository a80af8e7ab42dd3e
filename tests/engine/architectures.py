"""A tiny model of each architecture in docs/pretraining.md, as a config would describe it."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from rlhf.engine.build import build_model
from rlhf.engine.models import EngineModel
from rlhf.interfaces import ModelBuild

IMPLIED = {
    "bos_token_id": None,
    "max_position_embeddings": 32,
    "vocab_size": 64,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
MIXED = {"num_key_value_heads": 2, "output_router_logits": True}
DECODERS = {
    "llama": {"model_type": "llama", **SHAPE},
    "grouped queries": {"model_type": "llama", "num_key_value_heads": 2, **SHAPE},
    "one query": {"model_type": "gemma", "num_key_value_heads": 1, "head_dim": 8, **SHAPE},  # and GeGLU
    "qk norm": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8, **SHAPE},
    "qk norm of whole states": {"model_type": "olmo2", **SHAPE},
    "learned positions": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4},
}
NO_PREFIX = {
    "alibi": {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "alibi in bias": {"model_type": "mpt", "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 32},
    "window": {"model_type": "mistral", "sliding_window": 4, "num_key_value_heads": 2, **SHAPE},
    "windows and whole": {
        "model_type": "gemma3_text",
        "sliding_window": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"],
        **SHAPE,
    },
    "no masks of its own": {
        "model_type": "gpt_neo",
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
    },
    "experts": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, **MIXED, **SHAPE},
    "many experts": {
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        **MIXED,
        **SHAPE,
    },
}
ENCODERS = {
    "bert": {"model_type": "bert", **SHAPE},
    "roberta": {"model_type": "roberta", **SHAPE},
    "modernbert": {"model_type": "modernbert", "global_attn_every_n_layers": 2, "local_attention": 8, **SHAPE},
    "distilbert": {"model_type": "distilbert", "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
ENCODER_DECODERS = {
    "t5": {"model_type": "t5", **T5},
    "t5 with geglu": {"model_type": "t5", "feed_forward_proj": "gated-gelu", **T5},
    "umt5": {"model_type": "umt5", **T5},
}


def build(architecture: dict, head: str = "lm") -> EngineModel:
    """Of this architecture, without dropout."""
    settings = ModelBuild(
        role="policy",
        path=None,
        architecture=architecture,
        head=head,
        dtype="float32",
        zero_stage=0,
        microbatch_tokens=64,
        activation_checkpointing=False,
        optim=None,
        seed=0,
        implied=IMPLIED,
    )
    return build_model(settings, torch.float32).eval()


def twin(model: EngineModel) -> PreTrainedModel:
    """transformers' own model with the same weights and its own output layer."""
    other = type(model.model)(model.model.config).eval()
    other.load_state_dict(model.model.state_dict())
    return other
