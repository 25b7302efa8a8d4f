"""Encoders: a BERT with its tokenizer, text in and vectors out.

`Encoder` wraps transformers' own classes and never trains: outside `dprlens.training` a model is always in eval mode.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer, PreTrainedModel

from dprlens.bert.architecture import blocks, encoder_of, head
from dprlens.bert.forward import Batch, forward, masked_lm, mean_over_tokens, pad_texts
from dprlens.bert.packing import read
from dprlens.bert.vocabulary import VOCABULARY, load_vocabulary, save_vocabulary
from dprlens.ranges import COUNT, check, one_of

WEIGHTS = "model.safetensors"
SHAPE = (  # the fields of a configuration that determine the vectors
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
)

POOLINGS, SIMILARITIES = ("cls", "mean"), ("dot", "cosine")

Text = str | tuple[str, str]  # a question, or a passage as (title, text)


@dataclass(frozen=True)
class EncoderSpec:
    """The shape of a BERT encoder."""

    layers: int = 12  # paper: 12
    d_model: int = 128  # paper: 768
    d_ff: int = 512  # paper: 3072
    heads: int = 4  # paper: 12
    max_length: int = 128  # tokens; paper: 256

    def __post_init__(self) -> None:
        check(self, COUNT, "layers", "d_model", "d_ff", "heads", "max_length")
        if self.d_model % self.heads:
            raise ValueError(f"d_model = {self.d_model} cannot be divided among {self.heads} heads; choose a multiple")


def pick_device(device: str = "auto") -> torch.device:
    """Choose the device: `auto` is CUDA where there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(device)
    except RuntimeError:
        raise ValueError(f"there is no device {device!r}; give auto, cpu or cuda") from None


