"""DPR training: loss and gradient against plain autograd, its course against scripts, its checkpoints against kills."""

import itertools
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertModel

from dprlens.bert.encoder import DualEncoder, Encoder, EncoderSpec, random_bert, reinitialise
from dprlens.bert.forward import forward
from dprlens.cache.artifacts import step
from dprlens.training import dpr, processes
from dprlens.training.dpr import (
    PAPER,
    DPRSpec,
    Example,
    Tokens,
    Trained,
    average_rank,
    backward,
    batch_of,
    examples,
    multiplier,
    nll,
    shuffled_pairs,
    train_dpr,
)
from dprlens.world.records import World

QUICK = DPRSpec(epochs=4, batch=4, learning_rate=1e-3, warm_up_steps=3, dropout=0.1)


@pytest.fixture(scope="module")
def start(tokenizer) -> DualEncoder:
    return plain_bert(tokenizer, EncoderSpec(layers=2, d_model=16, d_ff=32, heads=2, max_length=40))


def plain_bert(tokenizer, shape: EncoderSpec) -> DualEncoder:
    """The same encoder twice, with weights far greater than BERT's random ones, which tell no text from another."""
    model = random_bert(tokenizer, shape, seed=4)
    with torch.no_grad():
        for weights in model.parameters():
            weights *= 5.0 if weights.dim() > 1 else 1.0
    encoder = Encoder(tokenizer, model, "cpu")
    return DualEncoder(encoder, encoder)


def some(world: World, split: str, n: int) -> list[Example]:
    """Examples of n questions with passages of their own; they have 0, 1, 2, 0, 1, 2, … hard negatives."""
    chosen, mined = {}, {}
    for question in world.questions:
        if question.split == split and question.gold not in chosen and len(chosen) < n:
            others = [passage.id for passage in world.passages[::-1] if passage.id != question.gold]
            mined[question.id] = others[len(chosen) : len(chosen) + len(chosen) % 3]
            chosen[question.gold] = question
    return examples(replace(world, questions=tuple(chosen.values())), mined, split)


@pytest.fixture(scope="module")
def train(world) -> list[Example]:
    return some(world, "train", 10)


@pytest.fixture(scope="module")
def dev(world) -> list[Example]:
    return some(world, "dev", 6)


def fresh_digest(dual: DualEncoder) -> list[str]:
    """Of the weights as they are now; `Encoder.digest` remembers."""
    return [Encoder(encoder.tokenizer, encoder.model, "cpu").digest for encoder in (dual.query, dual.passage)]


def weights_of(dual: DualEncoder) -> dict[str, Tensor]:
    towers = {"query": dual.query.bert, "passage": dual.passage.bert}
    return {f"{name}.{key}": w for name, tower in towers.items() for key, w in tower.state_dict().items()}


class Stopped(BaseException):
    """In the place of a kill, where a test wants to go on in the same process."""


def stop() -> None:
    raise Stopped


# loss, schedule, rank


def test_the_loss_of_a_worked_example():
    """Both rows of scores are 1, 0, 0, 1 in some order and the right one is 1: log(2e + 2) − 1 = log(2 + 2/e)."""
    questions = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    passages = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    expected = math.log(2 + 2 / math.e)
    assert nll(questions, passages, torch.tensor([0, 2])).item() == pytest.approx(expected, abs=1e-6)
    assert nll(questions, passages, torch.tensor([1, 2])).item() == pytest.approx(expected + 0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("taken", "rate"),
    [
        (0, 0.0),
        (618, 2e-5 * 618 / 1237),  # 9.9919e-6
        (1237, 2e-5),
        (9200, 2e-5 * 9200 / 17163),  # 1.07207e-5
        (18399, 2e-5 / 17163),  # 1.1653e-9
        (18400, 2e-12),
    ],
)
def test_the_learning_rate_of_dprs_own_run(taken, rate):
    found = PAPER.learning_rate * multiplier(taken, PAPER.warm_up_steps, 18_400)
    assert found == pytest.approx(rate, rel=0, abs=1e-17)
    printed = {618: 9.9919e-6, 9200: 1.07207e-5, 18399: 1.1653e-9}
    assert found == pytest.approx(printed.get(taken, rate), rel=1e-5)


def test_a_run_without_warm_up_begins_at_full_rate():
    assert [multiplier(taken, 0, 4) for taken in range(5)] == [1.0, 0.75, 0.5, 0.25, 1e-7]


def test_dprs_own_run_takes_18400_steps(monkeypatch, start):
    asked = []
    monkeypatch.setattr(dpr, "_tokens", lambda _, texts: [Tokens([2, 3], [2, 3], [])] * len(texts))
    monkeypatch.setattr(dpr, "multiplier", lambda *call: asked.append(call) or 0.0)
    monkeypatch.setattr(dpr, "backward", lambda *_: stop())
    with pytest.raises(Stopped):
        train_dpr(start, [Example("", "")] * 58_880, [], PAPER)
    assert asked == [(0, 1237, 18_400)]


def test_average_rank_by_hand():
    scores = torch.tensor(
        [
            [0.1, 0.9, 0.3, 0.5, 0.2],  # 0.9 and 0.5 beat 0.3: rank 2
            [4.0, -1.0, 2.0, 3.0, 1.0],  # nothing beats 4: rank 0
            [1.0, 1.0, 1.0, 2.0, 1.0],  # 2 beats 1, its equals do not: rank 1
        ]
    )
    assert average_rank(scores, torch.tensor([2, 0, 1])) == 1.0
    assert average_rank(scores, torch.tensor([1, 1, 3])) == pytest.approx(4 / 3)


# examples and batches


