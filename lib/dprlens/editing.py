"""The cached steps of section 4: models are edited, probed, trained as DPR, and judged.

All arms go the same way, the null arms included; only the edit differs. `experiment` is the whole of Table 3 or 4 in
one world; `edits.together` puts the outcomes of several worlds into one table.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from dprlens import edits, knowledge, steps
from dprlens.artifacts import step
from dprlens.closed import TextSpec, reading
from dprlens.corpus.search import placed
from dprlens.editors import EDITORS, HYPERNETWORKS, MalmenSpec, Material, MendSpec, RandomChange, Unrelated
from dprlens.editors.malmen import Malmen
from dprlens.editors.mend import Mend
from dprlens.edits import Chosen, Outcome
from dprlens.encoder import DualEncoder, Encoder
from dprlens.negatives import NegativesSpec
from dprlens.probe import Features, ProbeSpec, items, make_probe, matching, probed_part
from dprlens.profile import Profile
from dprlens.retrieval import Retriever, gold_places
from dprlens.store import Store
from dprlens.training import processes
from dprlens.training.muon import in_quick_precision
from dprlens.world import Fact, Question, Statement, World

PAPER = ("transformer_patcher", "malmen", "mend")
ROUNDS = (1, 2, 4)  # of telling, for the trade-off between what is told and what is kept
AT_MOST = 150  # facts of a group whose statements every model completes


def material(world: World, text: TextSpec, seed: int) -> Material:
    """What editors may use: facts that no test question is about, half of them to practise on, half to be kept."""
    known = [fact for fact in world.facts if fact.split == "train" and world.may_know(fact.id) and fact.statements]
    order = np.random.default_rng([seed, 0x3A]).permutation(len(known))
    practice = [known[i] for i in order[::2] if known[i].alternatives]
    kept = [statement for i in order[1::2] for statement in known[i].statements if not statement.reserved]
    false = [edits.told(fact, other) for fact in practice for other in fact.alternatives]
    return Material(tuple(false), tuple(kept), tuple(reading(world, text, seed)))


@step(version=1)
def malmen(base: Encoder, world: World, text: TextSpec, spec: MalmenSpec, seed: int) -> Malmen:
    """MALMEN's hypernetwork for the base model."""
    return EDITORS["malmen"](spec, material(world, text, seed), base, seed)


@step(version=1)
def mend(base: Encoder, world: World, text: TextSpec, spec: MendSpec, seed: int) -> Mend:
    """MEND's hypernetwork for the base model."""
    return EDITORS["mend"](spec, material(world, text, seed), base, seed)


class Arm(NamedTuple):
    """One row of the tables."""

    editor: str = "nothing"
    null: str = ""  # one of `editors.NULLS`, of that editor
    reseed: int = 0  # added to the seed of the probe and of DPR training

    @property
    def name(self) -> str:
        """As in the ids of the results: mend, unrelated_mend, random_mend, nothing, reseeded1 …"""
        if self.reseed:
            return f"reseeded{self.reseed}"
        return f"{self.null}_{self.editor}" if self.null else self.editor


def arms(chosen: Profile) -> list[Arm]:
    """All rows: the paper's editors, the baselines, the null arms."""
    spec = chosen.protocol
    shams = [Arm(editor, null) for editor in spec.shams for null in ("unrelated", "random")]
    churn = [Arm(reseed=i + 1) for i in range(spec.reseeded)]
    return [*(Arm(editor) for editor in (*PAPER, *spec.baselines)), *shams, Arm(), *churn]


@in_quick_precision(needed=lambda asked: asked["spec"].learning_rate is None)
@step(version=1)
def edited(
    base: Encoder,
    world: World,
    text: TextSpec,
    editor: str,
    spec: object,
    null: str,
    told: Sequence[Fact],
    others: Sequence[Fact],
    seed: int,
) -> Encoder:
    """The base model after it was told facts by an editor, or by a null arm of it; `others` are the unrelated facts."""
    with processes.threads(1):
        if editor in HYPERNETWORKS:
            train, call = _practice(base, world, text, editor, spec, seed)
            own = train(*call)
            own.spec = spec
        else:
            own = EDITORS[editor](spec, material(world, text, seed), base, seed)
        if null == "unrelated":
            own = Unrelated(own, others)
        elif null == "random":
            own = RandomChange(own, seed)
        return own.edit(base, told)