def new_model(config: BertConfig, with_head: bool = True, seed: int = 0) -> BertForMaskedLM | BertModel:
    """Make a model with BERT's own random initialisation; torch's global generator stays as it was.

    A configuration with `patches`, neurons that an editor has added, gets so many more in its last feed-forward.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForMaskedLM(config) if with_head else BertModel(config, add_pooling_layer=False)
        if patches := getattr(config, "patches", 0):
            blocks(model)[-1].widen(patches)
        return model


def random_bert(tokenizer: BertTokenizer, spec: EncoderSpec, seed: int = 0) -> BertForMaskedLM:
    """Make a BERT without any pre-training, in training mode.

    It has no dropout: the closed world is small.
    """
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.d_model,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=spec.d_ff,
        max_position_embeddings=spec.max_length,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )
    return new_model(config, seed=seed).train()


class Encoder:
    """A tokenizer and a BERT, with or without its masked-LM head.

    Passages go in as (title, text) pairs, encoded `[CLS] title [SEP] text [SEP]` with all-zero token types, as in
    DPR's own code (choices CW-13, AMB-B8). The representation of a text is the state at position 0, [CLS]. The encoder
    takes the model over: it is moved to the device and set to eval mode.
    """

    def __init__(self, tokenizer: BertTokenizer, model: BertForMaskedLM | BertModel, device: str = "auto") -> None:
        self.tokenizer = tokenizer
        self.model = model.to(pick_device(device)).eval()  # type: ignore[arg-type]  # transformers' `to` is typed without self

    @property
    def bert(self) -> BertModel:
        """The encoder proper, without a head."""
        return encoder_of(self.model)

    @property
    def layers(self) -> int:
        """The number of blocks."""
        return self.bert.config.num_hidden_layers

    @property
    def max_length(self) -> int:
        """Tokens of a text that are read: the number of positions, or fewer if the configuration says so."""
        return getattr(self.bert.config, "reads_at_most", self.bert.config.max_position_embeddings)

    def cls(self, texts: Sequence[Text]) -> Tensor:
        """Encode texts as the [CLS] state after the last block, in the order of `texts`.

        [text, d_model], float32 on the CPU.
        """
        return self._read(texts, forward)

    def mean(self, texts: Sequence[Text]) -> Tensor:
        """Encode texts as the mean state of their tokens after the last block, in the order of `texts`.

        [text, d_model], float32 on the CPU.
        """
        return self.mean_by_layer(texts, [self.layers])[0]

    def cls_by_layer(self, texts: Sequence[Text], layers: Sequence[int] | None = None) -> Tensor:
        """Encode texts as [CLS] states by layer: [layer, text, d_model], on the CPU.

        Layers are 0 (the embedding output) … `self.layers`.
        """
        return self._by_layer(texts, layers, lambda state, batch: state[batch.row, batch.place])

    def mean_by_layer(self, texts: Sequence[Text], layers: Sequence[int] | None = None) -> Tensor:
        """Encode texts as the mean states of their tokens by layer: [layer, text, d_model], on the CPU.

        Layers as in `cls_by_layer`.
        """
        return self._by_layer(texts, layers, mean_over_tokens)

    def _by_layer(
        self, texts: Sequence[Text], layers: Sequence[int] | None, pooled: Callable[[Tensor, Batch], Tensor]
    ) -> Tensor:
        layers = list(range(self.layers + 1) if layers is None else layers)
        if not layers:
            raise ValueError("no layer is asked for; give one or more")
        if wrong := [layer for layer in layers if not 0 <= layer <= self.layers]:
            raise ValueError(f"layer {wrong[0]} is out of range: this encoder has layers 0 to {self.layers}")

        def at_layers(model: PreTrainedModel, batch: Batch) -> Tensor:
            embedded = batch._replace(input=forward(model, batch, stop=0))
            by_layer = {0: pooled(embedded.input, batch)}

            def keep(state: Tensor, layer: int) -> None:
                by_layer[layer] = pooled(state, batch)

            taps = {(layer - 1, "state"): partial(keep, layer=layer) for layer in layers if layer}
            forward(model, embedded, taps, stop=max(layers))
            return torch.stack([by_layer[layer] for layer in layers], dim=1)

        return self._read(texts, at_layers, len(layers)).transpose(0, 1)

    def token_ids(self, texts: Sequence[Text]) -> list[list[int]]:
        """Tokenize each text, special tokens included.

        The longer member of a pair is cut first to fit the encoder. A curly apostrophe in a question becomes a straight
        one, as in DPR's code.
        """
        if isinstance(texts, str):
            raise ValueError("a single text was given; give a list of texts")
        limit = self.max_length
        ids: list[list[int]] = [[]] * len(texts)
        questions = [i for i, text in enumerate(texts) if isinstance(text, str)]
        passages = [i for i, text in enumerate(texts) if not isinstance(text, str)]
        for kind, parts in (
            (questions, [[text.replace("\u2019", "'").strip() for text in texts if isinstance(text, str)]]),
            (passages, [[text[part] for text in texts if not isinstance(text, str)] for part in (0, 1)]),
        ):
            if kind:
                found = self.tokenizer(*parts, truncation="longest_first", max_length=limit)["input_ids"]
                for i, of_text in zip(kind, found, strict=True):
                    ids[i] = of_text
        return ids

    def _read(self, texts: Sequence[Text], reading: Callable[[PreTrainedModel, Batch], Tensor], *layers: int) -> Tensor:
        """Apply `reading(model, batch)` [text, (layer,) d_model] to the texts, without gradients, on the CPU."""
        if not texts:
            return torch.empty(0, *layers, self.bert.config.hidden_size)
        with torch.no_grad():  # in rows of one text: among many there are always some as long, and short rows are cheap
            return read(
                self.bert,
                self.token_ids(texts),
                lambda model, batch: reading(model, batch).float().cpu(),
                width=1,
            )

    def mask_logits(
        self, ids: Sequence[Sequence[int]], places: Sequence[Sequence[int]], batch: int = 256
    ) -> list[Tensor]:
        """Compute the masked-LM head's logits at places of token sequences: a list of [place, vocabulary]."""
        if head(self.model) is None:
            raise ValueError("this encoder has no masked-LM head; use the pre-trained model to read its beliefs")
        found: list[Tensor] = [torch.empty(0)] * len(ids)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            rows = [row for row, i in enumerate(chosen) for _ in places[i]]
            columns = [place for i in chosen for place in places[i]]
            with torch.no_grad():
                given = pad_texts(self.model, [ids[i] for i in chosen], columns, rows)
                logits = masked_lm(self.model, given).float().cpu()
            for i, of_text in zip(chosen, logits.split([len(places[i]) for i in chosen]), strict=True):
                found[i] = of_text
        return found

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of shape, vocabulary and weights."""
        shape = {name: getattr(self.bert.config, name) for name in SHAPE}
        if self.max_length < self.bert.config.max_position_embeddings:
            shape["reads_at_most"] = self.max_length
        pieces = sorted(self.tokenizer.get_vocab().items(), key=lambda piece_id: piece_id[1])
        sha = hashlib.sha256(json.dumps([type(self.model).__name__, shape, pieces]).encode())
        for name, weights in sorted(self.model.state_dict().items()):
            sha.update(name.encode() + weights.float().cpu().numpy().tobytes())
        return sha.hexdigest()

    def save(self, folder: Path) -> None:
        """Save `config.json`, `model.safetensors` and `vocab.txt`: a folder that transformers reads as well."""
        config = BertConfig.from_dict(self.model.config.to_dict() | {"architectures": [type(self.model).__name__]})
        config.save_pretrained(folder)
        tied = self._tied(self.model)
        weights = {name: w.contiguous().cpu() for name, w in self.model.state_dict().items() if name not in tied}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        save_vocabulary(self.tokenizer, folder)

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> "Encoder":
        """Load an encoder from a folder that `save` wrote.

        Raises ValueError, in one sentence, for a folder that is incomplete, damaged or of another shape.
        """
        if missing := [name for name in ("config.json", WEIGHTS, VOCABULARY) if not (folder / name).is_file()]:
            raise ValueError(
                f"{folder} holds no encoder: {missing[0]} is missing; give a folder that Encoder.save wrote"
            )
        try:
            config = BertConfig.from_json_file(folder / "config.json")
        except ValueError as error:
            raise ValueError(f"config.json in {folder} is damaged; make or copy it again") from error
        model = new_model(config, "BertForMaskedLM" in (config.architectures or []))
        try:
            weights = load_file(folder / WEIGHTS)
        except SafetensorError as error:
            raise ValueError(f"the weights in {folder} are damaged; make or copy them again ({error})") from error
        expected = {name: w.shape for name, w in model.state_dict().items() if name not in cls._tied(model)}
        wrong = sorted(name for name in expected.keys() | weights.keys() if _shape(weights, name) != expected.get(name))
        if wrong:
            found = _shape(weights, wrong[0])
            raise ValueError(
                f"the weights in {folder} do not fit its config.json: {wrong[0]} has shape {found}, "
                f"expected {expected.get(wrong[0])}"
            )
        tokenizer = load_vocabulary(folder)
        if len(tokenizer) != config.vocab_size:
            raise ValueError(
                f"{VOCABULARY} in {folder} has {len(tokenizer)} pieces, its config.json says {config.vocab_size}; "
                "make or copy it again"
            )
        model.load_state_dict(weights, strict=False)  # tied weights follow
        return cls(tokenizer, model, device)

    @staticmethod
    def _tied(model: BertForMaskedLM | BertModel) -> set[str]:
        """List the weights that are another weight under a second name.

        The head's decoder is the embedding matrix.
        """
        return set(model._tied_weights_keys or ())


def _shape(weights: dict[str, Tensor], name: str) -> torch.Size | None:
    return weights[name].shape if name in weights else None


def reinitialise(encoder: Encoder, seed: int = 0) -> Encoder:
    """Make the same network with BERT's random initialisation instead of its trained weights."""
    model = new_model(encoder.bert.config, head(encoder.model) is not None, seed)
    return Encoder(encoder.tokenizer, model, encoder.model.device.type)


