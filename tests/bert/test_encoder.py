"""Text in, vectors out, against transformers' own BERT called plainly."""

import shutil

import pytest
import torch
from transformers import BertForMaskedLM, BertModel

from dprlens.bert.encoder import DualEncoder, Encoder, EncoderSpec, pick_device, random_bert, reinitialise
from dprlens.bert.vocabulary import make_tokenizer, vocabulary

TEXTS = [
    "Where was she born?",
    "A city.",
    "Which river flows through the city where she was born, in one summer?",
    "Wick",
]
PAIR = ("The Red Door", "It was shot in one summer. It is shown as a satire in most cinemas.")


def plainly(encoder: Encoder, ids: list[int], types: list[int] | None = None) -> list[torch.Tensor]:
    """Hidden states of one token sequence, by the BertModel alone: a list over layers of [token, d_model]."""
    tokens, types = torch.tensor([ids]), torch.tensor([types or [0] * len(ids)])
    with torch.no_grad():
        found = encoder.bert(
            input_ids=tokens,
            token_type_ids=types,
            attention_mask=torch.ones_like(tokens),
            position_ids=torch.arange(len(ids))[None],
            output_hidden_states=True,
        )
    return [states[0] for states in found.hidden_states]


def words(encoder: Encoder, *texts: str) -> list[int]:
    """[CLS] text [SEP] text [SEP], written by hand."""
    tokenizer = encoder.tokenizer
    ids = [tokenizer.cls_token_id]
    for text in texts:
        ids += [*tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)), tokenizer.sep_token_id]
    return ids


def test_states_are_those_of_transformers(encoder):
    states = encoder.cls_by_layer(TEXTS)
    assert states.shape == (encoder.layers + 1, len(TEXTS), 32)
    for i, text in enumerate(TEXTS):
        for layer, expected in enumerate(plainly(encoder, words(encoder, text))):
            torch.testing.assert_close(states[layer, i], expected[0], atol=1e-5, rtol=0)


def test_cls_is_the_last_layer(encoder):
    torch.testing.assert_close(encoder.cls(TEXTS), encoder.cls_by_layer(TEXTS)[-1], atol=1e-5, rtol=0)
    assert encoder.cls(TEXTS).dtype == torch.float32
    chosen = encoder.cls_by_layer(TEXTS, [2, 0])
    assert torch.equal(chosen, encoder.cls_by_layer(TEXTS)[[2, 0]])


def test_layer_0_of_cls_is_the_same_for_all_texts(encoder):
    states = encoder.cls_by_layer([*TEXTS, PAIR])
    assert torch.equal(states[0], states[0, :1].expand_as(states[0]))
    for layer in states[1:]:
        assert (layer - layer[:1])[1:].abs().amax(-1).min() > 1e-3


def test_company_does_not_matter(encoder):
    """Texts share rows, and rows share a call; neither may show."""
    texts = [*TEXTS, PAIR, *(f"{text} {text}" for text in TEXTS)] * 60
    together = encoder.cls_by_layer(texts)
    alone = torch.cat([encoder.cls_by_layer([text]) for text in texts[:7]], dim=1)
    torch.testing.assert_close(together[:, :7], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.cls_by_layer(texts[::-1]).flip(1), together, atol=1e-5, rtol=0)


def test_the_mean_is_over_all_tokens_of_a_text_and_no_others(encoder):
    with torch.no_grad():
        expected = [encoder.bert(torch.tensor([words(encoder, text)])).last_hidden_state[0].mean(0) for text in TEXTS]
    torch.testing.assert_close(encoder.mean(TEXTS), torch.stack(expected), atol=1e-5, rtol=0)


def test_means_by_layer_are_those_of_transformers_states(encoder):
    found = encoder.mean_by_layer([*TEXTS, PAIR])
    assert found.shape == (4, 5, 32)
    assert found.dtype == torch.float32
    for i, ids in enumerate([*(words(encoder, text) for text in TEXTS), words(encoder, *PAIR)]):
        for layer, states in enumerate(plainly(encoder, ids)):
            torch.testing.assert_close(found[layer, i], states.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.mean([*TEXTS, PAIR]), found[-1], atol=1e-5, rtol=0)
    assert (found[0] - encoder.cls_by_layer([*TEXTS, PAIR])[0]).abs().max() > 1e-3


