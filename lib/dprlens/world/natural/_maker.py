"""The maker of a world of DPR's files: questions to a search engine, passages of Wikipedia.

What a model that was trained elsewhere has read is unknown, so that `World.known` is None, and questions have no labels
of the facts that they require, so that their kind is "unlabelled".
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from dprlens.cache.artifacts import digest, write_json
from dprlens.ranges import COUNT, NOT_NEGATIVE, SHARE, Range, check, one_of
from dprlens.world.natural._files import Context, OpenQuestion, Record, lines_of, open_questions, passages, records
from dprlens.world.natural.bad_rows import MODES, BadRows, Finding
from dprlens.world.passages import Passage, Store
from dprlens.world.records import SPLITS, Fact, Question, Statement, World

CORPORA = ("pool", "all")
ASKING = re.compile(r"\b(who|whom|whose|what|which|when|where|why|how)\b")
SOME = Range(COUNT.has, "leaves nothing; give 1 or more, or None for all there are")
MADE = 1  # raise it when what is put into stores changes
SAMPLED = 64, 1 << 16  # blocks of a file, spread evenly, and bytes of each, that tell it from another


@dataclass(frozen=True)
class NaturalSpec:
    """The choice of files, of their questions, and of the passages that are searched.

    Files are given by name below `folder`; each may have ".gz" behind it. Numbers of rows are checked where given.
    """

    folder: str = "data"
    train_file: str = "biencoder-nq-train.json"
    dev_file: str = "biencoder-nq-dev.json"
    passages_file: str = "psgs_w100.tsv"  # needed for corpus "all", or a sample
    open_file: str = "nq-test.qa.csv"  # questions with answers alone, to compare with published numbers
    train_rows: int | None = None  # DPR: 58,880
    dev_rows: int | None = None  # DPR: 6,515
    passages_rows: int | None = None  # DPR: 21,015,324
    mode: str = "strict"  # "skip": bad rows are left out and counted
    train: int | None = None  # questions at most, drawn at random; None: all
    dev: int | None = None
    test: int | None = None
    test_share: float = 0.5  # of the questions of `dev_file`: they are the split "test", the others "dev"
    deal: int = 0  # seed of that deal; not the world's, so that no seed's test questions are another's dev questions
    corpus: str = "pool"  # "pool": the passages that the questions name, and a sample; "all": the passages' file
    hard_negatives: int = 30  # of each question, the first so many; DPR's validation: 30
    negatives: int = 0  # ordinary ones of each question that join the pool, the first so many
    sample: int = 0  # further passages of a pool, drawn at random from the passages' file
    stores: str | None = None  # where stores of passages are made; None: "stores" in `folder`

    def __post_init__(self) -> None:
        check(self, one_of(MODES), "mode")
        check(self, one_of(CORPORA), "corpus")
        check(self, SOME, "train", "dev", "test", "train_rows", "dev_rows", "passages_rows")
        check(self, NOT_NEGATIVE, "hard_negatives", "negatives", "sample")
        check(self, SHARE, "test_share")


class Natural(NamedTuple):
    """A world of DPR's files, and the findings about them: what was left out or is worth reporting."""

    world: World
    findings: tuple[Finding, ...]

    def save(self, folder: Path) -> None:
        """Save the world and `findings.json`."""
        self.world.save(folder)
        write_json(folder / "findings.json", [finding._asdict() for finding in self.findings])

    @classmethod
    def load(cls, folder: Path) -> "Natural":
        """Load the world and its findings from a folder that `save` wrote."""
        return cls(World.load(folder), _findings(json.loads((folder / "findings.json").read_text(encoding="utf-8"))))


class Written(Protocol):
    """Statements for facts, and false objects of the right type, by the fact's id."""

    @property
    def statements(self) -> Mapping[str, Sequence[Statement]]:
        """Statements by the fact's id."""

    @property
    def alternatives(self) -> Mapping[str, Sequence[str]]:
        """False objects of the right type by the fact's id."""


class _Asked(NamedTuple):
    """A question of a training file, and the passages that it names, by id."""

    split: str
    file: str
    place: int
    text: str
    answers: tuple[str, ...]
    gold: str
    title: str  # of the gold passage
    wrong: tuple[str, ...]
    stand_in: bool  # `wrong` are ordinary negatives

    @property
    def id(self) -> str:
        return f"{self.split}-{self.place}"


