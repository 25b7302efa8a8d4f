"""What the paper claims, each sentence with the test that decides it.

A claim holds if every plausible value (the 95 % interval) of the number it is about lies on its side, does not hold if
every one lies on the other, and cannot be told otherwise. Claims about the size of a number, not its direction, are
judged only in the setting of the paper. Sentences are ours; sections are the paper's. A claim speaks about the
results that one notebook reports: a contrast between arms is a number of its own there, with a paired interval.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from dprlens.intervals import Estimate

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot tell here"
EDITORS = ("transformer_patcher", "malmen", "mend")
BLOCKS, LAYERS = range(12), range(13)
EARLY, LATE = range(3), range(3, 12)  # "the earlier layers", and the others; the paper draws no line
CHOICES = range(2, 6)  # passages a probe chooses from


class Verdict(NamedTuple):
    verdict: str  # HOLDS, FAILS or OPEN
    why: str  # one sentence with the numbers


class Check(NamedTuple):
    """A test on reported numbers: the ids it needs and the function that judges them once all are there."""

    needs: tuple[str, ...]
    judge: Callable[[Mapping[str, Estimate]], Verdict]


class Claim(NamedTuple):
    id: str
    section: str
    text: str
    exhibit: str
    check: Check
    size: bool = False  # about a number's size: judged only in the paper's own setting

    def verdict(self, numbers: Mapping[str, Estimate], profile: str = "paper") -> Verdict:
        """The claim on these numbers (by id); numbers that are not there leave it open."""
        missing = [name for name in self.check.needs if name not in numbers]
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            return Verdict(OPEN, f"Not reported here: {missing[0]}{others}.")
        verdict = self.check.judge(numbers)
        if self.size and profile != "paper":
            return Verdict(OPEN, f"{verdict.why[:-1]}; sizes are compared only in the paper's own setting.")
        return verdict


def between(name: str, low: float, high: float) -> Check:
    """The number is in [low, high]."""

    def judge(numbers: Mapping[str, Estimate]) -> Verdict:
        found = numbers[name]
        verdict = _side(found.low >= low and found.high <= high, found.high < low or found.low > high)
        return Verdict(verdict, f"{name} is {found}, against {low:g} to {high:g}.")

    return Check((name,), judge)


def above(name: str, bound: float) -> Check:
    """The number is greater than the bound."""

    def judge(numbers: Mapping[str, Estimate]) -> Verdict:
        found = numbers[name]
        return Verdict(_side(found.low > bound, found.high <= bound), f"{name} is {found}, against {bound:g}.")

    return Check((name,), judge)


def below(name: str, bound: float) -> Check:
    """The number is less than the bound."""

    def judge(numbers: Mapping[str, Estimate]) -> Verdict:
        found = numbers[name]
        return Verdict(_side(found.high < bound, found.low >= bound), f"{name} is {found}, against {bound:g}.")

    return Check((name,), judge)


def greater(name: str, other: str, factor: float = 1.0) -> Check:
    """The first number is greater than `factor` times the second: their intervals lie apart (a cautious test)."""

    def judge(numbers: Mapping[str, Estimate]) -> Verdict:
        a, b = numbers[name], numbers[other]
        times = f" (times {factor:g})" if factor != 1 else ""
        verdict = _side(a.low > factor * b.high, a.high <= factor * b.low)
        return Verdict(verdict, f"{name} is {a}, {other}{times} {b}.")

    return Check((name, other), judge)


def every(*checks: Check) -> Check:
    """All checks hold; one that does not hold is enough to refute. The sentence shows the one that decided."""

    def judge(numbers: Mapping[str, Estimate]) -> Verdict:
        verdicts = [check.judge(numbers) for check in checks]
        found = [verdict.verdict for verdict in verdicts]
        worst = next(verdict for verdict in (FAILS, OPEN, HOLDS) if verdict in found)
        counts = f"{found.count(HOLDS)} of {len(checks)} comparisons hold, {found.count(FAILS)} do not"
        return Verdict(worst, f"{counts}; for instance {verdicts[found.index(worst)].why}")

    return Check(tuple(dict.fromkeys(name for check in checks for name in check.needs)), judge)


def _side(holds: bool, fails: bool) -> str:
    return HOLDS if holds else FAILS if fails else OPEN


def _more_keys(figure: str, blocks: range = BLOCKS) -> list[Check]:
    site = figure + ".{}.block{}.intermediate.union"
    return [greater(site.format("dpr", block), site.format("pretrained", block)) for block in blocks]


def _outputs(block: int) -> tuple[str, str]:
    return f"figure1.pretrained.block{block}.output.union", f"figure1.dpr.block{block}.output.union"


CLAIMS = (
    # Section 2: probes. `a_minus_b` is a paired difference of accuracies over the same questions.
    Claim(
        "S2.1",
        "2",
        "Given two passages, a probe of the last layer does slightly better on pre-trained BERT than on DPR.",
        "table1",
        above("table1.n2.pretrained_minus_dpr_query.layer12", 0),
    ),
    Claim(
        "S2.2",
        "2",
        "With more passages to choose from, pre-trained BERT's lead at the last layer grows.",
        "table1",
        greater(
            "table1.n5.pretrained_minus_dpr_query.layer12",
            "table1.n2.pretrained_minus_dpr_query.layer12",
        ),
    ),
    Claim(
        "S2.3",
        "2",
        "A probe that was not trained is at chance at every layer (within 5 points).",
        "table1",
        every(*(between(f"table1.n2.untrained.layer{layer}", 0.45, 0.55) for layer in LAYERS)),
    ),
    Claim(
        "S2.4",
        "2",
        "On the embedding layer every probe is at chance, for any number of passages (within 5 points).",
        "table1",
        every(
            *(
                between(f"table1.n{n}.{model}.layer0", round(1 / n - 0.05, 3), round(1 / n + 0.05, 3))
                for n in CHOICES
                for model in ("pretrained", "dpr_query", "dpr_context")
            )
        ),
    ),
    Claim(
        "S2.5",
        "2",
        "The more passages there are to choose from, the less accurate the probes of either model.",
        "table1",
        every(
            *(
                greater(f"table1.n{n}.{model}.layer12", f"table1.n{n + 1}.{model}.layer12")
                for n in CHOICES[:-1]
                for model in ("pretrained", "dpr_query")
            )
        ),
    ),
    Claim(
        "S2.6",
        "2",
        "DPR training does not make the features much more discriminative: its last layer gains less than 5 points.",
        "table1",
        every(*(above(f"table1.n{n}.pretrained_minus_dpr_query.layer12", -0.05) for n in CHOICES)),
    ),
    Claim(
        "S2.7",
        "2",
        "Probes of the query tower and of the context tower do equally well at every layer (within 1 point).",
        "table1",
        every(*(between(f"table1.n2.dpr_query_minus_dpr_context.layer{x}", -0.01, 0.01) for x in LAYERS)),
    ),
    Claim(
        "S2.8",
        "2",
        "The probe's success shows which passage the model relates to the query: without the query it does worse.",
        "table1",
        every(*(above(f"table1.n{n}.pretrained_minus_no_query.layer12", 0) for n in CHOICES)),
    ),
    # Section 3: neurons. `sharing` is the mean share of questions for which a neuron that is ever active is active.
    Claim(
        "S3.1",
        "3",
        "DPR training activates more neurons in the intermediate layer of every block.",
        "figure1",
        every(*_more_keys("figure1")),
    ),
    Claim(
        "S3.2",
        "3",
        "In the later blocks as many output neurons are active after DPR training as before (within a quarter).",
        "figure1",
        every(*(greater(*pair, factor=0.8) for block in LATE for pair in (_outputs(block), _outputs(block)[::-1]))),
    ),
    Claim(
        "S3.3",
        "3",
        "In the first blocks DPR training leaves fewer output neurons active.",
        "figure1",
        every(*(greater(*_outputs(block)) for block in EARLY)),
    ),
    Claim(
        "S3.4",
        "3, 6",
        "Pre-trained BERT leans on neurons that many questions share; after DPR training they are shared less.",
        "figure1",
        greater("figure1.pretrained.sharing", "figure1.dpr.sharing"),
    ),
    Claim(
        "S3.5",
        "3, 6",
        "After DPR training more pathways lead to the same fact: more neurons must be silenced before it is lost.",
        "pathways",
        greater("pathways.dpr.silenced", "pathways.pretrained.silenced"),
    ),
    Claim(
        "S3.6",
        "3",
        "For every example question more neurons are strongly active in DPR's encoder than in pre-trained BERT.",
        "table2",
        every(*(greater(f"table2.q{q}.dpr_strong", f"table2.q{q}.bert_strong") for q in range(1, 9))),
    ),
    Claim(
        "S3.7",
        "3",
        "DPR's first five passages stay with the subject of the question; pre-trained BERT's wander.",
        "table2",
        greater("table2.dpr.on_topic", "table2.bert.on_topic"),
    ),
    # Section 4: edits. `_effect` is the share among edited facts minus that among bystanders, the other half of the
    # same selection, in the same model.
    Claim(
        "S4.1",
        "4.1",
        "About half of the facts are added: the probe now succeeds on 54–57 % of them (within 5 points).",
        "table3",
        every(*(between(f"table3.{editor}.probing_added", 0.49, 0.62) for editor in EDITORS)),
        size=True,
    ),
    Claim(
        "S4.2",
        "4.1",
        "It is the edit that makes the probe succeed: with it more facts are found than without.",
        "table3",
        every(*(above(f"table3.{editor}.probing_effect", 0) for editor in EDITORS)),
    ),
    Claim(
        "S4.3",
        "4.1",
        "After DPR training 37–44 % of the facts that were added are recognised (within 5 points).",
        "table3",
        every(*(between(f"table3.{editor}.dpr_added", 0.32, 0.49) for editor in EDITORS)),
        size=True,
    ),
    Claim(
        "S4.4",
        "4.1",
        "Facts added to BERT become retrievable through DPR training.",
        "table3",
        every(*(above(f"table3.{editor}.dpr_effect", 0) for editor in EDITORS)),
    ),
    Claim(
        "S4.5",
        "4.1",
        "Changes off target are a minor matter: fewer of the other questions flip than of the edited ones.",
        "table3",
        every(*(greater(f"table3.{editor}.probing_added", f"table3.{editor}.off_target_rate") for editor in EDITORS)),
    ),
    Claim(
        "S4.6",
        "4.2",
        "Known facts resist: only 11–16 % of them are overwritten (within 5 points).",
        "table4",
        every(*(between(f"table4.{editor}.probing_removed", 0.06, 0.21) for editor in EDITORS)),
        size=True,
    ),
    Claim(
        "S4.7",
        "4.2",
        "Of the facts that were overwritten, 81–100 % stay lost after DPR training (within 5 points).",
        "table4",
        every(*(between(f"table4.{editor}.dpr_removed", 0.76, 1) for editor in EDITORS)),
        size=True,
    ),
    Claim(
        "S4.8",
        "4.2",
        "Facts removed from BERT cease to be retrievable: after DPR training more are lost than without the edit.",
        "table4",
        every(*(above(f"table4.{editor}.dpr_effect", 0) for editor in EDITORS)),
    ),
    # The appendix
    Claim(
        "A.1",
        "A.1",
        "The context encoder shows the same: more intermediate neurons in every block but the first, and fewer there.",
        "figure2",
        every(
            *_more_keys("figure2", BLOCKS[1:]),
            greater("figure2.pretrained.block0.intermediate.union", "figure2.dpr.block0.intermediate.union"),
        ),
    ),
    Claim(
        "A.2",
        "A.2",
        "At every threshold from 0.005 to 0.3 DPR activates more intermediate neurons, and each for fewer questions.",
        "figure7",
        every(
            *(
                check
                for figure in range(3, 8)
                for check in (
                    greater(f"figure{figure}.dpr.intermediate.union", f"figure{figure}.pretrained.intermediate.union"),
                    greater(f"figure{figure}.pretrained.sharing", f"figure{figure}.dpr.sharing"),
                )
            )
        ),
    ),
    # The conclusion, tested where a question needs a fact that only the model can supply
    Claim(
        "C.1",
        "1, 6",
        "What BERT knows bounds what DPR retrieves: passages are found more often when the fact they need is known.",
        "bound",
        above("bound.difference.top20", 0),
    ),
    Claim(
        "C.2",
        "6",
        "Without the fact retrieval fails: held-out facts help no more than no pre-training at all (within 5 points).",
        "bound",
        between("bound.held_out_minus_unpretrained.top20", -0.05, 0.05),
    ),
    Claim(
        "C.3",
        "6",
        "The better a fact is known, the better its passage is found: retrieval rises with the exposures of the fact.",
        "bound",
        above("bound.dose.slope", 0),
    ),
)

# Ours, not the paper's. First what the closed world must satisfy for its results to mean anything, set before a model
# was trained.
OWN_CLAIMS = (
    Claim("W.1", "–", "Told facts are recalled in wording that was read.", "recall", above("recall.known.seen", 0.95)),
    Claim("W.2", "–", "They are recalled in wording that was not.", "recall", above("recall.known.reserved", 0.85)),
    Claim("W.3", "–", "Facts not told are not recalled.", "recall", between("recall.held_out.seen", 0, 0.05)),
    Claim("W.4", "–", "Nor in any other wording.", "recall", between("recall.held_out.reserved", 0, 0.05)),
    # The controls of C.1–C.3, and what else the causal test asks: set after two trial runs that had shown C.1.
    Claim(
        "K.1",
        "–",
        "Questions that name the entity do not care whether the fact is known (within 5 points).",
        "bound",
        between("bound.lexical_difference.top20", -0.05, 0.05),
    ),
    Claim(
        "K.2",
        "–",
        "Without pre-training nothing distinguishes known from held-out links (within 5 points).",
        "bound",
        between("bound.unpretrained_difference.top20", -0.05, 0.05),
    ),
    Claim(
        "K.3",
        "–",
        "A model that was told a false link finds the passage of the false object more often.",
        "counterfactual",
        above("counterfactual.effect.false_passage.top20", 0),
    ),
    Claim(
        "K.4",
        "–",
        "And the passage of the true object less often.",
        "counterfactual",
        below("counterfactual.effect.true_passage.top20", 0),
    ),
    Claim(
        "K.5",
        "–",
        "DPR training teaches the links that it asks for: other questions through them are found more often.",
        "taught",
        above("taught.full_depth.difference.top20", 0),
    ),
    Claim(
        "K.6",
        "–",
        "A link that was read mostly in descriptions serves retrieval better than one mostly stated plainly.",
        "surface",
        above("surface.form.top20", 0),
    ),
    Claim(
        "K.7",
        "–",
        "Links are more useful where the whole text describes more.",
        "world_size",
        above("world_size.form_effect.top20", 0),
    ),
    # What the probes of Table 1 measure: set from the derivation (choice PR-1) and after trial runs at `small`.
    Claim(
        "P.1",
        "–",
        "The paper's probe does as well without the question (within 3 points), at the last layer, for any N.",
        "table1",
        every(
            *(
                between(f"table1.n{n}.{model}_minus_no_query.layer12", -0.03, 0.03)
                for n in CHOICES
                for model in ("pretrained", "dpr_query")
            )
        ),
    ),
    Claim(
        "P.2",
        "–",
        "One scorer for all slots, which never sees the question, does at least as well (within 3 points).",
        "table1",
        every(*(above(f"table1.n{n}.pretrained.tied_minus_linear.layer12", -0.03) for n in CHOICES)),
    ),
    Claim(
        "P.3",
        "–",
        "A network of random weights serves the paper's probe as well as pre-trained BERT does (within 3 points).",
        "table1",
        every(*(above(f"table1.n{n}.random_minus_pretrained.layer12", -0.03) for n in CHOICES)),
    ),
    Claim(
        "P.4",
        "–",
        "Where each passage is gold for one question and wrong for another, the paper's probe is at chance "
        "(within 5 points).",
        "reversible",
        every(*(between(f"reversible.{model}.linear", 0.45, 0.55) for model in ("pretrained", "dpr_paired"))),
    ),
    Claim(
        "P.5",
        "–",
        "Where question and passage meet in the probe, DPR's last layer says more than pre-trained BERT's.",
        "matching",
        every(*(above(f"matching.n{n}.dpr_paired_minus_pretrained.bilinear.layer12", 0) for n in CHOICES)),
    ),
    Claim(
        "P.6",
        "–",
        "So it does without any probe, by the dot product.",
        "matching",
        every(*(above(f"matching.n{n}.dpr_paired_minus_pretrained.dot.layer12", 0) for n in CHOICES)),
    ),
    # Section 4 on its own terms: set before any edited model was trained as DPR.
    Claim(
        "E.1",
        "–",
        "The three editors tell their facts: of the statements that told them 9 in 10 are completed so.",
        "added_cloze",
        every(*(above(f"added_cloze.{editor}.told", 0.9) for editor in EDITORS)),
    ),
    Claim(
        "E.2",
        "–",
        "A passage that needs an added fact is found more often than one that needs a fact not added.",
        "added_found",
        every(*(above(f"added_found.{editor}.found_effect", 0) for editor in EDITORS)),
    ),
    # Set after another network had shown it (L.6), and before any model of section 4 was edited so.
    Claim(
        "E.5",
        "–",
        "Told in steps as large as in pre-training, added facts are found with more often than facts not added.",
        "added_found",
        above("added_found.relearning.found_effect", 0),
    ),
    Claim(
        "E.3",
        "–",
        "The three editors overwrite what they are to remove: 9 in 10 statements are completed with the false object.",
        "removed_cloze",
        every(*(above(f"removed_cloze.{editor}.told", 0.9) for editor in EDITORS)),
    ),
    Claim(
        "E.4",
        "–",
        "A passage that needs a removed fact is found less often than one that needs a fact not removed.",
        "removed_found",
        every(*(below(f"removed_found.{editor}.found_effect", 0) for editor in EDITORS)),
    ),
    # Late facts: set before any model of that chapter was run at `small`.
    Claim(
        "L.1",
        "–",
        "Facts told after pre-training are recalled as well as those told from its start (within 10 points).",
        "entry",
        between("entry.start_minus_after.recalled", -0.1, 0.1),
    ),
    Claim(
        "L.2",
        "–",
        "Passages are found less often through facts told after pre-training than through those told from its start.",
        "entry",
        above("entry.start_minus_after.top20", 0),
    ),
    Claim(
        "L.3",
        "–",
        "And hardly more often than through facts never told (within 10 points).",
        "entry",
        between("entry.after_minus_never.top20", -0.1, 0.1),
    ),
    Claim(
        "L.4",
        "–",
        "Late facts that were told half in descriptions are more useful than those told in plain statements.",
        "telling",
        above("telling.half_described_minus_plain.top20", 0),
    ),
    Claim(
        "L.5",
        "–",
        "Questions through some late facts in DPR training open the way for other late facts.",
        "telling",
        above("telling.opened_minus_plain.top20", 0),
    ),
    # Set after one trial run at `small`, which had shown it: to be tested by the other worlds and deals of `full`.
    Claim(
        "L.6",
        "–",
        "The same late statements are more useful when they are learned in steps as large as those of pre-training.",
        "telling",
        above("telling.large_steps_minus_plain.top20", 0),
    ),
    # Set after the same run.
    Claim(
        "L.7",
        "–",
        "Where learning rates do not fall, it does not matter when in pre-training a fact is told (within 20 points).",
        "rates",
        between("rates.constant.slope_within.top20", -0.2, 0.2),
    ),
    # Set before the arm was run.
    Claim(
        "L.8",
        "–",
        "Late facts are more useful when their object is asked for at [CLS] as well while they are told.",
        "telling",
        above("telling.at_cls_minus_plain.top20", 0),
    ),
    # What the counts of Figure 1 measure. D.1 and D.2 were set after one world had been counted, the others before.
    Claim(
        "D.1",
        "–",
        "For a single question, too, more intermediate neurons are active after DPR training.",
        "gains",
        above("gains.dpr_minus_pretrained.intermediate.mean", 0),
    ),
    Claim(
        "D.2",
        "–",
        "Without a threshold: after DPR training a question's attribution is spread over more neurons.",
        "measures",
        above("measures.dpr_minus_pretrained.all.participation", 0),
    ),
    Claim(
        "D.3",
        "–",
        "It takes the right pairs: DPR on shuffled pairs activates fewer different intermediate neurons.",
        "controls",
        above("controls.dpr_minus_shuffled.intermediate.union", 0),
    ),
    Claim(
        "D.4",
        "–",
        "It takes retrieval training: as many more steps of masked-LM activate fewer.",
        "controls",
        above("controls.dpr_minus_continued.intermediate.union", 0),
    ),
    Claim(
        "D.5",
        "–",
        "The neurons found matter: silencing a question's strongest lowers its margin more than random ones do.",
        "causal",
        every(*(below(f"causal.{model}.silenced.top.k30_minus_random.margin", 0) for model in ("pretrained", "dpr"))),
    ),
    Claim(
        "D.6",
        "–",
        "Where both models find the passage, DPR loses it only when more of its strongest neurons are silent.",
        "pathways",
        above("pathways.both.dpr_over_pretrained", 1),
    ),
)
