"""The costs of large corpora, as a page shows them."""

import json

from dprlens.book.pages.scale import measured_costs


def size(passages: int, factor: float) -> dict:
    """A measurement in which every phase takes 10 s to begin and then `factor` s a thousand passages."""
    taken = {"seconds": 10 + factor * passages / 1000, "cpu_seconds": 10 + 2 * factor * passages / 1000}
    phases = dict.fromkeys(("begin", "encode", "verify", "search", "IVF-PQ, build"), taken)
    return {
        "passages": passages, "phases": phases, "passages_per_second": 1000 / factor, "rss_gb": 1.25,
        "bytes_of_vectors": 512 * passages, "recall": 0.25,
    }  # fmt: skip


def test_costs_are_taken_on_in_a_line_without_the_start(tmp_path):
    report = {
        "cores": 2, "workers": 2, "questions": 256, "k": 100, "encoder": {"layers": 2, "d_model": 128, "d_ff": 512},
        "sizes": [size(10_000, 1), size(100_000, 1), size(1_000_000, 1)],
    }  # fmt: skip
    (file := tmp_path / "scale.json").write_text(json.dumps(report))
    page = measured_costs(file)
    assert "| 1,000,000 | 1,000 | 2,010 | 2,010 | 2,010 | 2,010 | 1.2 GB | 512 MB |" in page
    # 21,015,324 passages at 1 s a thousand, and 10 s to begin: 5.8 h; BERT-base: 12 · 12 · 768² / (2 · 12 · 128²) = 216
    assert "| encode | 2,000 CPU-s | 2,000 CPU-s | 6 h |" in page
    assert "216 times" in page
    assert "in 53 days" in page
    assert "64.6 GB" in page
    assert all(line.count("|") == page.splitlines()[2].count("|") for line in page.splitlines()[2:7])


def test_without_a_measurement_the_page_says_how_to_make_one(tmp_path):
    assert "make scale" in measured_costs(tmp_path / "scale.json")
