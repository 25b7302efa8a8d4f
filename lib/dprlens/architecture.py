"""Where an encoder keeps its parts: the one place that knows what BERT calls its submodules.

All other code asks for a part by what it does. An encoder of another kind is another row of `ARCHITECTURES`, if its
blocks are made like BERT's: attention, then a feed-forward, each followed by a residual and a layer norm (post-norm).
"""

from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Linear, Module
from transformers import PreTrainedModel


class Architecture(NamedTuple):
    """Paths to parts: from a model with a masked-LM head, from the encoder, and from a block."""

    # from a model with a head
    encoder: str
    head: str
    # from the encoder
    embeddings: str
    blocks: str
    # from a block
    attention: str  # all of it, with its residual and norm
    query: str
    key: str
    value: str
    attention_weights_dropout: str
    attention_output: str
    attention_dropout: str  # before the residual
    attention_norm: str
    intermediate: str  # the first linear map of the feed-forward
    activation: str
    output: str  # the second one
    dropout: str  # before the residual
    norm: str


ARCHITECTURES = {  # by `config.model_type`
    "bert": Architecture(
        encoder="bert",
        head="cls",
        embeddings="embeddings",
        blocks="encoder.layer",
        attention="attention",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attention_weights_dropout="attention.self.dropout",
        attention_output="attention.output.dense",
        attention_dropout="attention.output.dropout",
        attention_norm="attention.output.LayerNorm",
        intermediate="intermediate.dense",
        activation="intermediate.intermediate_act_fn",
        output="output.dense",
        dropout="output.dropout",
        norm="output.LayerNorm",
    )
}


def architecture(model: PreTrainedModel) -> Architecture:
    """Where the model keeps its parts. Raises ValueError for a kind of model that is not known."""
    kind = model.config.model_type
    if kind not in ARCHITECTURES:
        raise ValueError(f"a model of type {kind!r} is not known; choose one of type {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[kind]


class Block(NamedTuple):
    """One block of an encoder, by what its parts do."""

    module: Module
    paths: Architecture
    heads: int

    def part(self, name: str) -> Any:
        """A part by its name in `Architecture`."""
        return attrgetter(getattr(self.paths, name))(self.module)

    @property
    def intermediate(self) -> Linear:
        """The first linear map of the feed-forward, whose rows are the hidden neurons: [d_ff, d_model]."""
        return self.part("intermediate")

    @property
    def output(self) -> Linear:
        """The second one: [d_model, d_ff]."""
        return self.part("output")

    @property
    def outputs(self) -> tuple[Linear, Linear]:
        """The linear maps whose results the two residuals add to the state: attention's and the feed-forward's."""
        return self.part("attention_output"), self.output

    def activation(self, preactivation: Tensor) -> Tensor:
        """Hidden activations of the feed-forward, like their pre-activations: […, d_ff]."""
        return self.part("activation")(preactivation)

    def attend(self, state: Tensor, mask: Tensor | None) -> Tensor:
        """States [row, token, d_model] after attention, its residual and norm; `mask` is added to attention scores."""
        return self.part("attention")(state, mask)[0]

    def attend_at(self, at: Tensor, key: Tensor, value: Tensor, inside: Tensor) -> Tensor:
        """As `attend`, at one token of each text, whose state is `at`: [text, d_model].

        `key` and `value` [text, token, d_model] are those of the text's tokens, of which some are `inside` [text,
        token].
        """
        query, *pair = (x.unflatten(-1, (self.heads, -1)) for x in (self.part("query")(at), key, value))
        dropout = self.part("attention_weights_dropout").p if self.module.training else 0.0
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query.unsqueeze(2), *(x.transpose(1, 2) for x in pair), inside[:, None, None, :], dropout
        )
        added = self.part("attention_dropout")(self.part("attention_output")(mixed.flatten(1)))
        return self.part("attention_norm")(added + at)

    def add(self, output: Tensor, attended: Tensor) -> Tensor:
        """The state after the block: the feed-forward's output, the residual, and the norm; […, d_model] each."""
        return self.part("norm")(self.part("dropout")(output) + attended)

    def widen(self, neurons: int) -> None:
        """Give the feed-forward so many more hidden neurons; its linear maps then have random weights."""
        d_ff, d_model = self.intermediate.weight.shape
        self.module.set_submodule(self.paths.intermediate, Linear(d_model, d_ff + neurons))
        self.module.set_submodule(self.paths.output, Linear(d_ff + neurons, d_model))


def encoder_of(model: PreTrainedModel) -> Any:
    """The encoder proper: the model without its masked-LM head, if it has one."""
    return getattr(model, architecture(model).encoder, model)


def head(model: PreTrainedModel) -> Any:
    """The masked-LM head: from states […, d_model] to logits […, vocabulary]; None for a model without."""
    return getattr(model, architecture(model).head, None)


def embeddings(model: PreTrainedModel) -> Any:
    """From token ids [row, token] to hidden states [row, token, d_model]."""
    return attrgetter(architecture(model).embeddings)(encoder_of(model))


def blocks(model: PreTrainedModel) -> list[Block]:
    """The blocks, from the first to the last."""
    paths, heads = architecture(model), model.config.num_attention_heads
    return [Block(module, paths, heads) for module in attrgetter(paths.blocks)(encoder_of(model))]


def name_of(weight: Tensor, module: Module) -> str:
    """What a module, such as a whole model, calls one of its weights."""
    return next(name for name, other in module.named_parameters() if other is weight)
