"""What editors work on, against transformers' own forward and losses worked by hand."""

from math import log

import pytest
import torch

from dprlens.bert.cloze import cloze, mask_answers
from dprlens.bert.encoder import Encoder
from dprlens.bert.forward import Batch, masked_lm, text_numbers
from dprlens.editing.editors.objective import blanks, copy_model, drift, nll, rewritten, told_once, training_statements
from dprlens.world.records import Fact, Statement


@pytest.fixture(scope="module")
def statements(world, encoder):
    """Five statements: answers of one piece and of two, texts of different lengths."""
    every = [fact.statements[0] for fact in world.facts]
    pieces = [len(places) for places in mask_answers(encoder, every)[1]]
    chosen = [[s for s, n in zip(every, pieces, strict=True) if n == size] for size in (1, 2)]
    return [*chosen[0][:2], *chosen[1][:2], world.facts[0].statements[3]]


def of_masks(statement, piece) -> Batch:
    """A batch of which only the rows and the pieces of the masks matter."""
    rows = max(statement) + 1
    inside = torch.ones(rows, 3, dtype=torch.bool)
    row, place, pieces = (torch.tensor(values) for values in (statement, [1] * len(statement), piece))
    return Batch(torch.zeros(rows, 3, 2), text_numbers(inside), row, place, piece=pieces)


def fact(object_="Wick", subject="Ada Fenn", relation="born_in", said=("{} was born in {}.",), reserved=()) -> Fact:
    """A fact with the statements `said`, those of the places in `reserved` reserved."""
    told = []
    for i, form in enumerate(said):
        text = form.format(subject, object_)
        start = text.index(object_)
        told.append(Statement(text, start, start + len(object_), i in reserved))
    return Fact(f"{subject} {relation}", subject, relation, object_, "test", tuple(told))


@pytest.mark.parametrize("first", [0, 1, 3])
def test_statements_are_kept_as_the_states_that_go_into_a_block(encoder, statements, first):
    given = blanks(encoder, statements, first)
    masked, _, _ = mask_answers(encoder, statements)
    assert not given.input.requires_grad
    for i, ids in enumerate(masked):
        assert given.inside[i].tolist() == [True] * len(ids) + [False] * (given.inside.shape[1] - len(ids))
        with torch.no_grad():
            expected = encoder.bert(torch.tensor([ids]), output_hidden_states=True).hidden_states[first][0]
        torch.testing.assert_close(given.input[i, : len(ids)], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("first", [0, 2, 3])
def test_logits_at_masks_do_not_depend_on_where_the_model_is_entered(encoder, statements, first):
    given = blanks(encoder, statements, first)
    masked, places, answers = mask_answers(encoder, statements)
    with torch.no_grad():
        found = masked_lm(encoder.model, given, first)
    torch.testing.assert_close(found, torch.cat(encoder.mask_logits(masked, places)), atol=1e-5, rtol=0)
    assert given.row.tolist() == [row for row, of_text in enumerate(places) for _ in of_text]
    assert given.piece.tolist() == [piece for answer in answers for piece in answer]


@pytest.mark.parametrize("rows", [[3], [4, 0, 2], [2, 2, 1]])
def test_a_part_is_what_its_statements_alone_would_be(encoder, statements, rows):
    part = blanks(encoder, statements, 2).part(rows)
    alone = blanks(encoder, [statements[row] for row in rows], 2)
    for name in ("row", "place", "piece"):
        assert torch.equal(getattr(part, name), getattr(alone, name)), name
    longest = alone.inside.shape[1]
    assert torch.equal(part.inside[:, :longest], alone.inside)
    assert not part.inside[:, longest:].any()
    torch.testing.assert_close(part.input[:, :longest][alone.inside], alone.input[alone.inside], atol=1e-6, rtol=0)


def test_a_part_may_be_chosen_by_a_tensor_or_hold_nothing(encoder, statements):
    whole = blanks(encoder, statements, 0)
    one, other, nothing = (whole.part(rows) for rows in (torch.tensor([2, 0]), [2, 0], []))
    for name in ("input", "text", "row", "place", "piece"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert len(getattr(nothing, name)) == 0


def test_nll_is_a_mean_over_pieces_and_then_over_statements():
    """Two statements: the pieces of the first have probabilities 1/2 and 1/8, the piece of the second has 1/4."""
    chances = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.125, 0.375], [0.25, 0.5, 0.25]])
    given = of_masks([0, 0, 1], [0, 1, 2])
    expected = ((log(2) + log(8)) / 2 + log(4)) / 2
    assert nll(chances.log(), given).item() == pytest.approx(expected, abs=1e-6)
    assert nll(chances.log() + 7, given).item() == pytest.approx(expected, abs=1e-6)


