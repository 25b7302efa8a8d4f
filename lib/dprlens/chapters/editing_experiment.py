"""Chapters 04_1 and 04_2: every arm edited, probed, trained as DPR and judged.

All arms go the same way (`run_arm`), the null arms included; only the edit differs. `experiment` is the whole of
Table 3 or 4 in one world; `protocol.together` puts the outcomes of several worlds into one table.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from dprlens.bert import cloze
from dprlens.bert.cloze import cloze_recall
from dprlens.bert.encoder import DualEncoder, Encoder
from dprlens.cache.parallel import Missing, only_cached, run
from dprlens.consistency.probes import Features
from dprlens.editing import protocol
from dprlens.editing.editors import HYPERNETWORKS
from dprlens.editing.editors.hypernetwork import HypernetworkSpec
from dprlens.editing.protocol import Chosen, Outcome
from dprlens.editing.steps import (
    Edit,
    Judging,
    PassageRanks,
    cloze_after,
    edit_model,
    hypernetwork,
    last_features,
    probe_verdicts,
    rank_passages,
)
from dprlens.profile import Profile
from dprlens.setup import Setup
from dprlens.training.steps import Training, dpr
from dprlens.world.records import Fact, Question, Statement

PAPER = ("transformer_patcher", "malmen", "mend")


ROUNDS = (1, 2, 4)  # of telling, for the trade-off between what is told and what is kept


AT_MOST = 150  # facts of a group whose statements every model completes


class Arm(NamedTuple):
    """One row of the tables."""

    editor: str = "nothing"
    null: str = ""  # one of `editors.NULLS`, of that editor
    reseed: int = 0  # added to the seed of the probe and of DPR training

    @property
    def name(self) -> str:
        """The arm in the ids of the results (mend, unrelated_mend, random_mend, nothing, reseeded1 …)."""
        if self.reseed:
            return f"reseeded{self.reseed}"
        return f"{self.null}_{self.editor}" if self.null else self.editor

    @property
    def edits(self) -> bool:
        """Is the model of this arm another than the pre-trained one?"""
        return self.editor != "nothing"


def arms(chosen: Profile) -> list[Arm]:
    """All rows: the paper's editors, the baselines, the null arms."""
    spec = chosen.protocol
    shams = [Arm(editor, null) for editor in spec.shams for null in ("unrelated", "random")]
    churn = [Arm(reseed=i + 1) for i in range(spec.reseeded)]
    return [*(Arm(editor) for editor in (*PAPER, *spec.baselines)), *shams, Arm(), *churn]


class EditedModel(NamedTuple):
    """An arm's model before and after DPR training."""

    encoder: Encoder
    dual: DualEncoder


class ArmResult(NamedTuple):
    """An arm's model on its whole way."""

    encoder: Encoder
    dual: DualEncoder  # DPR trained from it
    features: Features  # of its last layer, before DPR training
    verdicts: np.ndarray  # bool [n, test question], of a probe fitted to it
    retrieved: PassageRanks


def edit_and_train(setup: Setup, arm: Arm, edit: Edit | None) -> EditedModel:
    """An arm's model (None: the pre-trained one) and DPR trained from it.

    The data and, but for churn, the seed of DPR training are the same for every arm.
    """
    encoder = setup.base if edit is None else edit_model(edit)
    chosen = setup.profile
    asks = protocol.asking_less(setup.world, chosen.protocol.questions, setup.seed)
    start, seed = DualEncoder(encoder, encoder), setup.seed + arm.reseed
    return EditedModel(encoder, dpr(Training(start, asks, chosen.negatives, chosen.protocol.training, seed)).dual)


def run_arm(setup: Setup, arm: Arm, edit: Edit | None) -> ArmResult:
    """An arm from its edit to the ranks of passages."""
    model, judging = edit_and_train(setup, arm, edit), judging_of(setup)
    features = last_features(model.encoder, setup.part)
    return ArmResult(
        *model,
        features,
        probe_verdicts(judging, features, [features], arm.reseed)[0],
        rank_passages(judging, model.dual),
    )


def judging_of(setup: Setup) -> Judging:
    """How the profile judges edited models."""
    chosen, spec = setup.profile, setup.profile.protocol
    questions = setup.world, setup.part, chosen.negatives
    return Judging(*questions, chosen.probe, spec.probe, tuple(spec.choices), setup.seed)


class Plan(NamedTuple):
    """What is edited, in every arm."""

    before: pd.DataFrame  # the unedited models' rows (`edits`), by which facts are chosen
    chosen: Chosen
    told: tuple[Fact, ...]  # the edited facts as they are told
    edits: Mapping[Arm, Edit | None]  # None where nothing is edited