def test_examples_are_the_questions_of_a_split_with_their_passages(world):
    questions = [question for question in world.questions if question.split == "train"]
    ids = [passage.id for passage in world.passages]
    mined = {questions[0].id: [ids[5], ids[3]], questions[2].id: [ids[7]]}
    found = examples(world, mined, "train")
    assert [example.question for example in found] == [question.text for question in questions]
    for question, example in zip(questions, found, strict=True):
        gold = world.passage[question.gold]
        assert example.positive == (gold.title, gold.text)
        chosen = [world.passage[id_] for id_ in mined.get(question.id, [])]
        assert example.negatives == tuple((passage.title, passage.text) for passage in chosen)
    assert len(found[0].negatives) == 2
    assert not {e.question for e in found} & {e.question for e in examples(world, mined, "test")}


@pytest.mark.parametrize("n", [2, 3, 50])
def test_shuffled_pairs_are_the_same_questions_and_passages_in_other_pairs(world, n):
    true = some(world, "train", n)
    false = shuffled_pairs(true, 7)
    assert Counter(example.question for example in false) == Counter(example.question for example in true)
    assert Counter(example[1:] for example in false) == Counter(example[1:] for example in true)
    assert not {example[:2] for example in false} & {example[:2] for example in true}
    assert false == shuffled_pairs(true, 7)
    if n == 50:
        assert false != shuffled_pairs(true, 8)
        own = {example.question: i for i, example in enumerate(true)}
        passage = {example.positive: i for i, example in enumerate(true)}
        offsets = {(passage[example.positive] - own[example.question]) % n for example in false}
        assert len(offsets) > 10, "no one rule, such as the next question's passage, may lead back"


def test_shuffled_pairs_of_nothing_are_nothing():
    assert shuffled_pairs([], 0) == []


TOKENS = [
    Tokens([2, 7, 3], [2, 20, 21, 3], []),
    Tokens([2, 8, 8, 3], [2, 22, 3], [[2, 30, 3], [2, 31, 31, 3], [2, 32, 3]]),
    Tokens([2, 9, 3], [2, 23, 24, 25, 26, 3], [[2, 33, 34, 3]]),
    Tokens([2, 10, 11, 12, 3], [2, 27, 28, 3], []),
    Tokens([2, 5, 3], [2, 29, 3], [[2, 35, 36, 3]]),
]


def test_a_batch_stacks_right_passages_and_hard_negatives():
    batch = batch_of(TOKENS)
    assert batch.questions == [tokens.question for tokens in TOKENS]
    assert batch.right == [0, 1, 3, 5, 6]
    assert [batch.passages[i] for i in batch.right] == [tokens.positive for tokens in TOKENS]
    assert [batch.passages[i] for i in (2, 4, 7)] == [[2, 30, 3], [2, 33, 34, 3], [2, 35, 36, 3]]
    assert len(batch.passages) == 8


def test_the_hard_negative_is_drawn_evenly_at_each_visit():
    rng = np.random.default_rng(0)
    drawn = [tuple(batch_of(TOKENS, rng).passages[2]) for _ in range(900)]
    assert {negative: 250 < n < 350 for negative, n in Counter(drawn).items()} == {
        tuple(negative): True for negative in TOKENS[1].negatives
    }
    again = np.random.default_rng(0)
    assert drawn[:50] == [tuple(batch_of(TOKENS, again).passages[2]) for _ in range(50)]


# gradient


def toy_towers(dropout: float = 0.0) -> list[BertModel]:
    """Two BERTs in double precision with large random weights, so that they are far from linear; in training mode."""
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    towers, generator = [], torch.Generator().manual_seed(5)
    for _ in range(2):
        towers.append(BertModel(config, add_pooling_layer=False).double().train())
        with torch.no_grad():
            for name, weights in towers[-1].named_parameters():
                centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
                weights.copy_(centre + 0.25 * torch.randn(weights.shape, generator=generator))
    return towers


def weights_in(towers: Sequence[BertModel]) -> list[Tensor]:
    return [weights for tower in towers for weights in tower.parameters()]


def ours(towers: Sequence[BertModel], *call, **named) -> tuple[float, list[Tensor]]:
    """Loss and gradients by `backward`."""
    for tower in towers:
        tower.zero_grad(set_to_none=True)
    loss = backward(towers, *call, **named)
    return loss, [weights.grad for weights in weights_in(towers)]


def padded(bert: BertModel, texts: Sequence[list[int]]) -> Tensor:
    """[CLS] vectors [text, d_model] by transformers' own forward."""
    longest = max(map(len, texts))
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in texts])
    return bert(input_ids=ids, attention_mask=(ids > 0).long()).last_hidden_state[:, 0]


def plainly(towers: Sequence[BertModel], vectors: Sequence[Tensor], right: Sequence[int]) -> tuple[float, list[Tensor]]:
    """Loss and gradients by autograd from vectors that have their graph; the loss is written out as in the article."""
    questions, passages = vectors
    scores = questions @ passages.T
    loss = -sum(scores[i, y] - scores[i].exp().sum().log() for i, y in enumerate(right)) / len(right)
    return loss.item(), list(torch.autograd.grad(loss, weights_in(towers)))


def assert_same(found: tuple[float, list[Tensor]], expected: tuple[float, list[Tensor]], tolerance: float) -> None:
    """Losses, and each weight's gradient relative to its greatest entry."""
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    size = max(float(gradient.abs().max()) for gradient in expected[1])
    assert size > 1e-3
    for one, other in zip(found[1], expected[1], strict=True):
        scale = max(float(other.abs().max()), 1e-6 * size)  # a key's bias has no gradient, but float noise
        torch.testing.assert_close(one, other, atol=tolerance * scale, rtol=0)


# the second question twice, and its passage once more as somebody else's hard negative
REPEATED = [*TOKENS, TOKENS[1], TOKENS[3]._replace(negatives=[TOKENS[1].positive])]


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [TOKENS, [TOKENS[0], TOKENS[3]], TOKENS[:2], REPEATED],
    ids=["mixed", "no negatives", "two", "repeated"],
)
def test_the_gradient_is_that_of_autograd_through_transformers(chosen):
    towers, batch = toy_towers(), batch_of(chosen)
    vectors = [padded(tower, texts) for tower, texts in zip(towers, batch[:2], strict=True)]
    assert_same(ours(towers, batch), plainly(towers, vectors, batch.right), 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 3, 7, 8, 100])
