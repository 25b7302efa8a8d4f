"""Tell of a run: steps that begin and end, progress, notices; to the runner if there is one, else to the reader."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized


def emit(event: str, **record: object) -> None:
    """Append one JSON line to the file `$DPRLENS_EVENTS`, if set: the runner's only news of a kernel."""
    if path := os.environ.get("DPRLENS_EVENTS"):
        line = json.dumps({"event": event, **record}) + "\n"
        with contextlib.suppress(OSError):  # a run is worth more than the news of it
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(file, line.encode())  # one write, so that lines of two processes do not mix
            finally:
                os.close(file)


def sibling(step: str) -> None:
    """Report, once a step, that its networks are siblings of those on record, and why."""
    text = f"{step}: bfloat16 is slow on this processor and this network did not come with the package, so Muon takes"
    text += " float32: a sibling of the network on record, not the same"
    emit("sibling", name=step, text=text)
    if step not in _siblings and not os.environ.get("DPRLENS_EVENTS"):
        print(text, file=sys.stderr)
    _siblings.add(step)


_siblings: set[str] = set()  # steps of which the reader was told


def _notice(text: str) -> None:
    """Send a notice to the runner if there is one, so that it stays out of the page; else to the reader."""
    if os.environ.get("DPRLENS_EVENTS"):
        emit("notice", text=text)
    else:
        print(text, file=sys.stderr)


def progress(iterable: Iterable, label: str, total: int | None = None) -> Iterator:
    """Yield the items and show progress: a bar in Lab or a terminal, at most two events a second in a run."""
    if not os.environ.get("DPRLENS_EVENTS"):
        import tqdm.auto

        yield from tqdm.auto.tqdm(iterable, desc=label, total=total, leave=False)
        return
    total = len(iterable) if total is None and isinstance(iterable, Sized) else total
    told, done = -math.inf, 0
    for done, item in enumerate(iterable, start=1):
        yield item
        if time.monotonic() - told >= 0.5:
            told = time.monotonic()
            emit("progress", label=label, done=done, total=total)
    emit("progress", label=label, done=done, total=total)