class Experiment(NamedTuple):
    """Everything that the chapter on one direction looks at, in one world."""

    direction: str
    setup: Setup
    plan: Plan
    after: Mapping[str, ArmResult]  # by the name of the arm
    rows: Mapping[str, pd.DataFrame]  # of the arms' models; see `edits`

    @property
    def outcome(self) -> Outcome:
        """What the tables are made of."""
        return Outcome(self.direction, self.plan.chosen, self.plan.before, self.rows)


def experiments(setup: Setup, direction: str, workers: ProcessPoolExecutor | None = None) -> list[Experiment]:
    """The experiment in every world of the protocol, the page's own first."""
    worlds = [setup, *(Setup(setup.profile, setup.seed + i) for i in range(1, setup.profile.protocol.worlds))]
    return [experiment(one, direction, workers) for one in worlds]


def experiment(setup: Setup, direction: str, workers: ProcessPoolExecutor | None = None) -> Experiment:
    """Choose the facts, edit, probe, train DPR, judge: every arm of Table 3 ("added") or Table 4 ("removed")."""
    before = _before_edits(setup, workers)
    plan = _plan(setup, direction, before)
    slow_first = sorted(plan.edits, key=lambda arm: arm.editor in HYPERNETWORKS)  # hypernetworks are trained by now
    calls = {arm: partial(run_arm, setup, arm, plan.edits[arm]) for arm in slow_first}
    ways = run(calls, workers)
    after = {arm: ways[arm] for arm in plan.edits}
    return Experiment(direction, setup, plan, {arm.name: one for arm, one in after.items()}, _rows(setup, after))


def _before_edits(setup: Setup, workers: ProcessPoolExecutor | None) -> pd.DataFrame:
    """The unedited models' rows; with them is made what takes long and does not depend on the facts that are chosen."""
    calls: dict[Arm, Callable[[], object]] = {
        Arm(editor): partial(hypernetwork, _edit(setup, Arm(editor))) for editor in HYPERNETWORKS
    }
    calls |= {arm: partial(run_arm, setup, arm, None) for arm in arms(setup.profile) if not arm.edits}
    run(calls, workers)
    return _rows(setup, {Arm(): run_arm(setup, Arm(), None)})["nothing"]


def _plan(setup: Setup, direction: str, before: pd.DataFrame) -> Plan:
    """The facts that are chosen by the unedited models' rows, as they are told, and every arm's edit."""
    world, picked = setup.world, _choose(setup, direction, before)
    told = tuple(_as_told(world.fact[id_], direction) for id_ in picked.edited)
    others = tuple(_as_told(fact, direction) for fact in _unrelated(setup, picked, direction))
    edits_ = {
        arm: _edit(setup, arm, told, others if arm.null == "unrelated" else ()) if arm.edits else None
        for arm in arms(setup.profile)
    }
    return Plan(before, picked, told, edits_)


def _edit(setup: Setup, arm: Arm, told: tuple[Fact, ...] = (), others: tuple[Fact, ...] = ()) -> Edit:
    chosen = setup.profile
    spec = getattr(chosen.editors, arm.editor)
    return Edit(setup.base, setup.world, chosen.text, arm.editor, spec, arm.null, told, others, setup.seed)


class OnRecord(NamedTuple):
    """What of `experiment` is in the cache: the facts as they were told, and models by the names of their arms."""

    told: tuple[Fact, ...]
    models: Mapping[str, EditedModel]


def on_record(setup: Setup, direction: str) -> OnRecord:
    """The models of the paper's editors and the baselines as far as they are cached; nothing is edited or trained."""
    models: dict[str, EditedModel] = {}
    try:
        with only_cached():
            plan = _plan(setup, direction, _before_edits(setup, None))
    except Missing:
        return OnRecord((), models)
    for arm, edit in plan.edits.items():
        if edit is not None and not arm.null:
            with contextlib.suppress(Missing), only_cached():
                models[arm.name] = edit_and_train(setup, arm, edit)
    return OnRecord(plan.told, models)