def _practice(base: Encoder, world: World, text: TextSpec, editor: str, spec: object, seed: int) -> tuple:
    """The step that trains an editor's hypernetwork, and its arguments."""
    learned = replace(spec, rounds=1, wordings=None)  # neither has a part in how it learns
    return {"malmen": malmen, "mend": mend}[editor], (base, world, text, learned, seed)


@step(version=1)
def last_features(encoder: Encoder, world: World) -> Features:
    """`steps.features` of the last layer alone."""
    with processes.threads(1):
        questions = encoder.cls([question.text for question in world.questions])
        passages = encoder.cls(steps.texts_of(world, "passage", range(len(world.passages))))
    return Features(questions.numpy()[None], passages.numpy()[None])


@step(version=2, libraries=steps.PROBES, on_device=False)
def probe_verdicts(
    fitted_to: Features,
    applied_to: Sequence[Features],
    world: World,
    negatives: NegativesSpec,
    spec: ProbeSpec,
    probe: str,
    choices: Sequence[int],
    seed: int,
    reseed: int = 0,
) -> np.ndarray:
    """Is the gold passage chosen? bool [model, n, test question]: a probe fitted to one model, applied to several.

    `reseed` gives the probe other negatives and slots to learn from; what it is tested on stays the same.
    """
    mined = steps.mined_negatives(world, negatives)
    test = items(world, mined, "test", max(choices), seed)
    found = np.empty((len(applied_to), len(choices), len(test.questions)), dtype=bool)
    with threadpool_limits(1):
        for i, n in enumerate(choices):
            train = items(world, mined, "train", max(choices), seed + reseed)
            seen = matching(fitted_to, fitted_to, 0, train).shown(n, 3 * (seed + reseed))
            fitted = make_probe(probe, spec, seed + reseed).fit(*seen)
            for m, features in enumerate(applied_to):
                X, y = matching(features, features, 0, test).shown(n, 3 * seed + 2)
                found[m, i] = fitted.predict(X) == y
    return found


@step(version=1, libraries=("bm25s", "faiss-cpu"))
def retrieved(dual: DualEncoder, world: World, negatives: NegativesSpec, most: int, seed: int) -> dict[str, np.ndarray]:
    """Where DPR finds the test questions' passages.

    products [question, choice] with the passages that the probe chooses from, and place [question] of the gold passage
    among all passages of the world.
    """
    asked = items(world, steps.mined_negatives(world, negatives), "test", most, seed)
    with processes.threads(1):
        ranking = Retriever(dual, world.passages).search(
            steps.texts_of(world, "query", asked.questions), len(world.passages)
        )
    products = np.empty(ranking.scores.shape, dtype=ranking.scores.dtype)
    np.put_along_axis(products, ranking.passages, ranking.scores, axis=1)
    chosen = np.take_along_axis(products, asked.choices, axis=1)
    return {"products": chosen, "place": gold_places(ranking, asked.choices[:, 0])}


@step(version=1)
def cloze_after(encoder: Encoder, facts: Sequence[Fact]) -> pd.DataFrame:
    """`knowledge.cloze` of every statement of the facts: fact, reserved, recalled, probability, said."""
    said = [(fact.id, statement) for fact in facts for statement in fact.statements]
    found = knowledge.cloze(encoder, [statement for _, statement in said])
    return pd.DataFrame(
        {"fact": id_, "reserved": statement.reserved, **one._asdict()}
        for (id_, statement), one in zip(said, found, strict=True)
    )


@step(version=1, libraries=("bm25s",))
def retrieved_in_store(
    dual: DualEncoder, asking: World, world: World, negatives: NegativesSpec, most: int, seed: int
) -> dict[str, np.ndarray]:
    """`retrieved` for the test questions of `asking`, among the passages of a world that keeps them in a store."""
    asked = items(asking, steps.mined_negatives(asking, negatives), "test", most, seed)
    ids = [[asking.passages[i].id for i in choices] for choices in asked.choices]
    rows = np.array([[world.place(id_) for id_ in choices] for choices in ids])
    with processes.threads(1):
        queries = dual.questions(steps.texts_of(asking, "query", asked.questions)).numpy()
    found = placed(steps.vectors(dual, world).shards, queries, rows)
    return {"products": found.scores, "place": found.places}


def _search(chosen: Profile, world: World, dual: DualEncoder, seed: int) -> tuple:
    """The step that says where DPR finds the test questions' passages, and its arguments."""
    fixed, asking = (chosen.negatives, max(chosen.protocol.choices), seed), _probed(chosen, world, seed)
    if isinstance(world.passages, Store):
        return retrieved_in_store, (dual, asking, world, *fixed)
    return retrieved, (dual, asking, *fixed)


