"""What a profile needs, what of it is here, and what each step will cost on this machine: `python -m dprlens doctor`.

Takes seconds and fetches nothing. Costs are estimates: operations are counted, and divided by what a short run of
matrix products reaches here times the share of it that such work is assumed to reach (`UTILISATION`). Sizes of vectors
follow from their number. What an estimate leaves out, such as reading from a slow disk, makes it longer.

For a text of t tokens, a forward pass through L blocks of width d with feed-forward layers of width f takes

    F(t) = 2 t L (4 d² + 2 d f) + 4 L t² d    operations;

encoding a text takes F, a training step 3 F, attribution F for every site and node of the integration (half of the
blocks forwards and back, without the gradient of the weights), a product of two vectors 2 d.
"""

import argparse
import gzip
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from dprlens.ranges import COUNT, check
from dprlens.world.natural.resources import Resource, amount, data_folder, look, resources

UTILISATION = {"cpu": 0.6, "cuda": 0.4}  # of the speed of large matrix products
PATIENCE = 48.0  # hours; a step that takes longer comes with a proposal
CALIBRATION = 0.15  # seconds a kind of product
GB = 1e9


@dataclass(frozen=True)
class PlanSpec:
    """How much there is to do in the real setting."""

    passages: int = 21_015_324  # psgs_w100.tsv
    passage_tokens: int = 140  # a title and 100 words
    passage_bytes: int = 620  # of a stored passage: 100 words of six characters, and a title; an estimate
    asked: int = 3_610  # questions that are searched for
    question_tokens: int = 14
    trained: int = 58_880  # questions of DPR training, each with two passages
    epochs: int = 40
    chunk: int = 32  # texts that are trained on at once in memory
    pool: int = 1_000_000  # passages to choose from instead of all
    attributed: int = 1_000  # questions, and as many passages
    sites: int = 24
    nodes: int = 4  # of the integration; the attribution chooses up to 64
    runs: int = 36  # DPR trainings of section 4: three editors, two directions, three seeds, edited and null arm
    layers: int = 12
    d_model: int = 768
    d_ff: int = 3072
    heads: int = 12
    vocabulary: int = 30_522
    batch: int = 64  # texts that are encoded at once

    def __post_init__(self) -> None:
        check(self, COUNT, *self.__dataclass_fields__)

    def forward(self, tokens: int) -> float:
        """Operations of a forward pass over one text of so many tokens."""
        width, depth = self.d_model, self.layers
        return 2 * tokens * depth * (4 * width**2 + 2 * width * self.d_ff) + 4 * depth * tokens**2 * width

    @property
    def parameters(self) -> int:
        """Weights of one encoder, biases and norms left out."""
        return self.vocabulary * self.d_model + self.layers * (4 * self.d_model**2 + 2 * self.d_model * self.d_ff)

    def vectors(self, passages: int, bytes_a_number: float = 4) -> float:
        """Bytes of so many passages' vectors."""
        return passages * self.d_model * bytes_a_number

    @property
    def quantised(self) -> float:
        """Bytes of all passages in product quantisation with 96 codes of a byte each."""
        return self.passages * 96.0


class Gpu(NamedTuple):
    """A graphics processor."""

    name: str
    memory: int  # bytes


class Machine(NamedTuple):
    """What there is to work with."""

    cores: int
    memory: int  # bytes that are free
    disk: int  # bytes that are free where the data folder is
    gpus: tuple[Gpu, ...]
    fp32: float  # operations a second in large matrix products, on one device
    bf16: float | None  # the same; None: not measured
    text: float  # bytes a second in unpacking and splitting text, on one core
    busy: float = 0.0  # cores that other programs kept busy meanwhile

    @property
    def device(self) -> str:
        """Where models run: "cuda" or "cpu"."""
        return "cuda" if self.gpus else "cpu"

    @property
    def speed(self) -> float:
        """Operations a second that all devices together are assumed to reach in fp32."""
        return self.fp32 * UTILISATION[self.device] * max(1, len(self.gpus))


class Cost(NamedTuple):
    """What one step takes."""

    step: str
    memory: float  # bytes, on the device that does the work
    disk: float  # bytes
    seconds: float
    how: str


class Row(NamedTuple):
    """One line of the report."""

    part: str  # "files", "machine", "steps" or "advice"
    name: str
    ok: bool | None  # None: neither here nor there
    text: str


# The machine


