"""From DPR's files to a world: our own sentences in its formats, and small files with one thing wrong."""

import gzip
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import data_nq
import pytest

from dprlens.cache.artifacts import Cache, canonical
from dprlens.consistency.probes import items
from dprlens.retrieval.negatives import BM25, NegativesSpec, hard_negatives
from dprlens.world.natural import Natural, NaturalSpec, fingerprint, make_world, open_questions, whole, with_statements
from dprlens.world.passages import Passage, Store
from dprlens.world.records import SPLITS, Statement, World


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nq")
    data_nq.write(folder)
    return folder


@pytest.fixture(scope="module")
def sizes(files):
    return json.loads((files / "sizes.json").read_text())


def made(folder, seed=0, **changes) -> Natural:
    return make_world(NaturalSpec(folder=str(folder), **changes), seed)


def raw(folder, split) -> list[dict]:
    return json.loads(gzip.open(folder / f"biencoder-nq-{split}.json.gz").read())


# our own set, in DPR's formats


@pytest.mark.slow
def test_the_set_is_in_dprs_formats(files, sizes):
    assert (sizes["train"], sizes["dev"]) == (60, 40)
    world, findings = made(files, train_rows=60, dev_rows=40, passages_rows=sizes["passages"], corpus="all")
    assert findings == ()
    assert len(list(open_questions(files / "nq-train.qa.csv", expected=60))) == 60
    asked = {question.text: question.answers for question in open_questions(files / "nq-dev.qa.csv", expected=40)}
    assert asked == {q.text: q.answers for q in world.questions if q.split != "train"}


@pytest.mark.parametrize("corpus", ["pool", "all"])
def test_questions_are_those_of_the_files(files, corpus):
    world, _ = made(files, corpus=corpus)
    by_place = {(q.split == "train", int(q.id.split("-")[1])): q for q in world.questions}
    assert len(by_place) == 100
    for split in ("train", "dev"):
        for place, record in enumerate(raw(files, split)):
            question = by_place[split == "train", place]
            assert question.text == record["question"]
            assert question.answers == tuple(record["answers"])
            assert question.gold == record["positive_ctxs"][0]["passage_id"]
            assert list(question.hard_negatives) == [context["passage_id"] for context in record["hard_negative_ctxs"]]
            assert question.kind == "unlabelled"
            passage = world.passage[question.gold]
            assert (passage.title, passage.text) == tuple(
                record["positive_ctxs"][0][name] for name in ("title", "text")
            )
            fact = world.fact[question.target]
            assert (fact.subject, fact.object) == (passage.title, question.answers[0])
            assert (fact.statements, fact.alternatives) == ((), ())
    assert world.known is None
    assert world.maker == "natural"
    assert [SPLITS.index(q.split) for q in world.questions] == sorted(SPLITS.index(q.split) for q in world.questions)


def test_the_whole_corpus_is_the_file_and_a_pool_what_the_questions_name(files, sizes):
    everything = made(files, corpus="all").world.passages
    assert len(everything) == sizes["passages"]
    world, _ = made(files)
    named = {id_ for q in world.questions for id_ in (q.gold, *q.hard_negatives)}
    assert {passage.id for passage in world.passages} == named
    assert all(passage == everything[everything.place(passage.id)] for passage in world.passages)
    assert world.passages[0].id == world.questions[0].gold
    others = {context["passage_id"] for record in raw(files, "train") for context in record["negative_ctxs"]}
    others |= {context["passage_id"] for record in raw(files, "dev") for context in record["negative_ctxs"]}
    assert {passage.id for passage in made(files, negatives=9).world.passages} == named | others


def test_a_sample_joins_the_pool(files, sizes):
    pool, larger, other = (made(files, seed, sample=n).world.passages for seed, n in ((0, 0), (0, 10), (1, 10)))
    assert larger[: len(pool)] == pool[:]
    assert len({passage.id for passage in larger}) == len(larger) == len(pool) + 10
    assert larger[len(pool) :] != other[len(pool) :]
    assert len(made(files, sample=10**6).world.passages) == sizes["passages"]


