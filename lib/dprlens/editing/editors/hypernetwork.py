"""Common parts of MEND (Mitchell et al. 2022) and MALMEN (Tan et al. 2024): networks that learn to edit.

Facts are edited in by one backward pass. At each edited linear map y = W x it gives, a row for each (statement, token),
the input x and the gradient δ of that statement's loss by y. The hypernetwork turns the rows into pseudo-inputs x̃ and
pseudo-gradients δ̃; `mend` and `malmen` define how these become a change of W. The hypernetwork is trained on practice
facts: some statements of a batch of facts are edited in, and the loss is that of the facts' other statements, plus the
divergence from the unedited model's predictions at statements that should not change (E.3). The edited model is never
trained, and blocks below the edited ones are run only once.
"""

import hashlib
import json
import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, NamedTuple, Self, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.func import functional_call
from transformers import BertForMaskedLM

from dprlens.bert.architecture import blocks, name_of
from dprlens.bert.encoder import Encoder
from dprlens.bert.forward import Batch, Tap, masked_lm, text_numbers
from dprlens.cache.events import progress
from dprlens.cache.parallel import threads
from dprlens.editing.editors.objective import blanks, copy_model, drift, nll, rewritten, told_once, training_statements
from dprlens.ranges import COUNT, NOT_NEGATIVE, PART, POSITIVE, check
from dprlens.world.records import Fact, Statement

MAPS = {"intermediate": ("attended", "preactivation"), "output": ("intermediate", "output")}  # taps of x and of y = W x
ROWS = 1024  # rows that pass through a hypernetwork at once; MALMEN's code: 1024
EPSILON = 1e-7  # added to standard deviations
WEIGHTS, ABOUT = "hypernetwork.safetensors", "hypernetwork.json"

Site = tuple[int, str]  # block, from 0, and which of its two linear maps


@dataclass(frozen=True)
class HypernetworkSpec:
    """Settings of both methods; published values are those of BERT's configurations in the authors' code."""

    blocks: int  # that are edited, counted from the last one; all of them where there are fewer
    sites: tuple[str, ...]  # which linear maps of a block
    rank: int  # of each of the two residual blocks; published: 1920, of n = 3840 coordinates
    learning_rate: float  # Adam's, for the hypernetwork
    edit_weight: float  # of the loss of the edited facts' other statements
    locality_weight: float  # of the divergence at statements that should not change
    clip: float  # greatest norm of the gradient
    norm: bool = True  # standardise the rows; published: True. False: the untrained editor is a plain gradient step
    batch: int = 64  # facts edited in at once in training, as many as later; published: MEND 1, MALMEN 1024
    told: int = 2  # statements by which a practice fact is edited in, at random; published: 1
    rephrasings: int = 1  # its other statements, at random, of which the loss is taken; published: 1
    kept: int = 64  # statements in a step that should not change; published: one an edit
    wordings: int | None = None  # statements of a fact that `edit` uses; None: all; published: 1
    rounds: int = 1  # passes of `edit` over all the facts, each on the model of the round before; published: 1
    steps: int = 45  # published: MEND up to 100,000 updates, stopped early; MALMEN one pass over its data
    validate_every: int = 15  # steps; published: MEND 500 updates
    validation: float = 0.1  # share of the practice facts and kept statements that only choose the checkpoint
    chunk: int = 128  # statements in one pass through the edited model; published: MALMEN 32

    def __post_init__(self) -> None:
        check(self, COUNT, "blocks", "rank", "batch", "told", "rephrasings", "kept", "wordings", "rounds", "steps")
        check(self, COUNT, "validate_every", "chunk")
        check(self, POSITIVE, "learning_rate", "clip")
        check(self, NOT_NEGATIVE, "edit_weight", "locality_weight")
        check(self, PART, "validation")
        if not self.sites or set(self.sites) - set(MAPS) or len(set(self.sites)) < len(self.sites):
            raise ValueError(f"sites = {self.sites!r} is no choice; give one or both of {' and '.join(MAPS)}")


class Shape(NamedTuple):
    """Shape of the model that a hypernetwork edits."""

    layers: int
    d_model: int
    d_ff: int


def shape(encoder: Encoder) -> Shape:
    """Get the encoder's shape.

    Raises ValueError for an encoder with patches, whose last block has another shape.
    """
    config = encoder.model.config
    if patches := getattr(config, "patches", 0):
        raise ValueError(f"this encoder has {patches} patched neurons; a hypernetwork edits one without patches")
    return Shape(config.num_hidden_layers, config.hidden_size, config.intermediate_size)