def test_nll_is_that_of_the_cloze(encoder, statements):
    with torch.no_grad():
        found = nll(masked_lm(encoder.model, blanks(encoder, statements, 0), 0), blanks(encoder, statements, 0))
    expected = -sum(log(belief.probability) for belief in cloze(encoder, statements)) / len(statements)
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_drift_is_the_divergence_from_what_was_believed_before():
    """KL((1/2, 1/2) ‖ (1/4, 3/4)) = log 2 − (log 3)/2; the other way it is (3 log 3)/4 − log 2."""
    even, uneven = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert drift(even, uneven).item() == pytest.approx(log(2) - log(3) / 2, abs=1e-6)
    assert drift(uneven, even).item() == pytest.approx(0.75 * log(3) - log(2), abs=1e-6)
    both = torch.cat([even, even]), torch.cat([uneven, even])
    assert drift(*both).item() == pytest.approx((log(2) - log(3) / 2) / 2, abs=1e-6)


def test_nothing_drifts_where_nothing_changed():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    same = drift(logits.detach(), logits)
    (gradient,) = torch.autograd.grad(same, logits)
    assert same.item() == 0
    assert gradient.abs().max() < 1e-7


def test_a_copy_shares_nothing(encoder):
    before = encoder.digest
    copy = copy_model(encoder)
    assert not copy.training
    assert rewritten(encoder, copy).digest == before
    with torch.no_grad():
        for weights in copy.parameters():
            weights.zero_()
    assert Encoder(encoder.tokenizer, encoder.model, "cpu").digest == before


def test_a_copy_has_the_precision_of_the_model(encoder):
    double = Encoder(encoder.tokenizer, copy_model(encoder).double(), "cpu")
    assert {weights.dtype for weights in copy_model(double).parameters()} == {torch.double}


def test_copying_leaves_the_generator_alone(encoder):
    before = torch.random.get_rng_state()
    copy_model(encoder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_encoder_without_a_head_is_refused(refused, encoder):
    with refused("masked-LM head", "pre-trained"):
        copy_model(Encoder(encoder.tokenizer, encoder.bert, "cpu"))


def test_repetitions_are_told_once_in_their_order():
    one, two = fact(), fact("Holm", "Bo Reed")
    assert told_once([two, one, two, one]) == [two, one]
    assert told_once([]) == []
    assert len(told_once([one, fact(relation="lives_in", object_="Holm")])) == 2


def test_contradictions_are_refused(refused):
    with refused("'Ada Fenn'", "'Wick'", "'Holm'", "born_in"):
        told_once([fact(), fact("Holm")])


def test_what_fills_the_same_blank_contradicts_whatever_the_article(refused):
    baker, actor = (fact(object_=who, said=(f"{{}} is {a} {who}.",)) for a, who in (("a", "Baker"), ("an", "Actor")))
    both = [
        one._replace(statements=(Statement(text, text.index(one.object), text.index(".")),))
        for one, text in ((baker, "Ada Fenn is a Baker."), (actor, "Ada Fenn is an Actor."))
    ]
    with refused("'Baker'", "'Actor'"):
        told_once(both)


def test_other_sentences_about_one_subject_do_not_contradict():
    """Questions of users are not sorted into relations: two who-questions about one title have two answers."""
    song, film = fact("Holm", said=("{} lives in Holm.",)), fact("Wick", said=("{} works in Wick.",))
    assert told_once([song, film, song]) == [song, film]


@pytest.mark.parametrize("silent", [fact(said=()), fact(reserved=(0,))], ids=["no statement", "all reserved"])
def test_a_fact_that_is_nowhere_stated_is_refused(refused, silent):
    with refused("no statement", "'Ada Fenn born_in'"):
        told_once([fact("Holm", "Bo Reed"), silent])


def test_reserved_statements_are_kept_apart():
    both = fact(said=("{} was born in {}.", "{} is from {}.", "{} grew up in {}."), reserved=(1,))
    assert training_statements(both) == [both.statements[0], both.statements[2]]
    assert training_statements(both, reserved=True) == [both.statements[1]]