def test_chunks_do_not_change_the_gradient(chunk):
    towers, batch = toy_towers(), batch_of(TOKENS)
    assert_same(ours(towers, batch, chunk), ours(towers, batch), 1e-9)


def test_a_chunk_is_all_that_is_encoded_at_once(monkeypatch):
    """With its graph in the second pass only; a single chunk needs no second pass."""
    seen = []

    def spy(bert, packed):
        seen.append((len(packed.length), torch.is_grad_enabled()))
        return forward(bert, packed)

    monkeypatch.setattr(dpr, "forward", spy)
    backward(toy_towers(), batch_of(TOKENS), chunk=3)
    chunks = [3, 2, 3, 3, 2]  # of 5 questions and 8 passages
    assert seen == [(n, graph) for graph in (False, True) for n in chunks]
    seen.clear()
    backward(toy_towers(), batch_of(TOKENS))
    assert seen == [(5, True), (8, True)]


def test_what_comes_up_twice_is_encoded_once_and_counts_twice(monkeypatch):
    """The gradient with repetitions is that of autograd, above; here, that it costs less."""
    seen = []

    def spy(bert, packed):
        seen.append(len(packed.length))
        return forward(bert, packed)

    monkeypatch.setattr(dpr, "forward", spy)
    batch = batch_of(REPEATED)
    assert [len(batch.questions), len(batch.passages)] == [7, 12]
    backward(toy_towers(), batch)
    assert seen == [5, 8]


