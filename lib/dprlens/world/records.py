"""Records of a world: facts, passages, questions, and exposures of facts in pre-training.

Both makers (`world.closed`, and `world.natural` for DPR's own files) return a `World`; no method depends on which.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from dprlens.cache.artifacts import write_json
from dprlens.world.passages import Passage, Store, row_of

SPLITS = ("train", "dev", "test")
KINDS = ("lexical", "knowledge_required", "unlabelled")


class Statement(NamedTuple):
    """A sentence that states one fact; `text[start:end]` is the answer (character offsets)."""

    text: str
    start: int
    end: int
    reserved: bool = False  # True: kept out of pre-training and of every passage

    @property
    def answer(self) -> str:
        """The answer, as it is in the text."""
        return self.text[self.start : self.end]


class Fact(NamedTuple):
    """One subject–relation–object triple and the statements of it."""

    id: str
    subject: str
    relation: str
    object: str
    split: str  # train: may be in questions of DPR training; dev, test: only evaluated
    statements: tuple[Statement, ...] = ()
    alternatives: tuple[str, ...] = ()  # false objects of the right type, for the editing chapters


class Question(NamedTuple):
    """A question, its answers, its gold passage, and the facts that answering it requires.

    `kind` is "lexical" where the question names the gold passage's entity, "knowledge_required" where it
    describes that entity through a *linking fact*; then `facts` is (linking fact, target fact), else (target fact,).
    "unlabelled" is a question for which it is not recorded whether it needs a linking fact.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    gold: str
    facts: tuple[str, ...]
    split: str
    kind: str
    hard_negatives: tuple[str, ...] = ()

    @property
    def link(self) -> str | None:
        """Id of the linking fact; None for a lexical question, and where none is known."""
        return self.facts[0] if self.kind == "knowledge_required" else None

    @property
    def target(self) -> str:
        """Id of the fact that the answer states."""
        return self.facts[-1]


class Exposure(NamedTuple):
    """The number of times that pre-training states a fact; 0 means held out."""

    times: int
    described: int = 0  # of these: sentences that go through the fact to say something about its object


