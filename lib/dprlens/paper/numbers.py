"""The numbers that the paper prints, and those of its independent replication, from the CSV files beside this module.

`table1.csv`–`table4.csv` hold `id,value` rows under the ids that our own results use. For three passages and more the
paper prints one row for both DPR towers, because it found them equal; here it stands under both. `text.csv` has what
the text says besides.
"""

import csv
import functools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

FOLDER = Path(__file__).parent
TABLES = ("table1", "table2", "table3", "table4")
FACTS = 284  # facts edited in each of the paper's two editing experiments


@functools.cache
def numbers() -> Mapping[str, float]:
    """Every printed number of Tables 1–4 by id; shares 0–1, neurons and flips as counts."""
    frame = pd.concat([pd.read_csv(FOLDER / f"{name}.csv", comment="#") for name in TABLES])
    return MappingProxyType(dict(zip(frame["id"], frame["value"], strict=True)))


def titles() -> pd.DataFrame:
    """Table 2's texts: question (q1–q8), query, model (bert or dpr), rank 1–5, title of the passage's article."""
    return pd.read_csv(FOLDER / "table2_titles.csv", comment="#")


class TextNumber(NamedTuple):
    """A number in the paper's text, outside its tables."""

    section: str
    said: str  # as printed
    what: str  # in our words
    kind: str  # "setting": the authors chose it; "result": they found it
    ids: tuple[str, ...]  # of our numbers that answer it; none where nothing does


def text_numbers() -> tuple[TextNumber, ...]:
    """The numbers that the paper's text says, in its order; those that it quotes from others are left out."""
    with (FOLDER / "text.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return tuple(
            TextNumber(row["section"], row["said"], row["what"], row["kind"], tuple(row["ids"].split())) for row in rows
        )


def replication() -> pd.DataFrame:
    """Probe accuracy on real BERT-base, DPR and Contriever by Yao, Wang and Zuccon (SIGIR 2025, arXiv 2505.07166).

    Columns dataset, pooling, n_passages, model, layer, accuracy (0–1), read off the authors' vector figures. The only
    check of the reading: on CLS, layer 0 must be at chance, and lies within 0.0065 of it (0.005 on Natural Questions),
    which is the error of the reading and of their sample together.
    """
    return pd.read_csv(FOLDER / "replication.csv", comment="#")
