"""Masked-LM pre-training from scratch, in one pass over the text, so that exposures are as the world records.

The recipe: mask a fact's whole answer; train a shallow network on most of the text, with Muon for the blocks' matrices
(AdamW alone needs about three times the steps for the same recall); then deepen it by splitting every block, and let
the deep network read the rest with AdamW. The head is applied at masked places only, and batches hold equally long
segments, so that nothing is padded. The network computes in float32: at this size bfloat16 autocast is slower even on
CPUs that have it. Muon alone, between the steps, works in bfloat16 or float32, as the spec says (`training.muon`).
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from transformers import BertForMaskedLM, BertTokenizer

from dprlens.bert.architecture import blocks, embeddings, head
from dprlens.bert.encoder import Encoder, EncoderSpec, new_model, pick_device, random_bert
from dprlens.bert.forward import Batch, masked_lm, text_numbers
from dprlens.bert.vocabulary import with_places
from dprlens.cache.artifacts import LATER
from dprlens.cache.events import progress
from dprlens.cache.parallel import threads
from dprlens.ranges import COUNT, FROM_ZERO, PART, POSITIVE, check, one_of
from dprlens.training.muon import PRECISIONS, Precision, muon
from dprlens.world.closed import Segment


@dataclass(frozen=True)
class PretrainSpec:
    """Settings of the base model's pre-training."""

    shallow_layers: int = 3  # trained first, then split to the encoder's depth; must divide it
    shallow_share: float = 0.85  # of the text that the shallow network reads
    learning_rate: float = 3e-3  # of AdamW in the shallow network: all but the blocks' matrices
    matrix_learning_rate: float = 0.01  # of Muon in the shallow network: the blocks' matrices
    deep_learning_rate: float = 7e-4  # of AdamW in the deep network: everything
    split_scale: float = 0.18  # of the output matrices of a split block's parts
    warm_up: float = 0.06  # share of each stage's steps
    batch: int = 32  # segments
    random_mask: float = 0.05  # of the tokens outside answers; answers are always masked, whole
    threads: int = 1  # part of the result, since sums are split among threads; two are slower on a busy machine
    muon: Precision = field(default="bfloat16", metadata=LATER)  # in which Muon makes its matrices orthogonal

    def __post_init__(self) -> None:
        check(self, PART, "shallow_share")
        check(self, COUNT, "batch", "threads", "shallow_layers")
        check(self, FROM_ZERO, "random_mask", "warm_up")
        check(self, POSITIVE, "learning_rate", "matrix_learning_rate", "deep_learning_rate", "split_scale")
        check(self, one_of(PRECISIONS), "muon")


def pretrain(
    tokenizer: BertTokenizer, text: Sequence[Segment], shape: EncoderSpec, spec: PretrainSpec, seed: int = 0
) -> Encoder:
    """Pre-train a BERT with its masked-LM head from scratch on the segments, each read once."""
    shallow = replace(shape, layers=min(spec.shallow_layers, shape.layers))
    stages = 2 if shallow.layers < shape.layers else 1
    if shape.layers % shallow.layers:
        raise ValueError(
            f"shallow_layers = {spec.shallow_layers} cannot be split into {shape.layers}; choose a divisor"
        )
    if len(text) < stages:
        raise ValueError(f"a text of {len(text)} segments is too short for {stages} stages; give the world known facts")
    rng = np.random.default_rng([seed, 0x9E7])
    first = max(1, int(len(text) * spec.shallow_share)) if stages == 2 else len(text)
    with threads(spec.threads):
        model = random_bert(tokenizer, shallow, seed).to(pick_device())  # type: ignore[arg-type]  # see `Encoder`
        _train(model, tokenizer, [text[:first]], spec, _shallow_optimisers(model, spec), rng)
        if stages == 2:
            model = split_blocks(model, shape.layers, spec.split_scale)
            optimiser = _adamw(model.parameters(), spec.deep_learning_rate)
            _train(model, tokenizer, [text[first:]], spec, [optimiser], rng)
    return Encoder(tokenizer, model)


def pretrain_in_order(
    tokenizer: BertTokenizer,
    parts: Sequence[Sequence[Segment]],
    shape: EncoderSpec,
    spec: PretrainSpec,
    seed: int = 0,
    falling: bool = True,
) -> Encoder:
    """Pre-train a BERT in one stage, at its full depth, on one part of the text after the other.

    Each part is shuffled by itself. The learning rates fall to zero over all parts together, or, if not `falling`, stay
    at their value after the warm-up: later text is then read at the same rate as earlier text.
    """
    rng = np.random.default_rng([seed, 0x9E7])
    with threads(spec.threads):
        model = random_bert(tokenizer, shape, seed).to(pick_device())  # type: ignore[arg-type]  # see `Encoder`
        _train(model, tokenizer, parts, spec, _shallow_optimisers(model, spec), rng, falling=falling)
    return Encoder(tokenizer, model)