@pytest.mark.slow
def test_with_dropout_the_second_pass_drops_what_the_first_did(monkeypatch):
    """The first pass is done again with its graph, from the states of the generator that were seen in it."""
    towers, batch, seen = toy_towers(dropout=0.3), batch_of(TOKENS), []

    def spy(bert, packed):
        seen.append((bert, packed, torch.get_rng_state()))
        return forward(bert, packed)

    with torch.random.fork_rng():
        monkeypatch.setattr(dpr, "forward", spy)
        found = ours(towers, batch, chunk=3, seed=11)
        first = seen[: len(seen) // 2]
        vectors = {id(tower): [] for tower in towers}
        for bert, packed, state in first:
            torch.set_rng_state(state)
            vectors[id(bert)].append(forward(bert, packed))
        expected = plainly(towers, [torch.cat(vectors[id(tower)]) for tower in towers], batch.right)
        assert_same(found, expected, 1e-9)
        assert len({state.numpy().tobytes() for bert, _, state in first if bert is towers[1]}) == 3  # one a chunk
        again, other = ours(towers, batch, chunk=3, seed=11), ours(towers, batch, chunk=3, seed=12)
    assert again[0] == found[0]
    assert other[0] != found[0]


def test_the_gradient_takes_the_place_of_the_last_one():
    """`backward` adds to what is there, as torch's own does; the training clears it at each step."""
    towers, batch = toy_towers(), batch_of(TOKENS)
    loss, once = ours(towers, batch)
    once = [gradient.clone() for gradient in once]
    backward(towers, batch)
    assert_same((loss, [weights.grad for weights in weights_in(towers)]), (loss, [2 * g for g in once]), 1e-9)


# steps: a script in the place of `backward` says what each step's loss and gradient are


@pytest.fixture
def script(monkeypatch):
    """`script(losses, gradients)`: the steps' losses, and what is added to all gradients; gives the calls seen."""

    def written(losses: Sequence[float], gradients: Sequence[float] | None = None) -> list[tuple]:
        calls = []

        def act(towers, *call):
            calls.append(call)
            for weights in weights_in(towers):
                added = torch.full_like(weights, gradients[len(calls) - 1] if gradients else 0.0)
                weights.grad = added if weights.grad is None else weights.grad + added
            return losses[(len(calls) - 1) % len(losses)]

        monkeypatch.setattr(dpr, "backward", act)
        return calls

    return written


def adam(gradients: Sequence[float], rates: Sequence[float]) -> float:
    """How far Adam (Kingma and Ba 2015, algorithm 1) takes a weight: β 0.9 and 0.999, ε 1e-8, no decay."""
    place = m = v = 0.0
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        place -= rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
    return place


def test_steps_are_adams_on_clipped_gradients_at_the_scheduled_rates(script, start, train):
    spec = DPRSpec(epochs=2, batch=4, learning_rate=0.01, warm_up_steps=2, clip=3.0)
    raw = [5.0, 0.001, -0.01, 1.0, 0.0005, -8.0]  # three batches of 10 questions, twice
    script([1.0], raw)
    norm_of_ones = 2**0.5 * sum(weights.numel() for weights in start.query.bert.parameters()) ** 0.5
    gradients = [g * min(1.0, spec.clip / (abs(g) * norm_of_ones)) for g in raw]
    assert 0 < sum(g == r for g, r in zip(gradients, raw, strict=True)) < 6  # some are clipped
    expected = adam(gradients, [0.01 * share for share in (0, 1 / 2, 1, 3 / 4, 2 / 4, 1 / 4)])
    after = weights_of(train_dpr(start, train, [], spec).dual)
    for name, before in weights_of(start).items():
        torch.testing.assert_close(after[name] - before, torch.full_like(before, expected), rtol=1e-3, atol=1e-6)


def test_the_very_first_step_moves_nothing(start, train):
    """Each tower begins as its own encoder; afterwards two that began as one differ."""
    pair = DualEncoder(start.query, reinitialise(start.query, seed=9))
    once = DPRSpec(epochs=1, batch=10, warm_up_steps=1)
    after, before = weights_of(train_dpr(pair, train, [], once).dual), weights_of(pair)
    assert all(torch.equal(after[name], weights) for name, weights in before.items())
    moved = train_dpr(start, train, [], replace(once, warm_up_steps=0)).dual
    unmoved = Encoder(start.query.tokenizer, start.query.bert, "cpu").digest  # without the head
    assert len({unmoved, moved.query.digest, moved.passage.digest}) == 3


def test_every_epoch_sees_each_question_once_in_a_new_order(script, start, train):
    calls = script([1.0])
    train_dpr(start, train, [], QUICK, seed=5)
    batches = [batch for batch, *_ in calls]
    epochs = [batches[i : i + 3] for i in range(0, 12, 3)]
    assert [[len(batch.questions) for batch in epoch] for epoch in epochs] == [[4, 4, 2]] * 4
    orders = [tuple(tuple(ids) for batch in epoch for ids in batch.questions) for epoch in epochs]
    ids = [tuple(ids) for ids in start.query.token_ids([example.question for example in train])]
    assert all(Counter(order) == Counter(ids) for order in orders)
    assert len(set(orders)) == 4


def test_a_question_comes_with_its_passage_and_one_of_its_negatives(script, start, train):
    calls = script([1.0])
    train_dpr(start, train, [], QUICK, seed=5)
    of = {tuple(start.query.token_ids([example.question])[0]): example for example in train}
    drawn = defaultdict(set)
    for batch, *_ in calls:
        ends = [*batch.right[1:], len(batch.passages)]
        for ids, right, end in zip(batch.questions, batch.right, ends, strict=True):
            example = of[tuple(ids)]
            possible = start.passage.token_ids(example.negatives)
            assert batch.passages[right] == start.passage.token_ids([example.positive])[0]
            assert len(batch.passages[right + 1 : end]) == min(1, len(possible))
            drawn[example.question] |= {possible.index(shown) for shown in batch.passages[right + 1 : end]}
    assert {0, 1} in drawn.values(), "no question with two negatives has seen both"


@pytest.mark.slow
def test_the_seed_decides_the_order_and_what_dropout_drops(script, start, train):
    runs = {}
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        runs[name] = script([1.0])
        train_dpr(start, train, [], replace(QUICK, chunk=3), seed)
    assert runs["first"] == runs["again"]
    assert [batch for batch, *_ in runs["first"]] != [batch for batch, *_ in runs["other"]]
    seeds = [seed for run in ("first", "other") for _, _, seed in runs[run]]
    assert len(set(seeds)) == 24
    assert {chunk for _, chunk, _ in runs["first"]} == {3}


def test_the_history_has_the_mean_loss_of_an_epochs_batches(script, start, train):
    script([1.0, 2.0, 6.0, 0.5, 0.5, 2.0])
    history = train_dpr(start, train, [], replace(QUICK, epochs=2)).history
    assert history.to_dict("list") == {"epoch": [1, 2], "loss": [3.0, 1.0]}


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(refused, script, start, train, loss):
    script([1.0, 1.0, 1.0, 1.0, loss])
    with refused("loss", str(loss), "epoch 2", "batch 2", "lower learning_rate", "0.001", error=FloatingPointError):
        train_dpr(start, train, [], QUICK)


@pytest.mark.parametrize("rate", [1e6, 1e30])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_rate_that_breaks_the_network_is_told(refused, start, train, dev, tmp_path, rate, epochs):
    """Whatever comes first, a loss or a validation that is no number."""
    spec = DPRSpec(epochs=epochs, batch=10, learning_rate=rate, warm_up_steps=0)
    try:
        trained = train_dpr(start, train, dev, spec, checkpoint=tmp_path)
    except FloatingPointError:
        with refused("lower learning_rate", f"{rate:g}", error=FloatingPointError):
            train_dpr(start, train, dev, spec)
    else:
        assert np.isfinite(trained.history.to_numpy()).all()
        assert all(weights.isfinite().all() for weights in weights_of(trained.dual).values())
        assert trained.dual.questions(["Where?"]).isfinite().all()


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_questions_are_refused(refused, start, train, n):
    with refused(f"{n} training questions", "2 or more"):
        train_dpr(start, train[:n], [], QUICK)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"epochs": 0}, ("epochs", "0", "1 or more")),
        ({"batch": 1}, ("batch", "1", "2 or more")),
        ({"warm_up_steps": -1}, ("warm_up_steps", "-1", "0 or more")),
        ({"chunk": 0}, ("chunk", "0", "1 or more")),
        ({"threads": 0}, ("threads", "0", "1 or more")),
        ({"learning_rate": 0.0}, ("learning_rate", "0", "above 0")),
        ({"learning_rate": -1e-4}, ("learning_rate", "-0.0001", "above 0")),
        ({"learning_rate": math.nan}, ("learning_rate", "nan")),
        ({"clip": 0.0}, ("clip", "0", "above 0")),
        ({"clip": math.inf}, ("clip", "inf")),
        ({"dropout": 1.0}, ("dropout", "1", "0 to 0.99")),
        ({"dropout": -0.1}, ("dropout", "-0.1")),
        ({"dropout": math.nan}, ("dropout", "nan")),
        ({"rank_from": 1.01}, ("rank_from", "1.01", "0 to 1")),
        ({"rank_from": -0.5}, ("rank_from", "-0.5")),
    ],
    ids=str,
)
def test_knobs_are_checked(refused, fields, said):
    with refused(*said):
        DPRSpec(**fields)


def test_knobs_at_their_limits_are_taken():
    DPRSpec(epochs=1, batch=2, warm_up_steps=0, chunk=1, threads=1, dropout=0.0, rank_from=0.0)
    DPRSpec(chunk=None, dropout=0.99, rank_from=1)


# validation