def test_splits_can_be_smaller_and_are_drawn_by_the_seed(files):
    world, _ = made(files, train=10, dev=4, test=3)
    assert [sum(q.split == split for q in world.questions) for split in SPLITS] == [10, 4, 3]
    assert len({fact.id for fact in world.facts} - {id_ for q in world.questions for id_ in q.facts}) == 0
    assert made(files, train=10, dev=4, test=3).world == world
    assert made(files, 1, train=10, dev=4, test=3).world.questions != world.questions
    assert set(world.questions) <= set(made(files).world.questions)
    assert set(made(files, train=5, dev=2, test=2).world.questions) <= set(world.questions)


def test_the_deal_of_dev_questions_is_no_matter_of_the_seed(files):
    def tested(seed=0, **changes):
        return {q.text for q in made(files, seed, **changes).world.questions if q.split == "test"}

    assert tested() == tested(1)
    assert 8 <= len(tested()) <= 32
    assert tested(deal=1) != tested()
    assert tested(test_share=0) == set()
    assert len(tested(test_share=1)) == 40
    assert tested(test_share=0.2) < tested()


def test_the_same_code_goes_on_with_it(files):
    """Files, store, world; BM25; what probes choose from."""
    world, _ = made(files)
    mined = hard_negatives(world, NegativesSpec(per_question=4))
    assert all(tuple(mined[q.id]) == q.hard_negatives for q in world.questions if q.hard_negatives)
    chosen = items(world, mined, "train", 3, seed=0)
    for i, choices in zip(chosen.questions, chosen.choices, strict=True):
        question, (gold, *wrong) = world.questions[i], [world.passages[place].id for place in choices]
        assert gold == question.gold
        assert set(wrong) <= set(question.hard_negatives)
    question = world.questions[0]
    found = BM25(world.passages, NegativesSpec()).search([question.text], 5).passages[0]
    assert world.place(question.gold) in found


def test_world_and_findings_come_back_from_the_cache(files, tmp_path):
    spec = NaturalSpec(folder=str(files), train=5, hard_negatives=0)
    first = make_world(spec)
    assert first.findings
    artifact = Cache(tmp_path).get("natural", 1, {"spec": spec, "files": fingerprint(spec)}, first.save)
    back = Natural.load(artifact.folder)
    assert back == first
    assert back.world.digest == first.world.digest


