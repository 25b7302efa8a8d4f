"""Section 2: what probes of frozen features tell (Table 1).

`a_minus_b` is a paired difference of accuracies over the same questions, `…_of_signal` the same as a share of what b
has above chance. Margins of equivalence are shares of that signal: five points are much where a probe is four points
above chance, and little where it is forty.
"""

from dprlens.paper.claims.claim import CHOICES, LAST, LAYERS, Claim
from dprlens.paper.rules import above, below, between, every

MARGIN = 0.25  # of the signal above chance: what still counts as "about the same"
LINEAR = (
    "The paper's probe is linear in the question and in each passage, so at its optimum the question plays no part: "
    "its accuracy says how much a passage looks like a gold one."
)

CLAIMS = (
    Claim(
        id="S2.1",
        section="2",
        text="Given two passages, a probe of the last layer does slightly better on pre-trained BERT than on DPR.",
        exhibit="table1",
        check=above(f"table1.n2.pretrained_minus_dpr_query.{LAST}", 0),
        across=above(f"worlds.n2.pretrained_minus_dpr_query.linear.{LAST}", 0),
        objection=f"{LINEAR} In one world the lead also hangs on the strength of the probe's penalty.",
    ),
    Claim(
        id="S2.2",
        section="2",
        text="With more passages to choose from, pre-trained BERT's lead at the last layer grows.",
        exhibit="table1",
        check=above(f"table1.n5_minus_n2.pretrained_minus_dpr_query.{LAST}", 0),
        across=above(f"worlds.n5_minus_n2.pretrained_minus_dpr_query.linear.{LAST}", 0),
        objection="The paper shows the growth at the last layer only; chance falls with the number of passages.",
    ),
    Claim(
        id="S2.3",
        section="2",
        text="A probe that was not trained is at chance at every layer (within 5 points).",
        exhibit="table1",
        check=every(*(between(f"table1.n2.untrained.layer{layer}", 0.45, 0.55) for layer in LAYERS)),
        objection="True of any scorer with random weights and random slots; it says nothing about the features.",
    ),
    Claim(
        id="S2.4",
        section="2",
        text="On the embedding layer every probe is at chance, for any number of passages (within 5 points).",
        exhibit="table1",
        check=every(
            *(
                between(f"table1.n{n}.{model}.layer0", round(1 / n - 0.05, 3), round(1 / n + 0.05, 3))
                for n in CHOICES
                for model in ("pretrained", "dpr_query", "dpr_context")
            )
        ),
        objection="At the embedding layer [CLS] is the same vector for every text: it cannot be otherwise.",
    ),
    Claim(
        id="S2.5",
        section="2",
        text="The more passages there are to choose from, the less accurate the probes of either model.",
        exhibit="table1",
        check=every(
            *(
                above(f"table1.n{n}_minus_n{n + 1}.{model}.{LAST}", 0)
                for n in CHOICES[:-1]
                for model in ("pretrained", "dpr_query")
            )
        ),
        objection="Chance falls with the number of passages too (1/2 to 1/5); so it is for any probe.",
    ),
    Claim(
        id="S2.6",
        section="2",
        text="DPR training does not make the features much more discriminative: the probe of its last layer gains less "
        "than a quarter of what pre-trained BERT's has above chance.",
        exhibit="table1",
        check=every(*(below(f"table1.n{n}.dpr_query_minus_pretrained_of_signal.{LAST}", MARGIN) for n in CHOICES)),
        across=every(
            *(below(f"worlds.n{n}.dpr_query_minus_pretrained_of_signal.linear.{LAST}", MARGIN) for n in (2, 5))
        ),
        objection=f"{LINEAR} Where question and passage meet, the same features gain (claims P.5 and P.6).",
    ),
    Claim(
        id="S2.7",
        section="2",
        text="Probes of the query tower and of the context tower do equally well at the last layer (within a quarter "
        "of the signal).",
        exhibit="table1",
        check=every(
            *(between(f"table1.n{n}.dpr_context_minus_dpr_query_of_signal.{LAST}", -MARGIN, MARGIN) for n in CHOICES)
        ),
        across=every(
            *(
                between(f"worlds.n{n}.dpr_context_minus_dpr_query_of_signal.linear.{LAST}", -MARGIN, MARGIN)
                for n in (2, 5)
            )
        ),
        objection="The paper prints one row for both towers and no interval; the margin is ours.",
    ),
    Claim(
        id="S2.8",
        section="2",
        text="The probe's success shows which passage the model relates to the query: without the query it does worse.",
        exhibit="table1",
        check=every(*(above(f"table1.n{n}.pretrained_minus_no_query.{LAST}", 0) for n in CHOICES)),
        across=every(*(above(f"worlds.n{n}.pretrained_minus_no_query.linear.{LAST}", 0) for n in (2, 5))),
        objection="Hard negatives here come from BM25 in a regular world; with other negatives a gold passage may look "
        "less like one, and the share that the question adds could differ.",
    ),
    Claim(
        id="S2.9",
        section="2",
        text="What it takes to tell the passages apart is there before DPR training: the probe does better on "
        "pre-trained BERT than on a network of random weights.",
        exhibit="table1",
        check=every(*(below(f"table1.n{n}.random_minus_pretrained.{LAST}", 0) for n in CHOICES)),
        across=every(*(below(f"worlds.n{n}.random_minus_pretrained.linear.{LAST}", 0) for n in (2, 5))),
        objection="Random features of a text keep its words, which is what this probe can use; the paper has no such "
        "control.",
    ),
    Claim(
        id="S2.10",
        section="2",
        text="The awareness of which facts are relevant comes from the model's knowledge of the subject.",
        experiment="Table 1 split by lexical questions, known and held-out links, with cross-fitted probes, over "
        "several worlds.",
        objection="Table 1 pools questions that need knowledge with questions that need none.",
    ),
    Claim(
        id="S2.11",
        section="2",
        text="As the number of passages grows, pre-trained BERT's lead widens to about 6 %.",
        exhibit="table1",
        check=between(f"table1.n5.pretrained_minus_dpr_query.{LAST}", 0.05, 0.07),
        size=True,
        objection="No difference at the last layer in the paper's own Table 1 is 6 points.",
    ),
)

