"""Passages ranked by an encoder pair, in memory and in shards: against plain computations, and each other."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from small_setup import DPR, MICRO, SEED, bounds_of_places

from dprlens.bert.encoder import DualEncoder, Encoder, EncoderSpec, random_bert
from dprlens.chapters.dense_retrieval import compare_with_published
from dprlens.real_setting.commands import encode_in_group, write_trec
from dprlens.retrieval.index import InMemory, InShards, encode_store, index_of
from dprlens.retrieval.steps import rankings
from dprlens.setup import Setup
from dprlens.world.passages import Store
from dprlens.world.records import Passage
from retrieval.test_corpus_search import integers, sharded

pytestmark = pytest.mark.slow

# in memory

PASSAGES = [
    Passage("p0", "Ada", "Ada was born in Wick."),
    Passage("p1", "Wick", "Wick lies on the Wend."),
    Passage("p2", "Bo", ""),
    Passage("p3", "", "She sails."),
]
QUESTIONS = ["Where was Ada born?", "Which river flows through Wick?", "Who sails?"]


@pytest.fixture(scope="module")
def other(encoder) -> Encoder:
    """An encoder of the same words and other weights."""
    shape = EncoderSpec(layers=1, d_model=32, d_ff=64, heads=2, max_length=40)
    return Encoder(encoder.tokenizer, random_bert(encoder.tokenizer, shape, seed=2), device="cpu")


def asked(dual: DualEncoder) -> np.ndarray:
    return dual.questions(QUESTIONS).numpy()


def test_the_index_gives_each_encoder_its_own_texts(encoder, other):
    dual = DualEncoder(query=encoder, passage=other)
    scores = encoder.cls(QUESTIONS) @ other.cls([(p.title, p.text) for p in PASSAGES]).T
    ranking = InMemory(dual, PASSAGES).search(asked(dual), 4)
    np.testing.assert_array_equal(ranking.passages, scores.argsort(descending=True))
    np.testing.assert_allclose(ranking.scores, scores.sort(descending=True).values, rtol=1e-5)
    swapped = other.cls(QUESTIONS) @ encoder.cls([(p.title, p.text) for p in PASSAGES]).T
    assert not torch.allclose(scores, swapped)


def test_the_index_pools_as_its_encoders_do(encoder):
    scores = encoder.mean(QUESTIONS) @ encoder.mean([(p.title, p.text) for p in PASSAGES]).T
    dual = DualEncoder(encoder, encoder, pooling="mean")
    ranking = InMemory(dual, PASSAGES).search(asked(dual), 4)
    np.testing.assert_allclose(ranking.scores, scores.sort(descending=True).values, rtol=1e-5)


def test_passages_are_encoded_once_and_equal_texts_together(encoder):
    calls = []

    class Counting(Encoder):
        def cls(self, texts):
            calls.append(list(texts))
            return super().cls(texts)

    dual = DualEncoder(encoder, Counting(encoder.tokenizer, encoder.model, device="cpu"))
    index = InMemory(dual, [*PASSAGES, PASSAGES[1]._replace(id="p4")])
    first = index.search(asked(dual), 2)
    np.testing.assert_array_equal(index.search(asked(dual), 2).scores, first.scores)
    index.ranks(asked(dual), np.zeros((3, 1), int))
    assert calls == [[(p.title, p.text) for p in PASSAGES]]


def test_an_index_without_passages_is_refused(refused, encoder):
    with refused("0 passages"):
        InMemory(DualEncoder(encoder, encoder), [])


def test_equal_texts_tie_to_the_last_digit_and_the_lower_place_comes_first(toy, world):
    """As they would not if each were encoded beside other texts; by a search and without one."""
    dual, rng = DualEncoder(toy, toy), random.Random(4)
    passages = [*world.passages, *rng.choices(world.passages, k=len(world.passages))]
    index, queries = InMemory(dual, passages), dual.questions([q.text for q in world.questions[:20]]).numpy()
    ranking = index.search(queries, len(passages))
    first = {(p.title, p.text): place for place, p in reversed([*enumerate(passages)])}
    original = np.array([first[passage.title, passage.text] for passage in passages])
    for places, scores in zip(ranking.passages, ranking.scores, strict=True):
        of_text = pd.DataFrame({"place": places, "score": scores}).groupby(original[places])
        assert (of_text["score"].max() == of_text["score"].min()).all()
        assert of_text["place"].is_monotonic_increasing.all()  # copies are in the order of their places
    copies = np.flatnonzero(original < np.arange(len(passages)))
    rows = np.stack([copies, original[copies]], 1)
    for query in queries[:3]:
        found = index.ranks(np.tile(query, (len(rows), 1)), rows)
        assert (found.scores[:, 0] == found.scores[:, 1]).all()
        behind = found.places - index.ranks(np.tile(query, (len(rows), 1)), rows[:, ::-1].copy()).places
        earlier = [(original[:copy] == original[copy]).sum() for copy in copies]
        assert behind.tolist() == earlier


# in memory and in shards


class Numbers:
    """In the place of an encoder pair: vectors of small whole numbers, so that all dot products are exact."""

    def __init__(self, texts: Sequence[tuple[str, str]]) -> None:
        distinct = dict.fromkeys(texts)
        self.of = dict(zip(distinct, integers(len(distinct), 5), strict=True))

    def passages(self, texts: Sequence[tuple[str, str]]) -> torch.Tensor:
        return torch.tensor(np.array([self.of[text] for text in texts]))


@pytest.fixture
def indexes(tmp_path):
    """The same passages in memory, in one shard and in seven; a third of them have the text of another."""
    rng = random.Random(0)
    texts = [(f"t{i}", "") for i in range(200)]
    texts += rng.choices(texts, k=100)
    rng.shuffle(texts)
    dual = Numbers(texts)
    passages = [Passage(f"p{i}", *text) for i, text in enumerate(texts)]
    vectors = dual.passages(texts).numpy()
    shards = [InShards(sharded(tmp_path / str(n), vectors, n)) for n in (1, 7)]
    return [InMemory(dual, passages), *shards], vectors


@pytest.mark.parametrize("k", [1, 10, 300])
def test_indexes_in_memory_and_in_shards_find_the_same(indexes, k):
    (in_memory, *in_shards), vectors = indexes
    queries = integers(40, 5, seed=1)
    expected = in_memory.search(queries, k)
    order = np.argsort(-queries @ vectors.T, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(expected.passages, order)
    for index in in_shards:
        found = index.search(queries, k)
        np.testing.assert_array_equal(found.passages, expected.passages)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_ranks_are_places_in_the_ranking_of_all_wherever_the_vectors_are(indexes):
    """Of equal scores, those of equal texts among them, the lower place comes first."""
    queries, rows = integers(40, 5, seed=1), np.random.default_rng(2).integers(300, size=(40, 3))
    vectors = indexes[1]
    for index in indexes[0]:
        every = index.search(queries, 300).passages
        found = index.ranks(queries, rows)
        np.testing.assert_array_equal(found.scores, np.einsum("qd,qcd->qc", queries, vectors[rows]))
        assert found.places.tolist() == [ranked.tolist().index(row[0]) for ranked, row in zip(every, rows, strict=True)]
        assert np.issubdtype(found.places.dtype, np.integer)


# of a world


@pytest.fixture(scope="module")
def micro(cache):
    assert cache
    return Setup(MICRO, SEED)


@pytest.fixture(scope="module")
def stored(micro, tmp_path_factory):
    """The same world with its passages in a store."""
    store = Store.build(tmp_path_factory.mktemp("passages") / "store", micro.world.passages, {})
    return replace(micro.world, passages=store)


def test_rankings_are_of_every_question_and_no_deeper_than_there_are_passages(micro):
    dual, world = micro.start, micro.world
    two, every = rankings(dual, world, 2), rankings(dual, world)
    assert two.passages.shape == two.scores.shape == (len(world.questions), 2)
    assert every.passages.shape == (len(world.questions), len(world.passages))
    assert np.array_equal(every.passages[:, :2], two.passages)
    least, most = bounds_of_places(dual, world, {question.id: question.gold for question in world.questions})
    gold = [next(i for i, p in enumerate(world.passages) if p.id == question.gold) for question in world.questions]
    places = [ranked.tolist().index(passage) for ranked, passage in zip(every.passages, gold, strict=True)]
    assert ((least <= places) & (places <= most)).all()


def test_where_the_passages_are_chooses_the_index_and_changes_no_rank(micro, stored):
    dual = micro.dpr
    in_memory, in_shards = index_of(dual, micro.world), index_of(dual, stored)
    assert (type(in_memory), type(in_shards)) == (InMemory, InShards)
    queries = dual.questions([question.text for question in micro.world.questions]).numpy()
    expected, found = (index.search(queries, len(stored.passages)) for index in (in_memory, in_shards))
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    rows = np.random.default_rng(0).integers(len(stored.passages), size=(len(queries), 4))
    one, other = (index.ranks(queries, rows) for index in (in_memory, in_shards))
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-5)
    nearest = np.sort(np.abs(expected.scores - one.scores[:, :1]), axis=1)[:, 1]
    clear = nearest > 1e-4  # no other passage scores nearly the same
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(one.places[clear], other.places[clear])
    assert len({*one.places[clear]}) > 5


def test_vectors_of_a_store_are_made_once_for_each_pair_of_towers(micro, stored):
    first = encode_store(micro.start, stored)
    again, others = encode_store(micro.start, stored), encode_store(micro.dpr, stored)
    assert first.made > 0
    assert (again.made, again.shards.folder) == (0, first.shards.folder)
    assert others.shards.folder != first.shards.folder


def test_nothing_is_written_or_encoded_for_a_dpr_that_is_not_trained(micro, stored, tmp_path, refused):
    untrained = Setup(replace(MICRO, dpr=replace(DPR, clip=0.3)), SEED)
    with refused("'micro'", "not trained yet"):
        write_trec(untrained, tmp_path / "trec")
    assert not (tmp_path / "trec").exists()
    with refused("'micro'", "in memory"):
        encode_in_group(micro)
    vars(untrained)["world"] = stored
    with refused("'micro'", "not trained yet"):
        encode_in_group(untrained)


def test_published_towers_are_compared_only_where_the_profile_asks(micro):
    assert compare_with_published(micro, micro.dpr) == {}
