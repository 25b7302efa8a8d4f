"""The protocol of section 4, on one's fingers."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from dprlens.editing import protocol
from dprlens.editing.protocol import (
    AnswerLengths,
    Chosen,
    Outcome,
    ProtocolSpec,
    asking_less,
    choose,
    columns,
    contrast,
    eligible,
    with_object,
)
from dprlens.intervals import difference, exact, gap, kappa, mcnemar, mean
from dprlens.paper.claims import section4
from dprlens.world.records import Fact, Statement

W, R = False, True  # wrong, right
# Six questions on five facts: (fact, kind, recalled, probe, match, place)
BEFORE = [
    ("a", "lexical", 0.0, W, W, 30),
    ("a", "knowledge_required", 0.0, W, W, 25),
    ("b", "knowledge_required", 0.0, W, W, 40),
    ("c", "knowledge_required", 1.0, R, R, 2),
    ("d", "lexical", 1.0, R, R, 0),
    ("e", "lexical", 0.5, W, R, 5),
]
AFTER = [
    ("a", "lexical", 0.0, R, R, 3),
    ("a", "knowledge_required", 0.0, R, W, 50),
    ("b", "knowledge_required", 0.0, W, R, 10),
    ("c", "knowledge_required", 1.0, W, R, 1),
    ("d", "lexical", 1.0, R, W, 60),
    ("e", "lexical", 0.5, R, R, 4),
]


def rows(table):
    frame = pd.DataFrame(table, columns=["fact", "kind", "recalled", "probe2", "match2", "place"])
    return frame.assign(question=[f"q{i}" for i in range(len(frame))], retrained2=~frame["probe2"])


before, after = rows(BEFORE), rows(AFTER)


def test_eligible_is_wrong_in_both_and_unknown_or_right_in_both_and_known():
    assert eligible(before, "added", 2).tolist() == [True, True, True, False, False, False]
    assert eligible(before, "removed", 2).tolist() == [False, False, False, True, True, False]


@pytest.mark.parametrize("column", ["probe2", "match2"])
def test_one_right_answer_is_enough_to_be_neither(column):
    changed = before.assign(**{column: ~before[column]})
    assert not eligible(changed, "added", 2).any()
    assert eligible(changed, "removed", 2).sum() == 0


def test_a_direction_there_is_not_is_refused(refused):
    with refused("'add'", "added or removed"):
        eligible(before, "add", 2)


ADDED, REMOVED = Chosen(("a",), ("b",)), Chosen(("c",), ("d",))


def test_the_columns_of_table_3():
    found = columns(before, after, ADDED, "added", 2)
    assert found.probing == mean([1, 1], ["a", "a"])
    assert found.off_target_flips == exact(2)  # c and e
    assert found.off_target_rate == mean([0, 1, 0, 1], list("bcde"))
    assert found.dpr == found.dpr_all == mean([1, 0], ["a", "a"])
    assert found.off_target_edits == exact(2)  # b and d
    assert found.probing_effect == gap([1, 1], [0], ["a", "a"], ["b"])
    assert found.dpr_effect == gap([1, 0], [1], ["a", "a"], ["b"])
    assert found.found == mean([1, 0], ["a", "a"])
    assert found.found_effect == gap([1, 0], [1], ["a", "a"], ["b"])
    assert found.found_did == found.found_effect  # none was found before
    assert found.added_minus_off_target == gap([1, 1], [0, 1, 0, 1], ["a", "a"], list("bcde"))


def test_the_columns_of_table_4_count_what_is_lost():
    found = columns(before, after, REMOVED, "removed", 2)
    assert found.probing == mean([1], ["c"])
    assert found.dpr == mean([0], ["c"])  # of the one the probe lost, DPR has lost none
    assert found.off_target_flips == exact(3)  # both of a, and e
    assert found.dpr_effect == gap([0], [1], ["c"], ["d"])


def test_dpr_is_counted_among_the_probes_successes_and_dpr_all_among_all():
    missed = after.assign(probe2=[W, R, *after["probe2"][2:]])
    found = columns(before, missed, ADDED, "added", 2)
    assert found.dpr == mean([0], ["a"])
    assert found.dpr_all == mean([1, 0], ["a", "a"])


def test_the_retrained_probe_is_another_column():
    found = columns(before, after, ADDED, "added", 2, probe="retrained")
    assert found.probing == mean([0, 0], ["a", "a"])
    assert found.off_target_flips.value == (after["retrained2"] != before["probe2"])[2:].sum()


def test_what_has_no_question_has_no_value():
    found = columns(before, after, Chosen(("x",), ("y",)), "added", 2)
    assert found.probing is found.dpr is found.dpr_all is found.dpr_effect is found.found is None
    nothing_came = after.assign(probe2=before["probe2"])
    assert columns(before, nothing_came, ADDED, "added", 2).dpr is None


def test_no_edit_leaves_no_trace():
    for direction, chosen in (("added", ADDED), ("removed", REMOVED)):
        found = columns(before, before, chosen, direction, 2)
        assert found.probing.value == found.dpr_all.value == found.off_target_rate.value == 0
        assert found.off_target_flips == found.off_target_edits == exact(0)


def two_groups(found_edited, found_bystanders, n=20):
    """Wrong questions on edited facts (e…) and bystanders (b…), so many of each with their passage among the first."""
    table = [
        (f"{group}{i:02}", "lexical", 0.0, W, W, 0 if i < found else 99)
        for group, found in (("e", found_edited), ("b", found_bystanders))
        for i in range(n)
    ]
    halves = ([f"{group}{i:02}" for i in range(n)] for group in "eb")
    return rows(table), Chosen(*map(tuple, halves))


def test_a_gap_that_the_draw_made_is_an_effect_and_no_difference_in_differences():
    unedited, chosen = two_groups(18, 4)  # 18 edited facts' passages were found before any edit
    found = columns(unedited, unedited, chosen, "added", 2)
    assert found.found_effect.value == pytest.approx(0.7)
    assert found.found_effect.low > 0.3
    assert found.found_did.value == 0
    swapped, _ = two_groups(17, 3)  # one fewer in each half
    assert columns(unedited, swapped, chosen, "added", 2).found_did.value == pytest.approx(0)


def test_what_an_edit_adds_to_a_gap_is_the_difference_in_differences():
    unedited, chosen = two_groups(12, 2)
    edited, _ = two_groups(20, 2)  # 8 more of 20, all by the edit
    found = columns(unedited, edited, chosen, "added", 2)
    assert found.found_effect.value == pytest.approx(0.9)
    assert found.found_did.value == pytest.approx(0.4)
    change = [0.0] * 12 + [1.0] * 8
    assert found.found_did == gap(change, [0.0] * 20, chosen.edited, chosen.bystanders)
    assert found.found_did.low > 0


def test_pairing_makes_the_interval_of_a_difference_in_differences_shorter():
    unedited, chosen = two_groups(10, 10)
    edited, _ = two_groups(13, 10)
    found = columns(unedited, edited, chosen, "added", 2)
    assert found.found_did.value == pytest.approx(found.found_effect.value)
    width = [x.high - x.low for x in (found.found_did, found.found_effect)]
    assert width[0] < 0.8 * width[1]


@pytest.mark.parametrize("direction", protocol.DIRECTIONS)
def test_probe_and_dpr_have_no_gap_before_the_edit_for_they_chose_the_questions(direction):
    rng = np.random.default_rng(1)
    known = {f"f{i}": float(rng.integers(2)) for i in range(30)}
    facts = [f"f{i}" for i in rng.integers(30, size=300)]

    def draw():
        return rows([(f, "lexical", known[f], *map(bool, rng.integers(2, size=2)), rng.integers(40)) for f in facts])

    one, other = draw(), draw()
    chosen = choose(one, direction, ProtocolSpec(facts=9, choices=(2,)), 0)
    found = columns(one, other, chosen, direction, 2)
    assert found.probing_did == found.probing_effect
    assert found.dpr_did == found.dpr_effect
    assert found.found_did != found.found_effect
    retrained = columns(one, other, chosen, direction, 2, probe="retrained")
    assert retrained.probing_did != retrained.probing_effect  # here the retrained probe is the first one turned round


def test_reach_is_the_mean_move_of_cls_and_says_who_acts():
    far = before.assign(moved=[0.3, 0.1, 0.2, 0.2, 0.0, 0.4])
    assert protocol.reach(far) == mean(far["moved"], before["fact"])
    assert protocol.acts("mend", far)
    still = before.assign(moved=0.9 * protocol.REACH)
    assert not protocol.acts("mend", still)
    assert not protocol.acts("nothing", before.assign(moved=0.0))
    assert protocol.acts("reseeded1", before.assign(moved=0.0))  # trained again, which moves its verdicts


def test_agreement_is_kappa_on_the_edited_facts_eligible_questions():
    unedited, chosen = two_groups(0, 0)
    a = unedited.assign(probe2=[i % 2 == 0 for i in range(40)])
    b = unedited.assign(probe2=[i % 4 == 0 for i in range(40)])
    x = Outcome("added", chosen, unedited, {"a": a, "b": b, "same": unedited})
    found = protocol.agreement(x, "a", "b", 2)
    assert found == kappa(a["probe2"][:20], b["probe2"][:20], chosen.edited)
    assert protocol.agreement(x, "a", "a", 2).value == 1
    assert protocol.agreement(x, "a", "same", 2) is None
    assert protocol.agreement(x._replace(chosen=Chosen(("x",), ("y",))), "a", "b", 2) is None


def by_hand(before, after, edited, direction):
    """The paper's four columns, written a second time: plain loops, no pandas."""
    intended = direction == "added"
    hits = shown = flips = changed = eligible_ = 0
    for one, other in zip(before.to_dict("records"), after.to_dict("records"), strict=True):
        wrong = not one["probe2"] and not one["match2"] and one["recalled"] == 0
        right = one["probe2"] and one["match2"] and one["recalled"] == 1
        if one["fact"] in edited and (wrong if intended else right):
            eligible_ += 1
            if other["probe2"] == intended:
                hits += 1
                shown += other["match2"] == intended
        else:
            flips += one["probe2"] != other["probe2"]
            changed += one["match2"] != other["match2"]
    return hits / eligible_, flips, shown / hits if hits else None, changed