# What the probes of Table 1 measure: set from the derivation (choice PR-1) and after trial runs at `small`.
OWN_CLAIMS = (
    Claim(
        id="P.1",
        section="–",
        text="The paper's probe does as well without the question (within a quarter of the signal), at the last layer, "
        "for any number of passages.",
        exhibit="table1",
        check=every(
            *(
                between(f"table1.n{n}.{model}_minus_no_query_of_signal.{LAST}", -MARGIN, MARGIN)
                for n in CHOICES
                for model in ("pretrained", "dpr_query")
            )
        ),
        across=every(
            *(
                between(f"worlds.n{n}.{model}_minus_no_query_of_signal.linear.{LAST}", -MARGIN, MARGIN)
                for n in (2, 5)
                for model in ("pretrained", "dpr_query")
            )
        ),
        objection="Equal accuracy at its optimum is a theorem; what is measured is only what a finite sample adds.",
    ),
    Claim(
        id="P.2",
        section="–",
        text="One scorer for all slots, which never sees the question, does at least as well (within a quarter of the "
        "signal).",
        exhibit="table1",
        check=every(*(above(f"table1.n{n}.pretrained.tied_minus_linear_of_signal.{LAST}", -MARGIN) for n in CHOICES)),
        across=every(*(above(f"worlds.n{n}.pretrained.tied_minus_linear_of_signal.{LAST}", -MARGIN) for n in (2, 5))),
        objection="It has fewer weights, so part of its lead is less overfitting.",
    ),
    Claim(
        id="P.3",
        section="–",
        text="A network of random weights serves the paper's probe as well as pre-trained BERT does (within a quarter "
        "of the signal).",
        exhibit="table1",
        check=every(*(above(f"table1.n{n}.random_minus_pretrained_of_signal.{LAST}", -MARGIN) for n in CHOICES)),
        across=every(*(above(f"worlds.n{n}.random_minus_pretrained_of_signal.linear.{LAST}", -MARGIN) for n in (2, 5))),
        objection="A small network in a world of few words; on real text random features may serve less.",
    ),
    Claim(
        id="P.4",
        section="–",
        text="Where each passage is gold for one question and wrong for another, the paper's probe is at chance "
        "(within 5 points).",
        exhibit="reversible",
        check=every(*(between(f"reversible.{model}.linear", 0.45, 0.55) for model in ("pretrained", "dpr_paired"))),
        objection="So it must be, for any features: it shows what the probe cannot use, not what the network lacks.",
    ),
    Claim(
        id="P.5",
        section="–",
        text="Where question and passage meet in the probe, DPR's last layer says more than pre-trained BERT's.",
        exhibit="matching",
        check=every(*(above(f"matching.n{n}.dpr_paired_minus_pretrained.bilinear.{LAST}", 0) for n in CHOICES)),
        across=every(*(above(f"worlds.n{n}.dpr_paired_minus_pretrained.bilinear.{LAST}", 0) for n in (2, 5))),
        objection="It pools lexical questions with known and held-out links, for which the sign may differ.",
    ),
    Claim(
        id="P.6",
        section="–",
        text="So it does without any probe, by the dot product.",
        exhibit="matching",
        check=every(*(above(f"matching.n{n}.dpr_paired_minus_pretrained.dot.{LAST}", 0) for n in CHOICES)),
        across=every(*(above(f"worlds.n{n}.dpr_paired_minus_pretrained.dot.{LAST}", 0) for n in (2, 5))),
        objection="DPR is trained on this dot product, and pre-trained BERT on nothing like it.",
    ),
)
