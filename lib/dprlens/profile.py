"""Profiles: the sizes of everything, in one frozen record with one spec per module.

This file gathers the specs, the modules explain them. A library function takes *its* spec, never the profile, so that
an unrelated setting does not invalidate its results.

The real setting differs from reader to reader: other files, other models, less memory. So its data folder may have a
`profile.toml` that overrides settings of profile `paper`, one table per spec, named as the fields of `Profile`:

    [world]
    mode = "skip"
    corpus = "all"
    [protocol.training]
    epochs = 4
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from dprlens.bert.encoder import EncoderSpec
from dprlens.bert.pretrained import ModelsSpec
from dprlens.cache.artifacts import folder_for
from dprlens.consistency.probes import ProbeSpec, ProbingSpec
from dprlens.decentralization.active_neurons import ActivitySpec, SampleSpec
from dprlens.decentralization.attribution import AttributionSpec
from dprlens.editing.editors import EditorSpecs, FinetuningSpec, MalmenSpec, MendSpec, PatcherSpec, RehearsalSpec
from dprlens.editing.protocol import ProtocolSpec
from dprlens.knowledge_bound.exhibits import BoundSpec
from dprlens.late_facts.exhibits import ARMS, LateSpec
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.training.dpr import PAPER, DPRSpec
from dprlens.training.pretrain import PretrainSpec
from dprlens.world.closed import ClosedSpec, TextSpec
from dprlens.world.natural import NaturalSpec


@dataclass(frozen=True)
class Profile:
    """One spec per module."""

    name: str
    world: ClosedSpec | NaturalSpec
    models: ModelsSpec
    text: TextSpec
    encoder: EncoderSpec
    pretrain: PretrainSpec
    negatives: NegativesSpec
    dpr: DPRSpec
    bound: BoundSpec
    probe: ProbeSpec
    probing: ProbingSpec
    sample: SampleSpec
    attribution: AttributionSpec
    activity: ActivitySpec
    protocol: ProtocolSpec
    editors: EditorSpecs
    late: LateSpec
    experiments: str | None = None  # the profile of the chapters that control what a model reads; None: this one
    turned: tuple[str, ...] = ()  # the lines of the data folder's `profile.toml`, "dpr.epochs = 4"

    @property
    def controlled(self) -> "Profile":
        """Profile with a generated world for the experiments of B.1 and B.2: this one, or `experiments`."""
        return self if self.experiments is None else PROFILES[self.experiments]

    def but(self, **changes: object) -> "Profile":
        """Copy the profile with some settings changed.

        A setting is named as the field of its spec; None leaves it unchanged. One that two specs have is changed
        through its spec: `but(dpr={"learning_rate": 1e-4})`. Raises ValueError for a setting that no spec has, or that
        two have.
        """
        changed = self
        for knob, value in changes.items():
            if knob in SPECS and isinstance(value, dict):
                for name, turned in value.items():
                    changed = changed._turned(name, turned, [knob])
            else:
                changed = changed._turned(knob, value, SPECS)
        return changed

    def _turned(self, knob: str, value: object, specs: Sequence[str]) -> "Profile":
        owners = [spec for spec in specs if knob in (field.name for field in fields(getattr(self, spec)))]
        if len(owners) != 1:
            none = "no spec has it" if len(specs) > 1 else f"{specs[0]} has no such field"
            reason = f"more than one spec has it ({', '.join(owners)})" if owners else none
            raise ValueError(f"{knob!r} is not a knob of profile {self.name!r}: {reason}")
        if value is None:
            return self
        value = _frozen(value)  # papermill passes tuples on as lists
        return replace(self, **{owners[0]: replace(getattr(self, owners[0]), **{knob: value})})


SPECS = tuple(field.name for field in fields(Profile) if field.name not in ("name", "experiments", "turned"))
OWN = "profile.toml"

TINY = Profile(
    name="tiny",  # tests and CI: every notebook end to end in seconds
    world=ClosedSpec(people=24, cities=8, companies=8, films=10, exposures=60, low_doses=(5, 20), low_dose_share=0.1),
    models=ModelsSpec(),
    text=TextSpec(remarks=3),
    encoder=EncoderSpec(layers=4, d_model=64, d_ff=256, heads=4),
    pretrain=PretrainSpec(shallow_layers=2, batch=8, matrix_learning_rate=0.02, muon="float32"),
    negatives=NegativesSpec(),
    dpr=DPRSpec(epochs=3, batch=16, warm_up_steps=10),
    bound=BoundSpec(
        shallow_arms=(("true", 2), ("false", 1), ("nothing", 2)),
        shallow_layers=2,
        shallow_size=1.0,
        grid=((1.0, 0.9),),
    ),
    probe=ProbeSpec(rank=4),
    probing=ProbingSpec(random_encoders=1, repeats=2, worlds=2),
    sample=SampleSpec(examples=24, candidates=8, hard=3),
    attribution=AttributionSpec(most_nodes=8),
    activity=ActivitySpec(few=8, outliers=2, changed=(5, 20), dpr_seeds=2, worlds=2),
    protocol=ProtocolSpec(facts=12),
    editors=EditorSpecs(
        transformer_patcher=PatcherSpec(memory=200, memory_top=20, first_check=50),
        malmen=MalmenSpec(blocks=2, rank=16, batch=8, kept=16, steps=20),
        mend=MendSpec(blocks=2, rank=16, batch=8, kept=16, steps=20),
        rehearsal=RehearsalSpec(times=20),
        relearning=RehearsalSpec(times=20, learning_rate=None, muon="float32"),
    ),
    late=LateSpec(layers=2, size=0.5, points=(0.0, 0.5), arms=("plain", "large_steps")),
)

SMALL = Profile(
    name="small",  # the book that `make book` builds
    world=ClosedSpec(),
    models=ModelsSpec(),
    text=TextSpec(),
    encoder=EncoderSpec(),
    pretrain=PretrainSpec(),
    negatives=NegativesSpec(),
    dpr=DPRSpec(),
    bound=BoundSpec(),
    probe=ProbeSpec(),
    probing=ProbingSpec(),
    sample=SampleSpec(),
    attribution=AttributionSpec(),
    activity=ActivitySpec(),
    protocol=ProtocolSpec(),
    editors=EditorSpecs(  # two thirds of the time; facts edited in and kept are within a few hundredths of `full`
        finetuning=FinetuningSpec(learning_rate=6e-4, epochs=10), malmen=MalmenSpec(steps=30), mend=MendSpec(steps=30)
    ),
    late=LateSpec(),
)

FULL = Profile(
    name="full",  # recorded results: the world of `small` at five seeds with all arms, and worlds up to twice its size
    world=SMALL.world,
    models=SMALL.models,
    text=SMALL.text,
    encoder=SMALL.encoder,
    pretrain=SMALL.pretrain,
    negatives=SMALL.negatives,
    dpr=SMALL.dpr,
    bound=BoundSpec(
        deep_arms=(("true", 5), ("false", 2), ("nothing", 5)),
        shallow_arms=(("true", 3), ("false", 3), ("nothing", 3)),
        grid=tuple((size, form) for size in (0.25, 0.5, 1.0, 2.0) for form in (0.1, 0.9)),
    ),
    probe=SMALL.probe,
    probing=ProbingSpec(worlds=5),
    sample=SMALL.sample,
    attribution=SMALL.attribution,
    activity=ActivitySpec(dpr_seeds=3, worlds=5),
    protocol=ProtocolSpec(
        worlds=3,  # of 96 facts each, for the paper's 284
        baselines=("finetuning", "rehearsal", "relearning"),
        reseeded=2,
        shams=("transformer_patcher", "malmen", "mend"),
    ),
    editors=EditorSpecs(),
    late=LateSpec(size=1.0, worlds=2, deals=5, constant=2, arms=tuple(ARMS)),
)

PAPER_SCALE = Profile(
    name="paper",  # the real setting, from DPR's files and BERT-base below $DPRLENS_DATA
    world=NaturalSpec(hard_negatives=8, sample=1_000_000),
    models=ModelsSpec(start="models/bert-base-uncased"),
    text=TextSpec(),
    encoder=EncoderSpec(layers=12, d_model=768, d_ff=3072, heads=12, max_length=256),
    pretrain=PretrainSpec(),
    negatives=NegativesSpec(),
    dpr=PAPER,
    bound=SMALL.bound,
    probe=SMALL.probe,
    probing=ProbingSpec(questions=4000),
    sample=SMALL.sample,
    attribution=SMALL.attribution,
    activity=SMALL.activity,
    protocol=ProtocolSpec(facts=284, training=PAPER, questions=58_880),
    editors=FULL.editors,
    late=SMALL.late,
    experiments="small",
)

PROFILES = {profile.name: profile for profile in (TINY, SMALL, FULL, PAPER_SCALE)}


def get_profile(name: str) -> Profile:
    """Get a profile by name.

    Files of the natural world, and `profile.toml`, are below `$DPRLENS_DATA`, else in data/. Raises ValueError for a
    profile that does not exist, and for an invalid `profile.toml`.
    """
    if name not in PROFILES:
        raise ValueError(f"there is no profile {name!r}; choose one of {', '.join(PROFILES)}")
    profile = PROFILES[name]
    if not isinstance(profile.world, NaturalSpec):
        return profile
    folder = folder_for("DPRLENS_DATA", "data")
    return _with_own(profile, folder / OWN).but(world={"folder": str(folder)})


def _with_own(profile: Profile, file: Path) -> Profile:
    """Override the profile by a file, if there is one."""
    if not file.is_file():
        return profile
    try:
        told = tomllib.loads(file.read_text(encoding="utf-8"))
        chosen = _told(profile, told, {"experiments", *SPECS})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{file} cannot be used: {error}") from None
    if chosen.experiments not in PROFILES:
        raise ValueError(f"{file} cannot be used: experiments = {chosen.experiments!r}; give one of tiny, small, full")
    return replace(chosen, turned=tuple(_lines(told)))


def _told(record: Any, told: Mapping[str, Any], known: set[str] | None = None) -> Any:
    """Override fields of a record (those `known`, or all), by tables in the records within it."""
    changed = {}
    known = known or {field.name for field in fields(record)}
    for name, value in told.items():
        if name not in known:
            raise ValueError(f"{type(record).__name__} has no {name!r}; it has {', '.join(sorted(known))}")
        old = getattr(record, name)
        if is_dataclass(old) != isinstance(value, Mapping):
            raise ValueError(f"{name} = {value!r} is {'no' if is_dataclass(old) else 'a'} table of knobs")
        changed[name] = _told(old, value) if is_dataclass(old) else _value(name, old, value)
    return replace(record, **changed)


def _value(name: str, old: object, value: object) -> object:
    """Convert a value from TOML to the kind of the one that it replaces."""
    value = float(value) if isinstance(old, float) and type(value) is int else _frozen(value)
    if old is not None and type(value) is not type(old):
        raise ValueError(f"{name} = {value!r} is not of the kind of {old!r}")
    return value


def _frozen(value: object) -> object:
    """Convert lists to tuples, so that a profile can be a key."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _lines(told: Mapping, front: str = "") -> list[str]:
    """List the overridden values, one per line: "dpr.epochs = 4"."""
    found = []
    for name, value in told.items():
        at = f"{front}{name}"
        found += _lines(value, f"{at}.") if isinstance(value, Mapping) else [f"{at} = {value}"]
    return found
