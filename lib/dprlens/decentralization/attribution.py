"""Knowledge attribution: each neuron's contribution to a score (paper, section 3, after Dai et al. 2022).

With w the activations of one sub-layer in one block, and P_x(w) the model's score of the text x at these activations,
the attribution of neuron i is the integral of its gradient along the straight path from a baseline b to w,

    Attr_i(w) = (w_i − b_i) ∫_0^1 ∂P_x(b + α(w − b)) / ∂w_i dα,    Σ_i Attr_i = P_x(w) − P_x(b) (completeness).

All neurons of the sub-layer move together, as in the code of Dai et al.; read literally, the printed formula moves one
neuron alone and is plain ablation (choice AMB-C1). The sub-layers are the *sites* of a block: "intermediate", the
feed-forward's hidden units after GELU, and "output", its result before the residual and the norm.

P is a score of the encoder's output vector: a probability among candidate passages, a dot product, a margin,
or the masked-LM's probability of an answer (choice AMB-C4). Blocks below the one in question do not change, so the
computation starts again in that block, with all nodes of the quadrature and both sites as one batch and one gradient.
Where that batch is small, the neurons of the next blocks join it on its way up.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray
from scipy.optimize import brentq
from torch import Tensor
from transformers import PreTrainedModel

from dprlens.bert.architecture import blocks, head
from dprlens.bert.encoder import Encoder, Text
from dprlens.bert.forward import Batch, activations, forward, pad_texts
from dprlens.bert.packing import room
from dprlens.ranges import POSITIVE, check, one_of

SITES = ("intermediate", "output")
SEEN = ("attended", "intermediate", "output", "state")  # of each block, see `forward`
FLOOR = 0.1  # of the example's greatest change: below it a site's own change is mostly float noise

Score = Callable[[Tensor, Tensor], Tensor]  # vectors [row, d_model] and the example of each [row] to P [row]


@dataclass(frozen=True)
class AttributionSpec:
    """Quadrature of the integral, and the neurons' path; the paper, after Dai et al., takes 20 left end points."""

    rule: str = "gauss"  # see `quadrature`; paper: left
    nodes: int = 4  # paper: 20
    tolerance: float = 5e-3  # under "gauss": examples with a larger completeness gap get twice the nodes, and so on, as
    #   long as that halves the gap
    most_nodes: int = 32
    positions: str = "read"  # tokens whose neurons move: "read", the one that the score reads, or "all"
    baseline: str = "zero"  # of the output site: "zero", or "bias", the state without any hidden unit (AMB-C13)

    def __post_init__(self) -> None:
        quadrature(self.rule, self.nodes)
        if self.most_nodes < self.nodes:
            raise ValueError(f"most_nodes = {self.most_nodes} is less than nodes = {self.nodes}; give as many or more")
        check(self, POSITIVE, "tolerance")
        check(self, one_of(("read", "all")), "positions")
        check(self, one_of(("zero", "bias")), "baseline")


def quadrature(rule: str, n: int) -> tuple[ndarray, ndarray]:
    """Compute nodes in [0, 1] and weights [n] of a quadrature rule for the integral over α.

    gauss: Gauss–Legendre. left: k/n, k = 0 … n−1 (Dai et al.). midpoint. both_ends: n even steps with both ends and
    weight 1/n each (the package knowledge-neurons; no quadrature of anything, but nearly one). almost_both_ends: the
    same from 1e-6 (Yao, Wang and Zuccon). Raises ValueError for another rule, or n below 1.
    """
    if n < 1:
        raise ValueError(f"nodes = {n} is too few; give 1 or more")
    even = np.full(n, 1 / n)
    if rule == "gauss":
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return (nodes + 1) / 2, weights / 2
    rules = {
        "left": np.arange(n) / n,
        "midpoint": (np.arange(n) + 0.5) / n,
        "both_ends": np.linspace(0, 1, n),
        "almost_both_ends": np.linspace(1e-6, 1, n),
    }
    if rule not in rules:
        raise ValueError(f"rule = {rule!r} is not known; choose one of gauss, {', '.join(rules)}")
    return rules[rule], even


# The paper's own setting: 20 left end points, after Dai et al.
FIDELITY = AttributionSpec(rule="left", nodes=20, most_nodes=20)


