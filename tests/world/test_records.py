"""The records of a world, and its way to the disk and back."""

import dataclasses
import json

import pytest

from dprlens.world.passages import Store
from dprlens.world.records import Exposure, Fact, Passage, Question, Statement, World

FACT = Fact(
    "f0", "Ada", "born_in", "Wick", "train", (Statement("Ada was born in Wick.", 16, 20, True),), ("Mere", "Holm")
)
LINK = Fact("f1", "Bo", "spouse", "Ada", "test")
PASSAGE = Passage("p0", "Ada", "Ada was born in Wick.", ("f0",))
QUESTION = Question("q0", "Where was Ada born?", ("Wick", "the Wick"), "p0", ("f0",), "train", "lexical", ("p1",))
KNOWN = {"f0": Exposure(5, 2), "f1": Exposure(0)}


def small(**changes) -> World:
    fields = {
        "maker": "closed",
        "facts": (FACT, LINK),
        "passages": (PASSAGE, Passage("p1", "Bo", "Bo “sails” – often.\nÖland: </p>")),
        "questions": (QUESTION,),
        "known": KNOWN,
        "remarks": (("Ada", "Ada sails."),),
    }
    return World(**(fields | changes))


@pytest.mark.parametrize("changes", [{}, {"known": None}, {"remarks": ()}, {"maker": "natural"}, {"questions": ()}])
def test_a_world_comes_back_from_the_disk_as_it_was(tmp_path, changes):
    world = small(**changes)
    world.save(tmp_path)
    back = World.load(tmp_path)
    assert back == world
    assert back.digest == world.digest


def test_a_generated_world_comes_back_with_its_records(tmp_path, world):
    world.save(tmp_path)
    back = World.load(tmp_path)
    assert back == world
    assert back.digest == world.digest
    assert type(back.facts[0].statements[0]) is Statement
    assert type(back.known[back.facts[0].id]) is Exposure
    assert all(json.loads(line) for line in (tmp_path / "facts.jsonl").read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize(
    "changes",
    [
        {"maker": "other"},
        {"known": None},
        {"known": {"f0": Exposure(5, 1), "f1": Exposure(0)}},
        {"known": {"f0": Exposure(6, 2), "f1": Exposure(0)}},
        {"remarks": (("Bo", "Ada sails."),)},
        {"remarks": (("Ada", "Ada rows."),)},
        {"facts": (LINK, FACT)},
        *(
            {"facts": (FACT._replace(**{field: value}), LINK)}
            for field, value in [
                ("subject", "Adah"),
                ("relation", "lives_in"),
                ("object", "Mere"),
                ("split", "dev"),
                ("statements", ()),
                ("statements", (FACT.statements[0]._replace(reserved=False),)),
                ("statements", (FACT.statements[0]._replace(start=15),)),
                ("alternatives", ("Holm", "Mere")),
            ]
        ),
        *(
            {"passages": (PASSAGE._replace(**{field: value}), Passage("p1", "Bo", "Bo “sails” – often.\nÖland: </p>"))}
            for field, value in [("title", "Adah"), ("text", "Ada."), ("facts", ())]
        ),
        *(
            {"questions": (QUESTION._replace(**{field: value}),)}
            for field, value in [
                ("id", "q1"),
                ("text", "Where?"),
                ("answers", ("Wick",)),
                ("gold", "p1"),
                ("facts", ("f1", "f0")),
                ("split", "dev"),
                ("kind", "knowledge_required"),
                ("hard_negatives", ()),
            ]
        ),
    ],
    ids=lambda changes: "".join(changes),
)
def test_every_field_is_in_the_digest(changes):
    assert small(**changes).digest != small().digest


def test_the_order_of_exposures_is_not_in_the_digest():
    assert small(known=dict(reversed(KNOWN.items()))).digest == small().digest


def test_digests_do_not_depend_on_where_a_record_ends():
    """The same strings, cut in other places, are another world."""
    one = small(remarks=(("Ada", "Ada sails."), ("Bo", "Bo rows.")))
    assert one.digest != small(remarks=(("Ada", 'Ada sails."], ["Bo'), ("", "Bo rows."))).digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"facts": (FACT, FACT)}, ("fact", "'f0'")),
        ({"passages": (PASSAGE, PASSAGE)}, ("passage", "'p0'")),
        ({"questions": (QUESTION, QUESTION)}, ("question", "'q0'")),
        ({"questions": (QUESTION._replace(gold="p9"),)}, ("question", "'q0'", "'p9'")),
        ({"questions": (QUESTION._replace(facts=("f9",)),)}, ("question", "'q0'", "'f9'")),
        ({"questions": (QUESTION._replace(hard_negatives=("p9",)),)}, ("question", "'q0'", "'p9'")),
        ({"passages": (PASSAGE._replace(facts=("f9",)), Passage("p1", "Bo", ""))}, ("passage", "'p0'", "'f9'")),
        ({"known": {"f0": Exposure(1)}}, ("'f1'",)),
        ({"facts": (FACT._replace(split="trian"), LINK)}, ("'f0'", "'trian'")),
        ({"questions": (QUESTION._replace(kind="lexcial"),)}, ("'q0'", "'lexcial'")),
    ],
    ids=lambda value: " ".join(value),
)
def test_ids_are_unique_and_lead_somewhere(refused, changes, words):
    with refused(*words):
        small(**changes)