def make_world(spec: NaturalSpec, seed: int = 0) -> Natural:
    """Make the world of these files.

    Train questions are those of `train_file`. No gold passages were published for the test questions of Natural
    Questions (`open_questions` reads them without), so that the questions of `dev_file` are dealt to the splits "dev"
    and "test", each by its text. The `seed` draws which questions of a split are taken, and the sample of passages.

    A question's gold passage is its first positive, as in DPR; its hard negatives are the first of the file, or, where
    it has none, the first of its ordinary negatives. Where a pool has one id for two texts, the first one stays. With
    corpus "all" a question whose gold passage is not in the passages' file is a bad row, and hard negatives that are
    not there are left out. There is one fact for each gold title, question and first answer, of the earliest split
    that contains it, without statements: see `with_statements`.

    The passages are a `Store` in `spec.stores`, made once for the same files and spec. The training files are read
    twice, and never as a whole. Raises ValueError for bad rows in mode "strict", FileNotFoundError for missing files.
    """
    findings, files = BadRows(spec.mode), fingerprint(spec)
    asked = _drawn(spec, _asked(spec, findings), seed)
    if spec.corpus == "all":
        store = whole(spec)
        asked = list(_there(asked, store, findings))
    if not asked:
        raise ValueError(f"the files in {spec.folder} leave no question; see what is left out of them in mode 'strict'")
    if spec.corpus == "pool":
        key = digest({"spec": replace(spec, folder="", stores=None), "files": files, "seed": seed, "made": MADE})
        met = BadRows("skip")
        store = Store.build(
            _stores(spec) / f"pool-{key[:16]}",
            _pool(spec, asked, seed, met),
            {"key": key},
            findings=lambda: [finding._asdict() for finding in met.rows()],
        )
    findings.add(_findings(store.manifest["findings"]))
    _tell(asked, findings)
    facts: dict[str, Fact] = {}  # by id
    questions = []
    for one in asked:
        fact = _fact(one)
        facts.setdefault(fact.id, fact)
        questions.append(
            Question(one.id, one.text, one.answers, one.gold, (fact.id,), one.split, "unlabelled", one.wrong)
        )
    return Natural(World("natural", tuple(facts.values()), store, tuple(questions)), findings.rows())


def with_statements(world: World, written: Written) -> World:
    """Add statements and alternatives to the facts for which some were written, and only to these.

    Raises ValueError for a fact that the world does not have.
    """
    statements, alternatives = written.statements, written.alternatives
    if unknown := [id_ for id_ in (*statements, *alternatives) if id_ not in world.fact]:
        raise ValueError(
            f"statements are given for {unknown[0]!r}, a fact that this world does not have; write them for its own"
        )
    return replace(
        world,
        facts=tuple(
            fact._replace(
                statements=tuple(statements.get(fact.id, ())), alternatives=tuple(alternatives.get(fact.id, ()))
            )
            for fact in world.facts
        ),
    )


def whole(spec: NaturalSpec) -> Store:
    """Return the store of all passages of the passages' file, made at the first call."""
    path, met = _path(spec, spec.passages_file), BadRows(spec.mode)

    def repeated(ids: Mapping[str, Sequence[int]]) -> None:
        for id_, lines in lines_of(path, ids).items():
            for line in lines[1:]:
                met.bad(path.name, "line", line, "the id is that of an earlier line", id_)

    source = {"file": _sampled(path), "mode": spec.mode, "rows": spec.passages_rows, "made": MADE}
    return Store.build(
        _stores(spec) / f"{spec.passages_file.split('.')[0]}-{digest(source)[:16]}",
        passages(path, met, spec.passages_rows),
        source,
        repeated,
        findings=lambda: [finding._asdict() for finding in met.rows()],
    )


def asked_openly(spec: NaturalSpec) -> tuple[OpenQuestion, ...]:
    """Read the questions of `open_file`.

    Raises FileNotFoundError.
    """
    return tuple(open_questions(_path(spec, spec.open_file), BadRows(spec.mode)))


def fingerprint(spec: NaturalSpec) -> dict:
    """Compute a fingerprint of a spec's files: part of the key of whatever is made of them.

    By file name: its size, and the SHA-256 of 64 blocks of 64 KiB that are spread evenly over it, so that it takes no
    time; two files that differ only elsewhere have the same fingerprint. Raises FileNotFoundError.
    """
    needed = [spec.train_file, spec.dev_file]
    if spec.corpus == "all" or spec.sample:
        needed.append(spec.passages_file)
    return {name: _sampled(_path(spec, name)) for name in needed}


# questions


def _asked(spec: NaturalSpec, findings: BadRows) -> Iterator[_Asked]:
    """Yield all usable questions, in the files' order."""
    names: dict[str, str] = {}  # an id is named by many questions and kept once
    for file, rows in ((spec.train_file, spec.train_rows), (spec.dev_file, spec.dev_rows)):
        path = _path(spec, file)
        for record in records(path, findings, rows):
            split = "train" if file == spec.train_file else _dealt(record, spec)
            wrong = _wrong(record, spec)
            yield _Asked(
                split,
                path.name,
                record.place,
                record.question,
                record.answers,
                names.setdefault(record.positives[0].id, record.positives[0].id),
                record.positives[0].title,
                tuple(names.setdefault(context.id, context.id) for context in wrong),
                bool(wrong) and not record.hard_negatives,
            )


def _dealt(record: Record, spec: NaturalSpec) -> str:
    """Assign a question of `dev_file` to a split; the same question is always of the same split."""
    return "test" if _number(f"deal {spec.deal} {record.question.casefold()}") < spec.test_share * 2**64 else "dev"