class Attribution(NamedTuple):
    """Attributions of all neurons, signed; thresholds and measures need no further computation."""

    intermediate: ndarray  # [example, block, d_ff]
    output: ndarray  # [example, block, d_model]
    value: ndarray  # [example]: P at the unchanged activations
    change: ndarray  # [example, block, site]: P unchanged minus P at the baseline, the sum of complete attributions
    nodes: ndarray  # int [example]: nodes of the quadrature

    @property
    def scores(self) -> ndarray:
        """Both sites side by side: [example, block, neuron], the d_ff intermediate neurons first."""
        return np.concatenate([self.intermediate, self.output], axis=2)

    def by_site(self, array: ndarray) -> dict[str, ndarray]:
        """Split an array like `scores` by site."""
        return dict(zip(SITES, np.split(array, [self.intermediate.shape[2]], axis=2), strict=True))

    @property
    def gap(self) -> ndarray:
        """Completeness gap [example, block, site]: |Σ Attr − change| / |change|; 0 where nothing changes at all.

        A change of less than a tenth of the example's greatest is counted as that tenth.
        """
        sums = np.stack([array.sum(2, dtype=float) for array in (self.intermediate, self.output)], axis=2)
        size = np.abs(self.change)
        against = np.maximum(size, FLOOR * size.max((1, 2), keepdims=True, initial=0))
        off = np.abs(sums - self.change)
        return np.divide(off, against, out=np.where(off > 0, np.inf, 0.0), where=against > 0)

    def active(
        self, threshold: float, maximum: str = "example", signed: bool = True, without: Sequence[int] = ()
    ) -> ndarray:
        """Mark neurons with at least `threshold` times the greatest attribution: bool, like `scores`.

        `maximum` is the range of the greatest: the "example", with both sites (the paper, as we read it), or each
        "site" or "block" of it (AMB-C5). If not `signed`, a neuron counts by its attribution's absolute value
        (AMB-C6). `without` are places in the flattened (block, neuron) axes that are neither counted nor taken as
        greatest. Where no attribution is above 0, no neuron is active. Raises ValueError for a threshold outside
        (0, 1].
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold = {threshold} is no share of the greatest attribution; give 0 < threshold ≤ 1")
        scores = self.scores if signed else np.abs(self.scores)
        flat = scores.reshape(len(scores), -1)
        flat[:, list(without)] = -np.inf
        if maximum == "example":
            greatest = flat.max(1)[:, None, None]
        elif maximum == "site":
            sites = self.by_site(scores).values()
            tops = [np.broadcast_to(array.max((1, 2), keepdims=True), array.shape) for array in sites]
            greatest = np.concatenate(tops, axis=2)
        elif maximum == "block":
            greatest = scores.max(2, keepdims=True)
        else:
            raise ValueError(f"maximum = {maximum!r} is not known; choose example, site or block")
        return (scores >= threshold * greatest) & (greatest > 0)


# scores of a vector


def choice(candidates: Tensor, temperature: float) -> Score:
    """Make S2: probability of candidate 0, softmax of the dot products over `temperature`.

    `candidates` is [example, choice, d_model], the gold one first. DPR training maximises this score. From the products
    on it is in double precision, since a probability near 1 leaves few digits for its changes.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature = {temperature:g} is none; give a number above 0")
    return lambda vectors, example: (_products(candidates, vectors, example).double() / temperature).softmax(-1)[:, 0]


def dot(candidates: Tensor) -> Score:
    """Make S3: dot product with candidate 0."""
    return lambda vectors, example: (candidates[example, 0] * vectors).sum(-1)


def cosine(candidates: Tensor) -> Score:
    """Make S3 without lengths: cosine with candidate 0."""
    return lambda vectors, example: torch.nn.functional.cosine_similarity(candidates[example, 0], vectors, dim=-1)


def margin(candidates: Tensor) -> Score:
    """Make S4: dot product with candidate 0 minus the mean of those with the others; linear in the vector."""

    def score(vectors: Tensor, example: Tensor) -> Tensor:
        products = _products(candidates, vectors, example)
        return products[:, 0] - products[:, 1:].mean(-1)

    return score


