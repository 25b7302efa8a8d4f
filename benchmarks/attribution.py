"""Neuron attribution beside the packages knowledge-neurons and captum: same weights, same prompts, one thread.

`bench.py` makes the environment for it and runs it. Prints two tables for each size of random weights, and ends with
status 1 if the sides did not compute the same thing, or ours did not add up, since then no ratio means anything.
README.md says what is the same on all sides and what is not.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import product
from statistics import median

import numpy as np
import torch
from captum.attr import LayerIntegratedGradients
from knowledge_neurons import KnowledgeNeurons
from numpy import ndarray
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertTokenizer
from transformers.utils import logging

from dprlens.bert.encoder import Encoder, new_model
from dprlens.bert.vocabulary import make_tokenizer, vocabulary
from dprlens.decentralization.attribution import Attribution, AttributionSpec, answer, attribute_at

SEED = 0
LAYERS, D_MODEL, D_FF, HEADS, VOCABULARY = 12, 128, 512, 2, 8192
WORDS, PROMPTS, ROUNDS = 15, 16, 3  # words of a prompt, the masked one included; [CLS] and [SEP] come on top
STEPS = 20  # of the peers, as in the paper
DEFAULT = 50  # captum's own number of steps
SPEC = AttributionSpec()
THEIR_RULE = AttributionSpec(rule="both_ends", nodes=STEPS, most_nodes=STEPS)  # that of knowledge-neurons
APART, APART_RELATIVE = 1e-5, 1e-4  # by the same rule: greatest difference, and its share of the greatest score
OFF = 1e-3  # of the greatest score, from captum's Gauss–Legendre with `STEPS` nodes
GAP = 1e-3  # |Σ Attr − change| / |change| of ours, in every block of every prompt


@dataclass(frozen=True)
class Setting:
    """Standard deviation of all random weights. BERT's own 0.02 would be nearly linear, with tiny scores."""

    name: str
    std: float


SETTINGS = Setting("weights 0.05", 0.05), Setting("weights 0.1", 0.1)


@dataclass(frozen=True)
class Task:
    """What all sides are given: prompts as text, and the token whose probability at the mask is the score."""

    tokenizer: BertTokenizer
    model: BertForMaskedLM
    prompts: list[str]
    tokens: list[str]

    def read(self, chosen: Sequence[int]) -> tuple[list[list[int]], list[int], Tensor]:
        """Token ids of these prompts, places of their masks, ids of their tokens."""
        ids = self.tokenizer([self.prompts[i] for i in chosen])["input_ids"]
        places = [text.index(self.tokenizer.mask_token_id) for text in ids]
        return ids, places, torch.tensor(self.tokenizer.convert_tokens_to_ids([self.tokens[i] for i in chosen]))


@dataclass
class Clock:
    """What one side took, by round, and what it found last."""

    wall: list[float] = field(default_factory=list)  # seconds
    cpu: list[float] = field(default_factory=list)
    found: list[ndarray] = field(default_factory=list)  # [prompt, block, d_ff] each

    def next_round(self) -> None:
        self.wall.append(0.0), self.cpu.append(0.0), self.found.clear()

    def run(self, side: Callable[[Sequence[int]], ndarray], chosen: Sequence[int]) -> None:
        began = time.perf_counter(), time.process_time()
        scores = side(chosen)
        self.wall[-1] += time.perf_counter() - began[0]
        self.cpu[-1] += time.process_time() - began[1]
        self.found.append(scores)

    @property
    def scores(self) -> ndarray:
        return np.concatenate(self.found).astype(float)


# what all sides work on


def make_task(setting: Setting) -> Task:
    """Random prompts of made-up words; the token is what the model itself finds likeliest."""
    rng = np.random.default_rng(SEED)
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    words = rng.permutation(["".join(w) for w in product(consonants, vowels, consonants, vowels, consonants)]).tolist()
    del words[VOCABULARY - len(vocabulary([])) :]
    tokenizer = make_tokenizer(vocabulary(words))
    prompts = []
    for _ in range(PROMPTS):
        prompt = rng.choice(words, WORDS).tolist()
        prompt[rng.integers(WORDS)] = tokenizer.mask_token
        prompts.append(" ".join(prompt))
    model = make_model(tokenizer, setting.std)
    task = Task(tokenizer, model, prompts, [tokenizer.unk_token] * PROMPTS)
    ids, places, _ = task.read(range(PROMPTS))
    with torch.no_grad():
        said = model(torch.tensor(ids)).logits[torch.arange(PROMPTS), places].argmax(-1)
    return Task(tokenizer, model, prompts, tokenizer.convert_ids_to_tokens(said.tolist()))