class Rows(NamedTuple):
    """Inputs and gradients of statements at one linear map y = W x."""

    x: Tensor  # [row, in]
    delta: Tensor  # [row, out]: ∂(loss of the row's statement)/∂y
    statement: Tensor  # [row]: in ascending order

    def part(self, statements: Sequence[int]) -> "Rows":
        """Select the rows of some of the statements, which are counted from 0 again, in this order."""
        chosen = torch.as_tensor(statements, device=self.statement.device)
        starts = torch.searchsorted(self.statement, chosen).tolist()
        ends = torch.searchsorted(self.statement, chosen, right=True).tolist()
        rows = [torch.arange(*bounds) for bounds in zip(starts, ends, strict=True)]
        places = torch.cat(rows).to(self.x.device)
        lengths = torch.tensor([len(of) for of in rows], device=self.x.device)
        return Rows(
            self.x[places], self.delta[places], torch.arange(len(chosen)).to(lengths).repeat_interleave(lengths)
        )


# the hypernetwork


class Standardiser(torch.nn.Module):
    """Running mean and standard deviation (n − 1) of all rows seen, coordinate by coordinate, in float64.

    `inflated` repeats a slip of MALMEN's code (F.5): each chunk of N rows adds N times its unbiased variance to the sum
    of squares, N − 1 times would be right. (There a chunk of one row makes everything NaN; here it adds 0.)
    """

    seen: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(self, width: int, inflated: bool = False) -> None:
        super().__init__()
        self.inflated = inflated
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(width, dtype=torch.float64))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Update mean and standard deviation with rows [row, coordinate]."""
        if not len(rows):
            return
        n, rows = len(rows), rows.double()
        mean = rows.mean(0)
        squares = (rows - mean).square().sum(0)
        if self.inflated and n > 1:
            squares *= n / (n - 1)
        before, shift = self.seen.clone(), mean - self.mean
        self.seen += n
        self.mean += shift * n / self.seen
        self.squares += squares + shift.square() * before * n / self.seen

    @property
    def deviation(self) -> Tensor:
        """Standard deviation [coordinate].

        Raises ValueError before two rows were seen.
        """
        if self.seen < 2:
            raise ValueError(f"{int(self.seen)} rows were seen, which have no deviation; train the hypernetwork first")
        return (self.squares / (self.seen - 1)).sqrt()

    def forward(self, rows: Tensor) -> Tensor:
        """Standardise rows [row, coordinate]."""
        return (rows - self.mean.to(rows.dtype)) / (self.deviation + EPSILON).to(rows.dtype)


class LowRank(torch.nn.Module):
    """Residual block on rows [row, width], conditioned on the linear map of a row.

    W z = U V z + b is zero at first (U = 0, b = 0), and so is the block's part of the sum. The clamp passes the
    gradient on at exactly 0, where a ReLU would not: otherwise U could never begin to learn.
    """

    def __init__(self, width: int, rank: int, modules: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = torch.nn.Parameter(torch.randn(rank, width, generator=generator))  # V
        self.up = torch.nn.Parameter(torch.zeros(width, rank))  # U
        self.bias = torch.nn.Parameter(torch.zeros(width))
        self.scale = torch.nn.Parameter(torch.ones(modules, width))
        self.shift = torch.nn.Parameter(torch.zeros(modules, width))

    def linear(self, z: Tensor) -> Tensor:
        """Compute W z for rows z [row, width]."""
        return torch.nn.functional.linear(z @ self.down.T, self.up, self.bias)

    @abstractmethod
    def forward(self, z: Tensor, module: int) -> Tensor:
        """Apply the block to rows z [row, width] of the linear map with number `module`."""
        ...


class Trunk(torch.nn.Module):
    """Network (x, δ) → (x̃, δ̃) for all linear maps of one shape: standardisation and two residual blocks (E.2)."""

    def __init__(
        self, widths: tuple[int, int], modules: int, block: type[LowRank], spec: HypernetworkSpec, inflated: bool,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        self.widths = widths  # in, out
        self.standardiser = Standardiser(sum(widths), inflated) if spec.norm else None
        self.blocks = torch.nn.ModuleList(block(sum(widths), spec.rank, modules, generator) for _ in range(2))

    def see(self, rows: Rows) -> None:
        """Update the standardiser with rows: those of each training step, before their use."""
        if self.standardiser:
            self.standardiser.update(torch.cat([rows.x, rows.delta], dim=1))

    def forward(self, x: Tensor, delta: Tensor, module: int) -> tuple[Tensor, Tensor]:
        """Transform inputs and gradients of the linear map with number `module`: x̃ [row, in] and δ̃ [row, out]."""
        z = torch.cat([x, delta], dim=1)
        if self.standardiser:
            z = self.standardiser(z)
        for block in self.blocks:
            z = block(z, module)
        return z.split(self.widths, dim=1)


# the model that is edited


def blanks_by_part(encoder: Encoder, statements: Sequence[Statement], first: int, size: int = 256) -> Batch:
    """Run `blanks` on many statements, some at a time, so that the blocks below `first` need little memory."""
    parts = [blanks(encoder, statements[start : start + size], first) for start in range(0, len(statements), size)]
    longest = max(part.text.shape[1] for part in parts)
    room = [longest - part.text.shape[1] for part in parts]
    pad = torch.nn.functional.pad
    inside = torch.cat([pad(part.inside, (0, more)) for part, more in zip(parts, room, strict=True)])
    return Batch(
        torch.cat([pad(part.input, (0, 0, 0, more)) for part, more in zip(parts, room, strict=True)]),
        text_numbers(inside),
        torch.cat([part.row + i * size for i, part in enumerate(parts)]),
        torch.cat([part.place for part in parts]),
        piece=torch.cat([part.piece for part in parts]),
    )


def linear(model: BertForMaskedLM, site: Site) -> torch.nn.Linear:
    """Get the linear map at a site."""
    block, kind = site
    return getattr(blocks(model)[block], kind)


class _Upper(torch.nn.Module):
    """Blocks from `first` on, as a module, so that they can be called with other weights."""

    def __init__(self, model: BertForMaskedLM, first: int) -> None:
        super().__init__()
        self.model, self.first = model, first

    def forward(self, given: Batch) -> Tensor:
        return masked_lm(self.model, given, self.first)


def told_rows(
    model: BertForMaskedLM, given: Batch, first: int, sites: Sequence[Site], masks_only: bool
) -> dict[Site, Rows]:
    """Compute inputs and gradients at each site by one forward and one backward pass of the upper blocks.

    Rows: the masks, or all tokens; of these, those where neither x nor δ is zero throughout (padding, and tokens that
    do not reach the loss). The order is that of the statements and their tokens.
    """
    inputs: dict[Site, Tensor] = {}
    probes: dict[Site, Tensor] = {}

    def probe(y: Tensor, site: Site) -> Tensor:
        probes[site] = torch.zeros_like(y, requires_grad=True)
        return y + probes[site]  # the gradient by what is added is the one by y

    taps: dict[Site, Tap] = {}
    for site in sites:
        into, out = MAPS[site[1]]
        taps[site[0], into] = partial(inputs.__setitem__, site)
        taps[site[0], out] = partial(probe, site=site)
    with torch.enable_grad():
        loss = nll(masked_lm(model, given, first, taps), given) * len(given.text)  # each statement's own, added up
    found = {}
    for site, delta in zip(sites, torch.autograd.grad(loss, [probes[site] for site in sites]), strict=True):
        x = inputs[site].detach()
        chosen = (delta != 0).any(-1) & (x != 0).any(-1)  # [statement, token]
        if masks_only:
            masked = torch.zeros_like(chosen)
            masked[given.row, given.place] = True
            chosen &= masked
        found[site] = Rows(x[chosen], delta[chosen], chosen.nonzero()[:, 0])
    return found


# training


class Lesson(NamedTuple):
    """Batch of practice: statements edited in, statements that should follow, and those that should not change."""

    rows: dict[Site, Rows]  # of the statements edited in
    share: Tensor  # [statement edited in]: 1 / number of statements by which its fact is edited in
    rephrased: Batch
    kept: Batch
    before: Tensor  # [mask of `kept`, vocabulary]: logits of the unedited model


class Pool(NamedTuple):
    """Places of the topics and kept statements from which lessons are drawn."""

    topics: np.ndarray  # places in `Practice.topics`
    kept: np.ndarray  # rows of `Practice.kept`


class Practice:
    """Practice facts and kept statements, from which batches are drawn.

    As the edited model does not learn, each statement's rows at the sites are computed once. This takes memory: at 3
    blocks of 128 × 512 and all tokens, 0.2 MB a statement; masks alone take little.
    """

    def __init__(
        self, editor: "Hypernetwork", encoder: Encoder, facts: Sequence[Fact], kept: Sequence[Statement]
    ) -> None:
        self.spec, self.model, first = editor.spec, copy_model(encoder).requires_grad_(False), editor.first
        statements: list[Statement] = []
        topics: dict[tuple[str, str], list[range]] = defaultdict(list)
        for fact in facts:
            said = training_statements(fact)
            if len(said) < 2:
                raise ValueError(
                    f"practice fact {fact.id!r} has {len(said)} statements to be told by; give it 2 or more, so that "
                    "one can be told and another one follow"
                )
            topics[fact.subject, fact.relation].append(range(len(statements), len(statements) + len(said)))
            statements += said
        if len(topics) < 2 or len(kept) < 2:
            raise ValueError(
                f"{len(topics)} practice facts and {len(kept)} kept statements cannot be split; give 2 or more of each"
            )
        self.topics = list(topics.values())  # statements about one subject and relation: facts that exclude each other
        self.statements, self.kept = (blanks_by_part(encoder, chosen, first) for chosen in (statements, kept))
        self.rows = editor.rows(self.model, self.statements)
        with torch.no_grad():
            logits = masked_lm(self.model, self.kept, first)
        self.before = logits.split(torch.bincount(self.kept.row).tolist())

    def split(self, rng: np.random.Generator) -> tuple[Pool, Pool]:
        """Split into a pool to learn from, and one that only chooses the checkpoint."""
        topics, kept = (rng.permutation(len(of)) for of in (self.topics, self.before))
        cuts = [max(1, int(len(of) * self.spec.validation)) for of in (topics, kept)]
        return Pool(topics[cuts[0] :], kept[cuts[1] :]), Pool(topics[: cuts[0]], kept[: cuts[1]])

    def draw(self, topics: np.ndarray, kept: np.ndarray, rng: np.random.Generator) -> Lesson:
        """Draw a random batch, of each topic drawn one fact, as large as `topics` and `kept` allow."""
        told: list[int] = []
        rephrased: list[int] = []
        shares: list[float] = []
        for topic in rng.permutation(topics)[: self.spec.batch]:
            facts = self.topics[topic]
            order = rng.permutation(facts[rng.integers(len(facts))]).tolist()
            cut = min(self.spec.told, len(order) - 1)
            told += order[:cut]
            shares += [1 / cut] * cut
            rephrased += order[cut : cut + self.spec.rephrasings]
        rows = rng.permutation(kept)[: self.spec.kept]
        before = torch.cat([self.before[row] for row in rows])
        share = torch.tensor(shares, dtype=before.dtype, device=before.device)
        told_rows = {site: of.part(told) for site, of in self.rows.items()}
        return Lesson(told_rows, share, self.statements.part(rephrased), self.kept.part(rows), before)


class Hypernetwork(torch.nn.Module):
    """Learned editor of a BERT of one shape; `Mend` and `Malmen` define how rows become a change.

    It has one trunk for each kind of site, that is, for each shape of an edited weight matrix.
    """

    Spec: ClassVar[type[HypernetworkSpec]]
    Block: ClassVar[type[LowRank]]
    masks_only: ClassVar[bool]  # whether rows are the masks alone, or all tokens

    def __init__(self, spec: HypernetworkSpec, shape: Shape, seed: int = 0, inflated: bool = False) -> None:
        """Initialise the hypernetwork, untrained."""
        super().__init__()
        self.spec, self.shape = spec, shape
        self.first = max(0, shape.layers - spec.blocks)
        widths = {"intermediate": (shape.d_model, shape.d_ff), "output": (shape.d_ff, shape.d_model)}
        generator, modules = torch.Generator().manual_seed(seed), shape.layers - self.first
        self.trunks = torch.nn.ModuleDict(
            {kind: Trunk(widths[kind], modules, self.Block, spec, inflated, generator) for kind in spec.sites}
        )
        self.validation: list[tuple[int, float]] = []  # (step, loss) at each validation; 0: before the first step

    @property
    def sites(self) -> list[Site]:
        """Sites that are edited."""
        return [(block, kind) for block in range(self.first, self.shape.layers) for kind in self.spec.sites]

    def at_sites(self, start: float) -> torch.nn.ParameterDict:
        """Make a learned number for each site: by kind, [edited block]."""
        modules = self.shape.layers - self.first
        return torch.nn.ParameterDict({kind: torch.full((modules,), start) for kind in self.spec.sites})

    # where the methods differ

    @abstractmethod
    def change(self, site: Site, rows: Rows, share: Tensor) -> Tensor:
        """Compute the change of the weight at a site: [out, in].

        `share` [statement] is 1 / the number of statements by which the statement's fact is edited in.
        """

    @abstractmethod
    def teach(
        self, rows: Mapping[Site, Rows], changes: Mapping[Site, Tensor], gradients: Mapping[Site, Tensor]
    ) -> None:
        """Add the loss's gradients by the hypernetwork's parameters, given those by the changed weights.

        All are [out, in] at their sites.
        """

    def groups(self) -> list[dict]:
        """Group the parameters, with their learning rates, for the optimiser."""
        return [{"params": list(self.parameters()), "lr": self.spec.learning_rate}]

    # editing

    def edit(self, encoder: Encoder, facts: Sequence[Fact]) -> Encoder:
        """Edit in all the facts at once, `spec.rounds` times, each by `spec.wordings` of its statements.

        Raises ValueError for invalid facts (see `told_once`) and for an encoder of another shape, and
        FloatingPointError for a change that is not finite.
        """
        facts = told_once(facts)
        model = copy_model(encoder)
        if (found := shape(encoder)) != self.shape:
            raise ValueError(
                f"this hypernetwork edits models of {self.shape}, not of {found}; train one for this model"
            )
        if not facts:
            return rewritten(encoder, model)
        said = [training_statements(fact)[: self.spec.wordings] for fact in facts]
        share = torch.tensor([1 / len(of) for of in said for _ in of], device=encoder.model.device)
        with threads(1), torch.no_grad():
            given = blanks_by_part(encoder, [statement for of in said for statement in of], self.first)
            for _ in range(self.spec.rounds):
                rows = self.to(encoder.model.device).rows(model, given)
                for site, change in self.changes(rows, share.to(given.input.dtype)).items():
                    linear(model, site).weight += change
        return rewritten(encoder, model)

    def rows(self, model: BertForMaskedLM, given: Batch) -> dict[Site, Rows]:
        """Run `told_rows` on statements, chunk by chunk."""
        chunks = []
        for part in torch.arange(len(given.text)).split(self.spec.chunk):
            found = told_rows(model, given.part(part), self.first, self.sites, self.masks_only)
            chunks.append({site: of._replace(statement=of.statement + part[0]) for site, of in found.items()})
        return {site: Rows(*map(torch.cat, zip(*(of[site] for of in chunks), strict=True))) for site in self.sites}

    def changes(self, rows: Mapping[Site, Rows], share: Tensor) -> dict[Site, Tensor]:
        """Compute the change of the weight at each site."""
        found = {site: self.change(site, of, share) for site, of in rows.items()}
        if wrong := [site for site, change in found.items() if not change.isfinite().all()]:
            raise FloatingPointError(
                f"the change of block {wrong[0][0]}'s {wrong[0][1]} is not finite; train with lower learning rates"
            )
        return found

    # training

    @classmethod
    def trained(
        cls,
        encoder: Encoder,
        practice: Sequence[Fact],
        kept: Sequence[Statement],
        spec: HypernetworkSpec,
        seed: int = 0,
    ) -> Self:
        """Train a hypernetwork by practice on this encoder.

        `practice`: facts as they are edited in, with objects that the encoder does not expect, usually counterfactual;
        several of one subject and relation are alternatives, of which a batch has one. `kept`: statements whose
        completions should not change. The parameters of the best validation are kept. Raises ValueError for too few
        facts or statements, and FloatingPointError if training diverges.
        """
        rng = np.random.default_rng([seed, 0xED17])
        with threads(1):
            editor = cls(spec, shape(encoder), seed).to(encoder.model.device)
            editor._train(Practice(editor, encoder, practice, kept), rng)
        return editor

    def _train(self, practice: Practice, rng: np.random.Generator) -> None:
        learn, validate = practice.split(rng)
        exam = practice.draw(*validate, rng)
        optimiser, best, state = torch.optim.Adam(self.groups()), math.inf, {}
        for step in progress(range(1, self.spec.steps + 1), f"{type(self).__name__}, practice"):
            optimiser.zero_grad()
            self.step(practice.model, practice.draw(*learn, rng))
            norm = torch.nn.utils.clip_grad_norm_(self.parameters(), self.spec.clip)
            _check(norm, f"gradient in step {step}")
            optimiser.step()
            if step % self.spec.validate_every == 0 or step == self.spec.steps:
                loss = self.loss(practice.model, exam)
                self.validation.append((step, loss))
                if loss < best:
                    best, state = loss, {name: value.clone() for name, value in self.state_dict().items()}
        self.load_state_dict(state)

    def step(self, model: BertForMaskedLM, lesson: Lesson) -> float:
        """Compute a lesson's loss, and add its gradients to the parameters' (E.3, F.3).

        The chain rule is cut at the changed weights: first the loss's gradient by them, with the edited model's graph
        alone, then from there to the parameters, with the hypernetwork's graph alone.
        """
        for (_, kind), rows in lesson.rows.items():
            cast(Trunk, self.trunks[kind]).see(rows)
        changes = self.changes(lesson.rows, lesson.share)
        weights = {site: (linear(model, site).weight + of.detach()).requires_grad_() for site, of in changes.items()}
        total = 0.0
        for part in self._losses(model, weights, lesson):
            part.backward()
            total += part.item()
        self.teach(lesson.rows, changes, {site: w.grad for site, w in weights.items() if w.grad is not None})
        return total

    @torch.no_grad()
    def loss(self, model: BertForMaskedLM, lesson: Lesson) -> float:
        """Compute the same loss without gradients."""
        changes = self.changes(lesson.rows, lesson.share)
        weights = {site: linear(model, site).weight + change for site, change in changes.items()}
        return sum(part.item() for part in self._losses(model, weights, lesson))

    def _losses(self, model: BertForMaskedLM, weights: Mapping[Site, Tensor], lesson: Lesson) -> Iterator[Tensor]:
        """Compute c_e · nll + c_loc · KL of the model with these weights, chunk by chunk."""
        upper = _Upper(model, self.first)
        named = {name_of(linear(model, site).weight, upper): weight for site, weight in weights.items()}
        for rows in torch.arange(len(lesson.rephrased.text)).split(self.spec.chunk):
            given = lesson.rephrased.part(rows)
            part = nll(functional_call(upper, named, (given,)), given) * len(rows) / len(lesson.rephrased.text)
            yield _check(self.spec.edit_weight * part, "loss")
        for rows in torch.arange(len(lesson.kept.text)).split(self.spec.chunk):
            given, before = lesson.kept.part(rows), lesson.before[torch.isin(lesson.kept.row, rows)]
            part = drift(before, functional_call(upper, named, (given,))) * len(before) / len(lesson.before)
            yield _check(self.spec.locality_weight * part, "loss")

    # keeping

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of method, spec, shape and weights."""
        sha = hashlib.sha256(self._about().encode())
        for name, value in sorted(self.state_dict().items()):
            sha.update(name.encode() + value.cpu().numpy().tobytes())
        return sha.hexdigest()

    def _about(self) -> str:
        about = {"method": type(self).__name__, "spec": asdict(self.spec), "shape": self.shape._asdict()}
        return json.dumps({**about, "validation": self.validation}, indent=1)

    def save(self, folder: Path) -> None:
        """Write `hypernetwork.safetensors` and `hypernetwork.json`."""
        save_file({name: value.contiguous().cpu() for name, value in self.state_dict().items()}, folder / WEIGHTS)
        (folder / ABOUT).write_text(f"{self._about()}\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises ValueError, in one sentence, for a folder that is incomplete, damaged or of the other method.
        """
        if missing := [name for name in (WEIGHTS, ABOUT) if not (folder / name).is_file()]:
            raise ValueError(f"{folder} holds no hypernetwork: {missing[0]} is missing; train one and save it there")
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["method"] != cls.__name__:
            raise ValueError(f"{folder} holds a {about['method']}, not a {cls.__name__}; load it as what it is")
        about["spec"]["sites"] = tuple(about["spec"]["sites"])
        editor = cls(cls.Spec(**about["spec"]), Shape(**about["shape"]))
        editor.validation = [(step, loss) for step, loss in about["validation"]]
        try:
            editor.load_state_dict(load_file(folder / WEIGHTS))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"the weights in {folder} are damaged; train the hypernetwork again") from error
        return editor


def _check(value: Tensor, what: str) -> Tensor:
    """Return the value, or raise FloatingPointError if it is not finite."""
    if not value.isfinite():
        raise FloatingPointError(f"the hypernetwork's {what} is {value.item()}; lower its learning rates")
    return value
