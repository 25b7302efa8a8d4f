"""The command line: `python -m dprlens …`. The Makefile's targets are one line each on top of it."""

import argparse
import importlib
import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from dprlens.book import baseline, build, lock, notebooks, render
from dprlens.book.execution import RunFailed


def main(arguments: list[str] | None = None) -> int:
    """Run one command: 0 if it went well, 1 if something failed, 2 for a mistake in the request, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(arguments[0] if arguments else None).parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by `kill`: tidy up as after Ctrl-C
    try:
        return options.command(notebooks.repository(), options) or 0
    except notebooks.Mistake as mistake:
        print(f"dprlens: {mistake}", file=sys.stderr)
        return 2
    except (RunFailed, render.RenderFailed) as failure:
        print(f"dprlens: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\ndprlens: interrupted; finished notebooks and steps are kept, the same command goes on", file=sys.stderr
        )
        return 130


def _parser(asked: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dprlens", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(function: Callable[[Path, argparse.Namespace], int | None], help_: str) -> argparse.ArgumentParser:
        added = commands.add_parser(function.__name__.strip("_"), help=help_, description=help_)
        added.set_defaults(command=function)
        return added

    def profile(added: argparse.ArgumentParser) -> None:
        added.add_argument("--profile", default="small", help="tiny, small (the default), full or paper")

    profile(command(_book, "run every stale notebook of a profile and render the book"))
    run = command(_run, "run one notebook with other parameters; the book stays as it is")
    run.add_argument("notebook", help="its name, the beginning of its name, or its path")
    run.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    run.add_argument("--profile", help="short for -p profile …")
    run.add_argument("--out", type=Path, help="the executed notebook (default: below _build/runs)")
    train = command(_train, "train DPR into the cache; under torchrun, on all its processes together")
    profile(train)
    train.add_argument("--seed", type=int, default=0)
    encode = command(_encode, "encode all passages of a profile with its DPR; torchrun's processes share them")
    profile(encode)
    encode.add_argument("--seed", type=int, default=0)
    trec = command(_trec, "write DPR's ranking of the test questions, and their gold passages, in TREC's formats")
    profile(trec)
    trec.add_argument("--seed", type=int, default=0)
    trec.add_argument("--out", type=Path, help="the folder of dpr.run and gold.qrels (default: _build/<profile>/trec)")
    ship = command(_ship, "copy trained models out of the cache into the package, to come with it")
    profile(ship)
    ship.add_argument("--seed", type=int, default=0)
    profile(command(_render, "render the book from the notebooks that were run"))
    command(_readme, "write the table of results in README.md from results/small and results/full")
    real = {
        "doctor": command(_doctor, "say what of the real setting is here, what is missing, what this machine can do"),
        "fetch": command(_fetch, "download files and models of the real setting; nothing else ever does"),
    }
    if asked in real:  # they say themselves what they take, and import much that other commands do without
        importlib.import_module(f"dprlens.real_setting.{asked}").add_arguments(real[asked])
    command(_check, "check the notebooks' sources against the rules of the book")
    steps = command(_steps, "check that no cached step's code changed behind its version, or record that none did")
    steps.add_argument("--write", action="store_true", help="record new steps and raised versions in lib/steps.lock")
    steps.add_argument("--same", nargs="+", metavar="STEP", help="record steps that compute the same bytes at tiny")
    steps.add_argument("--against", default="HEAD", metavar="REV", help="for --same: the commit with the old code")
    profile(command(_judge, "judge the claims anew on recorded results, after a rule changed; numbers stay"))
    compare = command(_baseline, "compare what was built of a profile with what is on record in git")
    profile(compare)
    compare.add_argument("--record", action="store_true", help="put the tiny book that was just built on record")
    command(_params, "list the parameters of every notebook")
    serve = command(_serve, "show the rendered book at a local address")
    profile(serve)
    serve.add_argument("--port", type=int, default=8000)
    command(_clean, "remove everything built").add_argument("--cache", action="store_true", help="artifacts/ too")
    return parser


def _book(root: Path, options: argparse.Namespace) -> None:
    build.book(root, options.profile)


def _run(root: Path, options: argparse.Namespace) -> None:
    notebook = notebooks.find(options.notebook, notebooks.discover(root / "notebooks"))
    texts = {} if options.profile is None else {"profile": options.profile}
    build.run_one(root, notebook, {**texts, **dict(options.parameter)}, options.out)


def _train(_: Path, options: argparse.Namespace) -> None:
    notebooks.check_profile(options.profile)
    from dprlens import profile, setup  # they import torch, which the other commands do without
    from dprlens.real_setting import commands

    commands.train_in_group(setup.Setup(profile.get_profile(options.profile), options.seed))


def _doctor(_: Path, options: argparse.Namespace) -> int:
    return _real("doctor", options)


def _fetch(_: Path, options: argparse.Namespace) -> int:
    return _real("fetch", options)


def _real(name: str, options: argparse.Namespace) -> int:
    notebooks.check_profile(options.profile)
    try:
        return importlib.import_module(f"dprlens.real_setting.{name}").main(options)
    except ValueError as error:
        raise notebooks.Mistake(str(error)) from error


def _encode(_: Path, options: argparse.Namespace) -> None:
    notebooks.check_profile(options.profile)
    from dprlens import profile, setup
    from dprlens.real_setting import commands

    try:
        done = commands.encode_in_group(setup.Setup(profile.get_profile(options.profile), options.seed))
    except ValueError as error:
        raise notebooks.Mistake(str(error)) from error
    print(f"{done.made} of {len(done.shards)} shards were made, {done.missing} are still to be made by other processes")


def _trec(root: Path, options: argparse.Namespace) -> None:
    notebooks.check_profile(options.profile)
    from dprlens import profile, setup
    from dprlens.real_setting import commands

    folder = options.out or root / "_build" / options.profile / "trec"
    try:
        commands.write_trec(setup.Setup(profile.get_profile(options.profile), options.seed), folder)
    except ValueError as error:
        raise notebooks.Mistake(str(error)) from error
    print(f"wrote {folder / 'dpr.run'} and {folder / 'gold.qrels'}")


def _ship(root: Path, options: argparse.Namespace) -> None:
    notebooks.check_profile(options.profile)
    from dprlens import profile
    from dprlens.book import shipping

    for folder in shipping.ship(root, profile.get_profile(options.profile), options.seed):
        print(folder)


def _render(root: Path, options: argparse.Namespace) -> None:
    notebooks.check_profile(options.profile)
    fresh = render.render(root, notebooks.discover(root / "notebooks"), options.profile)
    print("rendered" if fresh else "up to date", root / "_build" / options.profile / "html" / "index.html")


def _readme(root: Path, _: argparse.Namespace) -> None:
    from dprlens.book import readme
    from dprlens.book.pages import scorecard  # they bring matplotlib along

    small, full = (scorecard.read_results(root / "results", name) for name in ("small", "full"))
    file = root / "README.md"
    found = notebooks.discover(root / "notebooks")
    file.write_text(readme.with_results(file.read_text("utf-8"), found, small, full), encoding="utf-8")


def _check(root: Path, _: argparse.Namespace) -> int:
    found = notebooks.discover(root / "notebooks")
    broken = [f"{notebook.name}: {problem}" for notebook in found for problem in notebooks.problems(notebook.path)]
    print("\n".join(broken) or f"{len(found)} notebooks follow the rules")
    return 1 if broken else 0


def _steps(root: Path, options: argparse.Namespace) -> int:
    differences = lock.try_same(root, options.same, options.against) if options.same else {}
    for name, difference in differences.items():
        print(f"{name}: {f'{difference}; raise its version' if difference else 'the same bytes at profile tiny'}")
    if options.write or differences:
        lock.write(root, [name for name, difference in differences.items() if not difference])
    broken = [*lock.problems(root)]
    print("\n".join(broken) or f"{lock.LOCK}: no step's code changed behind its version")
    return 1 if broken else 0


def _judge(root: Path, options: argparse.Namespace) -> None:
    from dprlens.cache.artifacts import write_json
    from dprlens.report.report import judge_again

    for file in sorted((root / "results" / options.profile).glob("*.json")):
        write_json(file, judge_again(json.loads(file.read_text("utf-8"))))


def _baseline(root: Path, options: argparse.Namespace) -> int:
    notebooks.check_profile(options.profile)
    if options.record:
        if options.profile != "tiny":
            raise notebooks.Mistake("only tiny's artifacts are put on record; of other profiles, commit the results")
        print(f"recorded {baseline.record(root)} and staged results/tiny")
        return 0
    broken = [*baseline.compare(root, options.profile)]
    print("\n".join(broken) or f"profile {options.profile}: as on record")
    return 1 if broken else 0


def _params(root: Path, _: argparse.Namespace) -> None:
    for notebook in notebooks.discover(root / "notebooks"):
        print(notebook.name)
        for name, kind, default, help_ in notebook.parameters:
            print(f"  {name}: {kind} = {default!r}  # {help_}")


def _serve(root: Path, options: argparse.Namespace) -> None:
    render.serve(root / "_build" / options.profile / "html", options.port)


def _clean(root: Path, options: argparse.Namespace) -> None:
    for folder in ["_build", *(["artifacts"] if options.cache else [])]:
        shutil.rmtree(root / folder, ignore_errors=True)
        print(f"removed {root / folder}")