def make_model(tokenizer: BertTokenizer, std: float) -> BertForMaskedLM:
    """A BERT of random weights. Frozen: no side then keeps what only the gradients of weights would need."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=D_MODEL,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=D_FF,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=std,
    )
    return new_model(config, seed=SEED).eval().requires_grad_(False)


# the sides: [prompt, block, d_ff] of the chosen prompts


def ours(task: Task, spec: AttributionSpec, chosen: Sequence[int]) -> Attribution:
    ids, places, tokens = task.read(chosen)
    encoder = Encoder(task.tokenizer, task.model, "cpu")
    return attribute_at(encoder, ids, places, answer(task.model, tokens), spec, sites=["intermediate"])


def scores_of_ours(task: Task, chosen: Sequence[int]) -> ndarray:
    return ours(task, SPEC, chosen).intermediate


def of_knowledge_neurons(peer: KnowledgeNeurons, task: Task, chosen: Sequence[int]) -> ndarray:
    """It takes one prompt at a time; the steps are one batch."""
    found = [
        peer.get_scores(task.prompts[i], task.tokens[i], batch_size=STEPS, steps=STEPS, pbar=False) for i in chosen
    ]
    return torch.stack(found).detach().numpy()


class AtMask:
    """What captum needs to let the neurons of one block at the mask move from 0, and nothing else.

    captum takes a layer's whole result along the path, and as its baseline what that layer makes of another input. So
    the neurons at the mask pass through a layer of their own, which captum is given, and the input is a switch: at 0
    they are 0 there, at 1 they are what they are.
    """

    def __init__(self, model: BertForMaskedLM) -> None:
        self.model, self.tap = model, torch.nn.Identity()

    def probability(self, switch: Tensor, ids: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
        """Of each row's token; the masked-LM head sees the mask alone."""
        self.switch, self.at = switch, (torch.arange(len(ids)), places)
        vectors = self.model.bert(ids).last_hidden_state[self.at]
        return self.model.cls(vectors).softmax(-1).gather(-1, tokens[:, None])[:, 0]

    def through_tap(self, _module: torch.nn.Module, _inputs: tuple, activations: Tensor) -> Tensor:
        moved = activations.clone()
        moved[self.at] = self.tap(activations[self.at] * self.switch)
        return moved


def of_captum(task: Task, steps: int, chosen: Sequence[int]) -> ndarray:
    """Block by block, since captum asks for layers that do not feed each other; all chosen prompts in one batch."""
    ids, places, tokens = task.read(chosen)
    given = torch.tensor(ids), torch.tensor(places), tokens
    at_mask, found = AtMask(task.model), []
    gradients = LayerIntegratedGradients(at_mask.probability, at_mask.tap)
    on, off = torch.ones(len(chosen), 1), torch.zeros(len(chosen), 1)
    for block in task.model.bert.encoder.layer:
        handle = block.intermediate.register_forward_hook(at_mask.through_tap)
        try:
            found.append(gradients.attribute(on, off, additional_forward_args=given, n_steps=steps))
        finally:
            handle.remove()
    return torch.stack(found, dim=1).detach().numpy()


# all together