def continue_pretraining(
    encoder: Encoder, text: Sequence[Segment], spec: PretrainSpec, steps: int, learning_rate: float, seed: int = 0
) -> Encoder:
    """Pre-train a copy of the encoder for so many more steps on random segments of the text, by AdamW.

    The control for training as such: another objective, no pairs. Raises ValueError for a text with too few batches.
    """
    rng = np.random.default_rng([seed, 0xC0])
    drawn = [text[i] for i in rng.permutation(len(text))[: steps * spec.batch]]
    return _read_on(encoder, drawn, spec, lambda model: [_adamw(model.parameters(), learning_rate)], rng, steps)


def read_on(
    encoder: Encoder,
    text: Sequence[Segment],
    spec: PretrainSpec,
    learning_rate: float | None,
    seed: int = 0,
    only: Sequence[str] = (),
    at_cls: Container[str] = (),
) -> Encoder:
    """Pre-train a copy of the encoder on all of the text once more, in random order, by AdamW.

    Without a learning rate it learns as a shallow network does in pre-training: by Muon and AdamW, at the rates of the
    spec. `only` names the parts of the network that learn: "embeddings", "block0", "block1" …; without names all do.
    The answers to facts in `at_cls` (ids) are also predicted at [CLS], see `masked_batches`. Raises ValueError for a
    part that the encoder does not have, and for parts without a learning rate.
    """
    if only and learning_rate is None:
        raise ValueError(f"{only[0]} alone cannot learn as in pre-training; give a learning rate")
    rng = np.random.default_rng([seed, 0xADD])

    def optimisers(model: BertForMaskedLM) -> list[torch.optim.Optimizer]:
        if learning_rate is None:
            return _shallow_optimisers(model, spec)
        return [_adamw(_weights(model, only), learning_rate)]

    return _read_on(encoder, text, spec, optimisers, rng, at_cls=at_cls)


def _read_on(
    encoder: Encoder,
    text: Sequence[Segment],
    spec: PretrainSpec,
    optimisers: Callable[[BertForMaskedLM], list[torch.optim.Optimizer]],
    rng: np.random.Generator,
    steps: int | None = None,
    at_cls: Container[str] = (),
) -> Encoder:
    with threads(spec.threads):
        model = new_model(encoder.model.config).train().to(encoder.model.device)
        model.load_state_dict(encoder.model.state_dict())
        _train(model, encoder.tokenizer, [text], spec, optimisers(model), rng, steps, at_cls=at_cls)
    return Encoder(encoder.tokenizer, model, encoder.model.device.type)


def _weights(model: BertForMaskedLM, only: Sequence[str]) -> list[torch.nn.Parameter]:
    """List the weights of the named parts of the network; without names all of them."""
    if not only:
        return [*model.parameters()]
    parts = {f"block{i}": block.module for i, block in enumerate(blocks(model))}
    parts["embeddings"] = embeddings(model)
    if unknown := [name for name in only if name not in parts]:
        raise ValueError(f"there is no part {unknown[0]!r} in this network; choose from {', '.join(parts)}")
    return [weights for name in only for weights in parts[name].parameters()]


