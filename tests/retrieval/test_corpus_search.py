"""Search over shards against `exact_search.FlatIndex`, to the last bit; IVF-PQ against it, by recall."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dprlens.retrieval.corpus import search as module
from dprlens.retrieval.corpus.compressed import IVFPQSpec, build_ivfpq, recall, search_ivfpq
from dprlens.retrieval.corpus.plan import Plan, ShardSpec
from dprlens.retrieval.corpus.search import best_of, merge, rank_rows, search
from dprlens.retrieval.corpus.shards import Block, Shards
from dprlens.retrieval.exact_search import FlatIndex, Ranking


def sharded(folder, vectors, shards, block=16, dtype="float32"):
    plan = Plan.of(ShardSpec(shards, block=block, dtype=dtype), *vectors.shape, "e", "p")
    made = Shards.begin(folder, plan)
    for shard in range(len(made)):
        made.make(shard, lambda n=shard: (Block(vectors[r.start : r.stop], block) for r in plan.blocks(n)))
    return made


def integers(*shape, seed=0):
    """Small whole numbers: many dot products are equal."""
    return np.random.default_rng(seed).integers(-2, 3, size=shape).astype(np.float32)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def copies(seed=0):
    """A few vectors, each many times."""
    rng = np.random.default_rng(seed)
    return normal(40, 768, seed=seed)[rng.integers(40, size=600)]


def nearly_equal():
    """Vectors that differ by less than a matrix product can tell."""
    return (normal(1, 128) + 1e-6 * normal(500, 128, seed=1)).astype(np.float32)


def assert_same(one: Ranking, other: Ranking):
    for field, ours, theirs in zip(Ranking._fields, one, other, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=field, strict=True)


CASES = {
    "ties": (integers(500, 6), integers(30, 6, seed=1)),
    "wide": (normal(900, 768), normal(70, 768, seed=1)),
    "copies": (copies(), normal(33, 768, seed=2)),
    "nearly equal": (nearly_equal(), normal(20, 128, seed=2)),
    "all equal": (np.ones((300, 3), np.float32), np.ones((2, 3), np.float32)),
    "zeros": (np.zeros((50, 4), np.float32), normal(3, 4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scores", [2**24, 4096, 400])
def test_a_ranking_is_that_of_the_index_whatever_the_shards_and_blocks(case, scores, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_SCORES", scores)
    vectors, queries = CASES[case]
    made = [sharded(tmp_path / str(n), vectors, n) for n in (1, 2, 7)]
    for k in (1, 10, len(vectors) // 3, len(vectors)):
        expected = FlatIndex(vectors).search(queries, k)
        for shards in made:
            assert_same(search(shards, queries, k), expected)


@pytest.mark.parametrize("case", ["ties", "all equal", "zeros", "wide"])
@pytest.mark.parametrize("scores", [2**24, 400])
def test_passages_are_placed_where_a_ranking_of_all_has_them(case, scores, tmp_path, monkeypatch):
    """Without the ranking; of equal scores the lower row comes first."""
    monkeypatch.setattr(module, "MOST_SCORES", scores)
    vectors, queries = CASES[case]
    rows = np.random.default_rng(3).integers(len(vectors), size=(len(queries), 4))
    every = FlatIndex(vectors).search(queries, len(vectors))
    expected = [ranked.tolist().index(row[0]) for ranked, row in zip(every.passages, rows, strict=True)]
    for n in (1, 7):
        found = rank_rows(sharded(tmp_path / str(n), vectors, n), queries, rows, "cpu")
        np.testing.assert_allclose(found.scores, np.einsum("qd,qcd->qc", queries, vectors[rows]), rtol=1e-4, atol=1e-4)
        assert found.places.tolist() == expected


def test_half_precision_is_searched_as_the_numbers_that_are_kept(tmp_path):
    vectors, queries = CASES["wide"]
    shards = sharded(tmp_path, vectors, 3, dtype="float16")
    assert_same(search(shards, queries, 20), FlatIndex(vectors.astype(np.float16)).search(queries, 20))


def test_a_row_that_only_the_exact_score_puts_first_is_found(monkeypatch):
    """A product that is off by as much as it may be proposes the wrong rows; the ranking is right all the same."""
    vectors, queries = CASES["nearly equal"]
    right = FlatIndex(vectors).search(queries, 5)
    rng = np.random.default_rng(5)
    true_deepest = module._deepest
    u = vectors.shape[1] * 2.0**-24 * np.linalg.norm(queries, axis=1).min() * np.linalg.norm(vectors, axis=1).min()

    def noisy(scores, rows, more, start, depth):
        noise = torch.from_numpy(rng.uniform(-0.9 * u, 0.9 * u, size=more.shape).astype(np.float32))
        return true_deepest(scores, rows, more + noise, start, depth)

    monkeypatch.setattr(module, "_deepest", noisy)
    assert_same(best_of(vectors, queries, 5), right)


def test_one_shard_is_numbered_from_its_first_row():
    vectors, queries = CASES["wide"]
    there, here = best_of(vectors, queries, 7, first=1000), best_of(vectors, queries, 7)
    np.testing.assert_array_equal(there.passages, here.passages + 1000)


def test_merging_keeps_the_best_and_the_lower_row_of_equals():
    one = Ranking(np.array([[7, 9]]), np.array([[2.0, 1.0]], np.float32))
    other = Ranking(np.array([[3, 4]]), np.array([[2.0, 1.5]], np.float32))
    merged = merge([one, other], 3)
    np.testing.assert_array_equal(merged.passages, [[3, 7, 4]])
    np.testing.assert_array_equal(merged.scores, [[2.0, 2.0, 1.5]])
    assert_same(merge([other, one], 3), merged)


def test_no_questions_have_an_empty_ranking(tmp_path):
    assert search(sharded(tmp_path, normal(50, 4), 2), np.empty((0, 4)), 3).passages.shape == (0, 3)


def test_what_cannot_be_searched_is_refused(tmp_path, refused):
    shards = sharded(tmp_path, normal(50, 4), 2)
    queries = normal(5, 4)
    with refused("k = 51 of 50"):
        search(shards, queries, 51)
    with refused("k = 0"):
        search(shards, queries, 0)
    with refused("workers = 0"):
        search(shards, queries, 1, workers=0)
    with refused("(5, 3)", "[question, 4]"):
        search(shards, queries[:, :3], 1)
    queries[3, 1] = np.nan
    with refused("question vector 3", "not finite"):
        search(shards, queries, 1)
    with refused("no ranking"):
        merge([], 1)
    with refused("'cuda:x'", "give auto, cpu or cuda"):
        search(shards, normal(5, 4), 1, device="cuda:x")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_stored_number_that_is_not_finite_is_refused_with_its_passage(number, refused):
    vectors = normal(50, 4)
    vectors[31, 2] = number
    with refused("passage 1031", "not finite"):
        best_of(vectors, normal(5, 4), 3, first=1000)


def test_a_rougher_matrix_product_is_refused(monkeypatch, refused):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    with refused("highest"):
        best_of(normal(50, 4), normal(5, 4), 3)


# compressed


SPEC = IVFPQSpec(lists=8, code_bytes=8, probes=4, sample=600)


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    """Vectors around thirty centres, and questions near some of them, with the exact ranking."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, 16)) * 3
    vectors = (centres[rng.integers(30, size=2000)] + rng.normal(size=(2000, 16))).astype(np.float32)
    queries = (centres[:20] + rng.normal(size=(20, 16)) * 0.3).astype(np.float32)
    shards = sharded(tmp_path_factory.mktemp("clustered"), vectors, 3, block=64)
    return shards, queries, search(shards, queries, 20)


