"""Invented comparisons of neurons for the tests of chapters 03, A.1 and A.2: no network, no training."""

import numpy as np
from small_setup import MICRO

from dprlens.bert.encoder import DualEncoder
from dprlens.chapters.comparison import Comparison
from dprlens.decentralization.active_neurons import Sample
from dprlens.decentralization.attribution import Attribution
from dprlens.decentralization.steps import AttributionTask, Sampling
from dprlens.setup import Setup

EXAMPLES, BLOCKS, D_FF, D_MODEL = 8, 2, 4, 2


def attribution(strong: dict[int, list[int]] | None = None, outputs: float = 0.0) -> Attribution:
    """Attributions of 1 for the intermediate neurons `strong` {example: [neuron]} of block 0, 0 for all others."""
    intermediate = np.zeros((EXAMPLES, BLOCKS, D_FF))
    for example, places in (strong or {}).items():
        intermediate[example, 0, places] = 1
    output = np.full((EXAMPLES, BLOCKS, D_MODEL), outputs)
    sums = np.stack([intermediate.sum(2), output.sum(2)], axis=2)
    return Attribution(intermediate, output, np.ones(EXAMPLES), sums, np.full(EXAMPLES, 4))


SAME = attribution({i: [0] for i in range(EXAMPLES)})  # one neuron, the same for all examples
SPREAD = attribution({i: [i % D_FF] for i in range(EXAMPLES)})  # one neuron, of four in turn


def comparison(world, side: str = "query", **models: Attribution) -> Comparison:
    """Models on the first test questions of a world, or on their gold passages; at temperatures 1, 2, …."""
    tested = [i for i, question in enumerate(world.questions) if question.split == "test"]
    golds = list(dict.fromkeys(world.place(world.questions[i].gold) for i in tested))
    if side == "query":
        tested = tested[:EXAMPLES]
        right = [world.place(world.questions[i].gold) for i in tested]
        drawn = Sample(np.array(tested), np.array([[gold, *range(3)] for gold in right]))
    else:
        drawn = Sample(np.array(golds[:EXAMPLES]), np.array([[i, *tested[1:4]] for i in tested[:EXAMPLES]]))
    setup = Setup(MICRO, 0)
    vars(setup)["world"] = world  # given, not made
    sampling = Sampling(world, MICRO.negatives, MICRO.sample, 0)
    tasks = {
        name: AttributionTask(DualEncoder(f"{name} query", f"{name} passage"), sampling, MICRO.attribution, i)
        for i, name in enumerate(models, start=1)
    }
    return Comparison(setup, side, drawn, tasks, models)