@pytest.mark.parametrize("direction", protocol.DIRECTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_columns_against_a_second_implementation(direction, seed):
    rng = np.random.default_rng(seed)
    n = 200
    facts = [f"f{i}" for i in rng.integers(40, size=n)]
    known = {f"f{i}": float(rng.integers(2)) for i in range(40)}

    def draw():
        table = [
            (f, "lexical", known[f], bool(rng.integers(2)), bool(rng.integers(2)), int(rng.integers(90))) for f in facts
        ]
        return rows(table)

    one, other = draw(), draw()
    chosen = choose(one, direction, ProtocolSpec(facts=5, choices=(2,)), seed)
    found = columns(one, other, chosen, direction, 2)
    hit, flips, shown, changed = by_hand(one, other, chosen.edited, direction)
    assert found.probing.value == pytest.approx(hit)
    assert (found.off_target_flips.value, found.off_target_edits.value) == (flips, changed)
    assert (found.dpr and found.dpr.value) == (shown and pytest.approx(shown))
    assert len(chosen.edited) == len(chosen.bystanders) == 5
    assert not {*chosen.edited} & {*chosen.bystanders}
    status = eligible(one, direction, 2)
    assert {*chosen.edited, *chosen.bystanders} <= {*one["fact"][status]}


def test_the_choice_is_the_seeds_and_takes_what_is_wrong_among_any_number_of_passages():
    table = [(f"f{i:02}", "lexical", 0.0, i % 3 == 0, i % 5 == 0, 9) for i in range(30)]
    frame = rows(table).assign(probe5=False, match5=False)
    spec = ProtocolSpec(facts=100, choices=(2, 5))
    chosen = choose(frame, "added", spec, 0)
    assert len(chosen.edited) == len(chosen.bystanders) == 15  # all, half and half: more than there are is no error
    assert chosen == choose(frame.sample(frac=1, random_state=1), "added", spec, 0)
    assert chosen != choose(frame, "added", spec, 1)


def test_fewer_than_two_eligible_facts_are_refused(refused):
    with refused("1 facts can be removed"):
        choose(before.iloc[:4], "removed", ProtocolSpec(choices=(2,)), 0)


def test_a_fact_without_statements_is_never_eligible():
    table = rows([(f"f{i}", "lexical", float("nan"), wrong, wrong, 0) for i, wrong in enumerate((True, False))])
    assert not any(eligible(table, direction, 2).any() for direction in ("added", "removed"))


def test_facts_that_cannot_be_matched_are_refused(refused):
    table = [(f"f{i}", "lexical", 1.0, R, R, 0) for i in range(9)]
    lengths = {f"f{i}": 1 for i in range(9)}
    with refused("9 facts", "0 have answers as long"):
        choose(rows(table), "removed", ProtocolSpec(choices=(2,)), 0, AnswerLengths({2: 5}, lengths))


def test_matched_facts_have_answers_as_long_in_the_same_shares():
    table = [(f"f{i:03}", "lexical", 1.0, R, R, 0) for i in range(90)]
    lengths = {f"f{i:03}": 1 + (i >= 60) for i in range(90)}  # 60 of one piece, 30 of two
    spec = ProtocolSpec(facts=20, choices=(2,))
    chosen = choose(rows(table), "removed", spec, 0, AnswerLengths({1: 5, 2: 15}, lengths))
    counts = Counter(lengths[fact] for fact in chosen.edited)
    assert abs(counts[2] / len(chosen.edited) - 0.75) < 0.1
    assert len(chosen.edited) == len(chosen.bystanders) <= 20
    assert len(chosen.edited) >= 15  # 30 of two pieces allow 40 facts in these shares


def test_a_contrast_is_paired_on_the_edited_facts_questions():
    null = after.assign(probe2=before["probe2"])
    found = contrast(before, after, null, ADDED, "added", 2, "probe")
    assert found.difference == difference([1, 1], [0, 0], ["a", "a"])
    assert found.p == mcnemar([1, 1], [0, 0])
    lost = contrast(before, after, null, REMOVED, "removed", 2, "probe")
    assert lost.difference.value == 1
    assert contrast(before, after, null, Chosen(("x",), ()), "added", 2, "probe") is None


def test_other_questions_are_refused(refused):
    for judge in (
        lambda: columns(before, after.iloc[1:], ADDED, "added", 2),
        lambda: contrast(before, after, after.iloc[::-1], ADDED, "added", 2, "match"),
    ):
        with refused("not about the same questions"):
            judge()


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        *(("facts", 0), ("questions", 1), ("worlds", 0), ("reseeded", 0)),
        *(("choices", (1, 2)), ("choices", ())),
    ],
)
def test_the_spec_checks_itself(refused, knob, value):
    with refused(knob):
        ProtocolSpec(**{knob: value})


