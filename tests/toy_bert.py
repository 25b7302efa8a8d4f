"""A small BERT that is far from linear, some texts for it, and what transformers alone makes of them."""

import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertModel

LENGTHS = [9, 2, 17, 4, 4, 12, 3, 7, 21, 5]
LAYERS, D_MODEL, D_FF = 4, 32, 64
_DRAWN = torch.Generator().manual_seed(6)
TEXTS = [[2, *torch.randint(5, 50, (n - 2,), generator=_DRAWN).tolist(), 3] for n in LENGTHS]  # [CLS] 2, [SEP] 3


def toy(layers: int = LAYERS, attention: str = "sdpa", dropout: float = 0.0, head: bool = False) -> BertModel:
    """A BERT in double precision with large random weights; in eval mode."""
    config = BertConfig(
        vocab_size=50,
        hidden_size=D_MODEL,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=D_FF,
        max_position_embeddings=24,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation=attention,
    )
    bert = (BertForMaskedLM(config) if head else BertModel(config, add_pooling_layer=False)).double().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weights in bert.named_parameters():
            centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            weights.copy_(centre + 0.25 * torch.randn(weights.shape, generator=generator))
    return bert


def plainly(bert: BertModel, ids: list[int]) -> list[Tensor]:
    """States by layer of one text, by transformers alone: [token, d_model] each."""
    return [state[0] for state in bert(torch.tensor([ids]), output_hidden_states=True).hidden_states]


def gradient(values: Tensor, weights: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(values.sum(), weights)