def test_a_second_call_makes_no_second_store_and_other_files_another(files, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(files, folder, ignore=shutil.ignore_patterns("stores"))
    first = made(folder).world.passages
    before = (first.folder / "manifest.json").stat().st_mtime_ns
    assert made(folder).world.passages.folder == first.folder
    assert (first.folder / "manifest.json").stat().st_mtime_ns == before
    key = canonical(fingerprint(NaturalSpec(folder=str(folder))))
    (folder / "biencoder-nq-dev.json").write_text(json.dumps(raw(folder, "dev")[:20]))  # goes before its .gz
    assert canonical(fingerprint(NaturalSpec(folder=str(folder)))) != key
    assert made(folder).world.passages.folder != first.folder
    assert made(folder, stores=str(tmp_path / "elsewhere")).world.passages.folder.parent == tmp_path / "elsewhere"


def test_statements_are_filled_in_by_fact(files, refused):
    world, _ = made(files, train=4, dev=1, test=1)
    first, second = world.facts[:2]
    statement = Statement("Ada was born in Wick.", 16, 20)
    written = SimpleNamespace(
        statements={first.id: [statement]}, alternatives={first.id: ["Mere"], second.id: ["Holm"]}
    )
    told = with_statements(world, written)
    assert told.facts[0] == first._replace(statements=(statement,), alternatives=("Mere",))
    assert told.facts[1] == second._replace(alternatives=("Holm",))
    assert told.facts[2:] == world.facts[2:]
    assert (told.questions, told.passages) == (world.questions, world.passages)
    assert told.digest != world.digest
    with refused("'nobody'"):
        with_statements(world, SimpleNamespace(statements={"nobody": [statement]}, alternatives={}))


# small files with one thing wrong


def context(id_: str, title="Ada", text="") -> dict:
    return {"title": title, "text": text or f"text {id_}", "passage_id": id_}


def record(question="who sails", gold="1", hard=("2",), other=("3",), **changes) -> dict:
    return {
        "question": question,
        "answers": ["Ada"],
        "positive_ctxs": [context(gold)],
        "hard_negative_ctxs": [context(id_) for id_ in hard],
        "negative_ctxs": [context(id_) for id_ in other],
        **changes,
    }


@pytest.fixture
def place(tmp_path):
    """`place(train, dev, rows)` writes the files and returns their folder."""

    def write(train, dev=(), rows=tuple("123456789")) -> Path:
        (tmp_path / "biencoder-nq-train.json").write_text(json.dumps(train))
        (tmp_path / "biencoder-nq-dev.json").write_text(json.dumps(list(dev)))
        rows = [row if "\t" in row else f"{row}\ttext {row}\tAda" for row in rows]
        (tmp_path / "psgs_w100.tsv").write_text("\n".join(["id\ttext\ttitle", *rows]) + "\n")
        return tmp_path

    return write


def told(natural: Natural) -> dict:
    return {(row.what, row.left_out): (row.times, row.places[0]) for row in natural.findings}


def test_ordinary_negatives_stand_in_where_there_are_no_hard_ones(place):
    natural = made(place([record(hard=()), record("b", hard=(), other=())]))
    assert [q.hard_negatives for q in natural.world.questions] == [("3",), ()]
    assert told(natural) == {
        ("no hard negatives: ordinary ones stand in", False): (1, 0),
        ("no negatives are taken", False): (1, 1),
    }


def test_a_question_takes_so_many_hard_negatives_at_most(place):
    natural = made(place([record(hard=("4", "2", "5"))]), hard_negatives=2)
    assert natural.world.questions[0].hard_negatives == ("4", "2")
    assert [passage.id for passage in natural.world.passages] == ["1", "4", "2"]


def test_questions_of_one_fact_share_it_and_the_earliest_split_has_it(place):
    folder = place([record(), record()], [record(), record("other"), record("third", gold="4")])
    natural = made(folder, test_share=1)
    assert [(fact.split, fact.subject, fact.relation) for fact in natural.world.facts] == [
        ("train", "Ada", "who"),
        ("test", "Ada", ""),
        ("test", "Ada", ""),
    ]
    assert len({q.facts for q in natural.world.questions[:3]}) == 1
    assert told(natural) == {
        ("the question is asked in training as well", False): (1, 0),
        ("the gold passage is that of a training question as well", False): (1, 1),
    }


def test_one_question_stands_in_one_split(place):
    folder = place([record()], [record(f"question {i % 10}") for i in range(40)])
    splits = {(q.text, q.split) for q in made(folder).world.questions}
    assert len(splits) == 11


def test_two_texts_of_one_id_are_told_and_the_first_stays(place):
    twice = record("b", positive_ctxs=[context("1", text="another text")])
    natural = made(place([record(), twice, record("c")]))
    assert natural.world.passage["1"].text == "text 1"
    assert told(natural) == {("a passage has the id of an earlier one: left out", False): (1, 1)}
    assert made(place([record(), twice, record("c")])).findings == natural.findings, "from the store"


def test_a_gold_passage_must_be_in_the_corpus(place, refused):
    folder = place([record(), record("b", gold="77"), record("c", hard=("88", "4"))])
    with refused("biencoder-nq-train.json, record 1", "'77'"):
        made(folder, corpus="all")
    natural = made(folder, corpus="all", mode="skip")
    assert [(q.id, q.hard_negatives) for q in natural.world.questions] == [("train-0", ("2",)), ("train-2", ("4",))]
    assert told(natural) == {
        ("its gold passage is not in the passages' file", True): (1, 1),
        ("hard negatives are left out: not in the passages' file", False): (1, 2),
    }


def test_a_passages_file_of_another_make_is_noticed(place):
    natural = made(place([record()], rows=["1\ttext\tBo", "2"]), corpus="all")
    assert told(natural) == {("its gold passage has another title in the passages' file", False): (1, 0)}


def test_ids_given_twice_are_told_with_their_lines(place, refused):
    rows = ['1\t"two\nlines"\tAda', "2", "1\tagain\tAda", "3", "2\tagain\tAda", "1\tthird\tAda"]
    folder = place([record()], rows=rows)
    with refused("psgs_w100.tsv, line 5", "'1'", "earlier line"):
        made(folder, corpus="all")
    natural = made(folder, corpus="all", mode="skip")
    assert [passage.id for passage in natural.world.passages] == ["1", "2", "3"]
    assert natural.world.passage["1"].text == "two\nlines"
    assert told(natural) == {("the id is that of an earlier line", True): (3, 5)}


def test_bad_rows_of_all_files_are_in_the_findings_each_time(place):
    folder = place([record(), {"question": ""}, record("b")], [record("c", answers=[])], rows=["1", "2\tb", "2", "3"])
    spec = {"corpus": "pool", "sample": 5, "mode": "skip"}
    first, again = made(folder, **spec), made(folder, **spec)
    assert first.findings == again.findings
    assert {(row.file, row.unit, row.places) for row in first.findings} == {
        ("biencoder-nq-train.json", "record", (1,)),
        ("biencoder-nq-dev.json", "record", (0,)),
        ("psgs_w100.tsv", "line", (3,)),
    }


@pytest.mark.parametrize("field", ["train_rows", "dev_rows", "passages_rows"])
def test_a_wrong_number_of_rows_is_refused(place, refused, field):
    right = {"train_rows": 1, "dev_rows": 1, "passages_rows": 9}
    folder = place([record()], [record("b")])
    assert made(folder, corpus="all", **right).findings[1:] == ()
    with refused(f"after {right[field]} rows", f"where {right[field] + 1} "):
        made(folder, corpus="all", **{**right, field: right[field] + 1})


def test_a_refused_file_leaves_no_store(place):
    folder = place([record()], rows=["1", "bad\t"])
    with pytest.raises(ValueError, match="line 3"):
        made(folder, corpus="all")
    assert not [path for path in (folder / "stores").iterdir() if path.is_dir()]


@pytest.mark.parametrize("name", ["biencoder-nq-train.json", "biencoder-nq-dev.json", "psgs_w100.tsv"])
def test_a_missing_file_is_told_by_name_and_folder(place, refused, name):
    folder = place([record()])
    (folder / name).unlink()
    with refused(name, str(folder), error=FileNotFoundError):
        made(folder, corpus="all")
    if name == "psgs_w100.tsv":
        assert made(folder).world.questions, "a pool without a sample needs no such file"


def test_files_without_a_question_make_no_world(place, refused):
    with refused("no question"):
        made(place([record(positive_ctxs=[])]))


def test_a_passage_without_an_id_is_in_a_pool_under_its_text(place):
    bare = {"title": "Ada", "text": "Ada sails."}
    natural = made(place([record(positive_ctxs=[bare]), record("b", positive_ctxs=[bare])]))
    assert natural.world.questions[0].gold == natural.world.questions[1].gold
    assert natural.world.passage[natural.world.questions[0].gold].text == "Ada sails."


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "lenient"}, ("mode", "'lenient'", "strict, skip")),
        ({"corpus": "some"}, ("corpus", "'some'", "pool, all")),
        ({"train": 0}, ("train = 0", "1 or more")),
        ({"passages_rows": -1}, ("passages_rows = -1",)),
        ({"sample": -1}, ("sample = -1",)),
        ({"hard_negatives": -1}, ("hard_negatives = -1",)),
        ({"test_share": 1.5}, ("test_share = 1.5", "0 to 1")),
        ({"test_share": float("nan")}, ("test_share", "0 to 1")),
    ],
)
def test_a_spec_that_cannot_be_met_is_refused(refused, changes, words):
    with refused(*words):
        NaturalSpec(**changes)


def test_a_world_over_a_store_survives_being_told_more(files, tmp_path):
    """A world that was saved, loaded and changed still has its passages on the disk."""
    made(files).world.save(tmp_path)
    world = World.load(tmp_path)
    assert isinstance(world.passages, Store)
    assert isinstance(world.passages[0], Passage)
    assert whole(NaturalSpec(folder=str(files))) == made(files, corpus="all").world.passages