def answer(model: PreTrainedModel, tokens: Tensor) -> Score:
    """Make S1, the score of Dai et al.: the masked-LM head's probability of a token; `tokens` [example]."""
    return lambda vectors, example: head(model)(vectors).softmax(-1).gather(-1, tokens[example, None])[:, 0]


def norm() -> Score:
    """Make S5: the vector's length, as in the replication; nearly constant after a layer norm (methods, C.5)."""
    return lambda vectors, example: vectors.norm(dim=-1)  # noqa: ARG005


SCORES = {"dot": dot, "cosine": cosine, "margin": margin}  # of candidates alone; `choice` needs a temperature as well


def _products(candidates: Tensor, vectors: Tensor, example: Tensor) -> Tensor:
    return (candidates[example] @ vectors[:, :, None])[:, :, 0]


def matched_temperature(products: ndarray, entropy: float) -> float:
    """Solve for the temperature that gives the softmax over candidates this mean entropy.

    `entropy` is a share of the greatest possible; `products` is [example, choice]. Two models compared at the same
    entropy are equally certain of their choices, whatever the scale of their vectors. Raises ValueError where no
    temperature gives that entropy.
    """
    if not 0 < entropy < 1:
        raise ValueError(f"entropy = {entropy:g} is no share; give more than 0 and less than 1")
    products = np.asarray(products, float)
    products = products - products.max(1, keepdims=True)
    most = np.log(products.shape[1])

    def above(log_temperature: float) -> float:
        logits = products / np.exp(log_temperature)
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return float(-(shares * np.log(np.maximum(shares, 1e-300))).sum(1).mean() / most) - entropy

    scale = np.log(max(-products.min(), 1e-300))
    low, high = scale - 20, scale + 20
    if not above(low) < 0 < above(high):
        raise ValueError(f"no temperature gives an entropy of {entropy:g}: too many candidates score alike")
    return float(np.exp(brentq(above, low, high, xtol=1e-10)))


# attribution


def attribute(
    encoder: Encoder,
    texts: Sequence[Text],
    score: Score,
    spec: AttributionSpec,
    sites: Sequence[str] = SITES,
    pooling: str = "cls",
) -> Attribution:
    """Attribute the score of each text's vector to neurons at [CLS], or at all tokens (`spec.positions`).

    `score` gets the vectors in the order of `texts`. With `pooling` "mean" the vector is the mean over tokens, and
    all of them are read. Sites that are not among `sites` have no neurons in the result.
    """
    return attribute_at(encoder, encoder.token_ids(texts), None if pooling == "mean" else 0, score, spec, sites)


def attribute_at(
    encoder: Encoder,
    ids: Sequence[Sequence[int]],
    place: int | Sequence[int] | None,
    score: Score,
    spec: AttributionSpec,
    sites: Sequence[str] = SITES,
) -> Attribution:
    """Run `attribute` on token ids [example][token], read at the token `place` of each text; None: their mean."""
    if unknown := [site for site in sites if site not in SITES]:
        raise ValueError(f"there is no site {unknown[0]!r}; choose from {', '.join(SITES)}")
    if not sites:
        raise ValueError(f"no site is asked for; choose from {', '.join(SITES)}")
    model, mean = encoder.model, place is None
    places = [place or 0] * len(ids) if place is None or isinstance(place, int) else place
    found = _empty(model, len(ids), sites)
    left, n, before = list(range(len(ids))), spec.nodes, np.full(len(ids), np.inf)
    while left:
        for part in _parts(model, ids, left, len(sites) * n):
            batch = pad_texts(model, [ids[i] for i in part], [places[i] for i in part])
            paths = _Paths(model, spec, mean, batch, torch.tensor(part))
            for array, values in zip(found, paths.attributions(score, sites, n), strict=True):
                array[part] = values
        n *= 2
        gap = found.gap.max((1, 2))
        more = (gap > spec.tolerance) & (gap < before / 2)  # a gap that twice the nodes did not halve is float noise
        left = [i for i in left if more[i]] if spec.rule == "gauss" and n <= spec.most_nodes else []
        before = gap
    return found


