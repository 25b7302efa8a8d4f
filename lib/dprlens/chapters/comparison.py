"""Chapters 03, A.1 and A.2: the models whose neurons are compared, and their attributions on the profile's sample."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial

from dprlens.bert.encoder import DualEncoder, reinitialise
from dprlens.cache.parallel import run
from dprlens.consistency.exhibits import select
from dprlens.decentralization import attribution
from dprlens.decentralization.active_neurons import Sample, SampleSpec
from dprlens.decentralization.attribution import Attribution
from dprlens.decentralization.steps import AttributionTask, Sampling, attribute_sample, products
from dprlens.setup import Setup
from dprlens.training.steps import Continuing, continued, dpr
from dprlens.world.records import World


def sampling_of(setup: Setup) -> Sampling:
    """The profile's sample."""
    return Sampling(setup.world, setup.profile.negatives, setup.profile.sample, setup.seed)


def compared_models(setup: Setup, names: Sequence[str] | None = None) -> dict[str, DualEncoder]:
    """The models whose neurons are compared, by name; of these the named ones, or all.

    pretrained, dpr; dpr1 … from other DPR seeds; and the controls shuffled (DPR on wrong pairs), continued (as many
    more steps of masked-LM) and random (weights that have read nothing).
    """
    chosen, training = setup.profile, setup.training
    trainings = {
        f"dpr{i or ''}": partial(dpr, replace(training, seed=setup.seed + i)) for i in range(chosen.activity.dpr_seeds)
    }
    trainings["shuffled"] = partial(dpr, training, shuffled=True)
    found = select("model", ["pretrained", *trainings, "continued", "random"], names)
    trained = run({name: call for name, call in trainings.items() if name in found})
    models = {"pretrained": setup.start} | {name: model.dual for name, model in trained.items()}
    if "continued" in found:
        texts = setup.world, chosen.text, chosen.negatives
        longer = continued(Continuing(setup.base, *texts, chosen.pretrain, chosen.dpr, setup.seed))
        models["continued"] = DualEncoder(longer, longer)
    if "random" in found:
        random = reinitialise(setup.base, setup.seed)
        models["random"] = DualEncoder(random, random)
    return {name: models[name] for name in found}


def attribution_tasks(
    setup: Setup, duals: Mapping[str, DualEncoder], side: str, workers: ProcessPoolExecutor | None = None
) -> dict[str, AttributionTask]:
    """Each model on the sample of one side, at the temperature at which its choices have the profile's entropy."""
    sampling, entropy = sampling_of(setup), setup.profile.sample.entropy
    scored = run({name: partial(products, dual, sampling, side) for name, dual in duals.items()}, workers)
    return {
        name: AttributionTask(
            dual, sampling, setup.profile.attribution, attribution.matched_temperature(scored[name], entropy)
        )
        for name, dual in duals.items()
    }


def attributions(
    tasks: Mapping[str, AttributionTask], side: str, workers: ProcessPoolExecutor | None = None
) -> dict[str, Attribution]:
    """`attribute_sample` of each model's task on one side, by name."""
    return run({name: partial(attribute_sample, task, side) for name, task in tasks.items()}, workers)


def attributed_in_worlds(setup: Setup, workers: ProcessPoolExecutor | None = None) -> list[dict[str, Attribution]]:
    """The question side's `attributions` in several worlds, from the page's seed on; none if the profile has one."""
    chosen = setup.profile
    many = chosen.activity.worlds if chosen.activity.worlds > 1 else 0
    one_dpr = replace(chosen, activity=replace(chosen.activity, dpr_seeds=1))
    found = []
    for seed in range(setup.seed, setup.seed + many):
        there = Setup(one_dpr, seed)
        tasks = attribution_tasks(there, compared_models(there), "query", workers)
        found.append(attributions(tasks, "query", workers))
    return found


@dataclass(frozen=True)
class Comparison:
    """Models compared on one sample of questions ("query") or passages ("passage"), all neurons attributed."""

    setup: Setup
    side: str
    sample: Sample
    tasks: Mapping[str, AttributionTask]  # by the model's name
    attributions: Mapping[str, Attribution]  # likewise
    workers: ProcessPoolExecutor | None = None

    @property
    def world(self) -> World:
        """The world of the examples."""
        return self.setup.world

    @cached_property
    def clusters(self) -> list[int]:
        """The gold passage of each example [example]; questions about one are not independent."""
        golds = self.sample.candidates[:, 0] if self.side == "query" else self.sample.examples
        return golds.tolist()

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.sample.examples)

    @property
    def neurons(self) -> int:
        """The number of feed-forward neurons at one token, of all blocks and both sites."""
        return self.attributions["dpr"].scores[0].size

    @property
    def few(self) -> SampleSpec:
        """The beginning of the sample, for variants of the method."""
        return replace(self.setup.profile.sample, examples=self.setup.profile.activity.few)


def attribute(
    setup: Setup, side: str, workers: ProcessPoolExecutor | None = None, names: Sequence[str] | None = None
) -> Comparison:
    """Attribute the neurons of the named models, or of all (`steps.compared_models`), on the profile's sample."""
    tasks = attribution_tasks(setup, compared_models(setup, names), side, workers)
    found = attributions(tasks, side, workers)
    return Comparison(setup, side, sampling_of(setup).draw(side), tasks, found, workers)
