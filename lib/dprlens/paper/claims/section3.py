"""Section 3 and the appendix: active neurons (Figures 1–7, Table 2), and what the counts measure.

`sharing` is the mean share of the other questions for which an active neuron is active as well. Differences and ratios
are paired over the same questions; over worlds, ratios to pre-trained BERT.
"""

from dprlens.paper.claims.claim import BLOCKS, EARLY, LATE, Claim
from dprlens.paper.rules import Check, above, below, between, every

COUNT = "A neuron counts when it is active for any question, so the number grows with the questions asked."


def _more_keys(figure: str, blocks: range = BLOCKS) -> list[Check]:
    return [above(f"{figure}.dpr_minus_pretrained.block{block}.intermediate.union", 0) for block in blocks]


CLAIMS = (
    Claim(
        id="S3.1",
        section="3",
        text="DPR training activates more neurons in the intermediate layer of every block.",
        exhibit="figure1",
        check=every(*_more_keys("figure1")),
        across=every(*(above(f"ratios.dpr_over_pretrained.block{block}.intermediate.union", 1) for block in BLOCKS)),
        objection=f"{COUNT} That a single question uses more is not shown (claim D.1).",
    ),
    Claim(
        id="S3.2",
        section="3",
        text="In the later blocks as many output neurons are active after DPR training as before (within a quarter).",
        exhibit="figure1",
        check=every(*(between(f"figure1.dpr_over_pretrained.block{b}.output.union", 0.8, 1.25) for b in LATE)),
        across=every(*(between(f"ratios.dpr_over_pretrained.block{b}.output.union", 0.8, 1.25) for b in LATE)),
        objection="The paper draws the counts and names no margin; the quarter is ours.",
    ),
    Claim(
        id="S3.3",
        section="3",
        text="In the first blocks DPR training leaves fewer output neurons active.",
        exhibit="figure1",
        check=every(*(below(f"figure1.dpr_minus_pretrained.block{b}.output.union", 0) for b in EARLY)),
        across=every(*(below(f"ratios.dpr_over_pretrained.block{b}.output.union", 1) for b in EARLY)),
        objection="The first three blocks are our reading of the paper's earlier layers.",
    ),
    Claim(
        id="S3.4",
        section="3, 6",
        text="Pre-trained BERT leans on neurons that many questions share; after DPR training they are shared less.",
        exhibit="figure1",
        check=below("figure1.dpr_minus_pretrained.sharing", 0),
        across=below("ratios.dpr_over_pretrained.sharing", 1),
        objection="A small difference; whether shared neurons carry facts or grammar is not asked.",
    ),
    Claim(
        id="S3.5",
        section="3, 6",
        text="After DPR training more pathways lead to the same fact: of questions that need a fact and whose passage "
        "both models retrieve, pre-trained BERT loses it first as their strongest neurons are silenced.",
        exhibit="pathways",
        check=above("pathways.knowledge_required.dpr_outlasts_pretrained", 0.5),
        objection="Few questions that need a fact are answered by both models, a larger margin also outlasts "
        "silencing, and only [CLS] is silenced, which leaves names their way by attention.",
    ),
    Claim(
        id="S3.6",
        section="3",
        text="For a question more neurons are strongly active in DPR's encoder than in pre-trained BERT (for more than "
        "half of the questions).",
        exhibit="table2",
        check=above("table2.more_strong", 0.5),
        objection="The paper shows eight questions and says for every one; strong is relative to each question's own "
        "greatest attribution.",
    ),
    Claim(
        id="S3.7",
        section="3",
        text="DPR's first five passages stay with the subject of the question; pre-trained BERT's wander.",
        exhibit="table2",
        check=above("table2.dpr_minus_bert.on_topic", 0),
        objection="Pre-trained BERT was never trained to compare vectors: any retriever would do so.",
    ),
    Claim(
        id="S3.8",
        section="3",
        text="Differently worded, related text triggers the same neurons after DPR training.",
        experiment="Overlap of active neurons between wordings of one question and between questions about one "
        "fact, against questions about other facts, before and after DPR training.",
        objection="Figure 1 counts neurons and never compares two wordings.",
    ),
    Claim(
        id="S3.9",
        section="6",
        text="Query and passage activate shared memories, and retrieval hinges on their being the same.",
        experiment="Overlap of active neurons between a question and its passage against other passages, and "
        "patching what both share.",
        objection="The paper attributes queries and passages apart and never lays them side by side.",
    ),
    Claim(
        id="A.1",
        section="A.1",
        text="The context encoder shows the same: more intermediate neurons in every block but the first, and fewer "
        "there.",
        exhibit="figure2",
        check=every(
            *_more_keys("figure2", BLOCKS[1:]),
            below("figure2.dpr_minus_pretrained.block0.intermediate.union", 0),
        ),
        objection=f"{COUNT} One world and network.",
    ),
    Claim(
        id="A.2",
        section="A.2",
        text="At every threshold from 0.005 to 0.3 DPR activates more intermediate neurons, and each for fewer "
        "questions.",
        exhibit="figure7",
        check=every(
            *(
                check
                for figure in range(3, 8)
                for check in (
                    above(f"figure{figure}.dpr_minus_pretrained.intermediate.union", 0),
                    below(f"figure{figure}.dpr_minus_pretrained.sharing", 0),
                )
            )
        ),
        objection=f"{COUNT} One world and network.",
    ),
    Claim(
        id="S7.1",
        section="7",
        text="Enhanced retrievers behave alike: what is found in DPR holds for other training and pooling.",
        experiment="Sections 2 and 3 on retrievers with other negatives, pooling and objectives (Contriever, RetroMAE, "
        "late interaction), over depth and width.",
        objection="The independent replication reports otherwise for mean pooling (Contriever) and for a decoder "
        "(LLaMA).",
    ),
)