def test_several_worlds_are_one_table_in_which_no_fact_is_confused_with_another():
    one = Outcome("added", ADDED, before, {"mend": after})
    two = protocol.together([one, one._replace(chosen=Chosen(("b",), ("a",)))])
    assert two.direction == "added"
    assert two.chosen == Chosen(("0/a", "1/b"), ("0/b", "1/a"))
    assert two.before["fact"].tolist() == [f"{i}/{fact}" for i in (0, 1) for fact in before["fact"]]
    found = columns(two.before, two.after["mend"], two.chosen, "added", 2)
    alone = [columns(before, after, chosen, "added", 2) for chosen in (ADDED, Chosen(("b",), ("a",)))]
    assert found.off_target_flips.value == sum(column.off_target_flips.value for column in alone)
    assert found.probing.n == sum(column.probing.n for column in alone)
    assert found.probing.value == pytest.approx(
        np.average([c.probing.value for c in alone], weights=[c.probing.n for c in alone])
    )


def test_dpr_training_asks_fewer_questions_and_the_test_all_of_them(world):
    less = asking_less(world, 30, 3)
    assert sum(q.split == "train" for q in less.questions) == 30
    assert not [q for q in less.questions if q.split == "dev"]
    assert [q for q in less.questions if q.split == "test"] == [q for q in world.questions if q.split == "test"]
    assert less.passages == world.passages
    assert asking_less(world, 30, 3).digest == less.digest != asking_less(world, 30, 4).digest
    everything = asking_less(world, 10**6, 3)
    assert [q.id for q in everything.questions] == [q.id for q in world.questions if q.split != "dev"]


def test_a_fact_is_told_with_another_object_in_the_same_words():
    said = (
        Statement("Ann is a baker.", 9, 14),
        Statement("Baker is what Ann is.", 0, 5, True),
        Statement("An old baker, Ann.", 7, 12),
    )
    false = with_object(Fact("f", "Ann", "occupation", "baker", "test", said), "actor")
    assert false.object == "actor"
    assert [s.text for s in false.statements] == ["Ann is an actor.", "Actor is what Ann is.", "An old actor, Ann."]
    assert [s.answer for s in false.statements] == ["actor", "Actor", "actor"]
    assert [s.reserved for s in false.statements] == [False, True, False]
    assert with_object(false, "baker").statements == said


def test_told_in_the_closed_world_is_what_the_world_itself_would_say(world):
    from dprlens.world.closed._language import language, statements

    for fact in world.facts:
        for other in fact.alternatives[:1]:
            expected = statements(language().relations[fact.relation], fact.subject, other)
            assert with_object(fact, other).statements == expected


def test_claims_and_arms_ask_for_the_same_reach():
    assert section4.REACHED == protocol.REACH
