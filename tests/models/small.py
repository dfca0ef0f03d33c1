"""A network small enough for every test."""

from __future__ import annotations

from dataclasses import asdict

import torch

from unmask.models.config import LladaConfig
from unmask.models.dream import Dream, DreamConfig
from unmask.models.guide import GuideConfig, GuideNetwork
from unmask.models.llada import Llada
from unmask.models.llada_moe import LladaMoe, LladaMoeConfig

CONFIG = LladaConfig(
    d_model=16,
    n_heads=4,
    n_layers=2,
    mlp_hidden_size=24,
    vocab_size=40,
    embedding_size=48,
    max_sequence_length=32,
    mask_token_id=39,
    eos_token_id=38,
    rope_theta=5e5,
)


def small_model(config: LladaConfig = CONFIG, seed: int = 0) -> Llada:
    torch.manual_seed(seed)
    model = Llada(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


DREAM_CONFIG = DreamConfig(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
    mask_token_id=39,
    eos_token_id=38,
    rope_theta=1e6,
)


def small_dream(config: DreamConfig = DREAM_CONFIG, seed: int = 0) -> Dream:
    torch.manual_seed(seed)
    model = Dream(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


GUIDE_CONFIG = GuideConfig(**{**asdict(CONFIG), "embedding_size": 40, "weight_tying": True})


def small_guide(config: GuideConfig = GUIDE_CONFIG, seed: int = 0) -> GuideNetwork:
    torch.manual_seed(seed)
    model = GuideNetwork(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


MOE_CONFIG = LladaMoeConfig(
    vocab_size=40,
    hidden_size=16,
    expert_intermediate_size=12,
    num_experts=5,
    num_experts_per_tok=2,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
    mask_token_id=39,
    eos_token_id=38,
)


def small_llada_moe(config: LladaMoeConfig = MOE_CONFIG, seed: int = 0) -> LladaMoe:
    torch.manual_seed(seed)
    model = LladaMoe(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model