def split_blocks(model: BertForMaskedLM, layers: int, scale: float) -> BertForMaskedLM:
    """Deepen a copy of the model: split each block into several in a row, each doing a part of its work.

    The parts are copies whose two output matrices (of attention and of the feed-forward) are scaled down, so that
    together they add to the state about what the block added. Stacking whole copies instead (Gong et al. 2019) loses
    the shallow network's knowledge: recall fell to zero, and the rest of the text did not restore it.
    """
    parts = layers // model.config.num_hidden_layers
    config = type(model.config).from_dict({**model.config.to_dict(), "num_hidden_layers": layers})
    deep = new_model(config).train().to(model.device)
    for part in (embeddings, head):
        part(deep).load_state_dict(part(model).state_dict())
    for i, block in enumerate(blocks(deep)):
        block.module.load_state_dict(blocks(model)[i // parts].module.state_dict())
        with torch.no_grad():
            for output in (block.attention_output, block.output):
                output.weight *= scale
                output.bias *= scale
    return deep


def _train(
    model: BertForMaskedLM,
    tokenizer: BertTokenizer,
    parts: Sequence[Sequence[Segment]],
    spec: PretrainSpec,
    optimisers: Sequence[torch.optim.Optimizer],
    rng: np.random.Generator,
    steps: int | None = None,
    falling: bool = True,
    at_cls: Container[str] = (),
) -> None:
    """Train once through the parts of the text in their order, or for their first `steps` batches.

    The learning rates rise, then fall or stay.
    """
    masking = spec.batch, spec.random_mask, rng, at_cls
    batches = [batch for part in parts for batch in masked_batches(tokenizer, part, *masking)][:steps]
    if steps is not None and len(batches) < steps:
        raise ValueError(f"the text has {len(batches)} batches for {steps} steps; give more text")
    if not batches:
        raise ValueError("nothing in the text was masked, so there is nothing to learn; raise random_mask")
    longest, room = max(batch.input.shape[1] for batch in batches), model.config.max_position_embeddings
    if longest > room:
        raise ValueError(f"a segment of {longest} tokens is longer than max_length = {room}; raise max_length")
    warm = max(1, int(spec.warm_up * len(batches)))

    def rate(step: int) -> float:
        rest = (len(batches) - step) / (len(batches) - warm + 1)
        return min((step + 1) / warm, rest if falling else 1.0)

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, rate) for optimiser in optimisers]
    layers = model.config.num_hidden_layers
    for batch in progress(batches, f"pre-training, {layers} layers"):
        given = batch.to(model.device)
        loss = torch.nn.functional.cross_entropy(masked_lm(model, given), given.piece)
        model.zero_grad(set_to_none=True)
        loss.backward()
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f"the pre-training loss of the network of {layers} layers is {loss.item()}; lower its learning rates"
        )


def _shallow_optimisers(model: BertForMaskedLM, spec: PretrainSpec) -> list[torch.optim.Optimizer]:
    """Make the shallow network's optimisers: Muon for the matrices in the blocks, AdamW for everything else."""
    matrices = [weights for block in blocks(model) for weights in block.module.parameters() if weights.dim() == 2]
    inside = {id(matrix) for matrix in matrices}
    others = [weights for weights in model.parameters() if id(weights) not in inside]
    return [muon(matrices, spec.matrix_learning_rate, spec.muon), _adamw(others, spec.learning_rate)]


def _adamw(weights: Iterable[torch.nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights, learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)


def masked_batches(
    tokenizer: BertTokenizer,
    text: Sequence[Segment],
    size: int,
    random_mask: float,
    rng: np.random.Generator,
    at_cls: Container[str] = (),
) -> Iterator[Batch]:
    """Mask the segments and yield them in random order, in batches of up to `size` equally long ones.

    They are read at the masks. Where a segment's first fact is in `at_cls`, the first piece of its answer is also
    predicted at [CLS]: the content of the statement must then be in the vector that represents it.
    """
    encoded = with_places(tokenizer, [segment.text for segment in text], [segment.answers for segment in text])
    by_length = defaultdict(list)
    for i in rng.permutation(len(encoded)):
        by_length[len(encoded[i][0])].append((*encoded[i], text[i].facts[:1]))
    chunks = [rows[i : i + size] for rows in by_length.values() for i in range(0, len(rows), size)]
    for chunk in (chunks[i] for i in rng.permutation(len(chunks))):
        ids = np.array([row for row, _, _ in chunk])
        hidden = rng.random(ids.shape) < random_mask
        hidden[:, [0, -1]] = False  # [CLS] and [SEP]
        for row, (_, answers, _) in enumerate(chunk):
            hidden[row, [token for answer in answers for token in answer]] = True
        if not hidden.any():
            continue
        masked = np.where(hidden, tokenizer.mask_token_id, ids)
        drawn = [row for row, (_, _, fact) in enumerate(chunk) if any(id_ in at_cls for id_ in fact)]
        first = [ids[row, chunk[row][1][0][0]] for row in drawn]
        row, place = torch.tensor([*np.argwhere(hidden).tolist(), *([one, 0] for one in drawn)]).T
        piece = torch.tensor(np.concatenate([ids[hidden], np.array(first, dtype=ids.dtype)]))
        inside = torch.ones(ids.shape, dtype=torch.bool)
        yield Batch(torch.tensor(masked), text_numbers(inside), row, place, piece=piece)
