"""Pre-training at a size of seconds, through what it returns."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch

from dprlens.bert.cloze import cloze
from dprlens.bert.encoder import EncoderSpec
from dprlens.bert.forward import masked_lm
from dprlens.bert.vocabulary import make_tokenizer, vocabulary
from dprlens.training import pretrain as module
from dprlens.training.muon import Muon
from dprlens.training.pretrain import (
    PretrainSpec,
    continue_pretraining,
    masked_batches,
    pretrain,
    pretrain_in_order,
    read_on,
)
from dprlens.world.closed import ClosedSpec, TextSpec, make_world, segments

pytestmark = pytest.mark.slow

SHAPE = EncoderSpec(layers=2, d_model=64, d_ff=128, heads=2, max_length=64)
QUICK = PretrainSpec(shallow_layers=1, batch=8, threads=1, muon="float32")


@pytest.fixture(scope="module")
def rivers():
    return make_world(ClosedSpec(0, 12, 0, 0, relations=("river",), exposures=300, low_doses=()), 0)


@pytest.fixture(scope="module")
def lines(rivers):
    return segments(rivers, TextSpec(remarks=2), 0)


@pytest.fixture(scope="module")
def pieces(rivers):
    return make_tokenizer(vocabulary(rivers.texts()))


def test_what_was_stated_is_recalled_and_what_was_held_out_is_not(rivers, lines, pieces):
    model = pretrain(pieces, lines, SHAPE, QUICK, seed=0)
    assert model.layers == 2
    recalled = {held_out: [] for held_out in (True, False)}
    for fact in rivers.facts:
        recalled[rivers.held_out(fact.id)] += [answer.recalled for answer in cloze(model, fact.statements)]
    assert np.mean(recalled[False]) > 0.8
    assert np.mean(recalled[True]) < 0.3
    assert not model.model.training


def test_the_seed_decides_the_model(lines, pieces):
    digests = [pretrain(pieces, lines[:200], SHAPE, QUICK, seed).digest for seed in (4, 4, 5)]
    assert digests[0] == digests[1] != digests[2]


def test_the_text_decides_the_model(lines, pieces):
    assert (
        pretrain(pieces, lines[:200], SHAPE, QUICK, 0).digest
        != pretrain(pieces, lines[200:400], SHAPE, QUICK, 0).digest
    )


def test_more_steps_change_a_copy_and_are_as_many_as_asked_for(lines, pieces, monkeypatch, refused):
    start = pretrain(pieces, lines[:200], SHAPE, QUICK, 0)
    before, seen = start.digest, []
    taken = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *call, **named: seen.append(1) or taken(*call, **named))
    more = continue_pretraining(start, lines, QUICK, steps=3, learning_rate=1e-3, seed=0)
    assert len(seen) == 3
    del start.__dict__["digest"]
    assert start.digest == before != more.digest
    assert not more.model.training
    with refused("batches for 100000 steps"):
        continue_pretraining(start, lines, QUICK, steps=100_000, learning_rate=1e-3)


def test_parts_are_read_one_after_the_other(lines, pieces, monkeypatch):
    """In one part the model is that of `pretrain`; in two, no batch of the second comes before one of the first."""
    shape = replace(SHAPE, layers=1)
    whole = pretrain_in_order(pieces, [lines[:200]], shape, QUICK, 4)
    assert whole.digest == pretrain(pieces, lines[:200], shape, QUICK, 4).digest
    seen = []
    monkeypatch.setattr(module, "masked_lm", lambda *given: seen.append(len(given[1].text)) or masked_lm(*given))
    pretrain_in_order(pieces, [lines[:70], lines[70:200]], shape, QUICK, 4)
    borders = np.cumsum(seen)
    assert borders[-1] == 200
    assert 70 in borders


def test_rates_that_do_not_fall_end_where_the_warm_up_brought_them(lines, pieces, monkeypatch):
    shape, last = replace(SHAPE, layers=1), {}
    taken = torch.optim.AdamW.step

    def step(optimiser, *call, **named):
        last.setdefault(falling, []).append(optimiser.param_groups[0]["lr"])
        return taken(optimiser, *call, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    for falling in (True, False):
        pretrain_in_order(pieces, [lines[:400]], shape, QUICK, 4, falling)
    assert last[True][-1] < 0.1 * QUICK.learning_rate
    assert last[False][-1] == max(last[False]) == QUICK.learning_rate


def test_reading_on_reads_everything_once_and_changes_a_copy(lines, pieces, monkeypatch):
    start = pretrain(pieces, lines[:200], SHAPE, QUICK, 0)
    before, seen = start.digest, []
    monkeypatch.setattr(module, "masked_lm", lambda *given: seen.append(len(given[1].text)) or masked_lm(*given))
    told = [line for line in lines[200:320] if line.facts]  # a remark may happen to have nothing masked
    more = read_on(start, told, QUICK, 1e-3, seed=0)
    assert sum(seen) == len(told)
    del start.__dict__["digest"]
    assert start.digest == before != more.digest == read_on(start, told, QUICK, 1e-3, seed=0).digest
    assert not more.model.training


@pytest.mark.parametrize(("part", "place"), [("embeddings", ".embeddings."), ("block1", ".layer.1.")])
def test_reading_on_may_leave_most_of_the_network_as_it_is(lines, pieces, part, place):
    start = pretrain(pieces, lines[:200], SHAPE, QUICK, 0)
    more = read_on(start, lines[:50], QUICK, 1e-3, only=(part,))
    old, new = start.model.state_dict(), more.model.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed
    assert all(place in name or name.startswith("cls.predictions.decoder") for name in changed)  # decoder: tied


def test_reading_on_without_a_rate_is_by_both_optimisers_at_theirs(lines, pieces, monkeypatch, refused):
    start, rates = pretrain(pieces, lines[:200], SHAPE, QUICK, 0), defaultdict(list)
    for kind in (torch.optim.AdamW, Muon):

        def step(optimiser, *call, kind=kind, taken=kind.step, **named):
            rates[kind].append(optimiser.param_groups[0]["lr"])
            return taken(optimiser, *call, **named)

        monkeypatch.setattr(kind, "step", step)
    read_on(start, lines[:400], QUICK, None)
    assert max(rates[torch.optim.AdamW]) == QUICK.learning_rate
    assert max(rates[Muon]) == QUICK.matrix_learning_rate
    with refused("block0", "learning rate"):
        read_on(start, lines[:9], QUICK, None, only=("block0",))


def test_a_part_that_is_not_there_is_refused(refused, lines, pieces):
    start = pretrain(pieces, lines[:50], SHAPE, QUICK, 0)
    with refused("'block7'", "block1", "embeddings"):
        read_on(start, lines[:50], QUICK, 1e-3, only=("block7",))


def test_a_network_no_deeper_than_its_start_is_not_deepened(lines, pieces):
    shape = EncoderSpec(layers=1, d_model=16, d_ff=16, heads=2)
    assert pretrain(pieces, lines[:100], shape, PretrainSpec(shallow_layers=3, threads=1)).layers == 1


def test_threads_and_generator_are_left_as_they_were(lines, pieces):
    before = torch.get_num_threads(), torch.random.get_rng_state()
    pretrain(pieces, lines[:80], SHAPE, PretrainSpec(shallow_layers=1, threads=2), 0)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_a_loss_that_is_no_number_is_said_and_threads_come_back(refused, lines, pieces):
    before = torch.get_num_threads()
    with refused("loss", "nan", "learning rate", error=(ValueError, ArithmeticError)):
        pretrain(pieces, lines[:100], SHAPE, PretrainSpec(shallow_layers=1, threads=2, learning_rate=1e30))
    assert torch.get_num_threads() == before


def test_no_text_is_refused(refused, pieces):
    with refused("0 segments", "too short"):
        pretrain(pieces, [], SHAPE, QUICK)


def test_layers_that_do_not_divide_are_refused(refused, lines, pieces):
    with refused("shallow_layers = 2", "3"):
        pretrain(pieces, lines[:9], EncoderSpec(3, 16, 16, 2), PretrainSpec(shallow_layers=2, threads=1))


def test_a_text_too_short_for_two_stages_is_refused(refused, lines, pieces):
    with refused("text"):
        pretrain(pieces, lines[:1], SHAPE, QUICK)


def test_a_text_with_nothing_to_mask_is_refused(refused, lines, pieces):
    remarks = [line for line in lines if not line.facts]
    with refused("mask"):
        pretrain(pieces, remarks, SHAPE, PretrainSpec(shallow_layers=1, threads=1, random_mask=0.0))


def test_segments_longer_than_the_encoder_reads_are_refused(refused, lines, pieces):
    with refused("max_length", "8"):
        pretrain(pieces, lines[:50], EncoderSpec(2, 16, 16, 2, max_length=8), QUICK)


@pytest.mark.parametrize(
    "fields",
    [
        *({field: 0} for field in ("batch", "threads", "shallow_layers")),
        {"shallow_share": 0.0},
        {"shallow_share": 1.5},
        {"random_mask": 2.0},
        {"random_mask": -0.1},
        {"warm_up": -1.0},
        {"learning_rate": -1.0},
    ],
    ids=str,
)
def test_specs_are_checked(refused, fields):
    ((field, value),) = fields.items()
    with refused(field, f"{value:g}"):
        PretrainSpec(**fields)


def test_every_answer_is_masked_whole_and_every_segment_read_once(text, tokenizer):
    """With no random masks the masked pieces are the answers', and putting them back gives the text."""
    lines = [line for line in text if line.facts][:300]
    restored, masked, sizes = [], [], []
    for batch in masked_batches(tokenizer, lines, 16, 0.0, np.random.default_rng(0)):
        sizes.append(len(batch.input))
        assert (batch.input[batch.row, batch.place] == tokenizer.mask_token_id).all()
        assert (batch.input == tokenizer.mask_token_id).sum() == len(batch.place) == len(batch.piece)
        whole = batch.input.clone()
        whole[batch.row, batch.place] = batch.piece
        restored += [tuple(row) for row in whole.tolist()]
        masked += batch.piece.tolist()
    assert sorted(restored) == sorted(tuple(tokenizer(line.text)["input_ids"]) for line in lines)
    answers = [line.text[slice(*place)] for line in lines for place in line.answers]
    assert sorted(masked) == sorted(piece for ids in tokenizer(answers)["input_ids"] for piece in ids[1:-1])
    assert max(sizes) == 16