def compare(setting: Setting) -> bool:
    """The tables of one setting; True if all sides found the same and ours adds up."""
    task = make_task(setting)
    sides = {
        "dprlens": partial(scores_of_ours, task),
        f"knowledge-neurons, {STEPS}": partial(
            of_knowledge_neurons, KnowledgeNeurons(task.model, task.tokenizer), task
        ),
        f"captum, {STEPS}": partial(of_captum, task, STEPS),
        f"captum, {DEFAULT}": partial(of_captum, task, DEFAULT),
        f"captum, {SPEC.nodes}": partial(of_captum, task, SPEC.nodes),
    }
    single, at_once = ({name: Clock() for name in sides} for _ in range(2))
    for side in sides.values():
        side([0])  # untimed
    for _ in range(ROUNDS):
        for clock in (*single.values(), *at_once.values()):
            clock.next_round()
        for i in range(PROMPTS):  # turns change at every prompt, so that a busy machine slows all sides
            for name, side in sides.items():
                single[name].run(side, [i])
        for name, side in sides.items():
            if side.func is not of_knowledge_neurons:
                at_once[name].run(side, range(PROMPTS))
    for name, side in sides.items():
        if side.func is of_knowledge_neurons:
            at_once[name] = single[name]  # a loop in either case

    known = ours(task, SPEC, range(PROMPTS))
    change, exact = known.change[:, :, 0], single[f"captum, {STEPS}"].scores
    nodes = ", ".join(f"{n} of {(known.nodes == n).sum()} prompts" for n in np.unique(known.nodes))
    print(
        f"\n{setting.name}: probabilities {known.value.min():.1e}–{known.value.max():.1e}, "
        f"greatest score {np.abs(exact).max():.1e}; our nodes: {nodes}"
    )
    gaps = {name: gap(clock.scores, change) for name, clock in single.items()}
    off = {name: relative(clock.scores, exact) for name, clock in single.items()}
    table("one prompt at a time", single)
    table(f"{PROMPTS} prompts at once", at_once)
    row("", ["gap, median", "gap, greatest", "off"])
    for name in sides:
        row(name, [f"{np.median(gaps[name]):.1e}", f"{gaps[name].max():.1e}", f"{off[name]:.1e}"])
    again = relative(at_once["dprlens"].scores, single["dprlens"].scores)
    print(f"    ours at once and one by one differ by {again:.1e} of the greatest score")
    theirs = single[f"knowledge-neurons, {STEPS}"].scores
    by_their_rule = ours(task, THEIR_RULE, range(PROMPTS)).intermediate.astype(float)
    apart = np.abs(by_their_rule - theirs).max()
    print(
        f"    ours by the rule of knowledge-neurons: greatest difference {apart:.1e}, greatest score "
        f"{np.abs(theirs).max():.1e}, of which that is {relative(by_their_rule, theirs):.1e}",
        flush=True,
    )
    same = apart <= APART and relative(by_their_rule, theirs) < APART_RELATIVE
    return bool(same and again < APART_RELATIVE and off["dprlens"] < OFF and gaps["dprlens"].max() < GAP)


def gap(scores: ndarray, change: ndarray) -> ndarray:
    """|Σ Attr − change| / |change| [prompt, block], without the floor that `Attribution.gap` has."""
    return np.abs(scores.sum(2) - change) / np.abs(change)


def relative(scores: ndarray, expected: ndarray) -> float:
    """Greatest difference, as a share of the greatest score expected for that prompt."""
    return float((np.abs(scores - expected).max((1, 2)) / np.abs(expected).max((1, 2))).max())


def table(title: str, clocks: dict[str, Clock]) -> None:
    """Median ms for each prompt, times ours with the range over the rounds, the same in CPU time, share on the CPU."""
    row(title, ["ms/prompt", "times dprlens", "in CPU", "on CPU"])
    base = clocks["dprlens"]
    for name, clock in clocks.items():
        busy = sum(clock.cpu) / sum(clock.wall)
        values = [f"{1e3 * median(clock.wall) / PROMPTS:.1f}", "", "", f"{busy:.0%}"]
        if clock is not base:
            wall, cpu = (np.divide(*pair) for pair in ((clock.wall, base.wall), (clock.cpu, base.cpu)))
            values[1:3] = f"{median(wall):.1f} ({wall.min():.1f}–{wall.max():.1f})", f"{median(cpu):.1f}"
        row(name, values)


def row(name: str, values: Iterable[str]) -> None:
    print(f"{name:24}" + "".join(f"{value:>20}" for value in values), flush=True)


def load() -> str:
    return f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def main() -> int:
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("knowledge-neurons", "captum", "transformers", "torch")
    )
    print(
        f"{libraries}, Python {platform.python_version()}; {torch.get_num_threads()} thread; {ROUNDS} rounds\n"
        f"BERT {LAYERS} × {D_MODEL}, {LAYERS * D_FF} neurons; {PROMPTS} prompts of {WORDS + 2} tokens\n"
        f"load of the machine at the start: {load()}"
    )
    same = [compare(setting) for setting in SETTINGS]
    print(f"\nload of the machine at the end: {load()}")
    if not all(same):
        print("the sides did not compute the same, or ours does not add up, so no ratio counts: compare off and gap")
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