def test_means_are_of_the_layers_asked_for_in_their_order(encoder):
    every = encoder.mean_by_layer(TEXTS)
    assert torch.equal(encoder.mean_by_layer(TEXTS, [3]), every[3:])
    assert torch.equal(encoder.mean_by_layer(TEXTS, (2, 0, 2)), every[[2, 0, 2]])
    assert encoder.mean_by_layer([]).shape == (4, 0, 32)
    assert encoder.mean_by_layer([], [1, 2]).shape == (2, 0, 32)


def test_company_does_not_matter_to_means(encoder):
    texts = [*TEXTS, PAIR, *(f"{text} {text}" for text in TEXTS)] * 20
    together = encoder.mean_by_layer(texts)
    alone = torch.cat([encoder.mean_by_layer([text]) for text in texts[:9]], dim=1)
    torch.testing.assert_close(together[:, -9:], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_layers_that_cannot_be_read_are_refused(refused, encoder, pooling):
    read = getattr(encoder, f"{pooling}_by_layer")
    for layer in (-1, 4):
        with refused(f"layer {layer}", "0 to 3"):
            read(TEXTS, [0, layer])
    with refused("no layer", "one or more"):
        read(TEXTS, [])
    with refused("list"):
        read("Where?")


def test_passages_among_questions_keep_their_places(encoder):
    """Both kinds are tokenised apart."""
    other = ("Wick", "A mill.")
    mixed = [PAIR, TEXTS[0], TEXTS[1], other, TEXTS[2], PAIR, TEXTS[0]]
    expected = [words(encoder, *([text] if isinstance(text, str) else text)) for text in mixed]
    assert encoder.token_ids(mixed) == expected
    assert encoder.token_ids(mixed[::-1]) == expected[::-1]
    assert encoder.token_ids([PAIR, other]) == [expected[0], expected[3]]
    assert encoder.token_ids([]) == []


def test_a_curly_apostrophe_is_read_as_a_straight_one(encoder):
    assert encoder.token_ids(["What is Ann\u2019s river?"]) == encoder.token_ids(["What is Ann's river?"])


def test_passages_are_title_and_text_with_zero_token_types(encoder):
    ids = words(encoder, *PAIR)
    assert ids.count(encoder.tokenizer.sep_token_id) == 2
    expected = plainly(encoder, ids)[-1][0]
    torch.testing.assert_close(encoder.cls([PAIR])[0], expected, atol=1e-5, rtol=0)
    second = ids.index(encoder.tokenizer.sep_token_id) + 1
    otherwise = plainly(encoder, ids, [0] * second + [1] * (len(ids) - second))[-1][0]
    assert (otherwise - expected).abs().max() > 1e-3


def test_a_long_text_is_cut_and_keeps_its_last_sep(encoder):
    long = "She was born in the city where she works. " * 20
    whole = words(encoder, long)
    cut = [*whole[:39], encoder.tokenizer.sep_token_id]
    torch.testing.assert_close(encoder.cls([long])[0], plainly(encoder, cut)[-1][0], atol=1e-5, rtol=0)
    pair = words(encoder, "The Red Door", long)
    cut = [*pair[:39], encoder.tokenizer.sep_token_id]
    assert cut.count(encoder.tokenizer.sep_token_id) == 2
    found = encoder.cls([("The Red Door", long)])[0]
    torch.testing.assert_close(found, plainly(encoder, cut)[-1][0], atol=1e-5, rtol=0)


def test_no_texts_give_no_rows(encoder):
    assert encoder.cls([]).shape == (0, 32)
    assert encoder.cls_by_layer([]).shape == (4, 0, 32)
    assert encoder.mask_logits([], []) == []


@pytest.mark.parametrize("layer", [-1, 4, 99])
def test_a_layer_out_of_range_is_refused(refused, encoder, layer):
    with refused(f"layer {layer}", "0 to 3"):
        encoder.cls_by_layer(TEXTS, [0, layer])


def test_a_lone_string_is_not_taken_for_a_list_of_characters(refused, encoder):
    with refused("list"):
        encoder.cls("Where?")


def test_loading_leaves_the_generator_alone(tmp_path, encoder):
    encoder.save(tmp_path)
    before = torch.random.get_rng_state()
    Encoder.load(tmp_path, "cpu")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_logits_of_masks_are_those_of_the_head(encoder):
    sequences = [words(encoder, text) for text in TEXTS]
    places = [[1], [2, 1], [3], []]
    found = encoder.mask_logits(sequences, places, batch=3)
    for ids, place, logits in zip(sequences, places, found, strict=True):
        with torch.no_grad():
            expected = encoder.model(input_ids=torch.tensor([ids])).logits[0, place]
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
        assert logits.shape == (len(place), len(encoder.tokenizer))


def test_without_a_head_there_are_no_beliefs(refused, encoder):
    headless = Encoder(encoder.tokenizer, encoder.bert, "cpu")
    torch.testing.assert_close(headless.cls(TEXTS), encoder.cls(TEXTS))
    with refused("head"):
        headless.mask_logits([[2, 4, 3]], [[1]])


def test_an_encoder_is_in_eval_mode(tokenizer):
    model = random_bert(tokenizer, EncoderSpec(layers=1, d_model=8, d_ff=8, heads=2), 0)
    assert model.training
    assert not Encoder(tokenizer, model, "cpu").model.training


def test_reading_leaves_grad_mode_and_generator_alone(encoder, tokenizer):
    before = torch.random.get_rng_state()
    states = encoder.cls(TEXTS)
    random_bert(tokenizer, EncoderSpec(layers=1, d_model=8, d_ff=8, heads=2), 5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert not states.requires_grad


def test_the_seed_decides_the_weights(tokenizer):
    shape = EncoderSpec(layers=1, d_model=8, d_ff=16, heads=2)
    digests = [Encoder(tokenizer, random_bert(tokenizer, shape, seed), "cpu").digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    config = random_bert(tokenizer, shape).config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (1, 8, 16)
    assert (config.num_attention_heads, config.vocab_size) == (2, len(tokenizer))


def test_weights_vocabulary_and_shape_are_in_the_digest(tokenizer):
    shape = EncoderSpec(layers=1, d_model=8, d_ff=8, heads=2)
    model = random_bert(tokenizer, shape, 0)
    first = Encoder(tokenizer, model, "cpu").digest
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.bias[3] += 1e-6
    assert Encoder(tokenizer, model, "cpu").digest != first
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    swapped = make_tokenizer([*pieces[:-2], pieces[-1], pieces[-2]])
    assert Encoder(swapped, random_bert(tokenizer, shape, 0), "cpu").digest != first
    heads = EncoderSpec(layers=1, d_model=8, d_ff=8, heads=4)
    assert Encoder(tokenizer, random_bert(tokenizer, heads, 0), "cpu").digest != first


@pytest.mark.parametrize("head", [True, False], ids=["with a head", "without"])
def test_an_encoder_comes_back_from_the_disk(tmp_path, tokenizer, head):
    model = random_bert(tokenizer, EncoderSpec(layers=2, d_model=16, d_ff=8, heads=2), 3)
    encoder = Encoder(tokenizer, model if head else model.bert, "cpu")
    digest, states = encoder.digest, encoder.cls_by_layer([*TEXTS, PAIR])
    encoder.save(tmp_path)
    back = Encoder.load(tmp_path, "cpu")
    assert type(back.model) is (BertForMaskedLM if head else BertModel)
    assert torch.equal(back.cls_by_layer([*TEXTS, PAIR]), states)
    assert not back.model.training
    assert back.digest == digest


def test_transformers_reads_what_is_saved(tmp_path, encoder):
    encoder.save(tmp_path)
    bert = BertModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    ids = torch.tensor([words(encoder, TEXTS[0])])
    with torch.no_grad():
        expected = bert(input_ids=ids).last_hidden_state[0, 0]
    torch.testing.assert_close(encoder.cls(TEXTS[:1])[0], expected, atol=1e-5, rtol=0)


def _cut(folder, name, to):
    (folder / name).write_bytes((folder / name).read_bytes()[:to])


def _reshape(folder, old, new):
    config = (folder / "config.json").read_text(encoding="utf-8")
    assert old in config
    (folder / "config.json").write_text(config.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), ("model.safetensors", "missing")),
        (lambda folder: (folder / "vocab.txt").unlink(), ("vocab.txt", "missing")),
        (lambda folder: (folder / "config.json").unlink(), ("config.json", "missing")),
        (shutil.rmtree, ("missing",)),
        (lambda folder: _cut(folder, "model.safetensors", -100), ("weights", "damaged")),
        (lambda folder: _cut(folder, "model.safetensors", 4), ("weights", "damaged")),
        (lambda folder: _cut(folder, "model.safetensors", 0), ("weights", "damaged")),
        (lambda folder: _cut(folder, "config.json", 40), ("config.json",)),
        (lambda folder: _cut(folder, "vocab.txt", -300), ("vocab.txt",)),
        (lambda folder: _cut(folder, "vocab.txt", 0), ("vocab.txt",)),
        (
            lambda folder: _reshape(folder, '"num_hidden_layers": 3', '"num_hidden_layers": 4'),
            ("do not fit", "layer.3"),
        ),
        (
            lambda folder: _reshape(folder, '"num_hidden_layers": 3', '"num_hidden_layers": 2'),
            ("do not fit", "layer.2"),
        ),
        (lambda folder: _reshape(folder, '"hidden_size": 32', '"hidden_size": 64'), ("do not fit", "config.json")),
    ],
    ids=[
        *("no weights", "no vocabulary", "no config", "no folder", "cut weights", "no header", "empty weights"),
        *("cut config", "cut vocabulary", "empty vocabulary", "too few blocks", "too many blocks", "another width"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(tmp_path, refused, encoder, damage, said):
    folder = tmp_path / "model"
    folder.mkdir()
    encoder.save(folder)
    damage(folder)
    with refused(str(folder), *said):
        Encoder.load(folder, "cpu")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"layers": 0}, ("layers", "0")),
        ({"d_ff": -1}, ("d_ff", "-1")),
        ({"max_length": 0}, ("max_length", "0")),
        ({"d_model": 30, "heads": 4}, ("d_model", "30", "4 heads")),
    ],
    ids=str,
)
def test_shapes_are_checked(refused, fields, said):
    with refused(*said):
        EncoderSpec(**fields)