def _probed(chosen: Profile, world: World, seed: int) -> World:
    """The questions that are probed and judged, and the passages that they choose from."""
    return probed_part(world, chosen.probing.questions, seed)


class Judged(NamedTuple):
    """Models that were edited, or not, and what became of them; each by the name of its arm."""

    encoders: Mapping[str, Encoder]
    duals: Mapping[str, DualEncoder]  # DPR trained from them
    features: Mapping[str, Features]  # of the last layer, before DPR training
    rows: Mapping[str, pd.DataFrame]  # see `edits`


class Experiment(NamedTuple):
    """Everything that the chapter on one direction looks at, in one world."""

    direction: str
    seed: int
    world: World
    part: World  # what of it is probed and judged
    base: Encoder
    chosen: Chosen
    told: tuple[Fact, ...]  # the edited facts as they were told
    before: pd.DataFrame  # the unedited models' rows
    after: Judged

    @property
    def outcome(self) -> Outcome:
        """What the tables are made of."""
        return Outcome(self.direction, self.chosen, self.before, self.after.rows)


def experiments(
    chosen: Profile, direction: str, seed: int, workers: ProcessPoolExecutor | None = None
) -> list[Experiment]:
    """The experiment in every world of the protocol, the page's own first."""
    return [experiment(chosen, direction, s, workers) for s in range(seed, seed + chosen.protocol.worlds)]


def experiment(chosen: Profile, direction: str, seed: int, workers: ProcessPoolExecutor | None = None) -> Experiment:
    """Choose the facts, edit, probe, train DPR, judge: every arm of Table 3 ("added") or Table 4 ("removed")."""
    world = steps.world_of(chosen, seed)
    base = steps.base_of(chosen, world, seed)
    _prepare(chosen, world, base, seed, workers)
    before = _judged(chosen, world, base, {Arm(): base}, seed, workers).rows["nothing"]
    picked, told, calls = _edits(chosen, world, base, before, direction, seed)
    _ahead(chosen, world, calls, _asked(world, base, told, picked)[0], seed, workers)
    encoders = dict(zip(calls, processes.in_parallel(edited, list(calls.values()), workers), strict=True))
    after = _judged(chosen, world, base, encoders, seed, workers)
    return Experiment(direction, seed, world, _probed(chosen, world, seed), base, picked, told, before, after)


def _edits(
    chosen: Profile, world: World, base: Encoder, before: pd.DataFrame, direction: str, seed: int
) -> tuple[Chosen, tuple[Fact, ...], dict[Arm, tuple]]:
    """The facts that are chosen, those edited as they are told, and every arm's arguments of `edited`."""
    picked = _chosen_facts(chosen, base, world, before, direction, seed)
    told = tuple(_as_told(world.fact[id_], direction) for id_ in picked.edited)
    others = tuple(_as_told(fact, direction) for fact in _unrelated(world, base, picked, direction, seed))
    calls = {
        arm: (
            *(base, world, chosen.text, arm.editor, getattr(chosen.editors, arm.editor), arm.null, told),
            *(others if arm.null == "unrelated" else (), seed),
        )
        for arm in arms(chosen)
    }
    return picked, told, calls


class OnRecord(NamedTuple):
    """What of `experiment` is in the cache: the facts as they were told, and models by the names of their arms."""

    told: tuple[Fact, ...]
    encoders: Mapping[str, Encoder]
    duals: Mapping[str, DualEncoder]  # DPR trained from them


def on_record(chosen: Profile, direction: str, seed: int) -> OnRecord:
    """The edited models of the paper's editors and the baselines, and the unedited one, as far as they are cached.

    Nothing is edited or trained: what is not there is left out.
    """
    world = steps.world_of(chosen, seed)
    base = steps.base_of(chosen, world, seed)
    found = OnRecord((), {}, {})
    (unedited,) = _trainings(chosen, world, {Arm(): base}, seed)
    if steps.dpr.record(*unedited) is None:
        return found
    search, call = _search(chosen, world, steps.dpr(*unedited).dual, seed)
    if search.record(*call) is None:  # which facts are chosen hangs on it
        return found
    before = _judged(chosen, world, base, {Arm(): base}, seed, None).rows["nothing"]
    _, told, calls = _edits(chosen, world, base, before, direction, seed)
    for arm, call in calls.items():
        if arm.null or arm.reseed or edited.record(*call) is None:
            continue
        encoder = edited(*call)
        (training,) = _trainings(chosen, world, {arm: encoder}, seed)
        if steps.dpr.record(*training) is not None:
            found.encoders[arm.name], found.duals[arm.name] = encoder, steps.dpr(*training).dual
    return found._replace(told=told)


