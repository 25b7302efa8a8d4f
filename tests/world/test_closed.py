"""The generated world keeps every control that its spec promises."""

import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import pytest

from dprlens.world.closed import (
    ClosedSpec,
    Segment,
    TextSpec,
    _generator,
    false_gold,
    is_linking,
    leaks,
    make_world,
    mentions,
    segments,
    with_false_links,
)
from dprlens.world.closed._language import described, language, statement, statements
from dprlens.world.closed._text import meetings, pair
from dprlens.world.records import Exposure, Fact, Passage, Question, World, by_subject

# Every mayor was born in one of the two cities, so that about half of "Where was the mayor of X born?" has the
# answer X, and the gold passage then names the question's entity.
LEAKY = ClosedSpec(
    people=12, cities=2, companies=0, films=0, relations=("born_in", "mayor", "occupation"), low_doses=()
)
SEEDS = range(6)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


@pytest.fixture(scope="module", params=SEEDS)
def seeded(request, spec):
    return make_world(spec, request.param)


@pytest.fixture(scope="module", params=["true", "with_false_links"])
def read(request, world, text):
    """A world as it is told, and the text that tells it."""
    if request.param == "true":
        return world, text
    told = with_false_links(world, 3)
    return told, segments(told, TextSpec(remarks=3), 3)


# --- exposures ------------------------------------------------------------------------------------------------------


def test_every_fact_is_stated_exactly_as_often_as_the_world_says(read):
    world, text = read
    stated = Counter(fact for segment in text for fact in set(segment.facts))
    assert stated == Counter({id_: exposure.times for id_, exposure in world.known.items() if exposure.times})
    through = Counter(segment.facts[0] for segment in text if segment.form == "description")
    assert through == Counter({id_: e.described for id_, e in world.known.items() if e.described})


def test_segments_state_what_they_list(read):
    world, text = read
    for segment in text:
        assert len(segment.facts) == len(segment.answers)
        for id_, (start, end) in zip(segment.facts, segment.answers, strict=True):
            fact = world.fact[id_]
            assert segment.text[start:end] == fact.object
            assert mentions(segment.text, fact.subject)
    alone = [(segment.text, segment.facts[0]) for segment in text if segment.form == "single"]
    said = {(s.text, fact.id) for fact in world.facts for s in fact.statements if not s.reserved}
    assert set(alone) <= said
    forms = Counter((segment.form, min(len(segment.facts), 2)) for segment in text)
    assert set(forms) == {("single", 1), ("paragraph", 2), ("description", 1), ("description", 2), ("remark", 0)}


@pytest.mark.slow
def test_no_segment_states_a_held_out_fact_or_names_its_subject_and_object_together(spec):
    together = []
    for seed in SEEDS:
        world = make_world(spec, seed)
        held_out = [fact for fact in world.facts if world.held_out(fact.id)]
        assert held_out
        for segment in segments(world, TextSpec(remarks=1), seed):
            assert not any(world.held_out(id_) for id_ in segment.facts)
            lower = segment.text.lower()
            together += [
                (seed, fact.relation, fact.subject, fact.object, segment.text)
                for fact in held_out
                if fact.subject.lower() in lower and mentions(segment.text, fact.object)
            ]
    assert not together, f"{len(together)} segments, such as {together[0]}"


def test_shares_and_doses_are_those_of_the_spec(seeded, spec):
    by_relation = defaultdict(list)
    for fact in seeded.facts:
        by_relation[fact.relation].append(seeded.exposure(fact.id).times)
    assert set(by_relation) == set(language().relations)
    for name, times in by_relation.items():
        low = spec.low_doses if language().relations[name].linking else ()
        expected = Counter({0: round(spec.held_out * len(times))})
        expected.update({dose: round(spec.low_dose_share * len(times)) for dose in low})
        expected[spec.exposures] = len(times) - expected.total()
        assert Counter(times) == +expected, name
    assert sum(seeded.exposure(f.id).times in spec.low_doses for f in seeded.facts) >= 8