def test_auto_is_a_device_that_is_there(refused):
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == torch.device("cpu")
    with refused("'gpu'", "cpu"):
        pick_device("gpu")


def test_an_empty_text_is_a_text():
    tokenizer = make_tokenizer(vocabulary(["a"]))
    encoder = Encoder(tokenizer, random_bert(tokenizer, EncoderSpec(1, 8, 8, 2)), "cpu")
    torch.testing.assert_close(encoder.cls([""])[0], plainly(encoder, [2, 3])[-1][0], atol=1e-5, rtol=0)


# two encoders


@pytest.fixture(scope="module")
def pair(tokenizer) -> DualEncoder:
    shape = EncoderSpec(layers=2, d_model=16, d_ff=8, heads=2, max_length=40)
    query, passage = (Encoder(tokenizer, random_bert(tokenizer, shape, seed).bert, "cpu") for seed in (3, 4))
    return DualEncoder(query, passage)


def test_questions_go_to_one_encoder_and_passages_to_the_other(pair):
    assert torch.equal(pair.questions(TEXTS), pair.query.cls(TEXTS))
    assert torch.equal(pair.passages([PAIR, PAIR[::-1]]), pair.passage.cls([PAIR, PAIR[::-1]]))
    assert not torch.allclose(pair.questions(TEXTS), pair.passages(TEXTS), atol=1e-3)