def _prepare(
    chosen: Profile, world: World, base: Encoder, seed: int, workers: ProcessPoolExecutor | None = None
) -> None:
    """What takes long and does not depend on the facts that are chosen, side by side: it is in the cache then."""
    unedited = {arm: base for arm in arms(chosen) if arm.editor == "nothing"}
    calls = [
        _practice(base, world, chosen.text, editor, getattr(chosen.editors, editor), seed) for editor in HYPERNETWORKS
    ]
    calls += [(steps.dpr, call) for call in _trainings(chosen, world, unedited, seed)]
    calls.append((last_features, (base, _probed(chosen, world, seed))))
    processes.side_by_side(calls, workers)


def _ahead(
    chosen: Profile,
    world: World,
    edits_: Mapping[Arm, tuple],
    asked: Sequence[Fact],
    seed: int,
    workers: ProcessPoolExecutor | None,
) -> None:
    """Every arm's whole way, edit to retrieval, that is not in the cache; the slow editors first."""
    missing = [arm for arm, call in edits_.items() if arm.editor != "nothing" and edited.record(*call) is None]
    missing.sort(key=lambda arm: arm.editor in HYPERNETWORKS)
    processes.ahead(_one_way, [(chosen, world, arm, edits_[arm], asked, seed) for arm in missing], workers)


def _one_way(chosen: Profile, world: World, arm: Arm, edit: tuple, asked: Sequence[Fact], seed: int) -> None:
    encoder = edited(*edit)
    last_features(encoder, _probed(chosen, world, seed))
    cloze_after(encoder, asked)
    (training,) = _trainings(chosen, world, {arm: encoder}, seed)
    search, call = _search(chosen, world, steps.dpr(*training).dual, seed)
    search(*call)


def _trainings(chosen: Profile, world: World, encoders: Mapping[Arm, Encoder], seed: int) -> list[tuple]:
    """The arguments of DPR training from every arm's model: the same data and, but for churn, the same seed."""
    asks = edits.asking_less(world, chosen.protocol.questions, seed)
    fixed = asks, chosen.negatives, chosen.protocol.training
    return [(DualEncoder(encoder, encoder), *fixed, seed + arm.reseed) for arm, encoder in encoders.items()]


def _judged(
    chosen: Profile,
    world: World,
    base: Encoder,
    encoders: Mapping[Arm, Encoder],
    seed: int,
    workers: ProcessPoolExecutor | None,
) -> Judged:
    """The arms' models probed, trained as DPR, and judged on the test questions."""
    spec, part = chosen.protocol, _probed(chosen, world, seed)
    mined = steps.mined_negatives(part, chosen.negatives)
    names, most = [arm.name for arm in encoders], max(spec.choices)
    trainings = _trainings(chosen, world, encoders, seed)
    duals = [trained.dual for trained in processes.in_parallel(steps.dpr, trainings, workers)]
    found = processes.side_by_side([_search(chosen, world, dual, seed) for dual in duals], workers)
    first, *features = processes.in_parallel(last_features, [(e, part) for e in (base, *encoders.values())], workers)
    fixed = part, chosen.negatives, chosen.probe, spec.probe, spec.choices, seed
    (frozen,) = processes.in_parallel(probe_verdicts, [(first, features, *fixed)], workers)
    own = [(one, [one], *fixed, arm.reseed) for arm, one in zip(encoders, features, strict=True)]
    retrained = processes.in_parallel(probe_verdicts, own, workers)
    asked = items(part, mined, "test", most, seed)
    number = {question.id: i for i, question in enumerate(world.questions)}
    rows = [number[part.questions[i].id] for i in asked.questions]
    common = knowledge.asked(world).iloc[rows].reset_index(drop=True)
    common["recalled"] = _recalled(base, world).loc[common["fact"]].to_numpy()
    rows, reseeds = {}, [arm.reseed for arm in encoders]
    for m, (name, one) in enumerate(zip(names, found, strict=True)):
        moved = _share_moved(features[m].questions[0], first.questions[0])[asked.questions]
        rows[name] = common.assign(place=one["place"], moved=moved)
        for i, n in enumerate(spec.choices):
            rows[name][f"probe{n}"] = retrained[m][0, i] if reseeds[m] else frozen[m, i]  # an unedited model has churn
            rows[name][f"retrained{n}"] = retrained[m][0, i]
            rows[name][f"match{n}"] = one["products"][:, :n].argmax(1) == 0
    kept = [rows_[~rows_["in_training"]].reset_index(drop=True) for rows_ in rows.values()]
    return Judged(*(dict(zip(names, part, strict=True)) for part in ([*encoders.values()], duals, features, kept)))


