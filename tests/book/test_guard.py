"""The guard sees every change of code that a step can run, and no change that no result depends on."""

import ast
import importlib
import importlib.metadata
import shutil
import sys
import typing
from dataclasses import replace
from pathlib import Path

import pytest

import dprlens
from dprlens.bert.encoder import DualEncoder, EncoderSpec
from dprlens.book import _guard, lock
from dprlens.book._guard import Code
from dprlens.cache.artifacts import Step, Task
from dprlens.consistency import steps as probing
from dprlens.consistency.probes import ProbeSpec
from dprlens.decentralization.active_neurons import SampleSpec
from dprlens.decentralization.attribution import AttributionSpec
from dprlens.decentralization.steps import (
    AttributionTask,
    Sampling,
    attribute_sample,
    intervene,
    patch_blocks,
    silence_neurons,
)
from dprlens.editing import steps as editing
from dprlens.editing.editors import FinetuningSpec
from dprlens.editing.steps import Edit, cloze_after
from dprlens.knowledge_bound.steps import Making, causal_arm
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.training.dpr import DPRSpec
from dprlens.training.pretrain import PretrainSpec
from dprlens.training.steps import base_model
from dprlens.world.closed import ClosedSpec, TextSpec
from dprlens.world.steps import closed_world

ROOT = Path(__file__).parents[2]
LIB = ROOT / "lib"
SEARCHES = "dprlens.retrieval.exact_search:FlatIndex"  # the one place in memory where FAISS is called
# they rank by an index that could search, too; what they run is looked at below, and their keys stay
RANK_ONLY = {"intervene", "silence_neurons", "patch_blocks"}
# what the cache calls around any step
AROUND = {"dprlens.cache.parallel:refuse_to_make", "dprlens.cache.parallel:threads"}
SHIPPED = {path.name.rpartition("-v")[0] for path in (LIB / "dprlens" / "shipped").glob("*-v*")}
PRETRAIN = "dprlens/training/pretrain.py"

# a library in small: two steps, one calling the other; a helper behind a module alias; a table; a data file; classes
SMALL = {
    "__init__.py": "",
    "cache/__init__.py": "",
    "cache/artifacts.py": """
def step(version, libraries=()): ...
def _storage(kind): return write_json
def write_json(path, value): path.write_text(repr(value))
def emit(event): print(event)
""",
    "words/__init__.py": "from dprlens.words.files import table\n",
    "words/files.py": """
import tomllib
def table(path=None): return tomllib.loads(open("words.toml").read())
def unused(): return 1
""",
    "words/words.toml": "# a comment\na = [1, 2]\n",
    "shapes.py": """
class Shape:
    size: int = 2
    def area(self) -> int: return self.size ** 2
class Round(Shape):
    def area(self): return 3 * super().area()
""",
    "maths.py": """
FACTORS = (1, 2)
FACTORS += (3,)
OTHER = 5
def double(x: int) -> int:
    '''Double a number.'''
    if x < 0:
        raise ValueError(f"{x} is below 0")  # never
    return 2 * x
def unused(): return OTHER
""",
    "steps.py": """
from dprlens import maths as m, words
from dprlens.cache.artifacts import step
from dprlens.shapes import Shape
@step(version=1)
def inner(shape: "Shape") -> int:
    return sum(m.FACTORS) + shape.area()
@step(version=2, libraries=("scipy",))
def outer(seed: int) -> int:
    print("begun")
    return m.double(inner(None)) + len(words.table())
@step(version=1)
def alone(unused: int) -> int:
    return unused + 1
""",
}


@pytest.fixture
def small(tmp_path):
    """Write the small library, with some text replaced in one of its files; its steps by name."""

    def read(file=None, before="", after=""):
        for name, text in SMALL.items():
            assert name != file or before in text
            path = tmp_path / "lib" / "dprlens" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace(before, after) if name == file else text, encoding="utf-8")
        code = Code(tmp_path / "lib")
        assert code.steps  # read now, since the next call writes the same files
        return code

    return read


def changed(one: Code, two: Code) -> set[str]:
    return {name for name in one.steps if one.steps[name].hash != two.steps[name].hash}