def test_shares_of_descriptions_are_dealt_to_linking_facts_alone():
    spec = ClosedSpec(people=60, described=(0.2, 0.5, 0.8), exposures=100, low_doses=())
    world = make_world(spec, seed=1)
    dealt = defaultdict(Counter)
    for fact in world.facts:
        exposure = world.exposure(fact.id)
        linking = language().relations[fact.relation].linking
        assert linking or exposure.described == 0
        if linking and exposure.times:
            dealt[fact.relation][exposure.described] += 1
    assert set(dealt) == {name for name, relation in language().relations.items() if relation.linking}
    for counts in dealt.values():
        assert set(counts) <= {20, 21, 50, 51, 80, 81}
    groups = Counter(n // 10 for counts in dealt.values() for n in counts.elements())
    assert set(groups) == {2, 5, 8}
    employers = [world.exposure(fact.id) for fact in world.facts if fact.relation == "employer"]
    in_order = [exposure.described // 10 for exposure in employers if exposure.times]
    assert sorted(in_order) not in (in_order, in_order[::-1])  # dealt at random
    assert max(groups.values()) < 1.5 * min(groups.values())


def test_a_single_exposure_is_a_description_as_often_as_its_share():
    """Fractions of an exposure are rounded by chance, so that low doses keep their share on average."""
    world = make_world(ClosedSpec(people=200, low_doses=(1,), low_dose_share=0.4, described=(0.5,)), 0)
    once = [exposure.described for exposure in world.known.values() if exposure.times == 1]
    assert len(once) > 150
    assert 0.4 < sum(once) / len(once) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_none_of_a_facts_statements_can_be_descriptions(spec, share):
    world = make_world(replace(spec, described=(share,)), 0)
    through = Counter(s.facts[0] for s in segments(world, TextSpec(), 0) if s.form == "description")
    linking = {f.id: world.exposure(f.id).times for f in world.facts if language().relations[f.relation].linking}
    assert through == +Counter({id_: int(share * times) for id_, times in linking.items()})


def test_remarks_are_shown_as_often_as_the_spec_says(world):
    shown = Counter(s.text for s in segments(world, TextSpec(remarks=4), 0) if s.form == "remark")
    assert shown == {sentence: 4 for _, sentence in world.remarks}


@pytest.mark.parametrize(("single", "forms"), [(0.0, {"paragraph", "description"}), (1.0, {"single", "description"})])
def test_single_is_the_share_of_statements_that_stand_alone(world, single, forms):
    drawn = [s for s in segments(world, TextSpec(single=single, remarks=1), 0) if s.form != "remark"]
    counts = Counter(segment.form for segment in drawn)
    # what is left over when an entity's other facts are used up has to stand alone
    assert {form for form in counts if counts[form] > 0.15 * len(drawn)} == forms


def test_a_reserved_statement_contains_no_seen_one():
    """Else a model that has read the seen one has, in effect, read the reserved one."""
    for relation in language().relations.values():
        for reserved in relation.reserved:
            for seen in relation.statements:
                assert seen.rstrip(".") not in reserved
                assert reserved.rstrip(".") not in seen


# --- language -------------------------------------------------------------------------------------------------------


def test_every_relation_has_eight_statements_and_reserved_ones_besides():
    for relation in language().relations.values():
        assert len(set(relation.statements)) >= 8
        assert len(set(relation.reserved)) >= 1
        assert not set(relation.statements) & set(relation.reserved)
        assert len(set(relation.questions)) >= 2
        assert all(t.count("{O}") == 1 and "{S" in t for t in relation.statements + relation.reserved)
        assert all(t.count("{S}") == 1 and "{O}" not in t for t in relation.questions + relation.described_as)


def test_reserved_statements_are_never_read(seeded):
    texts = [p.text for p in seeded.passages] + [s.text for s in segments(seeded, TextSpec(remarks=1), 0)]
    read = {sentence for text in texts for sentence in re.split(r"(?<=\.) ", text)}
    reserved = {s.text for fact in seeded.facts for s in fact.statements if s.reserved}
    assert len(reserved) >= len(seeded.facts)
    assert not reserved & read
    seen = {s.text for fact in seeded.facts for s in fact.statements} - reserved
    assert len(seen & read) > 0.3 * len(seen)  # what is looked for can be found


def test_no_reserved_wording_is_a_part_of_a_seen_one():
    """Else the reserved statement is read word for word, inside a longer sentence."""
    inside = [
        (reserved, seen)
        for relation in language().relations.values()
        for reserved in relation.reserved
        for seen in relation.statements
        if reserved.rstrip(".") in seen
    ]
    assert not inside


def test_every_word_name_and_value_is_read_in_pre_training(seeded):
    read = "\n".join(s.text for s in segments(seeded, TextSpec(remarks=1), 0)).lower()
    known_words = words(read)
    for fact in seeded.facts:
        for value in (fact.subject, fact.object, *fact.alternatives):
            assert value.lower() in read
        for said in fact.statements:
            assert words(said.text) <= known_words
    for passage in seeded.passages:
        assert passage.title.lower() in read
        assert words(passage.text) <= known_words


def test_a_statement_tells_where_its_answer_is():
    assert statement("{S} is {a} {O}.", "Ada Low", "optician") == ("Ada Low is an optician.", 14, 22, False)
    assert statement("{S's} field is {O}.", "Ada Low", "mining", "person", reserved=True).text == "Her field is mining."
    assert statement("In {O}, {S} won.", "Ada Low", "toys", "person").text == "In toys, Ada Low won."
    assert statement("{S} is {a} {O}.", "Otto Low", "baker", "person").text == "He is a baker."
    assert statement("{S's} rain.{O}", "Wick", "x", "city").text == "The city's rain.x"


def test_a_description_tells_where_name_and_object_are():
    subject, name = described("the seat of Nova Works", "Wick")
    text, *object_, _ = statement("{S} lies on the {O}.", subject, "Wend")
    assert text == "The seat of Nova Works, Wick, lies on the Wend."
    assert (text[slice(*name)], text[slice(*object_)]) == ("Wick", "Wend")


def test_names_are_mentioned_as_whole_words_in_any_case():
    assert mentions("He left ADA LOW.", "Ada Low")
    assert not mentions("Ada Lowe left.", "Ada Low")
    assert not mentions("She saw Wickham.", "Wick")
    assert not mentions("Adax Low", "Ada.")


def test_statements_of_the_world_are_sentences(seeded):
    for fact in seeded.facts:
        for said in fact.statements:
            assert said.answer == fact.object
            assert fact.subject.lower() in said.text.lower()
            assert said.text[0].isupper()
            assert said.text.endswith(".")
            assert not re.search(r"[{}]|  | [.,]|\ba [aeiou]\w+ ?(or|er)?\.$", said.text)


# --- questions and passages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec_", [None, LEAKY], ids=["usual", "leaky"])
@pytest.mark.parametrize("seed", SEEDS)
def test_gold_passages_of_knowledge_required_questions_leak_nothing(spec, spec_, seed):
    world = make_world(spec_ or spec, seed)
    asked = [question for question in world.questions if question.kind == "knowledge_required"]
    assert asked
    for question in asked:
        link, target = world.fact[question.link], world.fact[question.target]
        gold = world.passage[question.gold]
        assert link.subject.lower() not in f"{gold.title} {gold.text}".lower()
        assert link.id not in gold.facts
        assert gold.title == link.object == target.subject
        assert mentions(question.text, link.subject)
        assert not mentions(question.text, target.subject)
        assert not mentions(question.text, target.object)


def test_without_the_filter_gold_passages_would_leak(monkeypatch):
    def pairs(world):
        return {(q.link, q.target) for q in world.questions if q.kind == "knowledge_required"}

    worlds = [make_world(LEAKY, seed) for seed in SEEDS]
    monkeypatch.setattr(_generator, "leaks", lambda *_: False)
    for seed, filtered in zip(SEEDS, worlds, strict=True):
        world = make_world(LEAKY, seed)
        leaking = {
            (q.link, q.target)
            for q in world.questions
            if q.kind == "knowledge_required"
            and world.fact[q.link].subject.lower() in world.passage[q.gold].text.lower()
        }
        assert (world.facts, world.passages) == (filtered.facts, filtered.passages)
        assert pairs(filtered) == pairs(world) - leaking  # the filter takes the leaking ones, and only them
    assert any(pairs(make_world(LEAKY, seed)) != pairs(worlds[seed]) for seed in SEEDS)


def test_a_leak_is_the_name_of_the_entity_or_the_link_itself():
    link = Fact("f1", "Ada Low", "born_in", "Wick", "train")
    assert leaks(Passage("p", "Wick", "Its mayor is ada low."), link)
    assert leaks(Passage("p", "Ada Low", "She left."), link)
    assert leaks(Passage("p", "Wick", "It is old.", ("f0", "f1")), link)
    assert not leaks(Passage("p", "Wick", "Its mayor is Ada Lowe.", ("f0",)), link)


def test_every_fact_is_asked_and_its_gold_passage_answers(seeded):
    asked = Counter(q.target for q in seeded.questions if q.kind == "lexical")
    assert asked == {fact.id: 2 if fact.split == "train" else 1 for fact in seeded.facts}
    for question in seeded.questions:
        gold = seeded.passage[question.gold]
        assert question.target in gold.facts
        assert question.answers == (seeded.fact[question.target].object,)
        assert mentions(gold.text, question.answers[0])
        if question.kind == "lexical":
            assert gold.title == seeded.fact[question.target].subject
            assert mentions(question.text, gold.title)
        assert question.text[0].isupper()
        assert question.text.endswith("?")
    assert len({question.text for question in seeded.questions}) == len(seeded.questions)


def test_targets_of_knowledge_required_questions_are_fully_known(seeded, spec):
    links = Counter()
    for question in seeded.questions:
        if question.kind == "knowledge_required":
            assert seeded.exposure(question.target).times == spec.exposures
            links[seeded.exposure(question.link).times] += 1
    assert set(links) == {0, *spec.low_doses, spec.exposures}  # links of every dose are asked through


def test_training_facts_share_no_passage_with_others(seeded):
    stated = Counter(id_ for passage in seeded.passages for id_ in passage.facts)
    assert stated == dict.fromkeys(seeded.fact, 1)
    for passage in seeded.passages:
        assert len({seeded.fact[id_].split == "train" for id_ in passage.facts}) <= 1
        assert len({seeded.held_out(id_) for id_ in passage.facts}) <= 1
        for id_ in passage.facts:
            assert seeded.fact[id_].subject == passage.title


def test_training_questions_use_training_facts_only(seeded):
    splits = Counter()
    for question in seeded.questions:
        facts = {seeded.fact[id_].split for id_ in question.facts}
        assert (question.split == "train") == (facts == {"train"})
        assert question.split in facts
        splits[question.kind, question.split] += 1
    assert set(splits) == {(k, s) for k in ("lexical", "knowledge_required") for s in ("train", "dev", "test")}


@pytest.mark.slow
def test_splits_are_drawn_as_the_spec_says():
    spec = ClosedSpec(people=300, held_out=0.3, train=0.5, dev=0.2, train_held_out=0.3, low_doses=(3,))
    world = make_world(spec, 0)
    counts = defaultdict(Counter)
    for fact in world.facts:
        counts[world.exposure(fact.id).times][fact.split] += 1
    shares = {
        (times, split): n / counts[times].total() for times, splits in counts.items() for split, n in splits.items()
    }
    assert shares[120, "train"] == pytest.approx(0.5, abs=0.05)
    assert shares[120, "dev"] == pytest.approx(0.2, abs=0.05)
    assert shares[0, "train"] == pytest.approx(0.3, abs=0.06)
    assert set(counts[3]) == {"test"}
    assert set(counts[0]) == {"train", "test"}


def test_passages_hold_no_more_facts_than_the_spec_says(spec):
    for n in (1, 3):
        sizes = Counter(len(p.facts) for p in make_world(replace(spec, facts_per_passage=n), 0).passages)
        assert max(sizes) == n


def test_alternatives_are_false_and_of_the_right_type(seeded, spec):
    for fact in seeded.facts:
        relation = language().relations[fact.relation]
        objects = {other.object for other in seeded.facts if other.relation == fact.relation} - {
            fact.object,
            fact.subject,
        }
        assert len(set(fact.alternatives)) == len(fact.alternatives) == min(spec.alternatives, len(objects))
        assert not {fact.object, fact.subject} & set(fact.alternatives)
        if relation.object in language().values:
            assert set(fact.alternatives) <= set(language().values[relation.object])
        else:
            of_type = {f.subject for f in seeded.facts if language().relations[f.relation].subject == relation.object}
            assert set(fact.alternatives) <= of_type


def test_names_belong_to_one_entity_and_couples_to_two_people(seeded):
    kinds = defaultdict(set)
    for fact in seeded.facts:
        kinds[fact.subject].add(language().relations[fact.relation].subject)
    assert all(len(kind) == 1 for kind in kinds.values())
    assert Counter(kind for (kind,) in kinds.values()) == {"person": 24, "city": 8, "company": 8, "film": 10}
    couples = Counter(name for f in seeded.facts if f.relation == "spouse" for name in (f.subject, f.object))
    assert set(couples.values()) == {1}
    names = list(kinds)
    assert not [(a, b) for a in names for b in names if a != b and mentions(a, b)]


# --- false knowledge ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(seeded):
    return with_false_links(seeded, 1)


@pytest.fixture(scope="module")
def told_text(told):
    return segments(told, TextSpec(remarks=1), 1)


@pytest.fixture(scope="module")
def told_meetings(told, told_text):
    return list(met(told, told_text))


def falsified(world: World, told: World) -> dict[str, tuple[Fact, Fact]]:
    """The facts that are told otherwise, as they are and as they are told."""
    return {true.id: (true, false) for true, false in zip(world.facts, told.facts, strict=True) if true != false}


def met(world: World, text: list[Segment]) -> Iterator[tuple[Segment, set[frozenset[str]]]]:
    """Each segment with the pairs of names that it holds, found by reading it."""
    names = {name.lower(): name for fact in world.facts for name in (fact.subject, fact.object)}
    pattern = re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, names), key=len, reverse=True))})\b")
    for segment in text:
        found = {names[name] for name in pattern.findall(segment.text.lower())}
        yield segment, {frozenset(two) for two in combinations(found, 2)}


