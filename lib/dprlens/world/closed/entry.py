"""The time and the form in which a fact enters the text: in pre-training from some point on, or after it.

A *fact under study* is a linking fact that pre-training states at the full dose and that no question of DPR training
depends on as its link. It is assigned a point of entry, a share of pre-training from 0 (from the start) to `AFTER`
(stated when pre-training is over); before that point no segment joins its two names. The segments are the same, in
another order.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from dprlens.ranges import COUNT, SHARE, check
from dprlens.world.closed._text import Segment, TextSpec, pair, segments
from dprlens.world.records import Exposure, Fact, Question, World, by_subject

AFTER = 1.0  # the point of entry that lies behind the end of pre-training


@dataclass(frozen=True)
class Telling:
    """The form in which facts are stated after pre-training."""

    exposures: int = 60  # segments that state a fact
    wordings: int | None = None  # statements in use, the first ones; None: all that are not reserved
    described: float = 0.0  # share of the exposures that say something about the object through the fact
    beside: bool = False  # a plain statement is followed by another known fact of its object or subject

    def __post_init__(self) -> None:
        check(self, COUNT, "exposures", "wordings")
        check(self, SHARE, "described")


class OrderedText(NamedTuple):
    """A text in the order in which its facts enter."""

    parts: tuple[tuple[Segment, ...], ...]  # of pre-training: from each point of entry to the next
    after: tuple[Segment, ...]  # what states facts that enter after it


def under_study(world: World) -> list[Fact]:
    """Select the facts under study, in the world's order.

    They are fully known links of questions, of split "test". Left out are facts whose two names another fact joins too:
    those names would meet without it.
    """
    links = {question.link for question in world.questions}
    joined = Counter(pair(fact) for fact in world.facts)
    return [
        fact
        for fact in world.facts
        if fact.id in links and fact.split == "test" and world.state(fact.id) == "known" and joined[pair(fact)] == 1
    ]


def deal_entries(
    world: World, facts: Sequence[Fact], points: Sequence[float], turn: int, seed: int
) -> dict[str, float]:
    """Assign each fact a point of entry at random: fact id to point.

    Points are equally frequent within each relation and form. The assignments `turn` = 0, 1, … of one seed move every
    fact on by two points, so that with an odd number of points each fact gets each point once in so many turns.
    """
    rng = np.random.default_rng([seed, 0xDEA1])
    order = sorted((facts[i] for i in rng.permutation(len(facts))), key=lambda fact: _alike(world, fact))
    return {fact.id: points[(i + 2 * turn) % len(points)] for i, fact in enumerate(order)}


def _alike(world: World, fact: Fact) -> tuple[str, bool]:
    times, described = world.exposure(fact.id)
    return fact.relation, described > times / 2


def order_by_entry(
    world: World, text: Sequence[Segment], entry: Mapping[str, float], points: Sequence[float], seed: int
) -> OrderedText:
    """Order the segments of a text so that those that join a fact's names follow its point of entry.

    Each segment occurs once; one that joins several such pairs follows the latest. `points` are those of pre-training,
    rising from 0; a fact may also enter at `AFTER`. Raises ValueError for points that do not rise so, for an entry that
    is none of them, and for more late segments than there is room.
    """
    points = tuple(points)
    if not points or points[0] != 0 or [*points] != sorted({*points}) or points[-1] >= AFTER:
        raise ValueError(f"points = {points} are no parts of pre-training; give rising shares from 0 to less than 1")
    if wrong := sorted({*entry.values()} - {*points, AFTER}):
        raise ValueError(f"an entry at {wrong[0]:g} is none of the points {points}; add it, or deal {AFTER:g}")
    latest = _latest(world, text, entry)
    main = np.flatnonzero(latest < AFTER)
    starts = [round(point * len(main)) for point in points]
    slots, free = np.empty(len(main), int), np.ones(len(main), bool)
    rng = np.random.default_rng([seed, 0xE7])
    for point, start in sorted(zip(points, starts, strict=True), reverse=True):
        mine, room = main[latest[main] == point], start + np.flatnonzero(free[start:])
        if len(mine) > len(room):
            raise ValueError(
                f"{len(mine)} segments enter at {point:g} where {len(room)} have room; deal fewer facts late"
            )
        chosen = rng.choice(room, len(mine), replace=False)
        slots[chosen], free[chosen] = mine, False
    parts = [tuple(text[i] for i in slots[a:b].tolist()) for a, b in zip(starts, [*starts[1:], None], strict=True)]
    return OrderedText(tuple(parts), tuple(text[i] for i in np.flatnonzero(latest == AFTER).tolist()))


def _latest(world: World, text: Sequence[Segment], entry: Mapping[str, float]) -> np.ndarray:
    """Find the point from which on each segment may be read [segment].

    It is 0 if the segment joins the names of no fact with an entry.
    """
    points = {pair(world.fact[id_]): point for id_, point in entry.items()}

    def of(segment: Segment) -> float:
        names = {name for id_ in segment.facts for name in pair(world.fact[id_])}
        return max((points.get(frozenset(two), 0.0) for two in combinations(names, 2)), default=0.0)

    return np.array([of(segment) for segment in text])


def rehearsal_text(world: World, text: Sequence[Segment], facts: Sequence[Fact], n: int, seed: int) -> list[Segment]:
    """Draw n segments of the text at random that neither state any of the facts nor join their names.

    If there are fewer, all of them are returned.
    """
    latest = _latest(world, text, {fact.id: AFTER for fact in facts})
    order = np.random.default_rng([seed, 0x01D]).permutation(np.flatnonzero(latest == 0))
    return [text[i] for i in order[:n]]


def without_facts(world: World, facts: Sequence[Fact]) -> World:
    """Hold the facts out of pre-training: `segments` then keeps their names apart."""
    return replace(world, known={**(world.known or {}), **{fact.id: Exposure(0) for fact in facts}})


def telling_text(world: World, facts: Sequence[Fact], how: Telling, seed: int = 0) -> list[Segment]:
    """Write segments that state each fact `how.exposures` times after pre-training, in no particular order.

    `world` is the one that has been read, `without_facts(…)`: other facts about a fact's subject or object are known
    there.
    """
    about = round(how.described * how.exposures)
    plain = [segment for fact in facts for segment in _stated(fact, how, how.exposures - about)]
    if how.beside:
        plain = _with_neighbours(world, plain, seed)
    return plain + _described(world, facts, about, seed)


def _stated(fact: Fact, how: Telling, times: int) -> list[Segment]:
    """Write so many segments with the fact's statements in turn."""
    said = [statement for statement in fact.statements if not statement.reserved][: how.wordings]
    chosen = [said[i % len(said)] for i in range(times)]
    return [Segment(one.text, (fact.id,), ((one.start, one.end),), "single") for one in chosen]