@dataclass(frozen=True)
class DualEncoder:
    """A dual encoder: one tower for questions and one for passages; a plain BERT is the same encoder twice.

    The score of a question and a passage is the dot product of their vectors, which have length 1 where `similarity`
    is "cosine".
    """

    query: Encoder
    passage: Encoder
    pooling: str = "cls"  # the representation of a text after the last block: "cls", or "mean" over its tokens
    similarity: str = "dot"

    def __post_init__(self) -> None:
        check(self, one_of(POOLINGS), "pooling")
        check(self, one_of(SIMILARITIES), "similarity")

    def questions(self, texts: Sequence[str]) -> Tensor:
        """Encode questions: [text, d_model]."""
        return self._vectors(self.query, texts)

    def passages(self, texts: Sequence[Text]) -> Tensor:
        """Encode passages, (title, text) pairs: [text, d_model]."""
        return self._vectors(self.passage, texts)

    def _vectors(self, encoder: Encoder, texts: Sequence[Text]) -> Tensor:
        vectors = getattr(encoder, self.pooling)(texts)
        return torch.nn.functional.normalize(vectors, dim=1) if self.similarity == "cosine" else vectors

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of both encoders and the pooling."""
        return hashlib.sha256(f"{self.query.digest} {self.passage.digest} {self._how()}".encode()).hexdigest()

    def _how(self) -> str:
        return self.pooling if self.similarity == "dot" else f"{self.pooling} {self.similarity}"

    def save(self, folder: Path) -> None:
        """Save `query/` and `passage/`, each as by `Encoder.save`, and `pooling.txt`."""
        for name, encoder in (("query", self.query), ("passage", self.passage)):
            (folder / name).mkdir()
            encoder.save(folder / name)
        (folder / "pooling.txt").write_text(f"{self._how()}\n")

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> "DualEncoder":
        """Load a dual encoder from a folder that `save` wrote.

        Raises ValueError, in one sentence, as `Encoder.load` does.
        """
        if not (folder / "pooling.txt").is_file():
            raise ValueError(
                f"{folder} holds no pair: pooling.txt is missing; give a folder that DualEncoder.save wrote"
            )
        query, passage = (Encoder.load(folder / name, device) for name in ("query", "passage"))
        return cls(query, passage, *(folder / "pooling.txt").read_text().split())