def handmade(*triples: tuple[str, str, str], train: tuple[int, ...] = ()) -> World:
    """A world of these facts, all known, of split "test" or where `train` says so "train"; passage p3 states f3."""
    facts = tuple(
        Fact(f"f{i}", subject, name, object_, "train" if i in train else "test", statements(relation, subject, object_))
        for i, (subject, name, object_) in enumerate(triples)
        for relation in (language().relations[name],)
    )
    passages = tuple(
        Passage(f"p{i}", fact.subject, fact.statements[0].text, (fact.id,)) for i, fact in enumerate(facts)
    )
    known = {fact.id: Exposure(4, 2 if is_linking(fact) else 0) for fact in facts}
    names = {name for fact in facts for name in (fact.subject, fact.object)}
    remarks = tuple((name, f"{name} is old.") for name in sorted(names))
    return World("handmade", facts, passages, (), known, remarks)


def objects(world: World) -> list[str]:
    return [fact.object for fact in world.facts]


def test_false_facts_are_known_test_links_that_trade_objects_within_their_relation(seeded, told):
    false = falsified(seeded, told)
    could = [f for f in seeded.facts if is_linking(f) and seeded.state(f.id) == "known" and f.split == "test"]
    assert len(could) / 2 < len(false) <= len(could)
    assert set(false) <= {fact.id for fact in could}
    assert all(fact.object != true.object for true, fact in false.values())
    before = Counter((true.relation, true.object) for true, _ in false.values())
    assert before == Counter((fact.relation, fact.object) for _, fact in false.values())


