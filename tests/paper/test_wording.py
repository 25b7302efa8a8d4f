"""Number ids in a reader's words."""

import pytest

from dprlens.paper import CLAIMS, OWN_CLAIMS
from dprlens.paper._wording import describe

NEEDED = sorted(
    {id_ for claim in (*CLAIMS, *OWN_CLAIMS) for id_ in (*claim.needs, *(claim.across.needs if claim.across else ()))}
)


@pytest.mark.parametrize(
    ("id_", "words"),
    [
        (
            "table1.n2.pretrained_minus_dpr_query.layer12",
            "probe accuracy, with 2 passages, layer 12: pre-trained BERT minus DPR's query tower (difference of"
            " shares)",
        ),
        (
            "table1.n5_minus_n2.pretrained_minus_dpr_query.layer12",
            "probe accuracy, layer 12: with 5 passages minus with 2 passages; pre-trained BERT minus DPR's query tower"
            " (difference of shares)",
        ),
        (
            "worlds.n2.random_minus_pretrained_of_signal.linear.layer12",
            "probe accuracy, mean over worlds, with 2 passages, the paper's linear probe, layer 12: random weights"
            " minus pre-trained BERT (difference as a share of what the second has above chance)",
        ),
        (
            "figure1.dpr_over_pretrained.block3.output.union",
            "different neurons active for any question, block 3, output layer: DPR over pre-trained BERT (ratio)",
        ),
        (
            "bound.difference.top20",
            "share of questions whose passage is among the first 20: facts stated in pre-training minus facts never"
            " stated (difference of shares)",
        ),
        (
            "taught.full_depth.difference.top20",
            "share of questions whose passage is among the first 20, other questions through the same links, networks"
            " of full depth: facts never stated, links asked in DPR training minus links not asked (difference of"
            " shares)",
        ),
        ("recall.known.seen", "share of facts recalled, facts stated in pre-training, wording that was read"),
        ("new_exhibit.some_part", "new exhibit, some part"),
    ],
)
def test_words(id_, words):
    assert describe(id_) == words


@pytest.mark.parametrize("id_", NEEDED)
def test_no_claim_speaks_in_ids(id_):
    words = describe(id_)
    assert "_" not in words


def test_different_numbers_differ_in_words():
    """Two ids that a reader would see under the same words would contradict each other."""
    words = {}
    for id_ in NEEDED:
        assert words.setdefault(describe(id_), id_) == id_