# What the counts of Figure 1 measure. D.1 and D.2 were set after one world had been counted, the others before.
OWN_CLAIMS = (
    Claim(
        id="D.1",
        section="–",
        text="For a single question, too, more intermediate neurons are active after DPR training.",
        exhibit="gains",
        check=above("gains.dpr_minus_pretrained.intermediate.mean", 0),
        across=above("ratios.dpr_over_pretrained.intermediate.active", 1),
        objection="Active means above a tenth of the question's greatest attribution: one outlier lowers the count.",
    ),
    Claim(
        id="D.2",
        section="–",
        text="Without a threshold: after DPR training a question's attribution is spread over more neurons.",
        exhibit="measures",
        check=above("measures.dpr_minus_pretrained.all.participation", 0),
        across=above("ratios.dpr_over_pretrained.participation", 1),
        objection="Spread of attribution is not a number of independent ways to a fact.",
    ),
    Claim(
        id="D.3",
        section="–",
        text="It takes the right pairs: DPR on shuffled pairs activates fewer different intermediate neurons.",
        exhibit="controls",
        check=above("controls.dpr_minus_shuffled.intermediate.union", 0),
        across=above("ratios.dpr_over_shuffled.intermediate.union", 1),
        objection="One training of each a world.",
    ),
    Claim(
        id="D.4",
        section="–",
        text="It takes retrieval training: as many more steps of masked-LM activate fewer.",
        exhibit="controls",
        check=above("controls.dpr_minus_continued.intermediate.union", 0),
        across=above("ratios.dpr_over_continued.intermediate.union", 1),
        objection="One training of each a world.",
    ),
    Claim(
        id="D.5",
        section="–",
        text="The neurons found matter: silencing a question's strongest lowers its margin more than random ones do.",
        exhibit="causal",
        check=every(
            *(below(f"causal.{model}.silenced.top.k30_minus_random.margin", 0) for model in ("pretrained", "dpr"))
        ),
        objection="Random neurons of the same blocks are mostly idle; a stricter null would match their activity.",
    ),
    Claim(
        id="D.6",
        section="–",
        text="DPR on shuffled pairs, which never learned to retrieve, does not outlast pre-trained BERT.",
        exhibit="pathways",
        check=below("pathways.lexical.shuffled_outlasts_pretrained", 0.5),
        objection="Few questions are answered by both; where they are, margins differ too.",
    ),
)