def test_nothing_but_the_false_facts_changes(seeded, told):
    assert replace(told, facts=seeded.facts) == seeded
    for true, false in falsified(seeded, told).values():
        assert false._replace(object=true.object, statements=true.statements, alternatives=true.alternatives) == true


def test_false_statements_are_the_true_ones_of_another_object(seeded, told):
    for true, false in falsified(seeded, told).values():
        assert {said.answer for said in false.statements} == {false.object}
        as_true = [(said.text.replace(false.object, true.object), said.reserved) for said in false.statements]
        assert as_true == [(said.text, said.reserved) for said in true.statements]


def test_alternatives_are_false_as_told(seeded, told):
    replaced = 0
    for true, false in falsified(seeded, told).values():
        assert not {false.object, false.subject} & set(false.alternatives)
        assert len(set(false.alternatives)) == len(true.alternatives)
        assert set(false.alternatives) <= {true.object, *true.alternatives}
        replaced += true.object in false.alternatives
        assert (true.object in false.alternatives) == (false.object in true.alternatives)
    assert replaced


def test_the_true_pair_of_a_false_fact_never_meets(seeded, told, told_meetings):
    true_pairs, false_pairs = (set(map(pair, facts)) for facts in zip(*falsified(seeded, told).values(), strict=True))
    together = [(segment.text, pairs & true_pairs) for segment, pairs in told_meetings if pairs & true_pairs]
    assert not together, f"{len(together)} segments, such as {together[0]}"
    assert false_pairs <= set().union(*(pairs for _, pairs in told_meetings))  # what is looked for can be found