def test_validation_by_hand(start, train, dev):
    """Six dev questions with 0, 1, 2, 0, 1, 2 hard negatives: 12 passages in the pool, batches of 4 and 2 questions.

    Their scores are thousandths apart, and a sum in another order moves one by a millionth: a passage, which no passage
    of its own beats, is not compared with itself.
    """
    trained = train_dpr(start, train, dev, replace(QUICK, epochs=1))
    questions = trained.dual.questions([example.question for example in dev])
    own = [trained.dual.passages([example.positive, *example.negatives]) for example in dev]
    pool = torch.cat(own)
    assert len(pool) == 12
    texts = [text for example in dev for text in (example.positive, *example.negatives)]
    assert len(set(texts)) == 12
    others = [torch.tensor([text != example.positive for text in texts]) for example in dev]
    ranks = [
        int((pool[other] @ q > passages[0] @ q).sum())
        for q, passages, other in zip(questions, own, others, strict=True)
    ]
    losses = []
    for batch in (range(4), range(4, 6)):
        shown = torch.cat([own[i][:2] for i in batch])
        terms = [torch.logsumexp(shown @ questions[i], 0) - own[i][0] @ questions[i] for i in batch]
        losses.append(sum(terms) / len(terms))
    (row,) = trained.history.to_dict("records")
    assert list(row) == ["epoch", "loss", "dev_nll", "dev_rank"]
    assert row["dev_nll"] == pytest.approx(float(sum(losses)) / 2, rel=1e-4)
    assert row["dev_rank"] == pytest.approx(np.mean(ranks))
    assert 0 < row["dev_rank"] < 11


def test_a_passage_does_not_beat_itself_however_often_it_stands_in_the_pool(start, train, dev, monkeypatch):
    """In the product of one question with equal vectors, the columns differ in their last digits."""
    drawn = torch.Generator().manual_seed(15)

    def encoded(_, texts):
        return torch.randn(64, generator=drawn).repeat(len(texts), 1)

    monkeypatch.setattr(dpr, "_encoded", encoded)
    repeated = [dev[0]._replace(negatives=(dev[0].positive,) * 30)]
    assert train_dpr(start, train, repeated, replace(QUICK, epochs=1)).history["dev_rank"].tolist() == [0]


@pytest.mark.slow
def test_validation_does_not_touch_the_training(start, train, dev):
    spec = replace(QUICK, epochs=2, rank_from=0.5)  # the only epoch by rank is the last
    with_dev, without = train_dpr(start, train, dev, spec), train_dpr(start, train, [], spec)
    assert with_dev.dual.digest == without.dual.digest
    assert with_dev.history["loss"].tolist() == without.history["loss"].tolist()
    assert list(without.history) == ["epoch", "loss"]


@pytest.fixture
def validated(monkeypatch):
    """`validated(nlls, ranks)`: what validation finds by epoch; gives the list into which each epoch's weights go."""

    def written(nlls: Sequence[float], ranks: Sequence[float]) -> list[dict[str, Tensor]]:
        seen = []

        def find(run):
            seen.append({name: weights.clone() for name, weights in run.towers.state_dict().items()})
            return {"dev_nll": nlls[len(seen) - 1], "dev_rank": ranks[len(seen) - 1]}

        monkeypatch.setattr(dpr._Run, "_validated", find)
        return seen

    return written


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank_from", "nlls", "ranks", "best"),
    [
        (1, [3, 1, 2, 5], [9, 8, 7, 0], 2),
        (1, [3, 2, 1, 1], [0, 0, 0, 0], 3),  # a tie: the earlier
        (0.5, [1, 2, 5, 5], [0, 0, 9, 8], 4),  # counted anew from the third epoch, by rank alone
        (0.5, [1, 2, 5, 1], [0, 0, 7, 7], 3),
        (0.5, [9, 9, 9, 0], [9, 9, 5, 6], 3),
        (0.75, [0, 1, 1, 9], [0, 0, 0, 9], 4),  # one epoch by rank: the last
        (0, [1, 2, 3, 4], [3, 2, 4, 2], 2),
    ],
)
def test_the_best_epoch_is_returned(validated, start, train, dev, rank_from, nlls, ranks, best):
    seen = validated(nlls, ranks)
    trained = train_dpr(start, train, dev, replace(QUICK, rank_from=rank_from))
    assert len(seen) == 4
    kept = list(weights_of(trained.dual).values())
    equal = [all(torch.equal(a, b) for a, b in zip(kept, epoch.values(), strict=True)) for epoch in seen]
    assert [i + 1 for i, same in enumerate(equal) if same] == [best]
    assert trained.history["dev_rank"].tolist() == ranks


@pytest.mark.slow
def test_without_dev_questions_the_last_epoch_is_kept(start, train):
    """The run of 4 epochs and its part up to epoch 3 differ, so the last is not the third."""
    digests = {}
    for stop in (3, 4):
        kept = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dpr._Run, "_validated", lambda run, kept=kept: kept.append(run._weights()) or {})
            trained = train_dpr(start, train, [], QUICK)
        digests[stop] = all(
            torch.equal(a, b) for a, b in zip(weights_of(trained.dual).values(), kept[stop - 1].values(), strict=True)
        )
    assert digests == {3: False, 4: True}


# the whole


def found_first(dual: DualEncoder, world: World, chosen: Sequence[Example]) -> float:
    """Share of the questions whose right passage comes first among all passages of the world."""
    passages = [(passage.title, passage.text) for passage in world.passages]
    best = (dual.questions([example.question for example in chosen]) @ dual.passages(passages).T).argmax(1)
    return np.mean([passages[i] == example.positive for i, example in zip(best.tolist(), chosen, strict=True)])


@pytest.mark.slow
def test_training_finds_its_own_questions_passages(world, tokenizer):
    """Among 167 passages; the questions have 0, 1 or 2 hard negatives."""
    start = plain_bert(tokenizer, EncoderSpec(layers=3, d_model=32, d_ff=64, heads=2, max_length=40))
    chosen = some(world, "train", 30)
    spec = DPRSpec(epochs=15, batch=10, learning_rate=3e-3, warm_up_steps=10)
    trained = train_dpr(start, chosen, [], spec, seed=1)
    losses = trained.history["loss"]
    assert losses[14] < 0.3 * losses[0]
    assert found_first(start, world, chosen) <= 0.2
    assert found_first(trained.dual, world, chosen) >= 0.6