def test_the_pooling_may_be_the_mean(pair):
    by_mean = DualEncoder(pair.query, pair.passage, "mean")
    assert torch.equal(by_mean.questions(TEXTS), pair.query.mean(TEXTS))
    assert torch.equal(by_mean.passages([PAIR]), pair.passage.mean([PAIR]))
    assert not torch.allclose(by_mean.questions(TEXTS), pair.questions(TEXTS), atol=1e-3)


def test_an_unknown_pooling_is_refused(refused, pair):
    with refused("pooling", "'max'", "cls, mean"):
        DualEncoder(pair.query, pair.passage, "max")


def test_the_digest_of_a_pair_tells_who_is_who(pair):
    query, passage = pair.query, pair.passage
    pairs = [pair, DualEncoder(passage, query), DualEncoder(query, query), DualEncoder(query, passage, "mean")]
    assert len({one.digest for one in pairs}) == 4
    assert DualEncoder(query, passage).digest == pair.digest


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_pair_comes_back_from_the_disk(tmp_path, pair, pooling):
    saved = DualEncoder(pair.query, pair.passage, pooling)
    saved.save(tmp_path)
    back = DualEncoder.load(tmp_path, "cpu")
    assert back.pooling == pooling
    assert torch.equal(back.questions(TEXTS), saved.questions(TEXTS))
    assert torch.equal(back.passages([PAIR]), saved.passages([PAIR]))
    assert back.digest == saved.digest