class _Paths:
    """Integrals along the paths at the sites of every block; `examples` are the texts' places among all texts."""

    def __init__(self, model: PreTrainedModel, spec: AttributionSpec, mean: bool, batch: Batch, examples: Tensor):
        self.model, self.spec, self.mean, self.batch, self.examples = model, spec, mean, batch, examples
        self.blocks = blocks(model)
        with torch.no_grad():
            self.seen = activations(model, batch, [(i, site) for i in range(len(self.blocks)) for site in SEEN])

    def attributions(self, score: Score, sites: Sequence[str], n: int) -> Attribution:
        """Integrate with n nodes."""
        with torch.no_grad():
            value = self._says(score, self.seen[len(self.blocks) - 1, "state"], len(self.blocks))
        if not torch.isfinite(value).all():
            raise FloatingPointError(f"the score of a text is {value[~torch.isfinite(value)][0].item()}; check it")
        rule = quadrature(self.spec.rule, n)
        nodes, weights = (torch.tensor(of, dtype=self.model.dtype, device=self.model.device) for of in rule)
        found = _empty(self.model, len(self.examples), sites)
        found.value[:], found.nodes[:] = value.double().cpu(), n
        for group in self._groups(n * len(sites) * self.batch.text.numel()):
            paths = {(i, site): self._ends(i, site) for i in group for site in sites}
            leaves = {
                place: (base + nodes[:, None, None, None] * (end - base)).requires_grad_()
                for place, (base, end) in paths.items()
            }
            with torch.enable_grad():
                gradients = torch.autograd.grad(self._scored(score, leaves).sum(), [*leaves.values()])
            with torch.no_grad():
                at_base = self._scored(score, {place: base[None] for place, (base, _) in paths.items()})[..., 0]
            changes = (value[:, None] - at_base).T
            for ((i, site), (base, end)), gradient, change in zip(paths.items(), gradients, changes, strict=True):
                along = torch.einsum("n,n...->...", weights, gradient)
                getattr(found, site)[:, i] = ((end - base) * along).sum(1).cpu()
                found.change[:, i, SITES.index(site)] = change.double().cpu()
        return found

    def _groups(self, tokens: int) -> list[range]:
        """Group blocks to be taken together, as many as fit when each adds so many tokens; the last one apart."""
        size, last = max(1, room(self.model) // tokens), len(self.blocks) - 1
        return [range(i, min(i + size, last)) for i in range(0, last, size)] + [range(last, last + 1)]

    def _moved(self, tensor: Tensor) -> Tensor:
        """Select the moving part of [example, token, …]: all tokens, or the one that is read (1 token)."""
        if self.spec.positions == "all" or self.mean:
            return tensor
        return tensor[self.batch.row, self.batch.place].unsqueeze(1)

    def _ends(self, i: int, site: str) -> tuple[Tensor, Tensor]:
        """Get baseline and end of the path at a site: [example, token, neuron]."""
        end = self._moved(self.seen[i, site])
        if site == "output" and self.spec.baseline == "bias":
            return self.blocks[i].output.bias.detach().expand_as(end), end
        return torch.zeros_like(end), end

    def _scored(self, score: Score, moved: Mapping[tuple[int, str], Tensor]) -> Tensor:
        """Score activations by block and site, each [node, example, token, neuron]: P [example, path, node]."""
        rows: Tensor | None = None  # [example, row, token, d_model]
        for i, of_block in groupby(moved, key=lambda place: place[0]):
            states = torch.stack([self._state(*place, moved[place]) for place in of_block])
            own = states.permute(2, 0, 1, 3, 4).flatten(1, 2)
            if rows is not None:
                below = self.batch.repeated(rows.shape[1], rows.flatten(0, 1))
                risen = forward(self.model, below, start=i, stop=i + 1)
                own = torch.cat([risen.unflatten(0, (len(self.examples), -1)), own], dim=1)
            rows = own
        return self._says(score, own.flatten(0, 1), i + 1).view(len(self.examples), len(moved), -1)

    def _state(self, i: int, site: str, moved: Tensor) -> Tensor:
        """Compute the state after block i from activations at a site: [node, example, token, d_model]."""
        block, before = self.blocks[i], self.seen[i, "state"]
        output = block.output(moved) if site == "intermediate" else moved
        state = block.add(output, self._moved(self.seen[i, "attended"]))
        if state.shape[2] == before.shape[1]:
            return state
        here = torch.arange(before.shape[1], device=state.device) == self.batch.place[:, None]  # [example, token]
        return torch.where(here[:, :, None], state, before)

    def _says(self, score: Score, states: Tensor, done: int) -> Tensor:
        """Score states [row, token, d_model] after `done` blocks, some rows of each example: P [row]."""
        each = len(states) // len(self.examples)
        batch = self.batch.repeated(each, states)
        if self.mean:
            states, inside = forward(self.model, batch, start=done, stop=len(self.blocks)), batch.inside
            vectors = (states * inside[:, :, None]).sum(1) / inside.sum(1, keepdim=True)
        else:
            vectors = forward(self.model, batch, start=done)
        return score(vectors, self.examples.repeat_interleave(each))


def attribute_weights(
    encoder: Encoder, texts: Sequence[Text], score: Score, rule: str = "almost_both_ends", n: int = 20
) -> Attribution:
    """Attribute at the level of weights (Yao, Wang and Zuccon): a neuron's weights are scaled (AMB-C1).

    The matrix and the bias of a dense layer, not its activation, are scaled by α, at all tokens; a neuron's score is
    the sum over its inputs of |W_ij Σ_k (weight k) ∂P/∂W_ij(α_k W)|. Absolute values do not add up to a change:
    `change` is 0. The gradient with respect to W is an outer product with that with respect to the layer's result, so
    that no gradient of a matrix is computed for each node.
    """
    model, ids = encoder.model, encoder.token_ids(texts)
    found, places = _empty(model, len(ids), SITES), [(i, site) for i in range(encoder.layers) for site in SEEN]
    nodes, weights = (torch.tensor(of, dtype=model.dtype, device=model.device) for of in quadrature(rule, n))
    for part in _parts(model, ids, range(len(ids)), 2 * n):
        batch, examples = pad_texts(model, [ids[i] for i in part]), torch.tensor(part)
        with torch.no_grad():
            seen = activations(model, batch, places)
            found.value[part] = score(seen[encoder.layers - 1, "state"][batch.row, batch.place], examples).cpu()
        found.nodes[part] = n
        for i, block in enumerate(blocks(model)):
            attended, intermediate = seen[i, "attended"], seen[i, "intermediate"]
            with torch.no_grad():
                ends = [block.intermediate(attended), block.output(intermediate)]
            leaves = [(nodes[:, None, None, None] * end).requires_grad_() for end in ends]  # [node, example, token, …]
            with torch.enable_grad():
                outputs = torch.stack([block.output(block.activation(leaves[0])), leaves[1]])
                rows = block.add(outputs, attended).permute(2, 1, 0, 3, 4)  # [example, node, site, token, d_model]
                vectors = forward(model, batch.repeated(2 * n, rows.flatten(0, 2)), start=i + 1)
                gradients = torch.autograd.grad(score(vectors, examples.repeat_interleave(2 * n)).sum(), leaves)
            maps = (block.intermediate, attended), (block.output, intermediate)
            for site, gradient, (linear, x) in zip(SITES, gradients, maps, strict=True):
                towards = torch.einsum("n,netj->etj", weights, gradient)  # gradient of each neuron's result, over nodes
                of_weights = torch.einsum("etj,eti->eji", towards, x * batch.inside[:, :, None])
                getattr(found, site)[part, i] = (linear.weight.detach() * of_weights).abs().sum(2).cpu()
    return found


def _parts(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], chosen: Sequence[int], rows: int
) -> Iterator[list[int]]:
    """Split the chosen texts, shortest first, into batches that fit when each text takes so many rows."""
    most = room(model)
    part: list[int] = []
    for i in sorted(chosen, key=lambda i: len(ids[i])):
        if part and (len(part) + 1) * rows * len(ids[i]) > most:
            yield part
            part = []
        part.append(i)
    if part:
        yield part


def _empty(model: PreTrainedModel, n: int, sites: Sequence[str]) -> Attribution:
    config = model.config
    widths = (config.intermediate_size, config.hidden_size)
    kind = torch.empty(0, dtype=model.dtype).numpy().dtype
    intermediate, output = (
        np.zeros((n, config.num_hidden_layers, width if site in sites else 0), kind)
        for site, width in zip(SITES, widths, strict=True)
    )
    changes = np.zeros((n, config.num_hidden_layers, len(SITES)))
    return Attribution(intermediate, output, np.zeros(n), changes, np.zeros(n, int))
