"""Our own claims about the closed world (W) and about facts that enter late (L)."""

from dprlens.paper.claims.claim import Claim
from dprlens.paper.rules import above, between

TWO = "Two networks an arm in the record; the interval is over facts, not over trainings."

# What the closed world must satisfy for its results to mean anything, set before a model was trained.
WORLD = (
    Claim(
        id="W.1",
        section="–",
        text="Stated facts are recalled in wording that was read.",
        exhibit="recall",
        check=above("recall.known.seen", 0.95),
        objection="One world and network.",
    ),
    Claim(
        id="W.2",
        section="–",
        text="They are recalled in wording that was not.",
        exhibit="recall",
        check=above("recall.known.reserved", 0.85),
        objection="Two reserved wordings a relation, from the same generator.",
    ),
    Claim(
        id="W.3",
        section="–",
        text="Held-out facts are not recalled.",
        exhibit="recall",
        check=between("recall.held_out.seen", 0, 0.05),
        objection="Some are guessed: relations differ in how many objects they have.",
    ),
    Claim(
        id="W.4",
        section="–",
        text="Nor in any other wording.",
        exhibit="recall",
        check=between("recall.held_out.reserved", 0, 0.05),
        objection="The same as for W.3.",
    ),
)

# Late facts: set before any model of that chapter was run at `small`.
LATE = (
    Claim(
        id="L.1",
        section="–",
        text="Facts stated after pre-training are recalled as well as those stated from its start (within 10 points).",
        exhibit="entry",
        check=between("entry.start_minus_after.recalled", -0.1, 0.1),
        objection="Recall is near its ceiling on both sides.",
    ),
    Claim(
        id="L.2",
        section="–",
        text="Passages are retrieved less often through facts stated after pre-training than through those stated from "
        "its start.",
        exhibit="entry",
        check=above("entry.start_minus_after.top20", 0),
        objection="Time is confounded with step size: the learning rate has fallen when late facts are read (claims "
        "L.6 and L.7).",
    ),
    Claim(
        id="L.3",
        section="–",
        text="And hardly more often than through facts never stated (within 10 points).",
        exhibit="entry",
        check=between("entry.after_minus_never.top20", -0.1, 0.1),
        objection="The margin is a quarter of what facts stated from the start gain.",
    ),
    Claim(
        id="L.4",
        section="–",
        text="Late facts that were stated half in descriptions are more useful than those in plain statements.",
        exhibit="telling",
        check=above("telling.half_described_minus_plain.top20", 0),
        objection=f"{TWO} Descriptions contain the answer of the test question.",
    ),
    Claim(
        id="L.5",
        section="–",
        text="Questions through some late facts in DPR training open the way for other late facts.",
        exhibit="telling",
        check=above("telling.opened_minus_plain.top20", 0),
        objection=TWO,
    ),
    # Set after one trial run at `small`, which had shown it: to be tested by the other worlds and deals of `full`.
    Claim(
        id="L.6",
        section="–",
        text="The same late statements are more useful when they are learned in steps as large as those of "
        "pre-training.",
        exhibit="telling",
        check=above("telling.large_steps_minus_plain.top20", 0),
        objection=f"{TWO} Optimiser, rate and distance moved differ together, and what it costs other facts is not "
        "shown.",
    ),
    # Set after the same run.
    Claim(
        id="L.7",
        section="–",
        text="Where learning rates do not fall, it does not matter when in pre-training a fact is stated (within 20 "
        "points).",
        exhibit="rates",
        check=between("rates.constant.slope_within.top20", -0.2, 0.2),
        objection="Half of the effect would still count as none: the margin is wide.",
    ),
    # Set before the arm was run.
    Claim(
        id="L.8",
        section="–",
        text="Late facts are more useful when their object is predicted at [CLS] as well while they are stated.",
        exhibit="telling",
        check=above("telling.at_cls_minus_plain.top20", 0),
        objection=TWO,
    ),
)