def measure_machine(folder: Path) -> Machine:
    """Measure the machine, in less than a second or, where a GPU has to wake up, a few."""
    gpus, busy = [], os.getloadavg()[0]  # the load before our own
    if torch.cuda.is_available():
        devices = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
        gpus = [Gpu(device.name, device.total_memory) for device in devices]
    device = torch.device("cuda" if gpus else "cpu")
    return Machine(
        cores=_cores(),
        memory=_memory(),
        disk=shutil.disk_usage(_existing(folder)).free,
        gpus=tuple(gpus),
        fp32=_products(device, torch.float32),
        bf16=_products(device, torch.bfloat16) if gpus else None,
        text=_text_speed(),
        busy=busy,
    )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = Path(folder).absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _said("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def _memory() -> int:
    """Bytes that are free, for this process and whatever group it is limited with."""
    free = psutil.virtual_memory().available
    most, used = _said("/sys/fs/cgroup/memory.max"), _said("/sys/fs/cgroup/memory.current")
    return min(free, max(0, int(most) - int(used))) if most.isdigit() and used.isdigit() else free


def _said(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _products(device: torch.device, kind: torch.dtype) -> float:
    """Operations a second in products of large matrices: the best of the few that fit the time."""
    size = 8192 if device.type == "cuda" else 768
    a, b = (torch.ones(size, size, device=device, dtype=kind) for _ in range(2))

    def once() -> float:
        began = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    return 2 * size**3 / _best(once)


def _text_speed() -> float:
    lines = "".join(f"{i}\tWords of a passage, {i * i} of them, to be split.\tTitle\n" for i in range(20_000)).encode()
    packed = gzip.compress(lines, compresslevel=1)

    def once() -> float:
        began = time.perf_counter()
        for line in gzip.decompress(packed).decode().split("\n"):
            line.split("\t")
        return time.perf_counter() - began

    return len(lines) / _best(once)


def _best(once: Callable[[], float]) -> float:
    """The shortest of the times that `once` returns, after a first one to warm up."""
    once()
    until, best = time.perf_counter() + CALIBRATION, once()
    while time.perf_counter() < until:
        best = min(best, once())
    return best


# What it takes


def costs(machine: Machine, plan: PlanSpec, corpus: int | None = None) -> list[Cost]:
    """What every step takes with a corpus of so many passages (None: all), with exact search over fp32 vectors."""
    passages = plan.passages if corpus is None else corpus
    weights, vectors = 4.0 * plan.parameters, plan.vectors(passages)
    question, passage = plan.forward(plan.question_tokens), plan.forward(plan.passage_tokens)
    encoding = passages * passage
    training = 3 * plan.trained * plan.epochs * (question + 2 * passage)
    searching = 2.0 * passages * plan.d_model * plan.asked
    attributing = plan.attributed * plan.sites * plan.nodes * (question + passage)
    training_memory = 2 * 4 * weights + 2 * _activations(plan)  # fp32
    block = plan.vectors(1 << 18)
    lists = 4 * passages**0.5

    def at(operations: float) -> float:
        return operations / machine.speed

    return [
        Cost(
            "store",
            1.0 * GB,
            passages * plan.passage_bytes,
            plan.passages * plan.passage_bytes / machine.text,
            "unpacking and splitting the text on one core, once; writing comes on top, the memory is an allowance",
        ),
        Cost(
            "encode",
            weights + _layer_states(plan),
            vectors,
            at(encoding),
            f"{_operations(encoding)}: {passages:,} passages of {plan.passage_tokens} tokens, flat fp32 vectors",
        ),
        Cost(
            "index",
            2 * block,
            0.0,
            at(2.0 * passages * plan.d_model * lists),
            "only for approximate search (IVF-PQ), exact search reads the vectors as they are",
        ),
        Cost(
            "search",
            2 * block,
            0.0,
            at(searching),
            f"{_operations(searching)}: {plan.asked:,} questions, exact, block by block; reading {amount(vectors)}"
            " comes on top",
        ),
        Cost(
            "DPR training",
            training_memory,
            3 * 2 * weights,
            at(training),
            f"{_operations(training)}: {plan.trained:,} questions, {plan.epochs} epochs, chunks of {plan.chunk} texts",
        ),
        Cost(
            "attribution",
            weights + 2 * _activations(plan),
            0.0,
            at(attributing),
            f"{_operations(attributing)}: {plan.attributed:,} questions and passages, {plan.sites} sites, {plan.nodes}"
            " nodes",
        ),
        Cost(
            "editing grid",
            training_memory,
            plan.runs * 2 * weights,
            at(plan.runs * (training + encoding)),
            f"{plan.runs} DPR trainings, each with its own encoding of {passages:,} passages, vectors not kept",
        ),
    ]


def _activations(plan: PlanSpec) -> float:
    """Bytes of a backward pass over one chunk in half precision: t b d (34 + 5 a t / d) a block.

    Korthikanti et al. 2022, "Reducing activation recomputation in large transformer models", section 4.1.
    """
    tokens = plan.passage_tokens
    a_block = tokens * plan.chunk * plan.d_model * (34 + 5 * plan.heads * tokens / plan.d_model)
    return plan.layers * a_block


def _layer_states(plan: PlanSpec) -> float:
    """Bytes that one block holds at once while a batch is encoded: states, queries, keys, values, feed-forward."""
    tokens = plan.batch * plan.passage_tokens
    return 4.0 * tokens * (6 * plan.d_model + 2 * plan.d_ff + plan.heads * plan.passage_tokens)


# The report


def doctor(
    profile: str,
    folder: Path,
    plan: PlanSpec | None = None,
    *,
    machine: Machine | None = None,
    needed: Sequence[Resource] | None = None,
    thorough: bool = False,
) -> list[Row]:
    """Every line of the report: files, machine, steps, advice. The profile can run if no line has `ok` False.

    `thorough` reads every file whole to compare its checksum, which takes as long as that takes. `machine` and `needed`
    are measured and read from the list if they are not given.
    """
    plan, folder = plan or PlanSpec(), Path(folder)
    needed = resources().needed(profile) if needed is None else needed
    machine = machine or measure_machine(folder)
    rows = [*_files(needed, folder, thorough), *_machine(machine, folder)]
    if not needed:
        return [*rows, Row("advice", "files", True, f"profile {profile} makes everything itself and needs no file")]
    return rows + _steps(machine, plan) + _advice(needed, folder, machine, plan)


def _files(needed: Sequence[Resource], folder: Path, thorough: bool) -> list[Row]:
    rows = []
    for resource in needed:
        found = look(resource, folder, thorough)
        if found.state == "there":
            sum_ = f", SHA-256 {found.sha256[:12]}…" if found.sha256 else ""
            text = f"there: {found.path}, {amount(found.bytes)}{sum_} ({found.remark})"
        else:
            what = f"{found.state}" + (f" ({found.remark})" if found.remark else "")
            count = f", {resource.rows:,} rows" if resource.rows else ""
            text = f"{what}: {resource.why}; it belongs in {folder / resource.place} ({resource.size}{count})"
        rows.append(Row("files", resource.name, found.state == "there", text))
    return rows


def _machine(machine: Machine, folder: Path) -> list[Row]:
    free = f"{amount(machine.disk)} free at {_existing(folder)}"
    speeds = f"{machine.fp32 / 1e12:.2f} TFLOP/s in fp32"
    if machine.bf16:
        speeds += f", {machine.bf16 / 1e12:.0f} in bf16"
    gpus = "; ".join(f"{gpu.name}, {amount(gpu.memory)}" for gpu in machine.gpus)
    share = UTILISATION[machine.device]
    if machine.busy > 0.25 * machine.cores:
        speeds += f" (too low: other programs kept {machine.busy:.1f} cores busy)"
    return [
        Row("machine", "disk", None, free),
        Row("machine", "memory", None, f"{amount(machine.memory)} free"),
        Row("machine", "cores", None, str(machine.cores)),
        Row("machine", "GPUs", None, gpus or "none"),
        Row("machine", "speed", None, f"{speeds} measured in matrix products; {share:.0%} of it is assumed below"),
    ]


def _steps(machine: Machine, plan: PlanSpec) -> list[Row]:
    rows = []
    for cost in costs(machine, plan):
        memory = _memory_for(cost.step, machine)
        fits = cost.memory <= memory
        text = f"memory {amount(cost.memory)}, disk {amount(cost.disk)}, {_duration(cost.seconds)} ({cost.how})"
        if not fits:
            text += f"; only {amount(memory)} of memory are free: use smaller batches and chunks, or another machine"
        rows.append(Row("steps", cost.step, fits, text))
    return rows


def _memory_for(step: str, machine: Machine) -> int:
    on_gpu = machine.gpus and step in ("encode", "DPR training", "attribution", "editing grid")
    return min(gpu.memory for gpu in machine.gpus) if on_gpu else machine.memory


def _advice(needed: Sequence[Resource], folder: Path, machine: Machine, plan: PlanSpec) -> list[Row]:
    rows = [_keeping(machine, plan)]
    of_all, of_pool = ({cost.step: cost for cost in costs(machine, plan, n)} for n in (None, plan.pool))
    instead = {
        "encode": f"a pool of gold passages, hard negatives and a sample of {plan.pool:,} passages takes"
        f" {_duration(of_pool['encode'].seconds)}",
        "DPR training": "DPR's published encoders can be taken instead: fetch dpr-question-encoder dpr-context-encoder",
        "editing grid": f"with such a pool it takes {_duration(of_pool['editing grid'].seconds)}, and fewer questions"
        " or epochs of training shorten it in proportion",
    }
    gpu = "" if machine.gpus else "; a GPU would make it a small part of that"
    rows += [
        Row("advice", step, None, f"{_duration(of_all[step].seconds)} here; {proposal}{gpu}")
        for step, proposal in instead.items()
        if of_all[step].seconds > PATIENCE * 3600
    ]
    if machine.bf16:
        times = f"matrix products in bf16 are {machine.bf16 / machine.fp32:.0f} times as fast here"
        rows.append(Row("advice", "precision", None, f"{times}; check what it does to the numbers before using it"))
    missing = [resource for resource in needed if look(resource, folder).state != "there"]
    if missing:
        names = " ".join(resource.name for resource in missing)
        places = ", ".join(resource.place for resource in missing)
        text = f"run `python -m dprlens fetch {names}`, or place {places} in {folder}"
        rows.append(Row("advice", "fetch", None, text))
    if [resource.name for resource in missing] == ["psgs_w100"]:
        text = "without the passages' file, a pool of gold passages and hard negatives alone can be searched"
        rows.append(Row("advice", "pool", None, text))
    return rows


def _keeping(machine: Machine, plan: PlanSpec) -> Row:
    """In which form the vectors fit on the disk, beside the passages and the models that are trained."""
    models = sum(cost.disk for cost in costs(machine, plan) if cost.step in ("DPR training", "editing grid"))
    forms = (
        ("flat fp32", plan.passages, plan.vectors(plan.passages)),
        ("flat fp16", plan.passages, plan.vectors(plan.passages, 2)),
        ("PQ96, which is approximate", plan.passages, plan.quantised),
        (f"a pool of {plan.pool:,}", plan.pool, plan.vectors(plan.pool)),
    )
    sizes = "; ".join(f"{form.split(', ')[0]} {amount(vectors)}" for form, _, vectors in forms)
    for form, passages, vectors in forms:
        beside = passages * plan.passage_bytes + models
        if vectors + beside <= machine.disk:
            first = "" if form == forms[0][0] else "choose "
            text = f"{first}{form}: {amount(vectors)} fit beside {amount(beside)} of passages and models"
            return Row(
                "advice", "vectors", True, f"{text} in {amount(machine.disk)} ({sizes}; fetched files come on top)"
            )
    text = f"no form fits in {amount(machine.disk)}; free some space or use another disk ({sizes})"
    return Row("advice", "vectors", False, text)


def report(profile: str, rows: Sequence[Row]) -> str:
    """The lines as a text, with a verdict at its end."""
    titles = {
        "files": "Files and models",
        "machine": "This machine",
        "steps": "What the steps take here, with all passages (estimates)",
        "advice": "What to do",
    }
    lines, marks = [], {True: "ok", False: "--", None: "  "}
    for part, title in titles.items():
        chosen = [row for row in rows if row.part == part]
        if chosen:
            width = max(len(row.name) for row in chosen)
            lines += [title, *(f"  {marks[row.ok]} {row.name:{width}}  {row.text}" for row in chosen), ""]
    wrong = [row.name for row in rows if row.ok is False]
    verdict = f"profile {profile} " + (f"cannot run yet: see {', '.join(wrong)}" if wrong else "can run")
    return "\n".join([*lines, verdict])


def _operations(number: float) -> str:
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12)):
        if number >= size:
            return f"{number / size:,.0f} {unit}"
    return f"{number / 1e9:,.0f} GFLOP"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.{1 if seconds < 10 * size else 0}f} {unit}"
    return f"{seconds:.0f} s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m dprlens doctor`."""
    parser.add_argument("--profile", default="paper", help="the profile to look into (default: paper)")
    parser.add_argument("--data", type=Path, help="the data folder (default: $DPRLENS_DATA, else data)")
    parser.add_argument(
        "--hash", action="store_true", help="read every file whole and compare checksums; takes minutes"
    )


def main(options: argparse.Namespace) -> int:
    """Prints the report: 0 if the profile can run, 1 if something is missing or does not fit."""
    rows = doctor(options.profile, options.data or data_folder(), thorough=options.hash)
    print(report(options.profile, rows))
    return 1 if any(row.ok is False for row in rows) else 0