@pytest.mark.parametrize(
    ("file", "before", "after", "steps_"),
    [
        ("maths.py", "2 * x", "3 * x", {"outer"}),  # a helper behind a module's alias
        ("maths.py", "(1, 2)", "(2, 1)", {"inner", "outer"}),  # a table
        ("maths.py", "(3,)", "(4,)", {"inner", "outer"}),  # a table's second statement
        ("maths.py", "OTHER = 5", "OTHER = 6", set()),
        ("maths.py", "return OTHER", "return 0", set()),
        ("maths.py", "x < 0", "x < 1", {"outer"}),
        ("maths.py", "ValueError", "TypeError", {"outer"}),
        ("shapes.py", "** 2", "** 3", {"inner", "outer"}),  # a method of a class that an annotation names
        ("shapes.py", "3 *", "4 *", {"inner", "outer"}),  # a method of a subclass
        ("shapes.py", "= 2", "= 3", {"inner", "outer"}),  # a default
        ("words/words.toml", "[1, 2]", "[2, 1]", {"outer"}),  # a data file
        ("words/files.py", "return 1", "return 2", set()),
        ("steps.py", "unused + 1", "unused + 2", {"alone"}),  # a parameter is no function of the same name
        ("steps.py", "version=1)\ndef inner", "version=2)\ndef inner", {"inner", "outer"}),  # whoever calls it
        ("cache/artifacts.py", "repr", "str", {"alone", "inner", "outer"}),  # how results are written
        ("cache/artifacts.py", "print(event)", "print(0)", set()),  # the cache itself
    ],
)
def test_a_change_of_code_changes_the_steps_that_reach_it(small, file, before, after, steps_):
    assert changed(small(), small(file, before, after)) == steps_


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("maths.py", "Double a number.", "Twice."),
        ("maths.py", "    '''Double a number.'''\n", ""),
        ("maths.py", "# never", "# hardly"),
        ("maths.py", 'f"{x} is below 0"', '"too small"'),
        ("maths.py", "x: int", "x: float"),
        ("maths.py", "    return 2 * x", "\n    return (2 *\n        x)"),
        ("words/words.toml", "# a comment", "# another\n"),
        ("steps.py", '"begun"', '"started"'),
        ("steps.py", ', libraries=("scipy",)', ""),
    ],
)
def test_words_and_layout_change_no_step(small, file, before, after):
    assert not changed(small(), small(file, before, after))


def test_a_text_that_is_a_value_does_change_a_step(small):
    before = small("maths.py", "return 2 * x", 'return f"{x}"')
    assert changed(before, small("maths.py", "return 2 * x", 'return f"{x}."')) == {"outer"}


def test_two_steps_of_one_name_are_refused(small):
    with pytest.raises(ValueError, match="two steps are called 'inner'"):
        small("maths.py", "OTHER = 5", "@step(version=1)\ndef inner(): ...\n")


# the library itself


@pytest.fixture(scope="module")
def code():
    return Code(LIB)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A repository with a copy of the library and its lock."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(LIB / "dprlens", root / "lib" / "dprlens", ignore=shutil.ignore_patterns("shipped", "__pycache__"))
    shutil.copy(ROOT / lock.LOCK, root / lock.LOCK)
    return root


@pytest.fixture
def edited(copy):
    """`edited(file, (before, after), …)`: what the check of the steps says then; the file is put back afterwards."""
    kept = {}

    def check(file, *changes):
        path = copy / "lib" / file
        kept[path] = text = path.read_text(encoding="utf-8")
        for before, after in changes:
            assert before in text
            text = text.replace(before, after, 1)
        path.write_text(text, encoding="utf-8")
        return [*lock.problems(copy)]

    yield check
    for path, text in kept.items():
        path.write_text(text, encoding="utf-8")


@pytest.mark.slow
def test_a_change_of_pre_training_that_leaves_the_version_is_found(edited):
    found = edited(PRETRAIN, ("betas=(0.9, 0.98)", "betas=(0.9, 0.99)"))
    named = {line.split()[4]: line for line in found[:-1]}
    assert {"base_model", "entered", "told_late", "continued", "causal_arm"} <= named.keys()
    assert {"closed_world", "mined_negatives", "dpr", "rankings", "fit_probe"}.isdisjoint(named)
    assert named["base_model"].endswith("base_model changed, still version 1: dprlens.training.pretrain:_adamw")
    assert "--same" in found[-1]
    assert "version" in found[-1]