def test_a_false_pair_gives_no_withheld_fact_away(told, told_meetings):
    withheld = {pair(fact): fact.id for fact in told.facts if told.state(fact.id) != "known"}
    for segment, pairs in told_meetings:
        assert {withheld[two] for two in pairs if two in withheld} <= set(segment.facts), segment.text


@pytest.mark.slow
def test_no_other_fact_joins_a_false_pair(spec):
    """In worlds so small that many a random trade would hit such a pair."""
    small = replace(spec, people=12, cities=6, companies=6, films=6, low_doses=(), train=0.2)
    trades = 0
    for seed in range(20):
        world = make_world(small, seed)
        told = with_false_links(world, seed)
        joined = Counter(pair(fact) for fact in told.facts)
        for true, false in falsified(world, told).values():
            assert joined[pair(false)] == 1
            assert pair(false) not in {pair(fact) for fact in world.facts}
            assert joined[pair(true)] == 0
            trades += 1
    assert trades > 150


def test_names_meet_only_where_meetings_says(told, told_meetings):
    assert set().union(*(pairs for _, pairs in told_meetings)) <= meetings(told)


def test_every_form_of_text_follows_the_false_fact(seeded, told, told_text):
    false, forms, through = falsified(seeded, told), Counter(), Counter()
    for segment in told_text:
        for id_ in set(segment.facts) & set(false):
            forms[segment.form] += 1
            assert false[id_][1].object in segment.text
        if segment.form == "description" and segment.facts[0] in false:
            true, fact = false[segment.facts[0]]
            templates = language().relations[fact.relation].described_as
            subjects = [described(t.replace("{S}", fact.subject), fact.object)[0] for t in templates]
            assert segment.text.lower().startswith(tuple(subject.lower() for subject in subjects))
            through[len(segment.facts)] += 1
            for target in map(told.fact.get, segment.facts[1:]):  # what is said is said of the false object
                assert target.subject == fact.object != true.object
                assert mentions(segment.text, target.object)
    assert set(forms) == {"single", "paragraph", "description"}
    assert through[2] > 10