def _wrong(record: Record, spec: NaturalSpec) -> tuple[Context, ...]:
    return (record.hard_negatives or record.negatives)[: spec.hard_negatives]


def _drawn(spec: NaturalSpec, asked: Iterable[_Asked], seed: int) -> list[_Asked]:
    """Draw at most so many questions of each split as the spec says, split by split, in the files' order."""
    by_split: dict[str, list[_Asked]] = {split: [] for split in SPLITS}
    for one in asked:
        by_split[one.split].append(one)
    drawn = []
    for split, most in zip(SPLITS, (spec.train, spec.dev, spec.test), strict=True):
        chosen = sorted(by_split[split], key=lambda one: _number(f"draw {seed} {one.id}"))[:most]
        drawn += sorted(chosen, key=lambda one: one.place)
    return drawn


def _there(asked: Iterable[_Asked], store: Store, findings: BadRows) -> Iterator[_Asked]:
    """Yield the questions whose gold passage is in the store, with those of their hard negatives that are, too."""
    for one in asked:
        gold, *wrong = store.places([one.gold, *one.wrong])
        if gold < 0:
            findings.bad(one.file, "record", one.place, "its gold passage is not in the passages' file", one.gold)
            continue
        if store[gold].title != one.title:
            findings.kept(one.file, "record", one.place, "its gold passage has another title in the passages' file")
        if -1 in wrong:
            findings.kept(one.file, "record", one.place, "hard negatives are left out: not in the passages' file")
        yield one._replace(wrong=tuple(id_ for id_, place in zip(one.wrong, wrong, strict=True) if place >= 0))


def _tell(asked: Iterable[_Asked], findings: BadRows) -> None:
    """Record what a reader of results should know about the questions that are used."""
    texts, golds = set(), set()  # of training
    for one in asked:
        if one.stand_in:
            findings.kept(one.file, "record", one.place, "no hard negatives: ordinary ones stand in")
        elif not one.wrong:
            findings.kept(one.file, "record", one.place, "no negatives are taken")
        if one.split == "train":
            texts.add(one.text.casefold())
            golds.add(one.gold)
        elif one.text.casefold() in texts:
            findings.kept(one.file, "record", one.place, "the question is asked in training as well")
        elif one.gold in golds:
            findings.kept(one.file, "record", one.place, "the gold passage is that of a training question as well")


def _fact(one: _Asked) -> Fact:
    """Make the fact that the answer states.

    Its relation is the question word, or "".
    """
    key = digest([one.title, one.text, one.answers[0]])
    asking = ASKING.search(one.text.casefold())
    return Fact(f"fact-{key[:16]}", one.title, asking[0] if asking else "", one.answers[0], one.split)


# passages


def _pool(spec: NaturalSpec, asked: Sequence[_Asked], seed: int, findings: BadRows) -> Iterator[Passage]:
    """Yield the passages that the questions name, in the order in which they are first named, and the sample."""
    chosen = {(one.file, one.place) for one in asked}
    seen: dict[str, bytes] = {}  # id: what tells its text from another
    for name in dict.fromkeys((spec.train_file, spec.dev_file)):
        path = _path(spec, name)
        for record in records(path, BadRows("skip")):  # its findings are known from the first reading
            if (path.name, record.place) not in chosen:
                continue
            for context in (record.positives[0], *_wrong(record, spec), *record.negatives[: spec.negatives]):
                text = hashlib.blake2b(f"{context.title}\n{context.text}".encode(), digest_size=8).digest()
                if context.id not in seen:
                    seen[context.id] = text
                    yield Passage(*context)
                elif seen[context.id] != text:
                    findings.kept(path.name, "record", record.place, "a passage has the id of an earlier one: left out")
    if spec.sample:
        store = whole(spec)
        findings.add(_findings(store.manifest["findings"]))
        taken = [place for place in store.places(list(seen)) if place >= 0]
        drawn = np.random.default_rng([seed, 0x5A3717]).choice(
            len(store), min(len(store), spec.sample + len(taken)), replace=False
        )
        yield from (store[i] for i in np.sort(drawn[~np.isin(drawn, taken)][: spec.sample]))


def _stores(spec: NaturalSpec) -> Path:
    return Path(spec.stores) if spec.stores else Path(spec.folder) / "stores"


def _path(spec: NaturalSpec, name: str) -> Path:
    """Find a file, packed or not.

    Raises FileNotFoundError.
    """
    folder = Path(spec.folder)
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"neither {name} nor {name}.gz is in {folder}; place DPR's file of that name there")


def _sampled(path: Path) -> dict:
    blocks, length = SAMPLED
    size, sha = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        for i in range(blocks):
            file.seek(i * max(0, size - length) // (blocks - 1))
            sha.update(file.read(length))
    return {"bytes": size, "sampled": sha.hexdigest()}


def _number(text: str) -> int:
    """Hash the text to a number below 2**64: the same for the same text, else as good as random."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _findings(rows: Iterable[Mapping]) -> tuple[Finding, ...]:
    return tuple(Finding(**{**row, "places": tuple(row["places"])}) for row in rows)