def test_the_compressed_index_comes_with_its_recall(clustered, tmp_path):
    shards, queries, exact = clustered
    build_ivfpq(shards, SPEC, tmp_path / "index")
    few, all_lists = (
        search_ivfpq(tmp_path / "index", queries, exact, replace(SPEC, probes=probes)) for probes in (1, 8)
    )
    assert 0.2 < few.recall <= all_lists.recall
    assert all_lists.recall > 0.6
    assert few.bytes == (tmp_path / "index").stat().st_size
    by_hand = [len(set(a) & set(b)) / 20 for a, b in zip(few.ranking.passages, exact.passages, strict=True)]
    assert few.recall == pytest.approx(np.mean(by_hand))
    assert (np.diff(few.ranking.scores) <= 0).all()
    assert not list(tmp_path.glob(".*"))


def test_the_compressed_index_is_the_same_for_any_shards(clustered, tmp_path):
    shards, queries, exact = clustered
    whole = sharded(tmp_path / "one", np.concatenate([shards.vectors(i) for i in range(3)]), 1, block=64)
    for name, made in (("three", shards), ("one.index", whole)):
        build_ivfpq(made, SPEC, tmp_path / name)
    rankings = [search_ivfpq(tmp_path / name, queries, exact, SPEC).ranking for name in ("three", "one.index")]
    assert_same(*rankings)


def test_a_compressed_index_refuses(clustered, tmp_path, refused):
    shards, queries, exact = clustered
    with refused("code_bytes = 5", "16"):
        build_ivfpq(shards, IVFPQSpec(8, 5, 4, 600), tmp_path / "index")
    with refused("2000 passages are too few for 4000 lists"):
        build_ivfpq(shards, IVFPQSpec(4000, 8, 4, 4000), tmp_path / "index")
    with refused("probes = 9 of 8"):
        IVFPQSpec(8, 8, 9, 600)
    with refused("sample = 255", "256"):
        IVFPQSpec(8, 8, 4, 255)
    with refused("lists = 0"):
        IVFPQSpec(lists=0)
    (tmp_path / "index").write_bytes(b"nothing")
    with refused("no index", "build it again"):
        search_ivfpq(tmp_path / "index", queries, exact, SPEC)
    build_ivfpq(shards, SPEC, tmp_path / "index")
    with refused("raise probes"):
        search_ivfpq(tmp_path / "index", queries, search(shards, queries, 1500), SPEC)


def test_recall_by_hand(refused):
    exact = Ranking(np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.zeros((2, 4), np.float32))
    found = Ranking(np.array([[4, 3, 9, 10], [5, 6, 7, 8]]), np.zeros((2, 4), np.float32))
    assert recall(found, exact) == 0.75
    with refused("1 and 2 questions"):
        recall(Ranking(found.passages[:1], found.scores[:1]), exact)
