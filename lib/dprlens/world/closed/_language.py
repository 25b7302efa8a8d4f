"""The closed world's language: relations, names and values from `language.toml`, and templates of sentences.

Nothing here is random or depends on exposures: `generator` draws the world, `text` writes what
pre-training reads.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from dprlens.world.records import Fact, Statement

KINDS_OF_ENTITY = ("person", "city", "company", "film")

# How a paragraph refers to its subject after the first sentence: (plain, possessive).
SHORT_NAMES = {
    "she": ("She", "Her"),
    "he": ("He", "His"),
    "city": ("The city", "The city's"),
    "company": ("The firm", "Its"),
    "film": ("The film", "Its"),
}


@dataclass(frozen=True)
class Relation:
    """One relation and its templates; see the head of `language.toml` for their notation."""

    name: str
    subject: str
    object: str
    statements: tuple[str, ...]
    reserved: tuple[str, ...]
    questions: tuple[str, ...]
    described_as: tuple[str, ...] = ()

    @property
    def linking(self) -> bool:
        """True if the object can be described through the subject ("the city where … was born")."""
        return bool(self.described_as)


@dataclass(frozen=True)
class Language:
    """The contents of `language.toml`."""

    relations: Mapping[str, Relation]
    remarks: Mapping[str, tuple[str, ...]]
    names: Mapping[str, tuple[str, ...]]
    values: Mapping[str, tuple[str, ...]]


@cache
def language() -> Language:
    """Load the language of the closed world, once."""
    table = tomllib.loads(files(__package__).joinpath("language.toml").read_text(encoding="utf-8"))
    remarks, names, values = (table.pop(part) for part in ("remarks", "names", "values"))
    return Language(
        relations={name: Relation(name, **_frozen(fields)) for name, fields in table.items()},
        remarks={kind: tuple(sentences) for kind, sentences in remarks.items()},
        names={part: tuple(pool) for part, pool in names.items()},
        values={kind: _pool(values) for kind, values in values.items()},
    )


def _frozen(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _pool(values: list[str] | dict[str, int]) -> tuple[str, ...]:
    if isinstance(values, dict):
        return tuple(str(year) for year in range(values["from"], values["to"] + 1))
    return tuple(values)


def with_subject(template: str, subject: str, kind: str | None = None) -> str:
    """Fill in the subject of the template.

    With the subject's `kind`, a subject at the start of the sentence is shortened as inside a paragraph ("She …").
    """
    plain, possessive = subject, f"{subject}'s"
    if kind and template.startswith(("{S} ", "{S's} ")):
        plain, possessive = SHORT_NAMES[short_name(subject, kind)]
    return template.replace("{S's}", possessive).replace("{S}", plain)


def statement(template: str, subject: str, object_: str, kind: str | None = None, reserved: bool = False) -> Statement:
    """Write the sentence that `template` makes of a subject and an object, with the answer's place.

    `kind` as in `with_subject`.
    """
    article = "an" if object_[0] in "aeiou" else "a"
    before, after = with_subject(template, subject, kind).replace("{a}", article).split("{O}")
    text = upper_first(before + object_ + after)
    return Statement(text, len(before), len(before) + len(object_), reserved)


def statements(relation: Relation, subject: str, object_: str) -> tuple[Statement, ...]:
    """Write all statements of one pair by a relation: those for pre-training, then the reserved ones."""
    said = [(template, False) for template in relation.statements]
    said += [(template, True) for template in relation.reserved]
    return tuple(statement(template, subject, object_, reserved=reserved) for template, reserved in said)


def described(description: str, name: str) -> tuple[str, tuple[int, int]]:
    """Describe an entity, as the subject of a sentence; return also the place of its name in it.

    E.g. "the city where Ada Larchcroft was born, Kestrelgate," as in "The city where …, Kestrelgate, lies on the Wend."
    """
    start = len(description) + 2
    return f"{description}, {name},", (start, start + len(name))


def can_be_described(template: str) -> bool:
    """Test whether a template takes a description as its subject.

    It does if the subject comes first in plain form.
    """
    return template.startswith("{S} ")


def is_linking(fact: Fact) -> bool:
    """Test whether the fact's object can be described through it.

    False for a relation that is not of the language.
    """
    relations = language().relations
    return fact.relation in relations and relations[fact.relation].linking


def mentions(text: str, name: str) -> bool:
    """Test whether the name occurs in the text as a whole word or words, whatever the case."""
    return re.search(rf"\b{re.escape(name)}\b", text, flags=re.IGNORECASE) is not None


def short_name(name: str, kind: str) -> str:
    """Choose the key of SHORT_NAMES by which a paragraph refers to an entity of this kind."""
    if kind != "person":
        return kind
    return "she" if name.split()[0] in language().names["given_female"] else "he"


def upper_first(text: str) -> str:
    """Capitalise the first letter of the text and keep the rest."""
    return text[:1].upper() + text[1:]
