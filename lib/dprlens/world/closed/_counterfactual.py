"""The closed world with counterfactual links in pre-training, to see whether retrieval follows false knowledge.

Questions, passages and everything else stay true: only the text that `segments` writes, from which a model learns,
changes.
"""

import random
from collections import defaultdict
from dataclasses import replace
from math import inf

from scipy.optimize import linear_sum_assignment

from dprlens.world.closed._language import is_linking, language, statements
from dprlens.world.closed._text import meetings, pair
from dprlens.world.records import Fact, World


def with_false_links(world: World, seed: int) -> World:
    """Make some links false in pre-training: fully known test links trade objects within each relation.

    All linking facts of split "test" that are fully known become false except those that cannot: a fact stays true
    where too few others of its relation have another object, and where its true pair of names would meet in the text
    all the same, through other facts ("The company that employs Ada Larchcroft, …, is based in" the city where she was
    born). So the true pair of a false fact meets in no segment of the returned world. Nor is a false pair one that
    another fact joins, true or false: no held-out fact is given away, and no passage about the false object names the
    subject.

    As facts of one dose trade, each object is stated as often as before, and a couple stays one: the person stated as
    the spouse of one person is stated as the spouse of that one only. Statements are made anew from the same templates;
    an alternative that is now stated as true is replaced by the true object. Ids, splits, exposures, passages and
    questions do not change; without facts to trade, the world is returned as it was. Raises ValueError where exposures
    are unknown.
    """
    rng = random.Random(f"misinformed {seed}")
    traded = [f for f in world.facts if world.state(f.id) == "known" and f.split == "test" and is_linking(f)]
    while True:
        false = _trade(traded, world, rng)
        told = replace(world, facts=tuple(_told(fact, false.get(fact.id, fact.object)) for fact in world.facts))
        met = meetings(told)
        given_away = [fact for fact in traded if fact.id in false and pair(fact) in met]
        if not given_away:
            return told
        traded = [fact for fact in traded if fact not in given_away]  # which is shorter each time


def _trade(facts: list[Fact], world: World, rng: random.Random) -> dict[str, str]:
    """Assign false objects by fact id: a random permutation by relation with as few true facts as possible."""
    joined = {pair(fact) for fact in world.facts}
    groups = defaultdict(list)
    for fact in facts:
        groups[fact.relation].append(fact)
    false: dict[str, str] = {}
    for group in groups.values():
        objects = [fact.object for fact in group]
        _, given = linear_sum_assignment([_costs(fact, objects, joined, rng) for fact in group])
        new = {fact: objects[i] for fact, i in zip(group, given, strict=True) if objects[i] != fact.object}
        false |= {fact.id: object_ for fact, object_ in new.items()}
        joined |= {frozenset((fact.subject, object_)) for fact, object_ in new.items()}
    return false


def _costs(fact: Fact, objects: list[str], joined: set[frozenset[str]], rng: random.Random) -> list[float]:
    """Compute each object's cost: random below 1, more than all such for the truth, infinite for a joined pair."""

    def cost(object_: str) -> float:
        if object_ == fact.object:
            return len(objects)
        return inf if frozenset((fact.subject, object_)) in joined else rng.random()

    return [cost(object_) for object_ in objects]


def _told(fact: Fact, object_: str) -> Fact:
    """Replace the fact's object by this one."""
    if object_ == fact.object:
        return fact
    return fact._replace(
        object=object_,
        statements=statements(language().relations[fact.relation], fact.subject, object_),
        alternatives=tuple(fact.object if other == object_ else other for other in fact.alternatives),
    )


def false_gold(world: World, told: World) -> dict[str, str]:
    """Find the counterfactual gold passage of each question whose link pre-training states falsely.

    It is the passage that would be gold if the text read in pre-training were true. `told` is `with_false_links(world,
    …)`. Question id -> id of the passage that states the target relation's fact of the false object. A question is left
    out where that fact does not exist, is not fully known or has no passage of its own, i.e. none but the true gold
    one, and where its target fact is itself stated falsely.
    """
    if told.questions != world.questions or [fact[:3] for fact in told.facts] != [fact[:3] for fact in world.facts]:
        raise ValueError(
            f"told ({told.digest[:16]}) has other facts or questions than the world ({world.digest[:16]}); "
            "give with_false_links(world, …) of the same world"
        )

    def is_false(fact: str) -> bool:
        return told.fact[fact].object != world.fact[fact].object

    stating = {id_: passage.id for passage in world.passages for id_ in passage.facts}
    known = {(fact.subject, fact.relation): fact.id for fact in world.facts if world.state(fact.id) == "known"}
    gold = {}
    for question in world.questions:
        if question.link and is_false(question.link) and not is_false(question.target):
            target = known.get((told.fact[question.link].object, world.fact[question.target].relation))
            if target and stating.get(target, question.gold) != question.gold:
                gold[question.id] = stating[target]
    return gold