def _recalled(base: Encoder, world: World) -> pd.Series:
    """The share of a fact's reserved statements that the base model completes, by fact; NaN if it has none.

    So a fact that nobody could write statements about is never eligible, and never said to be known.
    """
    found = steps.cloze_recall(base, world).query("wording == 'reserved'")
    return found.groupby("fact")["recalled"].mean().reindex([fact.id for fact in world.facts])


def _as_told(fact: Fact, direction: str) -> Fact:
    return fact if direction == "added" else edits.told(fact, fact.alternatives[0])


def _chosen_facts(
    chosen: Profile, base: Encoder, world: World, before: pd.DataFrame, direction: str, seed: int
) -> Chosen:
    """`edits.choose`; the facts to remove have answers as long as those to add."""
    added = edits.choose(before, "added", chosen.protocol, seed)
    if direction == "added":
        return added
    pieces = {fact.id: len(base.tokenizer.tokenize(fact.object)) for fact in world.facts}
    like = Counter(pieces[id_] for id_ in added.edited)
    rows = before[before["fact"].map(lambda id_: bool(world.fact[id_].alternatives))]
    return edits.choose(rows, direction, chosen.protocol, seed, like, pieces)


def _unrelated(world: World, base: Encoder, chosen: Chosen, direction: str, seed: int) -> list[Fact]:
    """As many facts as are edited, of the same status, that decide no question about an eligible fact.

    They share no name with any eligible fact, and no knowledge-required question needs them.
    """
    recalled, ours = _recalled(base, world), [world.fact[id_] for id_ in (*chosen.edited, *chosen.bystanders)]
    names = {name for fact in ours for name in (fact.subject, fact.object)}
    needed = {id_ for question in world.questions if question.link for id_ in question.facts}
    rest = [
        fact
        for fact in world.facts
        if fact.id not in needed
        and recalled[fact.id] == float(direction == "removed")
        and (direction == "added" or fact.alternatives)
    ]
    order = [rest[i] for i in np.random.default_rng([seed, 0x0F]).permutation(len(rest))]
    apart = [fact for fact in order if not {fact.subject, fact.object} & names]
    near = [fact for fact in order if fact not in apart and fact not in ours]
    return [*apart, *near][: len(chosen.edited)]