def test_answers_are_asked_for_at_cls_where_it_is_wished(text, tokenizer):
    lines = [line for line in text if len(line.facts) > 1][:20] + [line for line in text if not line.facts][:20]
    wished = {line.facts[0] for line in lines[:10]}
    asked = []
    for batch in masked_batches(tokenizer, lines, 8, 0.1, np.random.default_rng(0), wished):
        read, at_cls = batch.input[batch.row, batch.place], batch.place == 0
        assert (read[at_cls] == tokenizer.cls_token_id).all()
        assert (read[~at_cls] == tokenizer.mask_token_id).all()
        asked += batch.piece[at_cls].tolist()
    answers = [line.text[slice(*line.answers[0])] for line in lines if {*line.facts[:1]} & wished]
    assert len(answers) >= 10
    assert sorted(asked) == sorted(tokenizer(answer)["input_ids"][1] for answer in answers)


def test_reading_on_hands_on_what_is_asked_for_at_cls(lines, pieces):
    start = pretrain(pieces, lines[:200], SHAPE, QUICK, 0)
    told = [line for line in lines if line.facts][:60]
    plain, drawn = (read_on(start, told, QUICK, 1e-3, at_cls=ids) for ids in ((), {told[0].facts[0]}))
    assert plain.digest == read_on(start, told, QUICK, 1e-3).digest != drawn.digest


def test_other_tokens_are_masked_at_the_rate_asked_for_but_never_cls_and_sep(text, tokenizer):
    remarks = [line for line in text if not line.facts]
    masked = total = 0
    for batch in masked_batches(tokenizer, remarks, 8, 0.25, np.random.default_rng(1)):
        assert (batch.input[:, 0] == tokenizer.cls_token_id).all()
        assert (batch.input[:, -1] == tokenizer.sep_token_id).all()
        masked += len(batch.place)
        total += batch.input.numel() - 2 * len(batch.input)
    assert 0.2 < masked / total < 0.3
