"""Protocol of section 4: choice of the facts to edit, columns of Tables 3 and 4, and effects of the edit.

A fact is eligible if a question about it is answered wrongly (to add it) or rightly (to remove it) both by the probe of
pre-trained BERT and by DPR, and BERT does not (or does) complete its statements. A random half of the eligible facts is
edited (or as many as the spec allows); as many others are the *bystanders*: same status, chosen in the same way, never
edited in. Questions chosen because two models answered them wrongly may be answered rightly by any other model, edited
or not (regression to the mean). In the difference between edited facts and bystanders within one model this cancels on
average; we call it the effect. The remaining chance difference of the draw is in the unedited model as well; the
*difference in differences* subtracts it: (edited model − unedited model) among edited facts minus the same among
bystanders, question by question. Frozen probe and DPR of the unedited model chose the questions, so that their own
share is 0 in both halves and the two numbers are equal; they differ for top-k accuracy (k = `TOP`).

Functions here take rows: one per question, with its `fact`, `kind`, `recalled` (the share of the fact's statements that
BERT completes), and by number of passages N the columns `probe{N}` (by the probe fitted to pre-trained BERT, frozen),
`retrained{N}` (by one fitted to the model in question) and `match{N}` (by DPR's dot products), all bool: is the gold
passage chosen; `place` (of the gold passage among all passages, from 0); and `moved` (how far the question's [CLS] of
the last layer moved from the unedited model's, as a share of its length).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray

from dprlens.intervals import Estimate, difference, exact, gap, kappa, mcnemar, mean
from dprlens.training.dpr import DPRSpec
from dprlens.world.records import Fact, Statement, World

DIRECTIONS = ("added", "removed")
TOP = 20  # k of the top-k accuracy: a passage counts as found among the first so many
REACH = 0.01  # an edit that moves [CLS] by less of its length, on average, shows in no vector that is probed


@dataclass(frozen=True)
class ProtocolSpec:
    """Settings of section 4; the paper states neither N, nor the layer, nor any null arm (methods, G.1)."""

    facts: int = 96  # edited at most, each way; paper: 284
    choices: tuple[int, ...] = (2, 5)  # N; the first is that of the tables
    probe: str = "linear"  # the paper's
    # DPR training from every model, edited or not
    training: DPRSpec = field(default_factory=lambda: DPRSpec(epochs=1, learning_rate=6e-4, warm_up_steps=8))
    questions: int = 768  # of it, drawn from those of DPR training; they suffice to distinguish known links from others
    worlds: int = 1  # worlds and networks, from the page's seed on; the tables count over all of them
    baselines: tuple[str, ...] = ("finetuning", "rehearsal")  # editors besides the paper's
    reseeded: int = 1  # DPR trainings of the unedited model with another seed
    shams: tuple[str, ...] = ("malmen",)  # editors with two null arms of their own: unrelated facts, random change

    def __post_init__(self) -> None:
        for name, least in (("facts", 1), ("questions", 2), ("worlds", 1), ("reseeded", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)} is too few; give {least} or more")
        if not self.choices or min(self.choices) < 2:
            raise ValueError(f"choices = {self.choices} is no choice; give numbers of passages, 2 or more")


class Chosen(NamedTuple):
    """Ids of the facts to be edited, and of the eligible ones that are not (bystanders)."""

    edited: tuple[str, ...]
    bystanders: tuple[str, ...]

    def among(self, rows: pd.DataFrame) -> tuple[ndarray, ndarray]:
        """Mark the rows about an edited fact, and those about a bystander: bool [row] each."""
        return (rows["fact"].isin(self.edited).to_numpy(), rows["fact"].isin(self.bystanders).to_numpy())


class Outcome(NamedTuple):
    """Results of all arms, from which the tables are computed."""

    direction: str  # one of `DIRECTIONS`
    chosen: Chosen
    before: pd.DataFrame  # the unedited models' rows
    after: Mapping[str, pd.DataFrame]  # the rows of every arm, by its name, on the same questions


def stack_worlds(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the rows of several worlds; facts of different worlds get different names."""
    return pd.concat((rows.assign(fact=_named(i, rows["fact"])) for i, rows in enumerate(frames)), ignore_index=True)


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Pool the outcomes of several worlds with the same arms, as if they were one world."""
    picked = [Chosen(*(tuple(_named(i, ids)) for ids in one.chosen)) for i, one in enumerate(outcomes)]
    return Outcome(
        outcomes[0].direction,
        Chosen(*(sum(ids, ()) for ids in zip(*picked, strict=True))),
        stack_worlds(one.before for one in outcomes),
        {arm: stack_worlds(one.after[arm] for one in outcomes) for arm in outcomes[0].after},
    )


def _named(i: int, facts: Iterable[str]) -> list[str]:
    return [f"{i}/{fact}" for fact in facts]


def asking_less(world: World, n: int, seed: int) -> World:
    """Sample n questions of DPR training at random, and drop those that validate it."""
    asked = [question.id for question in world.questions if question.split == "train"]
    kept = {asked[i] for i in np.random.default_rng([seed, 0xA5]).permutation(len(asked))[:n]}
    questions = tuple(q for q in world.questions if q.split == "test" or q.id in kept)
    return replace(world, questions=questions)


def eligible(rows: pd.DataFrame, direction: str, n: int) -> ndarray:
    """Mark eligible questions, bool [row]: both models wrong ("added") or right ("removed") among n passages.

    BERT also completes none of the fact's statements, or all. Raises ValueError for another direction.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction = {direction!r} is not known; choose {' or '.join(DIRECTIONS)}")
    right = float(direction == "removed")
    status = [rows[column].to_numpy() == right for column in (f"probe{n}", f"match{n}", "recalled")]
    return np.logical_and.reduce(status)


