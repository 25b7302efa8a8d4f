"""BERTs from elsewhere: every way in which transformers saves them, and what must not be taken for one."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    DPRConfig,
    DPRContextEncoder,
    DPRQuestionEncoder,
)

from dprlens.bert.encoder import DualEncoder
from dprlens.bert.pretrained import TowersSpec, load_encoder, load_towers
from dprlens.bert.vocabulary import SPECIAL

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
WORDS = [*SPECIAL, *(f"word{i}" for i in range(55))]
TEXTS = ["word1 word2 word3", "word9", "word4 " * 30]
PAIRS = [("word5", "word6 word7"), ("word8 word9", "word10 " * 12)]
BASE = "embeddings.word_embeddings.weight"


def saved(folder, model, words=WORDS):
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    return model.eval()


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.manual_seed(0)


def theirs(model, texts, pairs=()):
    """[CLS] by transformers alone, one text at a time, all token types zero."""
    number = {word: i for i, word in enumerate(WORDS)}
    found = []
    for parts in [(text,) for text in texts] + list(pairs):
        ids = [2] + [i for part in parts for i in (*(number[word] for word in part.split()), 3)]
        out = model(input_ids=torch.tensor([ids]), token_type_ids=torch.zeros(1, len(ids), dtype=torch.long))
        found.append(out.pooler_output[0] if "pooler_output" in out else out.last_hidden_state[0, 0])
    return torch.stack(found).detach()


KINDS = {
    "bare": (lambda: BertModel(BertConfig(**SHAPE), add_pooling_layer=False), lambda model: model),
    "pooler": (lambda: BertModel(BertConfig(**SHAPE)), None),
    "head": (lambda: BertForMaskedLM(BertConfig(**SHAPE)), lambda model: model.bert),
    "next sentence": (lambda: BertForPreTraining(BertConfig(**SHAPE)), None),
    "question": (lambda: DPRQuestionEncoder(DPRConfig(**SHAPE)), lambda model: model),
    "passage": (lambda: DPRContextEncoder(DPRConfig(**SHAPE)), lambda model: model),
}


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_transformers(tmp_path, kind):
    make, bert = KINDS[kind]
    model = saved(tmp_path / "model", make())
    encoder = load_encoder("model", tmp_path, max_length=40, device="cpu")
    bare = bert(model) if bert else model.bert if hasattr(model, "bert") else model
    out = bare if kind in ("question", "passage") else _without_pooler(bare)
    torch.testing.assert_close(encoder.cls([*TEXTS, *PAIRS]), theirs(out, TEXTS, PAIRS), atol=1e-5, rtol=1e-5)


def _without_pooler(bert):
    bert.pooler = None
    return bert


@pytest.mark.parametrize(("kind", "head"), [("head", True), ("next sentence", True), ("pooler", False)])
def test_a_masked_lm_head_comes_along_if_there_is_one(tmp_path, kind, head):
    model = saved(tmp_path / "model", KINDS[kind][0]())
    encoder = load_encoder("model", tmp_path, max_length=40, device="cpu")
    assert isinstance(encoder.model, BertForMaskedLM) == head
    if head:
        ids = torch.tensor([[2, 7, 4, 9, 3]])
        theirs_ = model(input_ids=ids)
        logits = theirs_.logits if kind == "head" else theirs_.prediction_logits
        torch.testing.assert_close(encoder.mask_logits(ids.tolist(), [[2]])[0], logits[:, 2].detach())


def test_the_passage_encoder_is_not_silently_random(tmp_path):
    """The trap: AutoModel makes a question encoder of a passage encoder, whose weights it then does not find."""
    model = saved(tmp_path / "model", DPRContextEncoder(DPRConfig(**SHAPE)))
    key = f"ctx_encoder.bert_model.{BASE}"
    guessed = AutoModel.from_pretrained(tmp_path / "model")
    assert not torch.equal(next(w for n, w in guessed.named_parameters() if n.endswith(BASE)), model.state_dict()[key])
    encoder = load_encoder("model", tmp_path, max_length=40)
    assert torch.equal(encoder.bert.embeddings.word_embeddings.weight.cpu(), model.state_dict()[key])


def test_the_oldest_names_of_layer_norm_are_read(tmp_path):
    model = saved(tmp_path / "model", KINDS["bare"][0]())
    new = load_encoder("model", tmp_path, 40).digest
    file = tmp_path / "model" / "model.safetensors"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): w.clone()
        for name, w in model.state_dict().items()
    }
    save_file(old, file, metadata={"format": "pt"})
    assert load_encoder("model", tmp_path, 40).digest == new


def test_weights_in_several_files_and_in_a_pickle_are_the_same_weights(tmp_path):
    model = saved(tmp_path / "model", KINDS["bare"][0]())
    whole = load_encoder("model", tmp_path, 40).digest
    folder = tmp_path / "model"
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert load_encoder("model", tmp_path, 40).digest == whole
    (folder / "pytorch_model.bin").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, mine in parts.items():
        save_file({name: weights[name] for name in mine}, folder / file)
    index = {"weight_map": {name: file for file, mine in parts.items() for name in mine}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_encoder("model", tmp_path, 40).digest == whole


class Hostile:
    def __reduce__(self):
        return open, ("/tmp/dprlens-was-here", "w")


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, refused, monkeypatch):
    folder = tmp_path / "model"
    saved(folder, KINDS["bare"][0]())
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(Hostile, "__reduce__", lambda _: (open, (str(tmp_path / "was here"), "w")))
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"x": Hostile()}, file)
    with refused("pytorch_model.bin", "more than weights"):
        load_encoder("model", tmp_path, 40)
    assert not (tmp_path / "was here").exists()


def changed(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda w: w.pop("encoder.layer.1.output.dense.bias"), "encoder.layer.1.output.dense.bias has shape none"),
        (lambda w: w.update({"encoder.layer.3.output.dense.bias": torch.zeros(16)}), "expected none"),
        (lambda w: w.update({"encoder.layer.0.output.dense.bias": torch.zeros(15)}), "(15,), expected (16,)"),
        (lambda w: w.update({"second." + BASE: torch.zeros(60, 16)}), "2 word embeddings"),
        (lambda w: w.pop(BASE), "0 word embeddings"),
    ],
)
def test_weights_that_do_not_fit_are_an_error(tmp_path, refused, change, word):
    saved(tmp_path / "model", KINDS["bare"][0]())
    changed(tmp_path / "model", change)
    with refused(word):
        load_encoder("model", tmp_path, 40)


def test_half_a_head_is_an_error(tmp_path, refused):
    saved(tmp_path / "model", KINDS["head"][0]())
    changed(tmp_path / "model", lambda w: w.pop("cls.predictions.transform.dense.bias"))
    with refused("cls.predictions.transform.dense.bias"):
        load_encoder("model", tmp_path, 40)


def config(folder, **fields):
    given = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(given | fields))


DAMAGE = {
    "config.json is missing": lambda folder: (folder / "config.json").unlink(),
    "config.json in": lambda folder: (folder / "config.json").write_text("{"),
    "'roberta'": lambda folder: config(folder, model_type="roberta"),
    "projects to 64": lambda folder: config(folder, projection_dim=64),
    "holds no vocab.txt": lambda folder: (folder / "vocab.txt").unlink(),
    "is cased": lambda folder: (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False})),
    "has 59 pieces": lambda folder: (folder / "vocab.txt").write_text("\n".join(WORDS[:59]) + "\n"),
    "holds no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "are damaged": lambda folder: (folder / "model.safetensors").write_bytes(b"12345678 no"),
}


@pytest.mark.parametrize("words", DAMAGE)
def test_damage_is_told_in_one_sentence(tmp_path, refused, words):
    saved(tmp_path / "model", KINDS["bare"][0]())
    DAMAGE[words](tmp_path / "model")
    with refused(words, error=(ValueError, FileNotFoundError)):
        load_encoder("model", tmp_path, 40)


def test_a_model_that_is_not_here_is_told_where_to_place(tmp_path, refused):
    with refused("'some/bert'", "config.json", str(tmp_path), error=FileNotFoundError):
        load_encoder("some/bert", tmp_path)


@pytest.mark.parametrize("length", [2, 41])
def test_a_length_that_the_model_does_not_have_is_refused(tmp_path, refused, length):
    saved(tmp_path / "model", KINDS["bare"][0]())
    with refused(f"max_length = {length}", "3 to 40"):
        load_encoder("model", tmp_path, length)


def test_texts_are_cut_to_the_length_asked_for_also_when_saved_and_loaded(tmp_path):
    saved(tmp_path / "model", KINDS["bare"][0]())
    short, long = (load_encoder("model", tmp_path, length) for length in (10, 40))
    assert max(map(len, short.token_ids([*TEXTS, *PAIRS]))) == 10
    assert short.digest != long.digest
    (tmp_path / "kept").mkdir()
    short.save(tmp_path / "kept")
    again = type(short).load(tmp_path / "kept")
    assert (again.max_length, again.digest) == (10, short.digest)


def test_towers_may_be_two_or_one_and_cosine_or_dot(tmp_path, refused):
    for name in ("a", "b"):
        saved(tmp_path / name, KINDS["bare"][0]())
    two = load_towers(TowersSpec("a", "b", "mean", "cosine", 40), tmp_path)
    one = load_towers(TowersSpec("a", max_length=40), tmp_path)
    assert one.query is one.passage
    torch.testing.assert_close(two.questions(TEXTS).norm(dim=1), torch.ones(3))
    torch.testing.assert_close(two.passages(PAIRS), torch.nn.functional.normalize(two.passage.mean(PAIRS), dim=1))
    torch.testing.assert_close(one.questions(TEXTS), one.query.cls(TEXTS))
    dot = DualEncoder(two.query, two.passage, "mean")
    assert dot.digest != two.digest
    (tmp_path / "kept").mkdir()
    two.save(tmp_path / "kept")
    again = DualEncoder.load(tmp_path / "kept")
    assert (again.similarity, again.pooling, again.digest) == ("cosine", "mean", two.digest)
    for field, value in (("pooling", "max"), ("similarity", "l2")):
        with refused(field, repr(value)):
            TowersSpec("a", **{field: value})
        with refused(field, repr(value)):
            DualEncoder(one.query, one.query, **{field: value})
