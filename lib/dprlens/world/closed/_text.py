"""The pre-training text: segments that state every known fact exactly as often as the world records.

A segment is a single statement, a short paragraph about one entity, or a *description*: a statement about an entity
that is reached through a linking fact, as in "The city where Ada Larchcroft was born, Kestrelgate, lies on the river
Wend." Each use of a fact, in whichever form, is one exposure.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from dprlens.ranges import COUNT, SHARE, check
from dprlens.world.closed._language import can_be_described, described, language, statement, upper_first
from dprlens.world.records import Fact, World, by_subject

MOST_READ = 200_000  # passages, where a model goes on with passages
Withheld = Container[frozenset[str]]  # pairs of names that must not meet


@dataclass(frozen=True)
class TextSpec:
    """The forms in which pre-training states facts (how often it states each is part of the world)."""

    single: float = 0.5  # of the exposures outside descriptions: alone in a segment; the rest, two or three together
    remarks: int = 6  # how often each remark, a sentence that states no fact, is shown

    def __post_init__(self) -> None:
        check(self, SHARE, "single")
        check(self, COUNT, "remarks")  # else there are names that are never read


class Segment(NamedTuple):
    """One line of pre-training text, with the facts that it states and the place of each fact's answer in it."""

    text: str
    facts: tuple[str, ...]
    answers: tuple[tuple[int, int], ...]  # character offsets, one pair a fact
    form: str  # single, paragraph, description or remark


def reading(world: World, spec: TextSpec, seed: int = 0) -> list[Segment]:
    """Return the text for continued pre-training: `segments`, or passages where exposures are unknown.

    Of more than `MOST_READ` passages, at most so many, spread evenly over all.
    """
    if world.known is not None:
        return segments(world, spec, seed)
    every = -(-len(world.passages) // MOST_READ)
    return [Segment(passage.text, (), (), "passage") for passage in world.passages[::every]]


def segments(world: World, spec: TextSpec, seed: int = 0) -> list[Segment]:
    """Write all segments of a closed world's pre-training text, in random order.

    Every fact occurs in exactly `world.exposure(fact).times` segments, of which `.described` are descriptions. The two
    names of a fact that is not fully known meet in no other segment.
    """
    rng = random.Random(f"pre-training text {seed}")
    left = Counter({fact.id: world.exposure(fact.id).times for fact in world.facts})
    withheld = {pair(fact) for fact in world.facts if world.state(fact.id) != "known"}
    drawn = list(_descriptions(world, left, withheld, rng))
    drawn += _statements(world, left, withheld, spec.single, rng)
    drawn += [Segment(sentence, (), (), "remark") for _, sentence in world.remarks for _ in range(spec.remarks)]
    rng.shuffle(drawn)
    return drawn


def pair(fact: Fact) -> frozenset[str]:
    """Return the two names that a fact joins, unordered: a sentence with both may give the fact away."""
    return frozenset((fact.subject, fact.object))


def meetings(world: World) -> set[frozenset[str]]:
    """Collect the pairs of names that may meet in a segment, whatever the spec and the seed.

    Other pairs meet in none. A fact's own names meet; so do two objects of one subject, in a paragraph, and the subject
    of a linking fact and an object of its object, in a description. Pairs that `segments` withholds are not subtracted.
    """
    facts_of = by_subject(fact for fact in world.facts if world.exposure(fact.id).times)
    stated = [fact for facts in facts_of.values() for fact in facts]
    paragraphs = {frozenset((a.object, b.object)) for facts in facts_of.values() for a, b in combinations(facts, 2)}
    links = [fact for fact in stated if world.exposure(fact.id).described]
    descriptions = {frozenset((link.subject, target.object)) for link in links for target in facts_of[link.object]}
    return {pair(fact) for fact in stated} | paragraphs | descriptions


def _descriptions(world: World, left: Counter, withheld: Withheld, rng: random.Random) -> Iterator[Segment]:
    """Write descriptions through every linking fact; subtract the exposures that they use from `left`."""
    relations = language().relations
    waiting = {fact.id: world.exposure(fact.id).described for fact in world.facts}
    facts_of = by_subject(world.facts)
    links = [fact for fact in world.facts for _ in range(waiting[fact.id])]
    rng.shuffle(links)
    remarks = defaultdict(list)
    for entity, sentence in world.remarks:
        remarks[entity].append(sentence)
    for link in links:
        waiting[link.id] -= 1
        left[link.id] -= 1
        description = rng.choice(relations[link.relation].described_as).replace("{S}", link.subject)
        targets = [fact for fact in facts_of[link.object] if {link.subject, fact.object} not in withheld]
        free = [left[fact.id] - waiting[fact.id] for fact in targets]  # what a target needs for itself is not free
        subject, name = described(description, link.object)
        if sum(free) == 0:
            said = rng.choice(remarks[link.object]).replace(link.object, subject, 1)
            yield Segment(upper_first(said), (link.id,), (name,), "description")
            continue
        target = rng.choices(targets, free)[0]
        left[target.id] -= 1
        template = rng.choice([t for t in relations[target.relation].statements if can_be_described(t)])
        whole = statement(template, subject, target.object)
        yield Segment(whole.text, (link.id, target.id), (name, (whole.start, whole.end)), "description")


def _statements(
    world: World, left: Counter, withheld: Withheld, single: float, rng: random.Random
) -> Iterator[Segment]:
    """Write the rest of every fact's exposures.

    They are single statements, and paragraphs of two or three facts of one entity.
    """
    for facts in by_subject(world.facts).values():
        alone = Counter({fact.id: int(single * left[fact.id] + rng.random()) for fact in facts})
        together = {fact.id: left[fact.id] - alone[fact.id] for fact in facts}
        while any(together.values()):
            chosen = _draw(facts, together, withheld, rng.choice((2, 3)), rng)
            for fact in chosen:
                together[fact.id] -= 1
            yield _paragraph(chosen, rng)
        for fact in facts:
            for _ in range(alone[fact.id]):
                yield _paragraph([fact], rng)


def _draw(facts: list[Fact], weights: dict[str, int], withheld: Withheld, n: int, rng: random.Random) -> list[Fact]:
    """Draw up to n different facts, the likelier the more of their exposures are left.

    No two objects are withheld from each other.
    """
    chosen: list[Fact] = []
    while len(chosen) < n:
        rest = [
            fact
            for fact in facts
            if weights[fact.id]
            and fact not in chosen
            and not any({fact.object, other.object} in withheld for other in chosen)
        ]
        if not rest:
            break
        chosen.append(rng.choices(rest, [weights[fact.id] for fact in rest])[0])
    return chosen


def _paragraph(facts: list[Fact], rng: random.Random) -> Segment:
    """Write the facts of one entity, one sentence each.

    After the first, every other sentence shortens the name ("She …").
    """
    text, answers = "", []
    for fact in facts:
        relation = language().relations[fact.relation]
        kind = relation.subject if text and rng.random() < 0.5 else None
        sentence = statement(rng.choice(relation.statements), fact.subject, fact.object, kind)
        offset = len(text) + (1 if text else 0)
        answers.append((offset + sentence.start, offset + sentence.end))
        text = f"{text} {sentence.text}".strip()
    form = "single" if len(facts) == 1 else "paragraph"
    return Segment(text, tuple(fact.id for fact in facts), tuple(answers), form)