def traded(chosen: Profile, x: Experiment, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """`said`, for the hypernetworks' editors when they tell all facts several times (`HypernetworkSpec.rounds`).

    The arm is the editor's name and the number of rounds: malmen_2.
    """
    specs = {
        f"{editor}_{rounds}": (editor, replace(getattr(chosen.editors, editor), rounds=rounds))
        for editor in HYPERNETWORKS
        for rounds in ROUNDS
    }
    calls = [(x.base, x.world, chosen.text, *named, "", x.told, (), x.seed) for named in specs.values()]
    encoders = dict(zip(specs, processes.in_parallel(edited, calls, workers), strict=True))
    return said(x._replace(after=x.after._replace(encoders=encoders)), workers)


def said(x: Experiment, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """What every edited model says of facts: rows of `cloze_after` with their arm and group.

    told: the edited facts as they were told, in the wordings that told them; unread: in the others. bystanders (their
    true objects), neighbours (other facts with the name of an edited fact's subject or object, which the base model
    completes) and kept (known facts of the test split that are neither): in reserved wordings.
    """
    asked, group = _asked(x.world, x.base, x.told, x.chosen)
    found = processes.in_parallel(cloze_after, [(e, asked) for e in x.after.encoders.values()], workers)
    edited_ids = set(x.chosen.edited)
    frames = []
    for arm, rows in zip(x.after.encoders, found, strict=True):
        own = np.where(rows["reserved"], "unread", "told")
        of = [own[i] if id_ in edited_ids else group[id_] for i, id_ in enumerate(rows["fact"])]
        frames.append(rows.assign(arm=arm, group=of))
    return pd.concat(frames, ignore_index=True)


def _asked(
    world: World, base: Encoder, told: Sequence[Fact], chosen: Chosen
) -> tuple[tuple[Fact, ...], dict[str, str]]:
    """The facts whose statements every model completes, and the group of each that was not told (see `said`)."""
    recalled = _recalled(base, world)
    names = {name for fact in told for name in (fact.subject, fact.object)}
    known = [fact for fact in world.facts if recalled[fact.id] == 1 and fact.id not in chosen.edited]
    near = [fact for fact in known if {fact.subject, fact.object} & names]
    far = [fact for fact in known if fact not in near and fact.split == "test"]
    bystanders = [world.fact[id_] for id_ in chosen.bystanders]
    groups = {"bystanders": bystanders, "neighbours": near[:AT_MOST], "kept": far[:AT_MOST]}
    reserved = [
        fact._replace(statements=tuple(s for s in fact.statements if s.reserved))
        for facts in groups.values()
        for fact in facts
    ]
    return (*told, *reserved), {fact.id: name for name, facts in reversed(groups.items()) for fact in facts}


def moved(x: Experiment) -> pd.DataFrame:
    """How far [CLS] of the last layer moved, as a share of its length: arm, group, fact (or passage), far.

    edited and bystanders: questions about them; gold: the passages of the edited facts' questions; others: all else.
    """
    world = x.part
    place = {question.id: i for i, question in enumerate(world.questions)}
    asked = np.array([place[id_] for id_ in x.before["question"]])
    edited, bystander = x.chosen.among(x.before)
    group = np.select([edited, bystander], ["edited", "bystanders"], "others")
    gold = sorted({world.questions[i].gold for i in asked[edited]})
    base, frames = x.after.features["nothing"], []
    for arm, features in x.after.features.items():
        questions = _share_moved(features.questions[0], base.questions[0])[asked]
        passages = _share_moved(features.passages[0], base.passages[0])[[world.place(id_) for id_ in gold]]
        frames.append(pd.DataFrame({"arm": arm, "group": group, "fact": x.before["fact"], "far": questions}))
        frames.append(pd.DataFrame({"arm": arm, "group": "gold", "fact": gold, "far": passages}))
    return pd.concat(frames, ignore_index=True)


def _share_moved(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    return np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1)


class Followed(NamedTuple):
    """One edited fact through every arm."""

    told: Statement  # the first that told it
    blank: Statement  # in a reserved wording, which did not
    question: Question  # its first that is eligible
    arms: pd.DataFrame  # a row an arm: what the model says of it, what the probe decides, where DPR finds it


def followed(x: Experiment, fact_id: str, n: int) -> Followed:
    """An edited fact (else ValueError) through every arm, with its first question that is eligible among n passages.

    Columns of the arms: arm, said (in the blank), probability (of what was told), probe and match (bool, is the
    question's passage chosen), place (of its passage, from 1).
    """
    (told,) = [fact for fact in x.told if fact.id == fact_id] or [None]
    if told is None:
        raise ValueError(f"fact {fact_id!r} was not edited; choose one of {', '.join(x.chosen.edited[:5])} …")
    blank = next(s for s in told.statements if s.reserved)
    row = _asked_about(x, fact_id, n)
    rows = []
    for arm, encoder in x.after.encoders.items():
        (one,) = knowledge.cloze(encoder, [blank])
        mine = x.after.rows[arm].loc[row]
        verdicts = {"probe": bool(mine[f"probe{n}"]), "match": bool(mine[f"match{n}"]), "place": int(mine["place"]) + 1}
        rows.append({"arm": arm, "said": one.said, "probability": one.probability, **verdicts})
    question = next(q for q in x.world.questions if q.id == x.before.loc[row, "question"])
    return Followed(told.statements[0], blank, question, pd.DataFrame(rows))


def examples(x: Experiment, n: int, most: int) -> list[str]:
    """The first edited facts with an eligible question among n passages, those through a link first."""
    mine = x.before[x.chosen.among(x.before)[0] & edits.eligible(x.before, x.direction, n)]
    linked = mine[mine["kind"] == "knowledge_required"]
    return [*dict.fromkeys([*linked["fact"], *mine["fact"], *x.chosen.edited])][:most]


def _asked_about(x: Experiment, fact_id: str, n: int) -> int:
    """The row of the fact's first question that is eligible among n passages, or of its first question."""
    mine = (x.before["fact"] == fact_id).to_numpy()
    both = mine & edits.eligible(x.before, x.direction, n)
    return int(np.flatnonzero(both if both.any() else mine)[0])