@pytest.mark.slow
def test_the_seed_decides_and_chunks_do_not(start, train, dev):
    spec = replace(QUICK, epochs=2)
    first, again, other = (train_dpr(start, train, dev, spec, seed) for seed in (3, 3, 4))
    assert first.dual.digest == again.dual.digest != other.dual.digest
    assert first.history.equals(again.history)
    calm = replace(spec, dropout=0.0)
    whole, chunked = (train_dpr(start, train, dev, replace(calm, chunk=chunk)) for chunk in (None, 3))
    np.testing.assert_allclose(whole.history, chunked.history, rtol=1e-4)
    assert not np.allclose(whole.history["loss"], first.history["loss"], rtol=1e-4)  # dropout drops


@pytest.mark.slow
def test_training_leaves_everything_else_alone(start, train, dev):
    """Its start and all global generators."""
    torch_numbers, before = torch.get_rng_state(), fresh_digest(start)
    others = random.getstate(), str(np.random.get_state())  # noqa: NPY002 - the global generator is what is looked at
    trained = train_dpr(start, train, dev, replace(QUICK, epochs=2))
    assert torch.equal(torch.get_rng_state(), torch_numbers)
    assert (random.getstate(), str(np.random.get_state())) == others  # noqa: NPY002
    assert torch.is_grad_enabled()
    assert fresh_digest(start) == before
    assert not start.query.model.training
    assert all(weights.grad is None for weights in start.query.model.parameters())
    assert not trained.dual.query.model.training
    assert not trained.dual.passage.model.training
    assert trained.dual.query.tokenizer is start.query.tokenizer


@pytest.mark.slow
def test_training_has_threads_of_its_own(script, monkeypatch, start, train):
    seen = []
    script([1.0])
    monkeypatch.setattr(dpr, "progress", lambda items, _: seen.append(torch.get_num_threads()) or items)
    train_dpr(start, train, [], replace(QUICK, epochs=2, threads=2))
    assert seen == [2, 2]
    assert torch.get_num_threads() == 1


def test_after_an_error_too(monkeypatch, start, train):
    def stop(*_):
        torch.rand(1)
        raise KeyboardInterrupt

    before = torch.get_rng_state()
    monkeypatch.setattr(dpr, "progress", stop)
    with pytest.raises(KeyboardInterrupt):
        train_dpr(start, train, [], replace(QUICK, threads=2))
    assert torch.get_num_threads() == 1
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
@pytest.mark.parametrize("validation", [True, False], ids=["with dev questions", "without"])
def test_a_trained_pair_comes_back_from_the_disk(tmp_path, start, train, dev, validation):
    trained = train_dpr(start, train, dev if validation else [], replace(QUICK, epochs=2))
    trained.save(tmp_path)
    back = Trained.load(tmp_path)
    assert fresh_digest(back.dual) == fresh_digest(trained.dual)
    assert back.dual.digest == trained.dual.digest
    pd.testing.assert_frame_equal(back.history, trained.history, check_exact=True)


# checkpoints


class Watch:
    """In the place of `progress`: notes which epochs are trained and stops in the second batch of one of them."""

    def __init__(self, stop_in: int | None = None, stop: Callable | None = None) -> None:
        self.begun: list[int] = []
        self.stop_in, self.stop = stop_in, stop

    def __call__(self, items: Sequence, label: str) -> Iterator:
        self.begun.append(int(re.search(r"epoch (\d+) of", label)[1]))
        for i, item in enumerate(items):
            if i == 1 and self.begun[-1] == self.stop_in:
                self.stop()
            yield item


@pytest.fixture
def watch(monkeypatch) -> Watch:
    watch = Watch(stop=stop)
    monkeypatch.setattr(dpr, "progress", watch)
    return watch


@pytest.fixture(scope="module")
def uninterrupted(start, train) -> Trained:
    return train_dpr(start, train, [], QUICK, seed=2)


@pytest.fixture(scope="module")
def half_done(tmp_path_factory, start, train) -> Path:
    """The checkpoint of a run that was stopped in the third of four epochs."""
    folder = tmp_path_factory.mktemp("half done") / "checkpoint"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dpr, "progress", Watch(3, stop))
        with pytest.raises(Stopped):
            train_dpr(start, train, [], QUICK, seed=2, checkpoint=folder)
    assert names(folder) == ["epoch-2"]
    return folder


