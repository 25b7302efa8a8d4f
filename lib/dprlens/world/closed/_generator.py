"""The generator of closed worlds: entities, facts, exposures, passages and questions.

The controls, all fields of `ClosedSpec`: facts held out of pre-training or stated a chosen number of times (dose
groups); the share of a linking fact's statements that describe its object through it, assigned to facts at random;
train, dev and test facts in separate passages; every name and value seen in pre-training; no knowledge-required
question whose gold passage names the question's entity or states its linking fact.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice, product
from typing import NamedTuple

from dprlens.ranges import COUNT, NOT_NEGATIVE, SHARE, Range, check
from dprlens.world.closed._language import (
    KINDS_OF_ENTITY,
    Relation,
    language,
    mentions,
    statement,
    statements,
    upper_first,
    with_subject,
)
from dprlens.world.records import SPLITS, Exposure, Fact, Passage, Question, World, by_subject

ENTITIES = ("people", "cities", "companies", "films")


@dataclass(frozen=True)
class ClosedSpec:
    """Sizes, shares and doses of a closed world; shares are fractions 0–1."""

    people: int = 150
    cities: int = 40
    companies: int = 40
    films: int = 60
    relations: tuple[str, ...] | None = None  # None = all of language.toml
    held_out: float = 0.25  # of each relation's facts: never stated in pre-training
    exposures: int = 120  # how often pre-training states a fully known fact
    low_doses: tuple[int, ...] = (1, 5, 20)  # further groups of linking facts, stated this often …
    low_dose_share: float = 0.05  # … each of this share of its relation's facts
    described: tuple[float, ...] = (0.25, 0.75)  # dealt at random to linking facts: the share of their statements
    #   that say something about the object through the fact ("the city where … was born, …, lies on …")
    train: float = 0.6  # of the fully known facts: may be in questions of DPR training
    dev: float = 0.05
    train_held_out: float = 0.1  # of the held-out facts: in questions of DPR training (does it teach them?)
    facts_per_passage: int = 2
    alternatives: int = 3  # false objects a fact (fewer where a relation has fewer), for the editing chapters

    def __post_init__(self) -> None:
        check(self, NOT_NEGATIVE, *ENTITIES, "alternatives")
        check(self, COUNT, "exposures", "facts_per_passage")
        check(self, SHARE, "held_out", "low_dose_share", "train", "dev", "train_held_out")
        check(self, Range(lambda of: of and all(map(SHARE.has, of)), "is none; give shares from 0 to 1"), "described")
        if self.train + self.dev > 1:
            raise ValueError(f"train + dev = {self.train + self.dev:g} is more than all known facts; lower one of them")
        if bad := [dose for dose in self.low_doses if not 0 < dose < self.exposures]:
            raise ValueError(
                f"low_doses has {bad[0]}; a low dose lies between 0 (held_out) and exposures = {self.exposures}"
            )
        if self.held_out + self.low_dose_share * len(self.low_doses) > 1:
            raise ValueError(
                f"held_out = {self.held_out:g} and {len(self.low_doses)} low doses of {self.low_dose_share:g} each are "
                "more than all facts; lower one of them"
            )
        if self.relations is not None:
            if not self.relations:
                raise ValueError("relations = () leaves a world without facts; name one or more, or None for all")
            if len(set(self.relations)) < len(self.relations):
                raise ValueError(f"relations = {self.relations} names one twice; name each once")
            if unknown := set(self.relations) - set(language().relations):
                raise ValueError(
                    f"unknown relation {sorted(unknown)[0]!r}; there are {', '.join(language().relations)}"
                )

    def scaled(self, factor: float) -> "ClosedSpec":
        """Scale the number of entities of each kind by `factor`, rounded; all else stays the same."""
        return replace(self, **{kind: round(factor * getattr(self, kind)) for kind in ENTITIES})


class Entity(NamedTuple):
    """A person or thing with an article of its own."""

    name: str
    kind: str


def make_world(spec: ClosedSpec, seed: int = 0) -> World:
    """Generate the closed world of a spec and a seed.

    Raises ValueError, in one sentence, for a spec that cannot be met.
    """
    rng = random.Random(f"closed world {seed}")
    entities = _entities(spec, rng)
    relations = [language().relations[name] for name in spec.relations or language().relations]
    triples = {relation.name: _triples(relation, entities, rng) for relation in relations}
    if not any(triples.values()):
        raise ValueError("this world has no facts; give it more people, cities, companies or films")
    facts, known = _facts(spec, relations, triples, rng)
    passages, remarks = _passages(spec, entities, facts, known, rng)
    questions = _questions(spec, facts, known, passages, rng)
    return World("closed", tuple(facts), tuple(passages), tuple(questions), known, tuple(remarks))


def _entities(spec: ClosedSpec, rng: random.Random) -> dict[str, list[Entity]]:
    """Draw entities by kind; name words are spread evenly, so that few words belong to one entity alone."""
    names = language().names
    given = names["given_female"] + names["given_male"]
    surnames = [stem + end for stem, end in product(names["surname_stem"], names["surname_end"])]
    cities = _spread(names["city_stem"], names["city_end"], spec.cities, "cities", rng)
    people = _spread(given, surnames, spec.people, "people", rng)
    companies = _spread(names["company_first"], names["company_second"], spec.companies, "companies", rng)
    films = _spread(names["film_first"], names["film_second"], spec.films, "films", rng)
    named = {
        "person": [f"{first} {last}" for first, last in people],
        "city": [stem + end for stem, end in cities],
        "company": [f"{first} {second}" for first, second in companies],
        "film": [f"The {first} {second}" for first, second in films],
    }
    return {kind: [Entity(name, kind) for name in named[kind]] for kind in KINDS_OF_ENTITY}


def _spread(firsts: Sequence, seconds: Sequence, n: int, what: str, rng: random.Random) -> list[tuple]:
    """Draw n different (first, second) pairs in which every first, and every second, is about equally frequent."""
    most = 3 * len(firsts) * len(seconds) // 4
    if n > most:
        raise ValueError(f"{what} = {n} is more than language.toml has names for; at most {most}")
    pairs: dict[tuple, None] = {}
    while len(pairs) < n:
        left = rng.sample(firsts, len(firsts))
        right = islice(cycle(rng.sample(seconds, len(seconds))), len(left))
        pairs.update(dict.fromkeys(zip(left, right, strict=True)))
    return list(pairs)[:n]


def _triples(relation: Relation, entities: dict[str, list[Entity]], rng: random.Random) -> list[tuple[str, str]]:
    """Draw (subject, object) pairs of one relation."""
    subjects = [entity.name for entity in entities[relation.subject]]
    if relation.name == "spouse":  # four people in five are married; a couple is one fact
        married = rng.sample(subjects, 2 * int(0.4 * len(subjects)))
        return list(zip(married[::2], married[1::2], strict=True))
    if relation.object in KINDS_OF_ENTITY:
        pool = [entity.name for entity in entities[relation.object]]
    else:  # few enough values that each is stated of several subjects
        values = language().values[relation.object]
        pool = rng.sample(values, min(len(values), max(3, len(subjects) // 3)))
    if subjects and not pool:
        field = {"person": "people", "city": "cities", "company": "companies", "film": "films"}[relation.object]
        raise ValueError(f"{field} = 0 leaves relation {relation.name!r} without objects; give 1 or more")
    objects: list[str] = []
    while len(objects) < len(subjects):  # every object about equally often
        objects += rng.sample(pool, len(pool))
    return list(zip(subjects, objects[: len(subjects)], strict=True))


def _facts(
    spec: ClosedSpec, relations: list[Relation], triples: dict[str, list[tuple[str, str]]], rng: random.Random
) -> tuple[list[Fact], dict[str, Exposure]]:
    facts: list[Fact] = []
    known = {}
    together = Counter(frozenset(pair) for pairs in triples.values() for pair in pairs)
    for relation in relations:
        pairs = triples[relation.name]
        doses = _doses(spec, relation, pairs, [together[frozenset(pair)] > 1 for pair in pairs], rng)
        shares = list(islice(cycle(spec.described), len(pairs)))
        rng.shuffle(shares)
        objects = sorted({object_ for _, object_ in pairs})
        for (subject, object_), dose, share in zip(pairs, doses, shares, strict=True):
            id_ = f"f{len(facts):04d}"
            others = [other for other in objects if other not in (object_, subject)]
            facts.append(
                Fact(
                    id_,
                    subject,
                    relation.name,
                    object_,
                    _split(spec, dose, rng),
                    statements(relation, subject, object_),
                    tuple(rng.sample(others, min(spec.alternatives, len(others)))),
                )
            )
            described = int(share * dose + rng.random()) if relation.linking else 0
            known[id_] = Exposure(dose, min(described, dose))
    return facts, known


def _doses(
    spec: ClosedSpec, relation: Relation, pairs: list[tuple[str, str]], shared: list[bool], rng: random.Random
) -> list[int]:
    """Draw exposures of each fact of a relation.

    Always fully known are one fact for each value without an article, so that no held-out answer is a word that
    pre-training never contains, and facts whose names another fact joins too (`shared`), which would meet all the same.
    """
    doses = [0] * round(spec.held_out * len(pairs))
    if relation.linking:
        for dose in spec.low_doses:
            doses += [dose] * round(spec.low_dose_share * len(pairs))
    order = rng.sample(range(len(pairs)), len(pairs))
    always = {i for i in order if shared[i]}
    if relation.object not in KINDS_OF_ENTITY:
        always |= set({pairs[i][1]: i for i in order}.values())
    free = [i for i in order if i not in always]
    if len(free) < len(doses):
        raise ValueError(
            f"held_out = {spec.held_out:g} and low_dose_share = {spec.low_dose_share:g} take {len(doses)} facts of "
            f"{relation.name!r}, of which at most {len(free)} can be spared; lower a share or enlarge the world"
        )
    given = dict(zip(free, doses, strict=False))
    return [given.get(i, spec.exposures) for i in range(len(pairs))]


def _split(spec: ClosedSpec, dose: int, rng: random.Random) -> str:
    draw = rng.random()
    if dose < spec.exposures:
        return "train" if dose == 0 and draw < spec.train_held_out else "test"
    return "train" if draw < spec.train else "dev" if draw < spec.train + spec.dev else "test"


def _passages(
    spec: ClosedSpec,
    entities: dict[str, list[Entity]],
    facts: list[Fact],
    known: dict[str, Exposure],
    rng: random.Random,
) -> tuple[list[Passage], list[tuple[str, str]]]:
    """Write each entity's article, and list the remarks in it; facts of unlike dose or split share no paragraph."""
    facts_of = by_subject(facts)
    passages: list[Passage] = []
    remarks = []
    for entity in (entity for kind in KINDS_OF_ENTITY for entity in entities[kind]):
        groups = defaultdict(list)
        for fact in facts_of[entity.name]:
            times = known[fact.id].times
            groups[fact.split == "train", times == 0, times < spec.exposures].append(fact)
        size = spec.facts_per_passage
        chunks = [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]
        pool = language().remarks[entity.kind]
        for chunk, remark in zip(chunks or [[]], cycle(rng.sample(pool, len(pool))), strict=False):
            text = _paragraph(entity, chunk, remark, rng)
            passages.append(Passage(f"p{len(passages):04d}", entity.name, text, tuple(fact.id for fact in chunk)))
            remarks.append((entity.name, with_subject(remark, entity.name)))
    return passages, list(dict.fromkeys(remarks))