def _rows(setup: Setup, followed: Mapping[Arm, ArmResult]) -> dict[str, pd.DataFrame]:
    """The arms' rows (`edits`), by the arm's name."""
    world, part, judging = setup.world, setup.part, judging_of(setup)
    test, unedited = judging.items("test").questions, last_features(setup.base, setup.part)
    frozen = probe_verdicts(judging, unedited, [one.features for one in followed.values()])
    number = {question.id: i for i, question in enumerate(world.questions)}
    common = cloze.question_table(world).iloc[[number[part.questions[i].id] for i in test]].reset_index(drop=True)
    common["recalled"] = _recalled(setup).loc[common["fact"]].to_numpy()
    found = {}
    for (arm, one), kept in zip(followed.items(), frozen, strict=True):
        moved = _share_moved(one.features.questions[0], unedited.questions[0])[test]
        rows = common.assign(place=one.retrieved.place, moved=moved)
        for i, n in enumerate(judging.choices):
            rows[f"probe{n}"] = one.verdicts[i] if arm.reseed else kept[i]  # an unedited model has churn
            rows[f"retrained{n}"] = one.verdicts[i]
            rows[f"match{n}"] = one.retrieved.products[:, :n].argmax(1) == 0
        found[arm.name] = rows[~rows["in_training"]].reset_index(drop=True)
    return found


def _recalled(setup: Setup) -> pd.Series:
    """The share of a fact's reserved statements that the base model completes, by fact; NaN if it has none.

    So a fact that nobody could write statements about is never eligible, and never said to be known.
    """
    found = cloze_recall(setup.base, setup.world).query("wording == 'reserved'")
    return found.groupby("fact")["recalled"].mean().reindex([fact.id for fact in setup.world.facts])


def _as_told(fact: Fact, direction: str) -> Fact:
    return fact if direction == "added" else protocol.with_object(fact, fact.alternatives[0])


def _choose(setup: Setup, direction: str, before: pd.DataFrame) -> Chosen:
    """`protocol.choose`; the facts to remove have answers as long as those to add."""
    spec, world, seed = setup.profile.protocol, setup.world, setup.seed
    added = protocol.choose(before, "added", spec, seed)
    if direction == "added":
        return added
    pieces = {fact.id: len(setup.base.tokenizer.tokenize(fact.object)) for fact in world.facts}
    like = Counter(pieces[id_] for id_ in added.edited)
    rows = before[before["fact"].map(lambda id_: bool(world.fact[id_].alternatives))]
    return protocol.choose(rows, direction, spec, seed, protocol.AnswerLengths(like, pieces))


def _unrelated(setup: Setup, chosen: Chosen, direction: str) -> list[Fact]:
    """As many facts as are edited, of the same status, that decide no question about an eligible fact.

    They share no name with any eligible fact, and no knowledge-required question needs them.
    """
    world, recalled = setup.world, _recalled(setup)
    ours = [world.fact[id_] for id_ in (*chosen.edited, *chosen.bystanders)]
    names = {name for fact in ours for name in (fact.subject, fact.object)}
    needed = {id_ for question in world.questions if question.link for id_ in question.facts}
    rest = [
        fact
        for fact in world.facts
        if fact.id not in needed
        and recalled[fact.id] == float(direction == "removed")
        and (direction == "added" or fact.alternatives)
    ]
    order = [rest[i] for i in np.random.default_rng([setup.seed, 0x0F]).permutation(len(rest))]
    apart = [fact for fact in order if not {fact.subject, fact.object} & names]
    near = [fact for fact in order if fact not in apart and fact not in ours]
    return [*apart, *near][: len(chosen.edited)]