@pytest.mark.slow
def test_a_change_of_words_in_pre_training_is_none(edited):
    words = [
        ('"""Masked-LM pre-training from scratch', '"""Pre-training'),
        ('"""Pre-train a BERT with its masked-LM head', '"""Pre-train a BERT with a masked-LM head'),
        ("# segments", "# of segments"),
        ("cannot be split into", "does not divide"),
    ]
    assert edited(PRETRAIN, *words) == []


@pytest.mark.slow
def test_the_language_of_the_closed_world_is_code(edited):
    text = (LIB / "dprlens" / "world" / "closed" / "language.toml").read_text(encoding="utf-8")
    sentence = next(line for line in text.splitlines() if line.strip().startswith('"{S} '))
    found = edited("dprlens/world/closed/language.toml", (sentence, sentence.replace("{S} ", "{S} always ")))
    named = {line.split()[4]: line for line in found[:-1]}
    assert {"closed_world", "base_model"} <= named.keys()
    assert "dprlens/world/closed/language.toml" in named["closed_world"]


@pytest.mark.slow
def test_a_change_of_the_runner_is_none_of_a_step(code):
    reached = {one for step in code.steps.values() for one in step.reaches}
    assert not [one for one in reached if one.startswith(("dprlens.book", "dprlens.cli", "dprlens.report.report"))]


@pytest.mark.slow
def test_no_step_reaches_the_cache_but_for_storage(code):
    reached = {
        one.partition(":")[2] for step in code.steps.values() for one in step.reaches if one.startswith(_guard.CACHE)
    }
    assert {"_storage", "_save_arrays", "_load_frame", "write_json"} <= reached
    assert reached.isdisjoint({"Cache", "step", "canonical", "digest", "progress"})


SPEC = ClosedSpec(12, 8, 0, 0, relations=("born_in", "river"), exposures=4, low_doses=(), train=0.5, held_out=0.2)
SHAPE = EncoderSpec(layers=2, d_model=16, d_ff=16, heads=2, max_length=64)
NEGATIVES = NegativesSpec(per_question=2)
READ = TextSpec(remarks=1), SHAPE, PretrainSpec(shallow_layers=1, batch=8)
MAKING = Making(SPEC, *READ, NEGATIVES, DPRSpec(epochs=1, batch=8, warm_up_steps=1), 1)


def any_negatives(world) -> dict:
    """One passage for each question that is not its gold one."""
    ids = [passage.id for passage in world.passages]
    return {question.id: [next(one for one in ids if one != question.gold)] for question in world.questions}


def called(run) -> set[str]:
    """The definitions of the package that a call runs, but for those of the cache and what it calls itself."""
    found = set()

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(str(Path(dprlens.__file__).parent)):
            found.add((frame.f_globals["__name__"], frame.f_code.co_qualname.partition(".<locals>")[0]))

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return {
        f"{module}:{name}"
        for module, name in found
        if "<" not in name and module.startswith("dprlens.") and f"{module}:" not in _guard.CACHE
    } - AROUND


