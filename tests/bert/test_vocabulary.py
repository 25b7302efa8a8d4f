"""The vocabulary of whole words, and the places of answers among tokens."""

import random

import pytest

from dprlens.bert.vocabulary import SPECIAL, load_vocabulary, make_tokenizer, save_vocabulary, vocabulary, with_places

TEXTS = ["Abbot Hall taught Ada Low, a diver.", "Wick lies on the Aure; naïve?"]


@pytest.fixture(scope="module")
def few():
    return make_tokenizer(vocabulary(TEXTS))


@pytest.mark.slow
def test_every_word_of_the_world_is_one_piece(world, text, tokenizer):
    for shown in {*world.texts(), *(segment.text for segment in text)}:
        pieces = tokenizer.tokenize(shown)
        assert pieces
        assert not [piece for piece in pieces if piece == "[UNK]" or piece.startswith("##")], shown


def test_unseen_words_are_split_into_characters(few):
    assert few.tokenize("ada Zq7") == ["ada", "z", "##q", "##7"]
    assert few.tokenize("adax") == ["a", "##d", "##a", "##x"] or few.tokenize("adax") == ["ada", "##x"]
    assert "[UNK]" not in few.tokenize("Quixotic_1999 <b>{x}</b> $y$")


def test_case_and_accents_do_not_count(few):
    assert few("ADA NAIVE")["input_ids"] == few("ada naïve")["input_ids"]


def test_the_vocabulary_is_in_one_order(world):
    texts = list(world.texts())
    pieces = vocabulary(texts)
    random.Random(1).shuffle(texts)
    assert vocabulary(texts + texts[:9]) == pieces
    assert pieces[: len(SPECIAL)] == list(SPECIAL)
    assert len(set(pieces)) == len(pieces)
    words = pieces[pieces.index("##~") + 1 :]
    assert words == sorted(words)


def test_ids_are_the_places_in_the_vocabulary(few):
    pieces = vocabulary(TEXTS)
    assert few.convert_ids_to_tokens(list(range(len(pieces)))) == pieces
    assert few.convert_ids_to_tokens(few("Ada, diver")["input_ids"]) == ["[CLS]", "ada", ",", "diver", "[SEP]"]
    assert (few.pad_token_id, few.mask_token_id) == (0, 4)


def test_a_vocabulary_comes_back_from_the_disk(tmp_path, few):
    save_vocabulary(few, tmp_path)
    back = load_vocabulary(tmp_path)
    assert back.get_vocab() == few.get_vocab()
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8").split("\n")[:5] == list(SPECIAL)
    assert back(TEXTS)["input_ids"] == few(TEXTS)["input_ids"]


def test_places_of_answers_of_one_and_two_words(few):
    text = "Abbot Hall taught Ada Low, a diver."
    ((ids, places),) = with_places(few, [text], [[(0, 10), (29, 34)]])
    assert few.convert_ids_to_tokens(ids) == [
        *("[CLS]", "abbot", "hall", "taught", "ada", "low", ",", "a", "diver", ".", "[SEP]")
    ]
    assert places == [[1, 2], [8]]


def test_places_of_an_answer_that_is_split(few):
    ((ids, ((*tokens,), ())),) = with_places(few, ["On Zq7."], [[(3, 6), (6, 6)]])
    assert few.convert_ids_to_tokens([ids[t] for t in tokens]) == ["z", "##q", "##7"]


def test_texts_keep_their_order_and_their_spans(few):
    found = with_places(few, ["Ada", "the Aure", "Ada"], [[(0, 3)], [], [(0, 3), (0, 3)]])
    assert [places for _, places in found] == [[[1]], [], [[1], [1]]]
    assert [len(ids) for ids, _ in found] == [3, 4, 3]


def test_no_texts_have_no_places(few):
    assert with_places(few, [], []) == []


def test_answers_of_segments_are_found_again(text, tokenizer):
    chosen = [segment for segment in text if segment.facts][:400]
    found = with_places(tokenizer, [s.text for s in chosen], [s.answers for s in chosen])
    for segment, (ids, places) in zip(chosen, found, strict=True):
        for (start, end), tokens in zip(segment.answers, places, strict=True):
            assert tokenizer.decode([ids[t] for t in tokens]) == segment.text[start:end].lower()
