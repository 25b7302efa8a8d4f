"""What the commands `train`, `encode` and `trec` do, alone or as torchrun's processes."""

from pathlib import Path

from dprlens.retrieval import trec
from dprlens.retrieval.corpus.encode import Encoded
from dprlens.retrieval.exact_search import Ranking
from dprlens.retrieval.index import encode_store
from dprlens.retrieval.steps import rankings
from dprlens.setup import Setup
from dprlens.training import processes
from dprlens.training.steps import dpr
from dprlens.world.passages import Store


def train_in_group(setup: Setup) -> None:
    """Train the profile's DPR together with the other processes of torchrun; the first one keeps it."""
    with processes.group():
        if processes.share_first(dpr.record(setup.training) is None):
            (dpr if processes.rank() == 0 else dpr.__wrapped__)(setup.training)


def encode_in_group(setup: Setup) -> Encoded:
    """`encode_store` with the profile's DPR, which must be trained, as one of torchrun's processes, or alone.

    Raises ValueError if it is not, or if the passages are in memory.
    """
    if not isinstance(setup.world.passages, Store):
        name = setup.profile.name
        raise ValueError(f"the passages of profile {name!r} are in memory and need no shards; nothing to do")
    return encode_store(setup.require_dpr(), setup.world)


def write_trec(setup: Setup, folder: Path) -> None:
    """Write dpr.run and gold.qrels: how the profile's DPR, which must be trained, ranks passages for test questions.

    Raises ValueError if it is not trained, and for ids that TREC's formats cannot hold.
    """
    world = setup.world
    ranking = rankings(setup.require_dpr(), world, min(100, len(world.passages)))
    places = [i for i, question in enumerate(world.questions) if question.split == "test"]
    asked = [world.questions[i] for i in places]
    folder.mkdir(parents=True, exist_ok=True)
    of_test = Ranking(*(field[places] for field in ranking))
    trec.write_run(folder / "dpr.run", of_test, [question.id for question in asked], world.passages, "dprlens")
    trec.write_qrels(folder / "gold.qrels", trec.gold(asked))