class AnswerLengths(NamedTuple):
    """Lengths to match of the answers of the facts to edit, in word pieces."""

    like: Mapping[int, int]  # number of facts of each length
    of: Mapping[str, int]  # each fact's length


def choose(
    rows: pd.DataFrame,
    direction: str,
    spec: ProtocolSpec,
    seed: int,
    lengths: AnswerLengths | None = None,
) -> Chosen:
    """Draw edited facts and bystanders at random, half each of the facts with an eligible question at some N.

    At most `spec.facts` are edited, and as many are bystanders. To match the two experiments (AMB-G1'), `lengths` gives
    the lengths of their answers, as far as there are enough facts.
    Raises ValueError if fewer than two facts are eligible, or can be matched.
    """
    candidates = sorted({*rows["fact"][np.logical_or.reduce([eligible(rows, direction, n) for n in spec.choices])]})
    if len(candidates) < 2:
        raise ValueError(f"{len(candidates)} facts can be {direction}; take a larger world, or a model that knows less")
    order = [candidates[i] for i in np.random.default_rng([seed, 0x64]).permutation(len(candidates))]
    if lengths is not None:
        order = _matched(order, lengths)
    if len(order) < 2:
        raise ValueError(
            f"of {len(candidates)} facts that can be {direction}, {len(order)} have answers as long as those to match; "
            "take a larger world"
        )
    half = min(len(order) // 2, spec.facts)
    return Chosen(tuple(order[:half]), tuple(order[half : 2 * half]))


def _matched(order: Sequence[str], lengths: AnswerLengths) -> list[str]:
    """Select facts in order so that the lengths follow the shares of `like`, as long as there are enough facts."""
    of, share = lengths.of, {length: n / sum(lengths.like.values()) for length, n in lengths.like.items()}
    left = {length: [fact for fact in order if of[fact] == length] for length in sorted({*of.values()})}
    taken: Counter[int] = Counter()
    found: list[str] = []
    while any(left[length] for length in left if share.get(length)):
        open_ = [length for length in left if left[length] and share.get(length)]
        next_ = max(open_, key=lambda length: share[length] * (len(found) + 1) - taken[length])
        if share[next_] * (len(found) + 1) - taken[next_] < 0:
            break  # any further fact would distort the shares
        taken[next_] += 1
        found.append(left[next_].pop(0))
    return found


class Columns(NamedTuple):
    """One arm's row of Table 3 or 4, and columns that the paper does not report; None: no question to measure."""

    probing: Estimate | None  # share of the eligible questions on edited facts that the probe now decides as intended
    off_target_flips: Estimate  # other questions on which the probe's decision changed, a count
    dpr: Estimate | None  # share of the first column's successes in which DPR, trained from this model, succeeds too
    off_target_edits: Estimate  # other questions on which DPR's decision changed, a count
    off_target_rate: Estimate | None  # the flips as a share
    added_minus_off_target: Estimate | None  # `probing` minus that share ("removed_…" in the ids of Table 4)
    dpr_all: Estimate | None  # the third column over all eligible questions on edited facts (intention to treat)
    probing_effect: Estimate | None  # the first column minus the same for bystanders
    probing_did: Estimate | None  # the same difference in differences: minus that of the unedited model
    dpr_effect: Estimate | None  # `dpr_all` minus the same for bystanders
    dpr_did: Estimate | None
    found: Estimate | None  # top-k accuracy (k = `TOP`) on the eligible questions on edited facts
    found_effect: Estimate | None  # minus the same for bystanders
    found_did: Estimate | None


def columns(
    before: pd.DataFrame, after: pd.DataFrame, chosen: Chosen, direction: str, n: int, probe: str = "probe"
) -> Columns:
    """Compute an arm's columns from the unedited models' rows and the arm's, on the same questions.

    `before` has the unedited models' rows, `after` the arm's. `probe`: whose decision after the edit is counted, that
    of the frozen "probe" or of the "retrained" one.
    """
    _check_same(before, after)
    status = eligible(before, direction, n)
    edited, bystander = chosen.among(before)
    on, beside = status & edited, status & bystander
    fact = before["fact"].to_numpy()
    probed, match = (after[f"{what}{n}"].to_numpy() for what in (probe, "match"))
    flips, edits = probed != before[f"probe{n}"].to_numpy(), match != before[f"match{n}"].to_numpy()
    success, shown, found = _outcomes(after, direction, n, probe)
    first_success, first_shown, first_found = _outcomes(before, direction, n, probe)

    def of(values: ndarray, rows: ndarray) -> Estimate | None:
        return mean(values[rows], fact[rows]) if rows.any() else None

    def apart(values: ndarray, others: ndarray) -> Estimate | None:
        return gap(values[on], values[others], fact[on], fact[others]) if on.any() and others.any() else None

    return Columns(
        probing=of(success, on),
        off_target_flips=exact(int(flips[~on].sum())),
        dpr=of(shown, on & success),
        off_target_edits=exact(int(edits[~on].sum())),
        off_target_rate=of(flips, ~on),
        added_minus_off_target=apart(np.where(on, success, flips), ~on),
        dpr_all=of(shown, on),
        probing_effect=apart(success, beside),
        probing_did=apart(success - 1.0 * first_success, beside),
        dpr_effect=apart(shown, beside),
        dpr_did=apart(shown - 1.0 * first_shown, beside),
        found=of(found, on),
        found_effect=apart(found, beside),
        found_did=apart(found - 1.0 * first_found, beside),
    )


def _outcomes(rows: pd.DataFrame, direction: str, n: int, probe: str) -> tuple[ndarray, ndarray, ndarray]:
    """Test whether the probe decides as intended, DPR does, and the gold passage is in the first `TOP`.

    Each is bool [row].
    """
    want = direction == "added"
    decided = (rows[f"{what}{n}"].to_numpy() == want for what in (probe, "match"))
    return (*decided, rows["place"].to_numpy() < TOP)


def reach(rows: pd.DataFrame) -> Estimate:
    """Estimate how far an edit moves [CLS] of the test questions, as a share of its length.

    It is the mean over questions, with whole facts as the units that the interval resamples.
    """
    return mean(rows["moved"], rows["fact"])


def acts(arm: str, rows: pd.DataFrame) -> bool:
    """Test whether an arm can act on probe and DPR: its edit reaches [CLS], or it trains both again.

    If not, the probe decides as before, whatever the edit changed: the arm's numbers are no evidence.
    """
    return arm.startswith("reseeded") or reach(rows).value >= REACH


def agreement(x: Outcome, one: str, other: str, n: int, what: str = "probe") -> Estimate | None:
    """Compute Cohen's kappa of two arms' intended outcomes of `what` on the edited facts' eligible questions.

    0 is agreement by chance, given their two shares, 1 success on the same questions; the interval draws facts. `what`
    is "probe" or "match". None where kappa is not defined: no question, or an arm with only one outcome.
    """
    on = eligible(x.before, x.direction, n) & x.chosen.among(x.before)[0]
    a, b = (x.after[arm][f"{what}{n}"].to_numpy()[on] == (x.direction == "added") for arm in (one, other))
    if not on.any() or min(np.ptp(1.0 * a), np.ptp(1.0 * b)) == 0:
        return None
    return kappa(a, b, x.before["fact"].to_numpy()[on])


class Contrast(NamedTuple):
    """Comparison of two arms on the same questions."""

    difference: Estimate
    p: float  # exact two-sided p of McNemar's test, which treats questions as independent


def contrast(
    before: pd.DataFrame, arm: pd.DataFrame, null: pd.DataFrame, chosen: Chosen, direction: str, n: int, what: str
) -> Contrast | None:
    """Compare an arm with a null arm: shares of intended outcomes on eligible questions of edited facts.

    `what` is "probe" or "match". None without such questions.
    """
    for rows in (arm, null):
        _check_same(before, rows)
    on = eligible(before, direction, n) & chosen.among(before)[0]
    if not on.any():
        return None
    want = direction == "added"
    a, b = (rows[f"{what}{n}"].to_numpy()[on] == want for rows in (arm, null))
    return Contrast(difference(a, b, before["fact"].to_numpy()[on]), mcnemar(a, b))


def with_object(fact: Fact, object_: str) -> Fact:
    """Replace the fact's object, in the fact and in its statements: a counterfactual if the object is false."""

    def about(statement: Statement) -> Statement:
        before, after = statement.text[: statement.start], statement.text[statement.end :]
        before = re.sub(r"\b([Aa])n? $", rf"\1{'n' if object_[0].lower() in 'aeiou' else ''} ", before)
        name = object_ if before else object_[:1].upper() + object_[1:]
        return Statement(before + name + after, len(before), len(before) + len(name), statement.reserved)

    return fact._replace(object=object_, statements=tuple(about(statement) for statement in fact.statements))


def _check_same(before: pd.DataFrame, after: pd.DataFrame) -> None:
    if before["question"].tolist() != after["question"].tolist():
        raise ValueError(f"{len(before)} and {len(after)} rows are not about the same questions; judge the same ones")
