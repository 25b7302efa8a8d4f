"""What encoding and searching large corpora costs: the part of a page that is made from `benchmarks/scale.json`."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

WIKIPEDIA = 21_015_324  # passages of DPR's file
BERT_BASE = {"layers": 12, "d_model": 768, "d_ff": 3072}
LINEAR = ("encode", "verify", "search")  # phases that look at every passage
INDEX = "IVF-PQ, build"  # learns from a sample


def measured_costs(file: Path) -> str:
    """The measurements as MyST, with what they come to for all of Wikipedia; a sentence if there are none."""
    if not file.is_file():
        return "No measurement is on record. `make scale` makes one, and this place then shows it.\n"
    report = json.loads(file.read_text(encoding="utf-8"))
    sizes, encoder = report["sizes"], report["encoder"]
    *_, last = sizes
    steps = list(pairwise(sizes))
    wider = BERT_BASE["d_model"] / encoder["d_model"]
    heavier = _weights(BERT_BASE) / _weights(encoder)
    whole = {phase: _taken_on(steps[-1], phase) for phase in LINEAR}
    vectors = 4 * WIKIPEDIA * BERT_BASE["d_model"] / 1e9
    parts = [
        f"Measured by `make scale` on {report['cores']} cores: generated passages of 100 words, an encoder of"
        f" {encoder['layers']} blocks of width {encoder['d_model']}, {report['workers']} processes of one thread,"
        f" {report['questions']} questions, exact search for the best {report['k']}. CPU-seconds include the start of"
        " the processes.",
        _table(
            [
                "passages",
                "encoded a second",
                *(f"{phase}, CPU-s" for phase in (*LINEAR, INDEX)),
                "memory at most",
                "vectors",
            ],
            [_of_size(size) for size in sizes],
        ),
        "What a million more passages cost, from row to row; where it does not grow, the cost is linear, or less. The"
        f" last column takes the last step on in a line to the {WIKIPEDIA:,} passages of Wikipedia.",
        _table(
            ["phase", *(f"{a['passages']:,} to {b['passages']:,}" for a, b in steps), "Wikipedia, time here"],
            [
                [
                    phase,
                    *(f"{_a_million_more(step, phase, 'cpu_seconds'):,.0f} CPU-s" for step in steps),
                    _time(seconds),
                ]
                for phase, seconds in whole.items()
            ],
        ),
        f"IVF-PQ found {last['recall']:.0%} of what exact search finds among {last['passages']:,} passages. The vectors"
        " are those of random weights, so that this says only that its recall is measured.",
        f"BERT-base has {heavier:,.0f} times the weights in its blocks, and each is used once a token; its vectors are"
        f" {wider:g} times as wide, and take {vectors:.1f} GB as float32 or {vectors / 2:.1f} GB as float16. In"
        f" proportion, the same two processes would encode Wikipedia in {_time(whole['encode'] * heavier)}, and search"
        f" it for {report['questions']} questions in {_time(whole['search'] * wider)}, apart from reading the vectors"
        " where they do not fit into memory. Encoding is what a GPU is for.",
    ]
    return "\n\n".join(parts) + "\n"


def _of_size(size: Mapping) -> list[str]:
    return [
        f"{size['passages']:,}",
        f"{size['passages_per_second']:,.0f}",
        *(f"{size['phases'][phase]['cpu_seconds']:,.0f}" for phase in (*LINEAR, INDEX)),
        f"{size['rss_gb']:.1f} GB",
        f"{size['bytes_of_vectors'] / 1e6:,.0f} MB",
    ]


def _a_million_more(step: tuple[Mapping, Mapping], phase: str, unit: str) -> float:
    """What a million passages add, between two sizes."""
    less, more = step
    added = more["phases"][phase][unit] - less["phases"][phase][unit]
    return max(0.0, 1e6 * added / (more["passages"] - less["passages"]))


def _taken_on(step: tuple[Mapping, Mapping], phase: str) -> float:
    """Seconds for Wikipedia: those of the larger size, and as many more as its last passages took."""
    _, more = step
    beyond = (WIKIPEDIA - more["passages"]) / 1e6
    return more["phases"][phase]["seconds"] + beyond * _a_million_more(step, phase, "seconds")


def _weights(shape: Mapping) -> int:
    """Of the matrices of all blocks."""
    return shape["layers"] * (4 * shape["d_model"] ** 2 + 2 * shape["d_model"] * shape["d_ff"])


def _time(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"


def _table(head: list[str], rows: list[list[str]]) -> str:
    rule = [":---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