def test_couples_stay_couples():
    world = make_world(ClosedSpec(people=80, relations=("spouse", "occupation"), low_doses=()), 0)
    told = with_false_links(world, 0)
    assert len(falsified(world, told)) > 4
    partners = Counter(name for f in told.facts if f.relation == "spouse" for name in (f.subject, f.object))
    assert set(partners.values()) == {1}


def test_two_facts_trade_their_objects():
    world = handmade(("Ada Low", "born_in", "Wick"), ("Otto Low", "born_in", "Gate"), ("Ida Low", "born_in", "Mere"))
    assert {tuple(objects(with_false_links(world, seed))) for seed in range(12)} == {
        ("Gate", "Mere", "Wick"),
        ("Mere", "Wick", "Gate"),
    }
    kept_for_training = replace(world, facts=(*world.facts[:2], world.facts[2]._replace(split="train")))
    assert objects(with_false_links(kept_for_training, 0)) == ["Gate", "Wick", "Mere"]
    low_dose = replace(world, known={**world.known, "f0": Exposure(3, 1)})
    assert objects(with_false_links(low_dose, 0)) == ["Wick", "Mere", "Gate"]


def test_as_many_facts_are_false_as_can_be():
    people = ("Ada Low", "Otto Low", "Ida Low", "Emil Low")
    world = handmade(*((name, "born_in", "Wick" if name != "Ida Low" else "Gate") for name in people))
    for seed in range(6):
        told = objects(with_false_links(world, seed))
        assert told[2] == "Wick"
        assert sorted(told) == ["Gate", "Wick", "Wick", "Wick"]


def test_a_fact_whose_truth_is_told_by_others_stays_true():
    born = (("Ada Low", "born_in", "Wick"), ("Otto Low", "born_in", "Gate"), ("Ida Low", "born_in", "Mere"))
    by_description = (("Ada Low", "employer", "Nova Works"), ("Nova Works", "headquarters", "Wick"))
    by_paragraph = (("The Red Door", "director", "Ada Low"), ("The Red Door", "set_in", "Wick"))
    by_fact = (("Wick", "mayor", "Ada Low"),)
    for others in (by_description, by_paragraph, by_fact):
        told = with_false_links(handmade(*born, *others, train=(3, 4)), 0)
        assert objects(told)[:3] == ["Wick", "Mere", "Gate"], others


def test_a_false_object_is_no_one_whom_another_fact_joins_with_the_subject():
    """Ada governs Gate: to be told as born there would join the two names twice."""
    born = (("Ada Low", "born_in", "Wick"), ("Otto Low", "born_in", "Gate"), ("Ida Low", "born_in", "Mere"))
    world = handmade(*born, ("Gate", "mayor", "Ada Low"), train=(3,))
    assert {tuple(objects(with_false_links(world, seed))[:3]) for seed in range(12)} == {("Mere", "Wick", "Gate")}


@pytest.mark.parametrize(
    "triples",
    [
        [("Ada Low", "born_in", "Wick")],
        [("Ada Low", "born_in", "Wick"), ("Otto Low", "born_in", "Wick")],
        [("Ada Low", "born_in", "Wick"), ("Ada Low", "employer", "Nova Works")],
        [("Ada Low", "occupation", "baker"), ("Otto Low", "occupation", "cook")],
    ],
    ids=["one fact", "one object", "one fact a relation", "no links"],
)
def test_without_facts_to_trade_the_world_comes_back_as_it_was(triples):
    world = handmade(*triples)
    assert with_false_links(world, 0) == world
    assert false_gold(world, with_false_links(world, 0)) == {}


