"""BERTs from elsewhere: a local folder or a cached hub id, read strictly into an `Encoder`.

What may come: a plain BERT (with or without its masked-LM head, as `bert-base-uncased`), DPR's question and passage
encoders as transformers keeps them, and other BERT-like towers. Weights are found by their names, whatever stands in
front of them, so that no class has to be guessed: transformers' `AutoModel` takes DPR's passage encoder for a question
encoder, finds nothing that fits, warns and returns random weights. Here what is missing or left over is an error.

Token types are all zero and passages are pairs (title, text), as in DPR's own code, whatever the tokenizer would do.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, BertTokenizer

from dprlens.bert.encoder import POOLINGS, SIMILARITIES, DualEncoder, Encoder, new_model
from dprlens.bert.vocabulary import VOCABULARY, load_vocabulary
from dprlens.ranges import check, one_of

WORDS = "embeddings.word_embeddings.weight"  # every BERT has it: what stands before it stands before all weights
HEAD = "cls.predictions."
SAFE, SHARDS, LEGACY = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
# Weights that an encoder at [CLS] does not use: the pooler, the next-sentence head, and numbers that are no weights
UNUSED = ("pooler.", "cls.seq_relationship.", "embeddings.position_ids")


@dataclass(frozen=True)
class TowersSpec:
    """A dual encoder from elsewhere; names are folders or hub ids."""

    query: str
    passage: str | None = None  # None: one tower for both
    pooling: str = "cls"  # "cls", or "mean" over a text's tokens
    similarity: str = "dot"  # "dot", or "cosine"
    max_length: int = 256  # tokens of a text, longer ones are cut; DPR: 256

    def __post_init__(self) -> None:
        check(self, one_of(POOLINGS), "pooling")
        check(self, one_of(SIMILARITIES), "similarity")


# DPR's towers, trained on Natural Questions alone, as `fetch` places them
PUBLISHED = TowersSpec("models/dpr-question_encoder-single-nq-base", "models/dpr-ctx_encoder-single-nq-base")


@dataclass(frozen=True)
class ModelsSpec:
    """The models that this project does not train itself; names are folders or hub ids."""

    start: str | None = None  # the pre-trained BERT; None: one that is pre-trained here, on the world's text
    statements: str | None = None  # JSON lines with statements for facts; None: the world's own, or those of rules
    published: TowersSpec = PUBLISHED  # a dual encoder to set beside our DPR …
    check: bool = False  # … on the questions of nq-test, for which answers are known and gold passages are not


def load_towers(spec: TowersSpec, root: Path, device: str = "auto") -> DualEncoder:
    """Load a dual encoder.

    Errors are as of `load_encoder`; relative folders are below `root`.
    """
    query = load_encoder(spec.query, root, spec.max_length, device)
    passage = query if spec.passage is None else load_encoder(spec.passage, root, spec.max_length, device)
    return DualEncoder(query, passage, spec.pooling, spec.similarity)


def load_encoder(name: str, root: Path, max_length: int = 256, device: str = "auto") -> Encoder:
    """Load a BERT from a folder (absolute, or below `root`) or the hub's local cache, never the network.

    It has a masked-LM head if the weights have a whole one. Raises FileNotFoundError, in one sentence, for a model that
    is not here, and ValueError for one that is damaged, is no BERT, is cased, or whose weights do not fit its
    configuration to the last one.
    """
    folder = _folder(name, root)
    config = _config(folder, max_length)
    weights = _plain_names(_weights(folder), folder)
    has_head = any(key.startswith(HEAD) for key in weights)
    model = new_model(config, has_head)
    tied = Encoder._tied(model)
    names = {key.removeprefix("bert.") if has_head else key: key for key in model.state_dict() if key not in tied}
    expected = {short: model.state_dict()[key].shape for short, key in names.items()}
    given = {key: w for key, w in weights.items() if not key.startswith(UNUSED) and key not in tied}
    wrong = sorted(
        key for key in expected.keys() | given.keys() if getattr(given.get(key), "shape", None) != expected.get(key)
    )
    if wrong:
        has, wants = getattr(given.get(wrong[0]), "shape", None), expected.get(wrong[0])
        raise ValueError(
            f"the weights in {folder} do not fit a BERT of its config.json: {wrong[0]} has shape {_shown(has)}, "
            f"expected {_shown(wants)} ({len(wrong)} such names); give the folder of a BERT or DPR encoder"
        )
    tokenizer = _tokenizer(folder)
    if len(tokenizer) != config.vocab_size:
        raise ValueError(
            f"{VOCABULARY} in {folder} has {len(tokenizer)} pieces, its weights {config.vocab_size}; copy both from "
            "one model"
        )
    model.load_state_dict({names[key]: w.float() for key, w in given.items()}, strict=False)  # tied weights follow
    return Encoder(tokenizer, model, device)


def _folder(name: str, root: Path) -> Path:
    if (folder := root / Path(name).expanduser()).is_dir():
        return folder
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError, OSError):
        raise FileNotFoundError(
            f"there is no model {name!r}, neither as the folder {folder} nor in the hub's cache; place its "
            f"config.json, {SAFE} and {VOCABULARY} in that folder, or fetch it"
        ) from None


def _config(folder: Path, max_length: int) -> BertConfig:
    try:
        given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = given.get("model_type")
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no model: config.json is missing; place it there") from None
    except (ValueError, AttributeError):
        raise ValueError(f"config.json in {folder} is damaged; copy it again") from None
    if kind not in ("bert", "dpr"):
        raise ValueError(f"the model in {folder} is of type {kind!r}; only bert and dpr can be read")
    if given.get("projection_dim"):
        raise ValueError(f"the model in {folder} projects to {given['projection_dim']} numbers; only 0 can be read")
    config = BertConfig.from_dict(given | {"model_type": "bert"})
    longest = config.max_position_embeddings
    if not 2 < max_length <= longest:
        raise ValueError(f"max_length = {max_length} does not fit the model in {folder}; give 3 to {longest}")
    config.reads_at_most = max_length
    return config


def _weights(folder: Path) -> Mapping[str, Tensor]:
    """Load all weights of the folder by name.

    They are read from safetensors if there are any, else from a pickle without code.
    """
    try:
        if (folder / SAFE).is_file():
            return load_file(folder / SAFE)
        if (folder / SHARDS).is_file():
            files = json.loads((folder / SHARDS).read_text(encoding="utf-8"))["weight_map"].values()
            return {key: w for file in sorted({*files}) for key, w in load_file(folder / file).items()}
        if (folder / LEGACY).is_file():
            return torch.load(folder / LEGACY, map_location="cpu", weights_only=True)
    except (SafetensorError, ValueError, KeyError, OSError, EOFError, RuntimeError) as error:
        raise ValueError(f"the weights in {folder} are damaged; copy them again ({error})") from error
    except Exception as error:  # what a pickle with anything but weights raises is nowhere promised
        raise ValueError(f"{LEGACY} in {folder} holds more than weights and is not read; convert it first") from error
    raise FileNotFoundError(f"{folder} holds no weights: place {SAFE} (or {LEGACY}) there")


def _plain_names(weights: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Rename weights to the names of a bare BERT, `cls.…` for the head.

    LayerNorm's oldest names are brought up to date.
    """
    fronts = [key.removesuffix(WORDS) for key in weights if key.endswith(WORDS)]
    if len(fronts) != 1:
        raise ValueError(
            f"the weights in {folder} have {len(fronts)} word embeddings where a BERT has one; give the folder of one "
            "encoder"
        )
    found = {}
    for key, w in weights.items():
        name = key.removeprefix(fronts[0]).replace("LayerNorm.gamma", "LayerNorm.weight")
        found[name.replace("LayerNorm.beta", "LayerNorm.bias")] = w
    return found


def _tokenizer(folder: Path) -> BertTokenizer:
    if not (folder / VOCABULARY).is_file():
        raise FileNotFoundError(f"{folder} holds no {VOCABULARY}; place the model's vocabulary there")
    about = folder / "tokenizer_config.json"
    if about.is_file() and not json.loads(about.read_text(encoding="utf-8")).get("do_lower_case", True):
        raise ValueError(f"the model in {folder} is cased; only uncased models can be read")
    return load_vocabulary(folder)


def _shown(shape: torch.Size | None) -> str:
    return "none" if shape is None else str(tuple(shape))