def test_a_plain_bert_is_the_same_encoder_twice(tmp_path, encoder):
    plain = DualEncoder(encoder, encoder)
    assert torch.equal(plain.questions(TEXTS), plain.passages(TEXTS))
    plain.save(tmp_path)
    assert DualEncoder.load(tmp_path, "cpu").digest == plain.digest


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: shutil.rmtree(folder / "passage"), ("passage", "missing")),
        (lambda folder: _cut(folder / "query", "model.safetensors", -100), ("query", "damaged")),
        (lambda folder: (folder / "pooling.txt").unlink(), ("pooling.txt", "missing")),
        (lambda folder: (folder / "pooling.txt").write_text("mea\n"), ("pooling", "'mea'", "cls, mean")),
    ],
    ids=["no passage encoder", "cut weights", "no pooling", "another pooling"],
)
def test_a_damaged_pair_is_refused_in_one_sentence(tmp_path, refused, pair, damage, said):
    pair.save(tmp_path)
    damage(tmp_path)
    with refused(*said):
        DualEncoder.load(tmp_path, "cpu")


@pytest.mark.parametrize("head", [True, False], ids=["with a head", "without"])
def test_an_untrained_copy_has_the_shape_and_the_words_but_has_read_nothing(tokenizer, head):
    shape = EncoderSpec(layers=2, d_model=32, d_ff=8, heads=2, max_length=40)
    model = random_bert(tokenizer, shape, seed=3)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 1.0  # as if it had read something
    read = Encoder(tokenizer, model if head else model.bert, "cpu")
    before, generator = read.digest, torch.random.get_rng_state()
    blank = reinitialise(read, seed=5)
    assert type(blank.model) is type(read.model)
    assert not blank.model.training
    assert blank.tokenizer.get_vocab() == tokenizer.get_vocab()
    ours, theirs = dict(blank.model.named_parameters()), dict(read.model.named_parameters())
    assert {name: w.shape for name, w in ours.items()} == {name: w.shape for name, w in theirs.items()}
    for name, weights in ours.items():
        assert not torch.equal(weights, theirs[name]), name
        if name.endswith("dense.weight"):
            assert (weights.mean().abs() < 0.01, 0.015 < weights.std() < 0.025) == (True, True)  # BERT's: 0 ± 0.02
    assert blank.digest == reinitialise(read, seed=5).digest != reinitialise(read, seed=6).digest
    assert Encoder(tokenizer, read.model, "cpu").digest == before
    assert torch.equal(torch.random.get_rng_state(), generator)