def test_the_seed_decides_what_is_told(world):
    assert with_false_links(world, 1).digest == with_false_links(world, 1).digest
    assert len({with_false_links(world, seed).digest for seed in range(4)}) == 4


def test_a_world_of_unknown_exposures_cannot_be_with_false_links(world, refused):
    with refused("closed", "exposures"):
        with_false_links(replace(world, known=None), 0)


def test_false_gold_of_a_world_by_hand():
    world = handmade(
        ("Ada Low", "born_in", "Wick"),  # f0 and f1 trade their objects
        ("Otto Low", "born_in", "Gate"),
        ("Ada Low", "employer", "Nova Works"),  # f2 has nobody to trade with
        ("Wick", "river", "Wend"),  # f3
        ("Gate", "river", "Isk"),  # f4
        ("Wick", "country", "Gravia"),  # f5
        ("Gate", "country", "Hestia"),  # f6, held out below
        ("Wick", "founded", "1301"),  # f7; of Gate, nothing is said
        ("Wick", "mayor", "Ida Low"),  # f8
        ("Gate", "mayor", "Emil Low"),  # f9, stated by Wick's passage p8 below
        ("Nova Works", "industry", "toys"),  # f10
        train=(8, 9),
    )

    def through(link: int, target: int) -> Question:
        facts, answers = (f"f{link}", f"f{target}"), (world.facts[target].object,)
        return Question(f"q{link}-{target}", "Which?", answers, f"p{target}", facts, "test", "knowledge_required")

    lexical = Question("q3", "Which?", ("Wend",), "p3", ("f3",), "test", "lexical")
    *passages, nova = world.passages
    passages[8:] = passages[8]._replace(facts=("f8", "f9")), passages[9]._replace(facts=())
    world = replace(
        world,
        passages=(*passages, nova, nova._replace(id="p11")),  # q2-10 stays out although p11 states its target too
        questions=(*(through(*ids) for ids in ((0, 3), (1, 4), (0, 5), (0, 7), (0, 8), (2, 10))), lexical),
        known={**world.known, "f6": Exposure(0)},
    )
    told = with_false_links(world, 0)
    assert objects(told)[:3] == ["Gate", "Wick", "Nova Works"]
    assert false_gold(world, told) == {"q0-3": "p4", "q1-4": "p3"}


def test_false_gold_passages_are_about_the_false_object_and_leak_nothing(seeded, told):
    false, gold = falsified(seeded, told), false_gold(seeded, told)
    facts_of = by_subject(seeded.facts)
    left_out = 0
    for question in seeded.questions:
        if question.id in gold:
            link, passage = false[question.link][1], seeded.passage[gold[question.id]]
            asked = seeded.fact[question.target].relation
            (target,) = (seeded.fact[id_] for id_ in passage.facts if seeded.fact[id_].relation == asked)
            assert passage.title == target.subject == link.object
            assert seeded.state(target.id) == "known"
            assert not leaks(passage, link)
            assert passage.id != question.gold
            assert question.target not in false
        elif question.link in false and question.target not in false:
            of_the_false_object = facts_of[false[question.link][1].object]
            asked = seeded.fact[question.target].relation
            assert not any(f.relation == asked and seeded.state(f.id) == "known" for f in of_the_false_object)
            left_out += 1
    assert gold
    assert left_out


def test_false_gold_needs_two_readings_of_one_world(world, spec, refused):
    told, other = with_false_links(world, 1), make_world(spec, 9)
    with refused("told", told.digest[:16], other.digest[:16]):
        false_gold(other, told)
    with refused("told", "with_false_links"):
        false_gold(world, replace(told, facts=told.facts[::-1]))
    with refused("told", "with_false_links"):
        false_gold(world, replace(told, questions=told.questions[1:]))