def _paragraph(entity: Entity, facts: list[Fact], remark: str, rng: random.Random) -> str:
    """Write the facts and the remark in random order; later sentences shorten the name if possible."""
    said: list[tuple[str, str | None]] = [
        (rng.choice(language().relations[fact.relation].statements), fact.object) for fact in facts
    ]
    said.insert(rng.randrange(len(said) + 1), (remark, None))
    sentences: list[str] = []
    for template, object_ in said:
        kind = entity.kind if sentences else None
        if object_ is None:
            sentences.append(with_subject(template, entity.name, kind))
        else:
            sentences.append(statement(template, entity.name, object_, kind).text)
    return " ".join(sentences)


def _questions(
    spec: ClosedSpec, facts: list[Fact], known: dict[str, Exposure], passages: list[Passage], rng: random.Random
) -> list[Question]:
    """Write lexical questions about every fact, knowledge-required ones through every linking fact."""
    gold = {fact_id: passage for passage in passages for fact_id in passage.facts}
    facts_of = by_subject(facts)

    def lexical() -> Iterator[tuple]:
        for fact in facts:
            phrasings = rng.sample(language().relations[fact.relation].questions, 2)
            for phrasing in phrasings[: 2 if fact.split == "train" else 1]:
                yield phrasing.replace("{S}", fact.subject), (fact,), fact.split, "lexical"

    def knowledge_required() -> Iterator[tuple]:
        for link in facts:
            descriptions = language().relations[link.relation].described_as
            for target in facts_of[link.object] if descriptions else ():
                if known[target.id].times < spec.exposures or leaks(gold[target.id], link):
                    continue
                described = rng.choice(descriptions).replace("{S}", link.subject)
                text = rng.choice(language().relations[target.relation].questions).replace("{S}", described)
                yield upper_first(text), (link, target), _strictest(link.split, target.split), "knowledge_required"

    drawn = [*lexical(), *knowledge_required()]
    return [
        Question(f"q{i:05d}", text, (of[-1].object,), gold[of[-1].id].id, tuple(fact.id for fact in of), split, kind)
        for i, (text, of, split, kind) in enumerate(drawn)
    ]


def leaks(passage: Passage, link: Fact) -> bool:
    """Test whether a passage gives a knowledge-required question away.

    It does if it names the question's entity or states its link.
    """
    return mentions(f"{passage.title}. {passage.text}", link.subject) or link.id in passage.facts


def _strictest(*splits: str) -> str:
    """Choose the strictest of the facts' splits for a question.

    It may be in training only if all its facts may, and in dev only if none is kept for testing.
    """
    return max(splits, key=SPLITS.index)