@pytest.mark.slow
def test_whatever_a_step_runs_it_reaches(code, tmp_path, monkeypatch):
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path))
    where = Path(dprlens.__file__).resolve().parent
    assert where == LIB / "dprlens"
    runs = {"causal_arm": called(lambda: causal_arm(MAKING, told="false"))}
    world = closed_world(SPEC, 1)
    base = base_model(world, *READ, 1)
    dual = DualEncoder(base, base)
    runs["features"] = called(lambda: probing.features(base, world))
    seen = probing.features(base, world)
    monkeypatch.setattr(probing, "mined_negatives", lambda world, _: any_negatives(world))
    task = probing.ProbingTask(seen, seen, world, NEGATIVES, ProbeSpec(most=2, l2=1.0), 1)
    runs["fit_probe"] = called(lambda: probing.fit_probe(task, "linear", (2,), (1,)))
    monkeypatch.undo()
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path))
    sampling = Sampling(world, NEGATIVES, SampleSpec(examples=4, candidates=3, hard=1), 1)
    asked = AttributionTask(dual, sampling, AttributionSpec(most_nodes=4), 1.0)
    runs["attribute_sample"] = called(lambda: attribute_sample(asked, "query"))
    runs["intervene"] = called(lambda: intervene(asked, (2,)))
    runs["silence_neurons"] = called(lambda: silence_neurons(asked, (1,), "top"))
    runs["patch_blocks"] = called(lambda: patch_blocks(dual, dual, sampling, "state"))
    runs["cloze_after"] = called(lambda: cloze_after(base, world.facts[:2]))
    fact = next(fact for fact in world.facts if fact.alternatives and fact.statements)
    editor = "finetuning", replace(FinetuningSpec(), epochs=1), "random"
    edit = Edit(base, world, READ[0], *editor, (fact,), (), 1)
    runs["edit_model"] = called(lambda: editing.edit_model(edit))
    for step, ran in runs.items():
        assert len(ran) > 5
        assert ran <= code.steps[step].reaches, step
    assert not [step for step in RANK_ONLY if any(one.startswith(SEARCHES) for one in runs[step])]


def steps_of(code: Code) -> dict[str, Step]:
    """The package's cached steps as they can be called, by name; one that chooses its precision as it was asked."""
    found = {}
    for module, _, name in (definition.partition(":") for definition in code.nodes):
        if name in code.steps:
            one = getattr(importlib.import_module(module), name)
            one = getattr(one, "as_asked", one)
            found |= {name: one} if isinstance(one, Step) else {}
    assert found.keys() == code.steps.keys()
    return found


def test_a_step_has_five_arguments_at_most(code):
    """A task is one; what a step has for itself, such as its checkpoint, is not given by who calls it."""
    steps = steps_of(code)
    assert len(steps) > 30
    for name, one in steps.items():
        assert len(one.signature.parameters.keys() - {"checkpoint"}) <= 5, name


def test_the_fields_of_tasks_and_the_arguments_beside_them_have_different_names(code):
    """Else a step could not be called: fields are spread into its key."""
    for name, one in steps_of(code).items():
        kinds = typing.get_type_hints(one.function)
        names = [field for argument in one.signature.parameters for field in spread_names(argument, kinds[argument])]
        assert len(names) == len(set(names)), name


def spread_names(argument: str, kind: type) -> list[str]:
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        return [argument]
    return [name for field, own in typing.get_type_hints(kind).items() for name in spread_names(field, own)]


@pytest.mark.slow
def test_steps_name_the_libraries_and_the_device_that_they_depend_on(code):
    packages = {"bm25s": "bm25s", "faiss": "faiss-cpu", "scipy": "scipy", "sklearn": "scikit-learn"}
    assert all(importlib.metadata.version(package) for package in packages.values())
    assert code.steps.keys() >= SHIPPED
    used, functions = imported(code), steps_of(code)
    for name, step in code.steps.items():
        function = functions[name]
        reached = {packages[one] for reached in step.reaches for one in used.get(reached, ()) if one in packages}
        reached -= {"faiss-cpu"} if name in RANK_ONLY else set()
        assert {*function.libraries} == (set() if name in SHIPPED else reached), name  # keys of what ships must stay
        assert function.on_device == ("dprlens.bert.encoder:pick_device" in step.reaches), name


def imported(code: Code) -> dict[str, set[str]]:
    """The top-level packages that each definition takes names from."""
    found = {}
    for module, path in code.modules.items():
        names = {}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names |= {one.asname or one.name: node.module.split(".")[0] for one in node.names}
            elif isinstance(node, ast.Import):
                names |= {(one.asname or one.name).split(".")[0]: one.name.split(".")[0] for one in node.names}
        for definition in (one for one in code.nodes if one.startswith(f"{module}:")):
            used = {part.id for part in ast.walk(code.nodes[definition]) if isinstance(part, ast.Name)}
            found[definition] = {package for name, package in names.items() if name in used}
    return found
