"""The group of processes that torchrun starts: shares, sums, what all agree on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dprlens.training import processes
from dprlens.training.processes import add_up, everybodys, group, own, rank, share_first, size


@pytest.mark.parametrize("n", [0, 1, 2, 5, 7, 128])
@pytest.mark.parametrize("together", [1, 2, 3, 8])
def test_shares_follow_each_other_and_are_even(monkeypatch, n, together):
    shares = []
    for place in range(together):
        monkeypatch.setattr(processes, "rank", lambda place=place: place)
        monkeypatch.setattr(processes, "size", lambda: together)
        shares.append(list(range(n))[own(n)])
    assert [item for share in shares for item in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_alone_is_a_group_of_one(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with group():
        assert not torch.distributed.is_initialized()
        assert (rank(), size(), own(5)) == (0, 1, slice(0, 5))
        mine = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        together = everybodys(mine * 1, slice(0, 2), 2)
        assert together.tolist() == [[1, 2], [3, 4]]
        assert not together.requires_grad
        add_up([mine])
        assert mine.tolist() == [[1, 2], [3, 4]]
        assert share_first("it") == "it"


MEMBER = """
import json, sys
from pathlib import Path
import torch
from dprlens.training.processes import add_up, share_first, everybodys, group, own, rank, size

with group():
    mine = own(3)
    rows = torch.tensor([[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]], dtype=torch.double, requires_grad=True)[mine]
    together = everybodys(rows, mine, 3)
    gradients = [torch.full((2, 2), 1.0 + rank()), torch.tensor(10.0 * rank())]
    add_up(gradients)
    found = {
        "place": [rank(), size()],
        "share": [mine.start, mine.stop],
        "together": together.tolist(),
        "graph": together.requires_grad,
        "type": str(together.dtype),
        "sums": [gradient.tolist() for gradient in gradients],
        "agreed": str(share_first(Path(f"epoch-{rank()}"))),
    }
found["over"] = [rank(), size(), torch.distributed.is_initialized()]
Path(sys.argv[1], f"{found['place'][0]}.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_torchrun_starts_a_group(tmp_path):
    (tmp_path / "member.py").write_text(MEMBER)
    lib = Path(processes.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(lib), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*torchrun, tmp_path / "member.py", tmp_path], env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    for place in (0, 1):
        assert json.loads((tmp_path / f"{place}.json").read_text()) == {
            "place": [place, 2],
            "share": [[0, 1], [1, 3]][place],
            "together": [[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]],
            "graph": False,
            "type": "torch.float64",
            "sums": [[[3.0, 3.0], [3.0, 3.0]], 10.0],
            "agreed": "epoch-0",
            "over": [0, 1, False],
        }