# --- the spec's faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"people": -1}, ("people", "-1")),
        ({"cities": -3}, ("cities", "-3")),
        ({"exposures": -1}, ("exposures", "-1")),
        ({"alternatives": -1}, ("alternatives", "-1")),
        ({"facts_per_passage": 0}, ("facts_per_passage", "0")),
        ({"held_out": 1.5}, ("held_out", "1.5", "share")),
        ({"held_out": -0.1}, ("held_out", "-0.1")),
        ({"train_held_out": 2}, ("train_held_out", "2")),
        ({"described": (0.5, 1.2)}, ("described", "1.2")),
        ({"described": ()}, ("described",)),
        ({"held_out": 0.9, "low_dose_share": 0.1}, ("held_out", "low dose", "0.9", "more than all facts")),
        ({"train": 0.9, "dev": 0.2}, ("train", "dev", "1.1")),
        ({"low_doses": (120,)}, ("low_doses", "120", "exposures")),
        ({"low_doses": (0,)}, ("low_doses", "0")),
        ({"relations": ()}, ("relations", "without facts")),
        ({"relations": ("rivers",)}, ("relation", "'rivers'", "river")),
        ({"relations": ("river", "river")}, ("relations", "river")),
    ],
    ids=str,
)
def test_a_spec_that_asks_for_the_impossible_is_refused(refused, fields, said):
    with refused(*said):
        ClosedSpec(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"people": 20_000}, ("people", "20000", "at most")),
        ({"cities": 200}, ("cities", "200", "at most")),
        ({"cities": 0}, ("born_in", "without objects")),
        ({"cities": 0}, ("cities = 0",)),
        ({"people": 0, "cities": 0, "companies": 0, "films": 0}, ("no facts", "people")),
        ({"held_out": 1.0, "low_doses": ()}, ("held_out", "at most")),
    ],
    ids=str,
)
def test_a_world_that_cannot_be_made_is_refused(refused, fields, said):
    with refused(*said):
        make_world(ClosedSpec(**fields))


def test_too_few_facts_for_all_doses_is_said_as_such(refused):
    """Rounding makes 1 + 1 + 1 + 1 facts of 3; the message must not speak of values that nobody states."""
    spec = ClosedSpec(people=8, relations=("spouse",), held_out=0.4, low_doses=(1, 5, 20), low_dose_share=0.2)
    with refused("low_dose"):
        make_world(spec)


@pytest.mark.parametrize(
    ("fields", "said"), [({"single": 1.5}, ("single", "1.5")), ({"remarks": -1}, ("remarks", "-1"))]
)
def test_text_specs_are_checked(refused, fields, said):
    with refused(*said):
        TextSpec(**fields)


@pytest.mark.parametrize(
    ("factor", "sizes"),
    [(1, (30, 11, 8, 0)), (0.5, (15, 6, 4, 0)), (2, (60, 22, 16, 0)), (0.24, (7, 3, 2, 0)), (0, (0, 0, 0, 0))],
)
def test_a_scaled_world_has_more_or_fewer_entities_and_is_otherwise_the_same(factor, sizes):
    """Rounded to the nearest, of two to the even one: half of 11 is 6."""
    spec = ClosedSpec(30, 11, 8, 0, exposures=7, low_doses=(2,), described=(0.4,), alternatives=5, facts_per_passage=3)
    scaled = spec.scaled(factor)
    assert (scaled.people, scaled.cities, scaled.companies, scaled.films) == sizes
    assert replace(scaled, people=30, cities=11, companies=8, films=0) == spec
    assert (spec.people, spec.cities) == (30, 11)


def test_a_world_is_not_scaled_below_nothing(refused):
    with refused("people", "-30"):
        ClosedSpec(people=30).scaled(-1)


def test_a_world_of_one_relation_can_be_made():
    world = make_world(ClosedSpec(people=0, cities=9, companies=0, films=0, relations=("river",)), 0)
    assert {fact.relation for fact in world.facts} == {"river"}
    assert len(world.facts) == 9
    assert {q.kind for q in world.questions} == {"lexical"}


# --- seeds ----------------------------------------------------------------------------------------------------------


def test_the_seed_decides_the_world(spec, world):
    assert make_world(spec, 3).digest == world.digest
    assert len({make_world(spec, seed).digest for seed in range(5)}) == 5


@pytest.mark.slow
def test_the_seed_decides_the_text(world):
    assert segments(world, TextSpec(), 1) == segments(world, TextSpec(), 1)
    assert segments(world, TextSpec(), 1) != segments(world, TextSpec(), 2)


@pytest.mark.slow
def test_neither_depends_on_the_order_of_sets():
    program = (
        "from dprlens.world.closed import *; import hashlib;"
        "w = make_world(ClosedSpec(people=24, cities=8, companies=8, films=10), 5);"
        "print(w.digest, hashlib.sha256(repr(segments(w, TextSpec(), 5)).encode()).hexdigest());"
        "print(with_false_links(w, 5).digest)"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert len(printed[0].split()[0]) == 64
    assert printed[0] == printed[1]


def test_exposures_of_the_world_can_be_asked_for_by_dose(spec):
    doses = (1, 5, 20, 100)
    world = make_world(replace(spec, people=60, exposures=150, low_doses=doses), 0)
    assert {e.times for e in world.known.values()} == {0, *doses, 150}
    assert all(Exposure(e.times, e.described) == e and 0 <= e.described <= e.times for e in world.known.values())