def _with_neighbours(world: World, plain: Sequence[Segment], seed: int) -> list[Segment]:
    """Append to each segment a statement of another known fact of its object or subject, if there is one."""
    rng = np.random.default_rng([seed, 0xBE])
    facts_of = by_subject(fact for fact in world.facts if world.state(fact.id) == "known")
    apart = {pair(fact) for fact in world.facts if world.state(fact.id) != "known"}
    found = []
    for segment in plain:
        fact = world.fact[segment.facts[0]]
        near = [
            other
            for name in (fact.object, fact.subject)
            for other in facts_of[name]
            if not any(frozenset((end, other.object)) in apart for end in (fact.subject, fact.object))
        ]
        if not near:
            found.append(segment)
            continue
        other = near[rng.integers(len(near))]
        (after,) = _stated(other, Telling(), 1)
        (start, end), shift = after.answers[0], len(segment.text) + 1
        answers = (*segment.answers, (start + shift, end + shift))
        found.append(Segment(f"{segment.text} {after.text}", (fact.id, other.id), answers, "paragraph"))
    return found


def _described(world: World, facts: Sequence[Fact], times: int, seed: int) -> list[Segment]:
    """Write `times` descriptions through each fact, with known facts about its object, else with a remark."""
    if times == 0:
        return []
    through = Counter(fact.object for fact in facts)
    doses = {
        fact.id: Exposure(times * through[fact.subject] if world.state(fact.id) == "known" else 0)
        for fact in world.facts
    }
    dosed = replace(world, known=doses | {fact.id: Exposure(times, times) for fact in facts})
    return [segment for segment in segments(dosed, TextSpec(single=1.0), seed) if segment.form == "description"]


def open_links(world: World, facts: Sequence[Fact]) -> World:
    """Open these links to DPR training, which then also has questions through them.

    These are the questions whose target fact is of split "train".
    """
    ids = {fact.id for fact in facts}

    def moved(question: Question) -> Question:
        may = question.link in ids and world.fact[question.target].split == "train"
        return question._replace(split="train") if may else question

    return replace(world, questions=tuple(map(moved, world.questions)))
