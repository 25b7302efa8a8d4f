"""Facts that enter the text late: nothing is lost, nothing comes too early, and told is what was to be told."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest

from dprlens.world.closed import Segment, TextSpec, make_world, segments
from dprlens.world.closed.entry import (
    AFTER,
    Telling,
    deal_entries,
    open_links,
    order_by_entry,
    rehearsal_text,
    telling_text,
    under_study,
    without_facts,
)
from dprlens.world.records import Exposure

POINTS = (0.0, 0.5)
GROUPS = (*POINTS, AFTER)


@pytest.fixture(scope="module")
def facts(world):
    return under_study(world)


@pytest.fixture(scope="module")
def entry(world, facts):
    return deal_entries(world, facts, GROUPS, 0, 5)


def stating(fact, lines):
    return sum(fact.id in line.facts for line in lines)


def joins(world, line, fact):
    names = {name for id_ in line.facts for name in (world.fact[id_].subject, world.fact[id_].object)}
    return {fact.subject, fact.object} <= names


# --- which facts, and when ---


def test_under_study_is_what_only_tests_ask_through(world, facts):
    assert len(facts) > 10
    trained = {id_ for question in world.questions if question.split == "train" for id_ in question.facts}
    for fact in facts:
        assert world.state(fact.id) == "known"
        assert fact.id not in trained
        assert any(question.link == fact.id for question in world.questions)
        assert not any(
            {fact.subject, fact.object} == {other.subject, other.object} for other in world.facts if other != fact
        )


def test_every_point_gets_about_as_many_facts_in_each_relation(facts, entry):
    assert set(entry) == {fact.id for fact in facts}
    counts = Counter(entry.values())
    assert set(counts) == set(GROUPS)
    assert max(counts.values()) - min(counts.values()) <= 1
    for relation in {fact.relation for fact in facts}:
        of_relation = Counter(entry[fact.id] for fact in facts if fact.relation == relation)
        assert max(of_relation.values()) - min(of_relation[point] for point in GROUPS) <= 1


def test_in_as_many_deals_as_points_each_fact_gets_each_point(world, facts):
    deals = [deal_entries(world, facts, GROUPS, turn, 5) for turn in range(3)]
    assert all({deal[fact.id] for deal in deals} == set(GROUPS) for fact in facts)
    assert deals[0] == deal_entries(world, facts, GROUPS, 0, 5) != deal_entries(world, facts, GROUPS, 0, 6)


# --- the text in another order ---


@pytest.fixture(scope="module")
def ordered(world, text, entry):
    return order_by_entry(world, text, entry, POINTS, 5)


def test_the_text_is_the_same_in_another_order(text, ordered):
    assert Counter(line for part in (*ordered.parts, ordered.after) for line in part) == Counter(text)


def test_all_groups_are_stated_as_often_as_the_world_says(world, facts, ordered):
    lines = [line for part in (*ordered.parts, ordered.after) for line in part]
    assert {stating(fact, lines) for fact in facts} == {world.full_dose}


def test_nothing_joins_the_names_of_a_fact_before_its_point(world, facts, entry, ordered):
    early, late = ordered.parts
    for fact in facts:
        assert any(joins(world, line, fact) for line in early) == (entry[fact.id] == 0)
        if entry[fact.id] == AFTER:
            assert not any(joins(world, line, fact) for line in late)
            assert stating(fact, ordered.after) == world.full_dose


def test_parts_are_as_long_as_their_points_say(ordered):
    sizes = [len(part) for part in ordered.parts]
    assert abs(sizes[0] - sizes[1]) <= 1


def test_a_segment_of_several_facts_follows_the_latest(world, facts):
    a, b = next((a, b) for a, b in combinations(facts, 2) if len({a.subject, a.object, b.subject, b.object}) == 4)
    both = Segment("-", (a.id, b.id), ((0, 1), (0, 1)), "paragraph")
    rest = [Segment(str(i), (), (), "remark") for i in range(5)]
    early, late = order_by_entry(world, [both, *rest], {a.id: 0.0, b.id: 0.5}, POINTS, 0).parts
    assert both in late
    assert len(early) == len(late) == 3


def test_the_seed_decides_the_order(world, text, entry, ordered):
    assert order_by_entry(world, text, entry, POINTS, 5) == ordered != order_by_entry(world, text, entry, POINTS, 6)


@pytest.mark.parametrize("points", [(), (0.5,), (0.0, 0.5, 0.5), (0.0, 0.7, 0.3), (0.0, 1.0)], ids=str)
def test_points_that_divide_nothing_are_refused(world, text, entry, refused, points):
    with refused("points"):
        order_by_entry(world, text, entry, points, 0)


def test_an_entry_between_the_points_is_refused(world, text, facts, refused):
    with refused("0.3", "points"):
        order_by_entry(world, text, {facts[0].id: 0.3}, POINTS, 0)


def test_more_late_segments_than_room_are_refused(world, facts, refused):
    lines = [Segment(str(i), (facts[0].id,), ((0, 1),), "single") for i in range(4)]
    with refused("4 segments", "2 have room"):
        order_by_entry(world, lines, {facts[0].id: 0.5}, POINTS, 0)


def test_rehearsal_states_nothing_under_study(world, text, facts):
    old = rehearsal_text(world, text, facts, 200, 1)
    assert len(old) == len({id(line) for line in old}) == 200
    assert Counter(old) <= Counter(text)
    assert not any(joins(world, line, fact) for line in old for fact in facts)
    assert old != rehearsal_text(world, text, facts, 200, 2)
    everything = rehearsal_text(world, text, facts, 10**9, 1)
    assert len(everything) == sum(not any(joins(world, line, fact) for fact in facts) for line in text)


# --- told afterwards ---


def test_what_is_untold_is_in_no_text(world, facts):
    before = without_facts(world, facts)
    assert all(before.state(fact.id) == "held out" for fact in facts)
    assert (before.facts, before.passages, before.questions) == (world.facts, world.passages, world.questions)
    kept = {id_: world.known[id_] for id_ in world.known if id_ not in {fact.id for fact in facts}}
    assert kept.items() <= before.known.items()
    lines = segments(before, TextSpec(remarks=3), 3)
    assert not any(joins(world, line, fact) for line in lines for fact in facts)


WAYS = {
    "plain": Telling(12),
    "one_wording": Telling(12, wordings=1),
    "half": Telling(12, described=0.5),
    "described": Telling(12, described=1.0),
    "beside": Telling(12, beside=True),
}


@pytest.fixture(scope="module")
def ways(world, facts):
    return {name: telling_text(without_facts(world, facts), facts, how, 2) for name, how in WAYS.items()}


@pytest.mark.parametrize("name", WAYS)
def test_every_fact_is_told_as_often_as_asked_for_and_answers_are_in_place(name, ways, world, facts):
    assert {stating(fact, ways[name]) for fact in facts} == {12}
    for line in ways[name]:
        for id_, (start, end) in zip(line.facts, line.answers, strict=True):
            assert line.text[start:end] == world.fact[id_].object


def test_ways_to_tell_differ_as_they_say(ways, facts):
    forms = {name: Counter(line.form for line in lines) for name, lines in ways.items()}
    n = len(facts)
    assert forms["plain"] == forms["one_wording"] == {"single": 12 * n}
    assert forms["half"] == {"single": 6 * n, "description": 6 * n}
    assert forms["described"] == {"description": 12 * n}
    assert forms["beside"]["paragraph"] > 6 * n
    said = {name: len({line.text for line in ways[name] if facts[0].id in line.facts}) for name in WAYS}
    assert said["one_wording"] == 1 < said["plain"] < said["beside"]


@pytest.mark.parametrize("name", ["beside", "described"])
def test_what_is_said_beside_a_fact_was_known_and_gives_no_other_away(name, ways, world, facts):
    before = without_facts(world, facts)
    secret = [fact for fact in world.facts if before.state(fact.id) != "known"]
    for line in ways[name]:
        extra = [world.fact[id_] for id_ in line.facts if id_ not in {fact.id for fact in facts}]
        assert all(before.state(fact.id) == "known" for fact in extra)
        assert not any(joins(world, line, fact) for fact in secret if fact.id not in line.facts)


def test_a_fact_without_neighbours_is_told_alone(world, facts):
    alone = replace(world, known={fact.id: Exposure(0) for fact in world.facts})
    assert {line.form for line in telling_text(alone, facts[:1], Telling(3, beside=True))} == {"single"}


def test_reserved_wordings_are_never_told(ways, facts):
    texts = {line.text for line in ways["plain"]}
    assert not any(statement.text in texts for fact in facts for statement in fact.statements if statement.reserved)


def test_opened_links_are_asked_through_and_no_test_fact_is(world, facts):
    half = facts[::2]
    other = open_links(world, half)
    moved = [q for q, was in zip(other.questions, world.questions, strict=True) if q.split != was.split]
    assert moved
    assert all(q.split == "train" and world.fact[q.target].split == "train" for q in moved)
    assert {q.link for q in moved} <= {fact.id for fact in half}
    left = [q for q in other.questions if q.link in {fact.id for fact in facts[1::2]}]
    assert all(q.split != "train" for q in left)


@pytest.mark.parametrize(
    "fields", [{"exposures": 0}, {"wordings": 0}, {"described": 1.5}, {"described": -0.1}], ids=str
)
def test_tellings_are_checked(refused, fields):
    ((field, value),) = fields.items()
    with refused(field, f"{value:g}"):
        Telling(**fields)


def test_a_world_without_questions_has_nothing_under_study(spec):
    lone = make_world(replace(spec, relations=("river",), low_doses=()), 0)
    assert under_study(lone) == []
    assert deal_entries(lone, [], GROUPS, 0, 0) == {}
