"""Names of an encoder's parts: the one place that knows what BERT calls its submodules.

All other code asks for a part by what it does. An encoder of another kind is another row of `ARCHITECTURES`, if its
blocks are made like BERT's: attention, then a feed-forward, each followed by a residual and a layer norm (post-norm).
"""

from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import Linear, Module
from torch.nn.functional import scaled_dot_product_attention
from transformers import BertPreTrainedModel, PreTrainedModel


@dataclass(frozen=True)
class Architecture:
    """Paths to the parts of a model with a masked-LM head, of its encoder, and of a block; as they are in BERT."""

    head: str = "cls"  # of a model that has one
    embeddings: str = "embeddings"  # of the encoder
    blocks: str = "encoder.layer"
    attention: str = "attention"  # of a block, with residual and norm
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_weights_dropout: str = "attention.self.dropout"
    attention_output: str = "attention.output.dense"
    attention_dropout: str = "attention.output.dropout"  # before the residual
    attention_norm: str = "attention.output.LayerNorm"
    intermediate: str = "intermediate.dense"  # of the feed-forward, weight [d_ff, d_model]
    activation: str = "intermediate.intermediate_act_fn"
    output: str = "output.dense"  # weight [d_model, d_ff]
    dropout: str = "output.dropout"  # before the residual
    norm: str = "output.LayerNorm"


ARCHITECTURES: dict[type[PreTrainedModel], Architecture] = {BertPreTrainedModel: Architecture()}


def architecture(model: PreTrainedModel) -> Architecture:
    """Return the paths to the model's parts.

    Raises ValueError for an unknown kind of model.
    """
    for kind, known in ARCHITECTURES.items():
        if isinstance(model, kind):
            return known
    names = ", ".join(kind.__name__ for kind in ARCHITECTURES)
    raise ValueError(f"the architecture of a {type(model).__name__} is not known; give a model of {names}")


class Block(NamedTuple):
    """One block of an encoder; its parts are attributes named as in `Architecture` (`block.output.weight`)."""

    module: Module
    paths: Architecture
    heads: int

    def __getattr__(self, name: str) -> Any:
        return attrgetter(getattr(self.paths, name))(self.module)

    def attend(self, state: Tensor, mask: Tensor | None) -> Tensor:
        """Compute states [row, token, d_model] after attention, residual and norm, with `mask` added to scores."""
        return self.attention(state, mask)[0]

    def attend_at(self, at: Tensor, key: Tensor, value: Tensor, inside: Tensor) -> Tensor:
        """Compute the same as `attend` at one token of each text, whose state is `at`: [text, d_model].

        `key` and `value` [text, token, d_model] are those of tokens of which some are `inside` the text [text, token].
        """
        query, key, value = (x.unflatten(-1, (self.heads, -1)) for x in (self.query(at), key, value))
        dropout = self.attention_weights_dropout.p if self.module.training else 0.0
        mixed = scaled_dot_product_attention(
            query.unsqueeze(2), key.transpose(1, 2), value.transpose(1, 2), inside[:, None, None, :], dropout
        )
        added = self.attention_dropout(self.attention_output(mixed.flatten(1)))
        return self.attention_norm(added + at)

    def add(self, output: Tensor, attended: Tensor) -> Tensor:
        """Compute the state after the block, from the feed-forward's output and its input: […, d_model] each."""
        return self.norm(self.dropout(output) + attended)

    def widen(self, neurons: int) -> None:
        """Widen the feed-forward by so many hidden neurons; both of its maps then have random weights."""
        d_ff, d_model = self.intermediate.weight.shape
        self.module.set_submodule(self.paths.intermediate, Linear(d_model, d_ff + neurons))
        self.module.set_submodule(self.paths.output, Linear(d_ff + neurons, d_model))


def encoder_of(model: PreTrainedModel) -> Any:
    """Return the encoder proper: the model without its masked-LM head, if it has one."""
    return model.base_model


def head(model: PreTrainedModel) -> Any:
    """Return the masked-LM head, from states […, d_model] to logits […, vocabulary]; None if there is none."""
    return getattr(model, architecture(model).head, None)


def embeddings(model: PreTrainedModel) -> Any:
    """Return the embedding module, from token ids [row, token] to hidden states [row, token, d_model]."""
    return attrgetter(architecture(model).embeddings)(encoder_of(model))


def blocks(model: PreTrainedModel) -> list[Block]:
    """Return the blocks, from the first to the last."""
    paths, heads = architecture(model), model.config.num_attention_heads
    return [Block(module, paths, heads) for module in attrgetter(paths.blocks)(encoder_of(model))]


def name_of(weight: Tensor, module: Module) -> str:
    """Find the name of one of the weights of a module, such as a whole model."""
    return next(name for name, other in module.named_parameters() if other is weight)