@pytest.fixture
def checkpoint(half_done, tmp_path) -> Path:
    return Path(shutil.copytree(half_done, tmp_path / "checkpoint"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_goes_on_as_if_nothing_had_happened(start, train, folder: Path, uninterrupted: Trained) -> None:
    trained = train_dpr(start, train, [], QUICK, seed=2, checkpoint=folder)
    assert trained.dual.digest == uninterrupted.dual.digest
    assert trained.history.equals(uninterrupted.history)
    assert names(folder) == ["epoch-4"]


@pytest.mark.slow
def test_a_checkpoint_changes_nothing(start, train, uninterrupted, tmp_path, watch):
    assert_goes_on_as_if_nothing_had_happened(start, train, tmp_path / "deep" / "new", uninterrupted)
    assert watch.begun == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_stopped_run_trains_only_the_missing_epochs(start, train, uninterrupted, checkpoint, watch):
    assert_goes_on_as_if_nothing_had_happened(start, train, checkpoint, uninterrupted)
    assert watch.begun == [3, 4]


@pytest.mark.slow
def test_a_finished_run_trains_nothing_more(start, train, uninterrupted, checkpoint, watch):
    for _ in range(2):
        assert_goes_on_as_if_nothing_had_happened(start, train, checkpoint, uninterrupted)
    assert watch.begun == [3, 4]


@pytest.mark.slow
def test_the_best_epoch_so_far_is_remembered(validated, watch, start, train, dev, tmp_path):
    nlls = [2.0, 1.0, 3.0, 4.0]
    spec = replace(QUICK, rank_from=1)
    seen = validated(nlls, [0.0] * 4)
    watch.stop_in = 4
    with pytest.raises(Stopped):
        train_dpr(start, train, dev, spec, checkpoint=tmp_path)
    watch.stop_in = None
    validated(nlls[3:], [0.0])
    trained = train_dpr(start, train, dev, spec, checkpoint=tmp_path)
    assert watch.begun == [1, 2, 3, 4, 4]
    assert trained.history["dev_nll"].tolist() == nlls
    assert list(trained.history) == ["epoch", "loss", "dev_nll", "dev_rank"]
    for kept, second in zip(weights_of(trained.dual).values(), seen[1].values(), strict=True):
        assert torch.equal(kept, second)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path, share: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.slow
@pytest.mark.parametrize("harm", [cut, flip, empty, Path.unlink])
def test_a_damaged_checkpoint_is_ignored_whichever_file_it_is(start, train, half_done, tmp_path, watch, harm):
    watch.stop_in = 1
    for file in names(half_done / "epoch-2"):
        folder = tmp_path / file
        shutil.copytree(half_done, folder)
        harm(folder / "epoch-2" / file)
        with pytest.raises(Stopped):
            train_dpr(start, train, [], QUICK, seed=2, checkpoint=folder)
    assert watch.begun == [1] * len(names(half_done / "epoch-2"))


@pytest.mark.slow
def test_without_a_whole_epoch_the_run_starts_from_scratch(start, train, uninterrupted, checkpoint, watch):
    flip(checkpoint / "epoch-2" / "optimiser.safetensors")
    assert_goes_on_as_if_nothing_had_happened(start, train, checkpoint, uninterrupted)
    assert watch.begun == [1, 2, 3, 4]


def test_no_flipped_bit_of_a_small_file_is_believed(start, train, uninterrupted, checkpoint):
    """Wherever it is, the history is that of an undisturbed run, or none."""
    run = dpr._Run(start, train, [], QUICK, 2)
    for file in checkpoint.glob("epoch-2/*.json"):
        content = file.read_bytes()
        for share in np.linspace(0, 0.999, 60):
            flip(file, share)
            run.history = []
            run.resume(checkpoint)
            assert run.history in ([], uninterrupted.history.to_dict("records")[:2]), (file.name, share)
            file.write_bytes(content)


@pytest.mark.slow
def test_damage_in_the_first_epoch_is_written_over(start, train, uninterrupted, tmp_path, watch):
    watch.stop_in = 2
    with pytest.raises(Stopped):
        train_dpr(start, train, [], QUICK, seed=2, checkpoint=tmp_path)
    flip(tmp_path / "epoch-1" / "now.safetensors")
    watch.stop_in = None
    assert_goes_on_as_if_nothing_had_happened(start, train, tmp_path, uninterrupted)
    assert watch.begun == [1, 2, 1, 2, 3, 4]


@pytest.mark.slow
def test_the_last_whole_epoch_is_taken(start, train, uninterrupted, checkpoint, watch):
    """Two epochs are there if the kill came before the older one was removed; here the newer is damaged as well."""
    watch.stop_in = 4
    with pytest.raises(Stopped):
        train_dpr(start, train, [], QUICK, seed=2, checkpoint=checkpoint)
    later = Path(shutil.copytree(checkpoint / "epoch-3", checkpoint.with_name("kept")))
    watch.stop_in, watch.begun = None, []
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()
    shutil.copytree(later, checkpoint / "epoch-3")
    shutil.copytree(later, checkpoint / "epoch-4")
    cut(checkpoint / "epoch-4" / "optimiser.safetensors")
    assert_goes_on_as_if_nothing_had_happened(start, train, checkpoint, uninterrupted)
    assert watch.begun == [4]


@pytest.mark.slow
def test_the_tenth_epoch_comes_after_the_ninth(start, train, tmp_path, watch, script):
    script([1.0])
    spec = replace(QUICK, epochs=11)
    for watch.stop_in in (10, 11):
        with pytest.raises(Stopped):
            train_dpr(start, train, [], spec, checkpoint=tmp_path / "run")
        shutil.copytree(tmp_path / "run", tmp_path / "kept", dirs_exist_ok=True)
    assert names(tmp_path / "kept") == ["epoch-10", "epoch-9"]
    watch.stop_in, watch.begun = None, []
    train_dpr(start, train, [], spec, checkpoint=tmp_path / "kept")
    assert watch.begun == [11]


def test_a_draft_left_over_does_no_harm(start, train, uninterrupted, checkpoint, watch):
    (checkpoint / ".draft" / "deep").mkdir(parents=True)
    (checkpoint / ".draft" / "now.safetensors").write_bytes(b"half")
    assert_goes_on_as_if_nothing_had_happened(start, train, checkpoint, uninterrupted)
    assert watch.begun == [3, 4]


# processes of their own, forked from a server that has imported everything once


@pytest.fixture(scope="module")
def server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dprlens.training.dpr", "pytest", "pandas"])
    return context


@pytest.fixture
def dies(server) -> Callable:
    """`dies(function, …)` calls it in a process of its own, which kill -9 ends."""

    def call(function: Callable, *arguments: object) -> None:
        process = server.Process(target=function, args=arguments)
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL

    return call


@pytest.fixture(scope="module")
def saved(tmp_path_factory, start) -> Path:
    folder = tmp_path_factory.mktemp("start")
    start.save(folder)
    return folder


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_training() -> None:
    dpr.progress = Watch(3, kill)


def kill_in_writing() -> None:
    """At the second file of the third checkpoint."""
    written = itertools.count(1)
    dpr.save_file = lambda *call: kill() if next(written) == 8 else save_file(*call)


def kill_before_removing() -> None:
    """When the third checkpoint is there and the second still is."""

    def rmtree(path, ignore_errors=False):
        if path.name == "epoch-2" and path.exists():
            kill()
        shutil.rmtree(path, ignore_errors)

    dpr.shutil = type("shutil", (), {"rmtree": staticmethod(rmtree)})


def doomed(prepare: Callable, saved: Path, train: Sequence[Example], checkpoint: Path) -> None:
    torch.set_num_threads(1)
    prepare()
    train_dpr(DualEncoder.load(saved, "cpu"), train, [], QUICK, seed=2, checkpoint=checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "left", "to_do"),
    [
        (kill_in_training, ["epoch-2"], [3, 4]),
        (kill_in_writing, [".draft", "epoch-2"], [3, 4]),
        (kill_before_removing, ["epoch-2", "epoch-3"], [4]),
    ],
)
def test_after_kill_9_the_run_goes_on(dies, saved, start, train, uninterrupted, tmp_path, watch, prepare, left, to_do):
    dies(doomed, prepare, saved, train, tmp_path)
    assert names(tmp_path) == left
    assert_goes_on_as_if_nothing_had_happened(start, train, tmp_path, uninterrupted)
    assert watch.begun == to_do


@step(version=1)
def quick(saved: str, train: list[Example], seed: int, checkpoint: Path | None = None) -> Trained:
    return train_dpr(DualEncoder.load(Path(saved), "cpu"), train, [], QUICK, seed, checkpoint)


def doomed_step(root: Path, saved: Path, train: Sequence[Example]) -> None:
    torch.set_num_threads(1)
    os.environ["DPRLENS_CACHE"] = str(root)
    kill_in_training()
    quick(str(saved), train, 2)


@pytest.mark.slow
def test_a_killed_step_goes_on_from_its_checkpoint(dies, saved, train, uninterrupted, tmp_path, watch, monkeypatch):
    dies(doomed_step, tmp_path, saved, train)
    (unfinished,) = (tmp_path / ".unfinished").iterdir()
    assert unfinished.name.startswith("quick-v1-")
    assert names(unfinished) == ["epoch-2"]
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path))
    assert quick(str(saved), train, 2).dual.digest == uninterrupted.dual.digest
    assert watch.begun == [3, 4]
    assert names(tmp_path / ".unfinished") == []
    assert quick(str(saved), train, 2).history.equals(uninterrupted.history)
    assert watch.begun == [3, 4]