def by_subject(facts: Iterable[Fact]) -> Mapping[str, list[Fact]]:
    """Group facts by subject, in order; a subject without facts has an empty group."""
    found: Mapping[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        found[fact.subject].append(fact)
    return found


def _check_known(what: str, names: Iterable[str], there: Container[str]) -> None:
    if missing := [name for name in names if name not in there]:
        raise ValueError(f"{what} refers to {missing[0]!r}, which this world does not have")


@dataclass(frozen=True)
class World:
    """Facts, passages, questions; `known` maps a fact's id to its exposure, or is None where it cannot be known.

    The passages are a tuple in memory or a `Store` on the disk. What is done with a store here (checks, digest, `save`)
    does not read it from end to end; a saved world names the folder of its store and does not copy it.
    """

    maker: str
    facts: tuple[Fact, ...]
    passages: tuple[Passage, ...] | Store
    questions: tuple[Question, ...]
    known: Mapping[str, Exposure] | None = None
    remarks: tuple[tuple[str, str], ...] = ()  # (entity, sentence): in pre-training and passages, never in questions

    def __post_init__(self) -> None:
        stored = self.passages if isinstance(self.passages, Store) else None
        in_memory = () if isinstance(self.passages, Store) else self.passages  # a store's ids are unique
        for what, records in (("fact", self.facts), ("passage", in_memory), ("question", self.questions)):
            twice = [id_ for id_, n in Counter(record.id for record in records).items() if n > 1]
            if twice:
                raise ValueError(f"{what} id {twice[0]!r} occurs more than once; ids must be unique in a world")
        facts = set(self.fact)
        passages = set(self.passage) if stored is None else self._named(stored)
        for passage in in_memory:  # a store's passages name no facts
            _check_known(f"passage {passage.id!r}", passage.facts, facts)
        for question in self.questions:
            _check_known(f"question {question.id!r}", question.facts, facts)
            _check_known(f"question {question.id!r}", (question.gold, *question.hard_negatives), passages)
            _check_known(f"question {question.id!r}", (question.kind,), KINDS)
            _check_known(f"question {question.id!r}", (question.split,), SPLITS)
        for fact in self.facts:
            _check_known(f"fact {fact.id!r}", (fact.split,), SPLITS)
        if self.known is not None:
            _check_known("the record of exposures", self.known, facts)
            if unread := sorted(facts - set(self.known)):
                raise ValueError(f"fact {unread[0]!r} has no exposure; give every fact one (0 times: held out)")

    @cached_property
    def fact(self) -> Mapping[str, Fact]:
        """Facts by id."""
        return {fact.id: fact for fact in self.facts}

    @cached_property
    def passage(self) -> Mapping[str, Passage]:
        """Passages by id."""
        if isinstance(self.passages, Store):
            return _ById(self.passages)
        return {passage.id: passage for passage in self.passages}

    def place(self, passage_id: str) -> int:
        """Find the passage's place in `passages`.

        Raises KeyError for an id that no passage has.
        """
        return self.passages.place(passage_id) if isinstance(self.passages, Store) else self._place[passage_id]

    @cached_property
    def _place(self) -> Mapping[str, int]:
        return {passage.id: i for i, passage in enumerate(self.passages)}

    def _named(self, store: Store) -> set[str]:
        """Collect the ids of the passages that questions name, as far as the store has them."""
        ids = list(dict.fromkeys(id_ for q in self.questions for id_ in (q.gold, *q.hard_negatives)))
        return {id_ for id_, place in zip(ids, store.places(ids), strict=True) if place >= 0}

    def exposure(self, fact_id: str) -> Exposure:
        """Return how often pre-training states the fact.

        Raises ValueError where exposures are unknown.
        """
        if self.known is None:
            raise ValueError(f"what a {self.maker} world's model has read is not recorded: exposures are unknown")
        return self.known[fact_id]

    def held_out(self, fact_id: str) -> bool:
        """Test whether pre-training never states the fact."""
        return self.exposure(fact_id).times == 0

    @cached_property
    def full_dose(self) -> int:
        """Number of times that pre-training states a fully known fact."""
        return max(self.exposure(fact.id).times for fact in self.facts)

    def state(self, fact_id: str) -> str:
        """Return "known" (stated at the full dose), "low dose", "held out" (never stated), or "not recorded"."""
        if self.known is None:
            return "not recorded"
        times = self.exposure(fact_id).times
        return "held out" if times == 0 else "known" if times == self.full_dose else "low dose"

    def may_know(self, fact_id: str) -> bool:
        """Test whether pre-training may have stated the fact at the full dose: known, or not recorded."""
        return self.state(fact_id) in ("known", "not recorded")

    def doses(self, fact_id: str) -> Exposure:
        """Return `exposure`; −1 where it is unknown."""
        return Exposure(-1, -1) if self.known is None else self.known[fact_id]

    def article(self, title: str) -> tuple[Passage, ...]:
        """Return all passages under one title, in order."""
        if isinstance(self.passages, Store):
            return tuple(self.passages[i] for i in self.passages.titled(title))
        return tuple(passage for passage in self.passages if passage.title == title)

    @property
    def titles(self) -> int:
        """Number of different titles of the passages."""
        if isinstance(self.passages, Store):
            return self.passages.titles
        return len({passage.title for passage in self.passages})

    def texts(self) -> Iterator[str]:
        """Yield every text of the world: titles, passages, questions, statements, remarks."""
        for passage in self.passages:
            yield from (passage.title, passage.text)
        yield from (question.text for question in self.questions)
        yield from (statement.text for fact in self.facts for statement in fact.statements)
        yield from (sentence for _, sentence in self.remarks)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the content: two worlds are the same world if and only if these agree."""
        sha = hashlib.sha256(self.maker.encode())
        for rows in self._tables().values():
            for row in rows:
                sha.update(row.encode() + b"\n")
            sha.update(b"\f")
        return sha.hexdigest()

    def summary(self) -> dict:
        """Summarise sizes and digest, as for every page and results file."""
        sizes = {name: len(getattr(self, name)) for name in ("facts", "passages", "questions")}
        return {"maker": self.maker, **sizes, "digest": self.digest[:16]}

    def _tables(self) -> dict[str, Iterable[str]]:
        tables: dict[str, Iterable[object]] = {
            "facts": self.facts,
            # a record in a line of JSON is a list, so that no passage is taken for a store
            "passages": [{"store": self.passages.digest}] if isinstance(self.passages, Store) else self.passages,
            "questions": self.questions,
            "known": [("maker", self.maker), *sorted((self.known or {}).items())],
            "remarks": self.remarks,
        }
        return {name: [row_of(row) for row in rows] for name, rows in tables.items()}

    def save(self, folder: Path) -> None:
        """Save one file a table, one JSON array a line; the field order is that of the records above.

        Passages in a store are one line: the store's digest; store.json says where the store is.
        """
        if isinstance(self.passages, Store):
            write_json(folder / "store.json", {"folder": str(self.passages.folder)})
        for name, rows in self._tables().items():
            (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "World":
        """Load a world that was saved.

        Raises ValueError if its passages are in a store that is gone or was changed.
        """

        def rows(name: str) -> list:
            lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
            return [json.loads(line) for line in lines if line]

        def passages() -> tuple[Passage, ...] | Store:
            found = rows("passages")
            if len(found) == 1 and isinstance(found[0], dict):
                return _reopened(json.loads((folder / "store.json").read_text(encoding="utf-8"))["folder"], **found[0])
            return tuple(Passage(id_, title, text, tuple(facts)) for id_, title, text, facts in found)

        (_, maker), *known = rows("known")
        return cls(
            maker=maker,
            facts=tuple(
                Fact(id_, subject, relation, object_, split, tuple(Statement(*one) for one in said), tuple(others))
                for id_, subject, relation, object_, split, said, others in rows("facts")
            ),
            passages=passages(),
            questions=tuple(
                Question(id_, text, tuple(answers), gold, tuple(facts), split, kind, tuple(negatives))
                for id_, text, answers, gold, facts, split, kind, negatives in rows("questions")
            ),
            known={id_: Exposure(*exposure) for id_, exposure in known} or None,
            remarks=tuple(tuple(row) for row in rows("remarks")),
        )


class _ById(Mapping[str, Passage]):
    """The passages of a store by their ids."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getitem__(self, id_: str) -> Passage:
        return self._store[self._store.place(id_)]

    def __iter__(self) -> Iterator[str]:
        return (passage.id for passage in self._store)

    def __len__(self) -> int:
        return len(self._store)


def _reopened(folder: str, store: str) -> Store:
    """Open the store in a folder, if its digest is still `store`."""
    try:
        found = Store.open(Path(folder))
    except FileNotFoundError as error:
        raise ValueError(f"this world's passages are gone ({error}); put them back, or make the world again") from None
    if found.digest != store:
        raise ValueError(
            f"the store {folder} has other passages than those this world was saved with; make the world again"
        )
    return found
