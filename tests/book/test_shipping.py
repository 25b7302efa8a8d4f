"""What comes with the package: chosen from a cache, copied whole, and still what the default book asks for."""

import json

import pytest

from dprlens.book import shipping
from dprlens.book.notebooks import Mistake
from dprlens.cache.artifacts import Cache, seal, shipped_root
from dprlens.profile import TINY, get_profile
from dprlens.setup import Setup
from dprlens.training.steps import base_model


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shipping, "PACKAGED", tmp_path / "package")
    return tmp_path / "package"


def kept(tmp_path, name, **arguments):
    def make(folder):
        (folder / "model.safetensors").write_text(f"{name} {arguments}")

    return Cache(tmp_path / "cache").get(name, 1, arguments, make).folder


@pytest.mark.slow
def test_models_of_the_pages_world_are_copied_and_others_are_not(tmp_path, package):
    world = Setup(TINY, 0).world
    base, late = kept(tmp_path, "base_model", seed=0), kept(tmp_path, "told_late", seed=0)
    dpr = kept(tmp_path, "dpr", world=world, spec=TINY.dpr)
    kept(tmp_path, "dpr", world=world, spec=TINY.protocol.training)
    kept(tmp_path, "dpr", world=Setup(TINY, 1).world, spec=TINY.dpr)
    kept(tmp_path, "edited", seed=0)
    (package / "old").mkdir(parents=True)
    assert shipping.ship(tmp_path, TINY, 0) == [package / one.name for one in (base, dpr, late)]
    assert sorted(path.name for path in package.iterdir()) == sorted(["README.md", base.name, dpr.name, late.name])
    said = (package / "README.md").read_text()
    for folder in (base, dpr, late):
        assert seal(folder / "model.safetensors")["sha256"] in said
        assert (package / folder.name / "meta.json").read_bytes() == (folder / "meta.json").read_bytes()
    assert "commit" in said


def test_models_made_from_nothing_are_shipped(tmp_path, package, monkeypatch):
    """`make ship FROM_NOTHING=1`: the package is where it is, even where nothing is read from it."""
    base = kept(tmp_path, "base_model", seed=0)
    monkeypatch.setenv("DPRLENS_FROM_NOTHING", "1")
    assert shipping.ship(tmp_path, TINY, 0) == [package / base.name]


def test_a_cache_without_models_ships_nothing_and_leaves_the_package_alone(tmp_path, package):
    (package / "old").mkdir(parents=True)
    with pytest.raises(Mistake, match="has no models of the profile 'tiny'"):
        shipping.ship(tmp_path, TINY, 0)
    assert (package / "old").is_dir()


def test_what_is_in_the_package_is_whole_and_on_record():
    folders = [path for path in shipped_root().iterdir() if path.is_dir()]
    said = (shipped_root() / "README.md").read_text(encoding="utf-8")
    assert folders
    for folder in folders:
        files = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["files"]
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
            *files,
            "meta.json",
        }
        for name, expected in files.items():
            assert seal(folder / name) == expected
            assert not name.endswith(".safetensors") or expected["sha256"] in said


@pytest.mark.slow
def test_the_default_book_finds_its_models_in_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path))
    monkeypatch.delenv("DPRLENS_FROM_NOTHING", raising=False)
    chosen = get_profile("small")
    call = (Setup(chosen, 0).world, chosen.text, chosen.encoder, chosen.pretrain, 0)
    assert base_model.record(*call)
    monkeypatch.setenv("DPRLENS_FROM_NOTHING", "1")
    assert base_model.record(*call) is None
