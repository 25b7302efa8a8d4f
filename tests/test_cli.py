"""The command line from the outside: what is accepted, what is printed where, the exit status."""

import os
import signal
import subprocess
import sys
import threading
import time
import types
import urllib.request
from pathlib import Path

import pytest
from book.test_build import make_repository, write

import dprlens
from dprlens import cli
from dprlens.book.execution import RunFailed
from dprlens.profile import PROFILES
from dprlens.real_setting import commands

LIB = Path(dprlens.__file__).parents[1]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Where the command is run, with profiles of our own; nothing is really executed."""
    monkeypatch.setitem(sys.modules, "dprlens.profile", types.SimpleNamespace(PROFILES={"tiny": 1, "small": 2}))
    monkeypatch.chdir(make_repository(tmp_path))
    return tmp_path


def refused(capsys, *arguments: str) -> str:
    """What a refused command says: one sentence on stderr, status 2."""
    assert cli.main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "00", "-p", "sede", "3"], "00_world has no parameter 'sede' (did you mean 'seed'?): it takes"),
        (
            ["run", "00", "-p", "seed", "x"],
            "the parameter seed of 00_world is int, but 'x' (str) came: give a value of",
        ),
        (
            ["run", "00", "--profile", "tinny"],
            "there is no profile 'tinny' (did you mean 'tiny'?): choose from tiny, small",
        ),
        (["run", "00", "-p", "profile", "huge"], "there is no profile 'huge': choose from tiny, small"),
        (["run", "07"], "there is no notebook '07': choose from 00_world, 01_widget"),
        (["book", "--profile", "big"], "there is no profile 'big': choose from tiny, small"),
        (["render", "--profile", "big"], "there is no profile 'big': choose from tiny, small"),
        (["render", "--profile", "tiny"], "00_world has not been run in the profile 'tiny': run `make book` first"),
        (["serve", "--profile", "tiny"], "there is no book in "),
        (
            ["train", "--profile", "tinny"],
            "there is no profile 'tinny' (did you mean 'tiny'?): choose from tiny, small",
        ),
    ],
)
@pytest.mark.usefixtures("repository")
def test_mistakes_are_one_sentence_and_status_2(capsys, arguments, sentence):
    assert refused(capsys, *arguments).startswith(f"dprlens: {sentence}")


def test_outside_a_repository(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, "params").startswith(f"dprlens: there is no notebooks/ in {tmp_path} or above it")


def test_values_of_run_and_which_one_wins(repository, monkeypatch):
    calls = []
    monkeypatch.setattr(cli.build, "run_one", lambda _, notebook, *rest: calls.append((notebook.name, *rest)))
    assert cli.main(["run", "01", "-p", "seed", "3", "-p", "threshold", "0.2", "--profile", "tiny"]) == 0
    assert cli.main(["run", "00", "--profile", "tiny", "-p", "profile", "small", "--out", "x.ipynb"]) == 0
    monkeypatch.chdir(repository / "book")
    assert cli.main(["run", "../notebooks/00_world.ipynb"]) == 0
    assert calls == [
        ("01_widget", {"profile": "tiny", "seed": "3", "threshold": "0.2"}, None),
        ("00_world", {"profile": "small"}, Path("x.ipynb")),
        ("00_world", {}, None),
    ]


def test_train_makes_dpr_of_a_profile_and_a_seed(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(commands, "train_in_group", lambda one: calls.append((one.profile, one.seed)))
    monkeypatch.chdir(make_repository(tmp_path))
    assert cli.main(["train", "--profile", "tiny", "--seed", "3"]) == 0
    assert cli.main(["train"]) == 0
    assert calls == [(PROFILES["tiny"], 3), (PROFILES["small"], 0)]
    with pytest.raises(SystemExit):
        cli.main(["train", "--seed", "x"])


@pytest.mark.usefixtures("repository")
def test_train_refuses_a_profile_before_anything_is_made(monkeypatch, capsys):
    monkeypatch.setattr(commands, "train_in_group", lambda *_: pytest.fail("something was made"))
    assert "'full'" in refused(capsys, "train", "--profile", "full")


@pytest.mark.usefixtures("repository")
def test_a_failure_is_status_1_and_an_interruption_130(monkeypatch, capsys):
    def fail(*_):
        raise RunFailed("00_world failed in cell 3")

    monkeypatch.setattr(cli.build, "book", fail)
    assert cli.main(["book"]) == 1
    assert capsys.readouterr().err == "dprlens: 00_world failed in cell 3\n"
    for number in (signal.SIGINT, signal.SIGTERM):
        monkeypatch.setattr(cli.build, "book", lambda *_, number=number: (os.kill(os.getpid(), number), time.sleep(5)))
        assert cli.main(["book"]) == 130
        assert "finished notebooks and steps are kept" in capsys.readouterr().err


def test_check_lists_every_problem(repository, capsys):
    assert cli.main(["check"]) == 0
    assert capsys.readouterr().out == "2 notebooks follow the rules\n"
    write(repository / "notebooks" / "02_bad.ipynb", "class A: pass", "w.Output()")
    assert cli.main(["check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["02_bad", "02_bad"]
    assert "cell 3 defines the class A" in lines[0]
    assert "cell 4 uses Output" in lines[1]


@pytest.mark.usefixtures("repository")
def test_params_lists_names_types_defaults_and_help(capsys):
    assert cli.main(["params"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "00_world"
    assert lines[1] == "  profile: str = 'tiny'  # tiny, small or full"
    assert lines[6:8] == ["01_widget", lines[1]]


def test_clean_keeps_the_cache_unless_told(repository):
    for folder in ("_build/tiny", "artifacts/x", "results/small"):
        (repository / folder).mkdir(parents=True)
    assert cli.main(["clean"]) == 0
    assert not (repository / "_build").exists()
    assert (repository / "artifacts" / "x").exists()
    assert cli.main(["clean", "--cache"]) == 0
    assert not (repository / "artifacts").exists()
    assert (repository / "results" / "small").exists()


@pytest.mark.slow
def test_serve_shows_the_book_on_this_machine_only(repository):
    html = repository / "_build" / "tiny" / "html"
    html.mkdir(parents=True)
    (html / "index.html").write_text("the book")
    command = [sys.executable, "-m", "dprlens", "serve", "--profile", "tiny", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(LIB)}
    server = subprocess.Popen(command, cwd=repository, env=environment, text=True, stdout=-1, stderr=-1)
    stop = threading.Timer(120, server.kill)
    stop.start()
    address = server.stdout.readline().split()[0]
    assert address.startswith("http://127.0.0.1:")
    assert urllib.request.urlopen(address).read() == b"the book"
    server.send_signal(signal.SIGINT)
    _, said = server.communicate(timeout=120)
    stop.cancel()
    assert server.returncode == 0
    assert "Traceback" not in said


@pytest.mark.slow
def test_starting_imports_no_model_library(tmp_path):
    (tmp_path / "notebooks").mkdir()
    script = (
        "import sys; from dprlens.cli import main; main(['params'])\n"
        "print([name for name in ('torch', 'transformers', 'papermill', 'matplotlib') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(LIB)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for command in ("book", "run", "train", "render", "check", "params", "serve", "clean"):
        assert f"    {command} " in said


# the real setting


@pytest.mark.usefixtures("repository")
def test_doctor_and_fetch_are_commands_of_their_own_modules(monkeypatch, capsys):
    from dprlens.real_setting import doctor, fetch

    seen = []
    monkeypatch.setattr(doctor, "main", lambda options: seen.append(options) or 1)
    monkeypatch.setattr(fetch, "main", lambda options: seen.append(options) or 0)
    assert cli.main(["doctor", "--profile", "tiny", "--hash"]) == 1
    assert cli.main(["fetch", "nq-dev", "--profile", "tiny"]) == 0
    assert (seen[0].hash, seen[1].names) == (True, ["nq-dev"])
    assert "no profile 'papre'" in refused(capsys, "doctor", "--profile", "papre")


@pytest.mark.usefixtures("repository")
def test_what_fetch_refuses_is_one_sentence(capsys, tmp_path):
    assert "'nq-trian'" in refused(capsys, "fetch", "nq-trian", "--profile", "tiny", "--data", str(tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("repository")
def test_other_commands_do_not_import_the_real_setting():
    code = "import sys; from dprlens import cli; cli.main(['check']); print([m for m in sys.modules if 'natural' in m])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert found.stdout.strip().endswith("[]")