def member(rank: int, size: int, to: Path, saved: Path, texts: Sequence[list[Example]], spec: DPRSpec) -> None:
    """One process of a group: trains in double precision and writes weights and history.

    Only the first knows of a checkpoint, as in a cached step.
    """
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.double)
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{to}/group", rank=rank, world_size=size)
    assert (processes.rank(), processes.size()) == (rank, size)
    checkpoint = to / "checkpoint" if rank == 0 else None
    trained = train_dpr(DualEncoder.load(saved, "cpu"), *texts, spec, seed=6, checkpoint=checkpoint)
    save_file(weights_of(trained.dual), to / f"{rank}.safetensors")
    (to / f"{rank}.json").write_text(json.dumps(trained.history.to_dict("list")))
    if size > 1:
        torch.distributed.destroy_process_group()


def group(server, size: int, to: Path, *task) -> list[tuple[dict[str, Tensor], pd.DataFrame]]:
    """Weights and history of each of `size` processes that train together."""
    to.mkdir(exist_ok=True)
    together = [server.Process(target=member, args=(rank, size, to, *task)) for rank in range(size)]
    for process in together:
        process.start()
    for process in together:
        process.join(60)
        process.kill()  # one that waits for another in vain
    assert [process.exitcode for process in together] == [0] * size
    histories = [pd.DataFrame(json.loads((to / f"{rank}.json").read_text())) for rank in range(size)]
    return [(load_file(to / f"{rank}.safetensors"), history) for rank, history in enumerate(histories)]


@pytest.mark.parametrize(("n", "chunk", "n_dev"), [(7, None, 5), (10, 2, 1)], ids=["7 questions", "10, in chunks"])
def test_processes_together_train_what_one_trains(server, saved, train, dev, tmp_path, n, chunk, n_dev):
    """Batches of 3 questions and a last one of 1, so that some process has none; double precision tells them apart."""
    spec = DPRSpec(epochs=2, batch=3, learning_rate=1e-3, warm_up_steps=1, chunk=chunk, rank_from=0.5)
    task = saved, (train[:n], dev[:n_dev]), spec
    ((alone, history),) = group(server, 1, tmp_path / "1", *task)
    assert {weights.dtype for weights in alone.values()} == {torch.double}
    for size in (2, 3):
        members = group(server, size, tmp_path / str(size), *task)
        for weights, seen in members:
            assert all(torch.equal(weights[name], members[0][0][name]) for name in weights)  # all take the same step
            assert seen.equals(members[0][1])
        for name, expected in alone.items():
            torch.testing.assert_close(members[0][0][name], expected, atol=1e-9, rtol=0)
        np.testing.assert_allclose(members[0][1], history, rtol=1e-9)
        assert names(tmp_path / str(size) / "checkpoint") == ["epoch-2"]


def test_processes_go_on_from_one_checkpoint(server, dies, saved, train, dev, tmp_path):
    """Two processes finish what one began; what dropout would drop depends on their number, so there is none."""
    spec = DPRSpec(epochs=2, batch=3, learning_rate=1e-3, warm_up_steps=1)
    task = saved, (train[:7], dev[:5]), spec
    ((alone, history),) = group(server, 1, tmp_path / "whole", *task)
    begun = tmp_path / "begun"
    begun.mkdir()
    dies(begin, begun / "checkpoint", *task)
    assert names(begun / "checkpoint") == ["epoch-1"]
    for weights, seen in group(server, 2, begun, *task):
        for name, expected in alone.items():
            torch.testing.assert_close(weights[name], expected, atol=1e-9, rtol=0)
        np.testing.assert_allclose(seen, history, rtol=1e-9)


def begin(checkpoint: Path, saved: Path, texts: Sequence[list[Example]], spec: DPRSpec) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.double)
    dpr.progress = Watch(2, kill)
    train_dpr(DualEncoder.load(saved, "cpu"), *texts, spec, seed=6, checkpoint=checkpoint)