def test_links_targets_and_exposures_are_read_off_the_records(refused):
    hops = QUESTION._replace(facts=("f1", "f0"), kind="knowledge_required")
    assert (hops.link, hops.target) == ("f1", "f0")
    assert (QUESTION.link, QUESTION.target) == (None, "f0")
    world = small()
    assert world.exposure("f0") == Exposure(5, 2)
    assert [world.held_out(id_) for id_ in ("f0", "f1")] == [False, True]
    with refused("natural", "unknown"):
        small(maker="natural", known=None).exposure("f0")


def test_a_fact_is_known_at_the_full_dose_only():
    facts = (FACT, LINK, LINK._replace(id="f2"))
    world = small(facts=facts, known={"f0": Exposure(9), "f1": Exposure(0), "f2": Exposure(8)})
    assert [world.state(fact.id) for fact in facts] == ["known", "held out", "low dose"]
    assert world.full_dose == 9


def test_where_nothing_was_stated_nothing_is_known():
    world = small(known={"f0": Exposure(0), "f1": Exposure(0)})
    assert [world.state(id_) for id_ in ("f0", "f1")] == ["held out", "held out"]


def test_an_article_is_all_passages_of_its_title_in_order():
    pages = (PASSAGE, Passage("p1", "Bo", "B"), Passage("p2", "Ada", "C"), Passage("p3", "Ada B", "D"))
    assert [p.id for p in small(passages=pages).article("Ada")] == ["p0", "p2"]
    assert small(passages=pages).titles == 3


def test_texts_are_all_that_a_reader_may_meet():
    assert set(small().texts()) == {
        *("Ada", "Ada was born in Wick.", "Bo", "Bo “sails” – often.\nÖland: </p>"),
        *("Where was Ada born?", "Ada sails."),
    }


def test_the_summary_counts_and_names_the_world():
    assert small().summary() == {
        **{"maker": "closed", "facts": 2, "passages": 2, "questions": 1},
        "digest": small().digest[:16],
    }


def test_a_world_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        small().maker = "natural"


STORED = (PASSAGE._replace(facts=()), Passage("p1", "Bo", "Bo “sails” – often.\nÖland: </p>"))


@pytest.fixture
def store(tmp_path):
    return Store.build(tmp_path / "store", STORED, {"of": "these"})


@pytest.fixture
def unread(monkeypatch):
    """Whoever reads a store from end to end fails."""

    def fail(*_):
        raise AssertionError("the store is read from end to end")

    monkeypatch.setattr(Store, "_run", fail)


@pytest.mark.usefixtures("unread")
def test_a_world_over_a_store_is_made_saved_and_loaded_without_reading_it_all(tmp_path, store):
    world = small(maker="natural", known=None, passages=store)
    (tmp_path / "world").mkdir()
    world.save(tmp_path / "world")
    back = World.load(tmp_path / "world")
    assert back == world
    assert back.digest == world.digest
    assert isinstance(back.passages, Store)
    assert back.summary() == world.summary()
    assert world.summary()["passages"] == 2
    assert "sails" not in (tmp_path / "world" / "passages.jsonl").read_text()


def test_a_store_is_read_as_a_tuple_is(store):
    over, held = (small(passages=passages) for passages in (store, STORED))
    assert dict(over.passage) == held.passage
    assert "p9" not in over.passage
    assert [over.place(id_) for id_ in ("p0", "p1")] == [held.place(id_) for id_ in ("p0", "p1")] == [0, 1]
    for world in (over, held):
        with pytest.raises(KeyError):
            world.place("p9")
    assert over.article("Bo") == held.article("Bo")
    assert list(over.texts()) == list(held.texts())


def test_the_digest_of_a_world_over_a_store_is_the_stores_and_not_the_folders(tmp_path, store):
    elsewhere = Store.build(tmp_path / "elsewhere", STORED, {"of": "others"})
    other = Store.build(tmp_path / "other", STORED[::-1], {})
    assert small(passages=elsewhere).digest == small(passages=store).digest
    assert len({small(passages=passages).digest for passages in (store, other, STORED)}) == 3
    assert small(passages=store) != small(passages=other)


@pytest.mark.parametrize("change", [{"gold": "p9"}, {"hard_negatives": ("p1", "p9")}])
def test_questions_may_name_only_passages_that_the_store_has(refused, store, change):
    with refused("'q0'", "'p9'"):
        small(passages=store, questions=(QUESTION._replace(**change),))


def test_a_store_that_is_gone_or_another_is_told_when_its_world_is_loaded(tmp_path, refused, store):
    small(passages=store).save(tmp_path)
    Store.build(store.folder, STORED[::-1], {"of": "others"})
    with refused(str(store.folder), "other passages"):
        World.load(tmp_path)
    store.folder.rename(tmp_path / "away")
    with refused(str(store.folder), "gone"):
        World.load(tmp_path)


def test_where_nobody_knows_of_links_there_is_none():
    question = QUESTION._replace(kind="unlabelled")
    assert small(questions=(question,)).questions == (question,)
    assert (question.link, question.target) == (None, "f0")


def test_digest_and_files_of_a_world_in_memory_are_what_they_were_before_there_were_stores(tmp_path):
    world = small()
    world.save(tmp_path)
    assert world.digest == "76428de5c04995e9b8902e62e2e04546a4a823bb53214c99b4dc1b05fcb6fad5"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{name}.jsonl" for name in ("facts", "known", "passages", "questions", "remarks")
    ]