def trade_off_rows(x: Experiment, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """`cloze_rows`, for the hypernetworks' editors when they tell all facts several times (`HypernetworkSpec.rounds`).

    The arm is the editor's name and the number of rounds: malmen_2.
    """
    again = {}
    for editor in HYPERNETWORKS:
        edit = _edit(x.setup, Arm(editor), x.plan.told)
        assert isinstance(edit.spec, HypernetworkSpec)
        for rounds in ROUNDS:
            again[f"{editor}_{rounds}"] = partial(edit_model, replace(edit, spec=replace(edit.spec, rounds=rounds)))
    return _completed(x, run(again, workers), workers)


def cloze_rows(x: Experiment, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """What every edited model says of facts: rows of `cloze_after` with their arm and group.

    told: the edited facts as they were told, in the wordings that told them; unread: in the others. bystanders (their
    true objects), neighbours (other facts with the name of an edited fact's subject or object, which the base model
    completes) and kept (known facts of the test split that are neither): in reserved wordings.
    """
    return _completed(x, {arm: one.encoder for arm, one in x.after.items()}, workers)


def _completed(x: Experiment, encoders: Mapping[str, Encoder], workers: ProcessPoolExecutor | None) -> pd.DataFrame:
    """See `cloze_rows`."""
    facts, group = _cloze_facts(x)
    found = run({arm: partial(cloze_after, encoder, facts) for arm, encoder in encoders.items()}, workers)
    edited_ids, frames = set(x.plan.chosen.edited), []
    for arm, rows in found.items():
        own = np.where(rows["reserved"], "unread", "told")
        of = [own[i] if id_ in edited_ids else group[id_] for i, id_ in enumerate(rows["fact"])]
        frames.append(rows.assign(arm=arm, group=of))
    return pd.concat(frames, ignore_index=True)


def _cloze_facts(x: Experiment) -> tuple[tuple[Fact, ...], dict[str, str]]:
    """The facts whose statements every model completes, and the group of each that was not told (see `cloze_rows`)."""
    world, chosen, told, recalled = x.setup.world, x.plan.chosen, x.plan.told, _recalled(x.setup)
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


def cls_shift_rows(x: Experiment) -> pd.DataFrame:
    """How far [CLS] of the last layer moved, as a share of its length: arm, group, fact (or passage), far.

    edited and bystanders: questions about them; gold: the passages of the edited facts' questions; others: all else.
    """
    world = x.setup.part
    place = {question.id: i for i, question in enumerate(world.questions)}
    asked = np.array([place[id_] for id_ in x.plan.before["question"]])
    edited, bystander = x.plan.chosen.among(x.plan.before)
    group = np.select([edited, bystander], ["edited", "bystanders"], "others")
    gold = sorted({world.questions[i].gold for i in asked[edited]})
    base, frames = x.after["nothing"].features, []
    for arm, features in ((arm, one.features) for arm, one in x.after.items()):
        questions = _share_moved(features.questions[0], base.questions[0])[asked]
        passages = _share_moved(features.passages[0], base.passages[0])[[world.place(id_) for id_ in gold]]
        frames.append(pd.DataFrame({"arm": arm, "group": group, "fact": x.plan.before["fact"], "far": questions}))
        frames.append(pd.DataFrame({"arm": arm, "group": "gold", "fact": gold, "far": passages}))
    return pd.concat(frames, ignore_index=True)


def _share_moved(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    return np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1)


class FactTrace(NamedTuple):
    """One edited fact through every arm."""

    told: Statement  # the first that told it
    blank: Statement  # in a reserved wording, which did not
    question: Question  # its first that is eligible
    arms: pd.DataFrame  # a row an arm: what the model says of it, what the probe decides, where DPR finds it


def trace_fact(x: Experiment, fact_id: str, n: int) -> FactTrace:
    """An edited fact (else ValueError) through every arm, with its first question that is eligible among n passages.

    Columns of the arms: arm, said (in the blank), probability (of what was told), probe and match (bool, is the
    question's passage chosen), place (of its passage, from 1).
    """
    told = next((fact for fact in x.plan.told if fact.id == fact_id), None)
    if told is None:
        raise ValueError(f"fact {fact_id!r} was not edited; choose one of {', '.join(x.plan.chosen.edited[:5])} …")
    blank = next(s for s in told.statements if s.reserved)
    row = _asked_about(x, fact_id, n)
    rows = []
    for arm, one_arm in x.after.items():
        (one,) = cloze.cloze(one_arm.encoder, [blank])
        mine = x.rows[arm].loc[row]
        verdicts: dict[str, bool | int] = {what: bool(mine[f"{what}{n}"]) for what in ("probe", "match")}
        verdicts["place"] = int(x.rows[arm]["place"].iloc[row]) + 1
        rows.append({"arm": arm, "said": one.said, "probability": one.probability, **verdicts})
    question = next(q for q in x.setup.world.questions if q.id == x.plan.before.loc[row, "question"])
    return FactTrace(told.statements[0], blank, question, pd.DataFrame(rows))


def examples(x: Experiment, n: int, most: int) -> list[str]:
    """The first edited facts with an eligible question among n passages, those through a link first."""
    mine = x.plan.before[x.plan.chosen.among(x.plan.before)[0] & protocol.eligible(x.plan.before, x.direction, n)]
    linked = mine[mine["kind"] == "knowledge_required"]
    return [*dict.fromkeys([*linked["fact"], *mine["fact"], *x.plan.chosen.edited])][:most]


def _asked_about(x: Experiment, fact_id: str, n: int) -> int:
    """The row of the fact's first question that is eligible among n passages, or of its first question."""
    mine = (x.plan.before["fact"] == fact_id).to_numpy()
    both = mine & protocol.eligible(x.plan.before, x.direction, n)
    return int(np.flatnonzero(both if both.any() else mine)[0])
