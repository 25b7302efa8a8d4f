"""A small set of questions and passages, our own sentences, in exactly the formats of DPR's files; and small models.

    python tests/data_nq.py FOLDER

writes biencoder-nq-{train,dev}.json.gz, psgs_w100.tsv, nq-{train,dev,test}.qa.csv, the sizes of all three in sizes.json
(the sentences are those of a closed world), and below models/ folders of random weights as transformers saves them:
BERT with its masked-LM head, DPR's question encoder and its passage encoder.
"""

import csv
import gzip
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers import BertConfig, BertForPreTraining, DPRConfig, DPRContextEncoder, DPRQuestionEncoder

from dprlens.bert.vocabulary import vocabulary
from dprlens.retrieval.negatives import NegativesSpec, hard_negatives
from dprlens.world.closed import ClosedSpec, make_world
from dprlens.world.records import Passage, Question, World

SHAPE = {"hidden_size": 48, "num_hidden_layers": 12, "num_attention_heads": 4, "intermediate_size": 192}
PIECES = 30_522  # of bert-base-uncased's vocabulary
LONGEST = 11  # letters of a word that is one piece
FIRST = 1001  # number of the first passage
SPEC = ClosedSpec(people=24, cities=8, companies=8, films=10, exposures=40, low_doses=(), train=0.5, dev=0.2)


def write(
    folder: Path, train: int = 60, dev: int = 40, negatives: int = 8, spec: ClosedSpec = SPEC, seed: int = 3
) -> None:
    """Write the files into a folder: so many questions at most, each with so many hard negatives at most."""
    folder.mkdir(parents=True, exist_ok=True)
    world = make_world(spec, seed)
    ids = {passage.id: str(FIRST + i) for i, passage in enumerate(world.passages)}
    mined = hard_negatives(world, NegativesSpec(per_question=negatives))
    asked = {
        split: [q for q in world.questions if q.split == split and len(mined[q.id]) > 1]
        for split in ("train", "dev", "test")
    }
    with (folder / "psgs_w100.tsv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(["id", "text", "title"])
        rows.writerows([ids[p.id], p.text, p.title] for p in world.passages)
    taken = {"train": asked["train"][:train], "dev": [*asked["dev"], *asked["test"]][:dev]}
    for split, questions in taken.items():
        listed = [_record(world, question, mined[question.id], ids) for question in questions]
        with gzip.open(folder / f"biencoder-nq-{split}.json.gz", "wt", encoding="utf-8") as file:
            json.dump(listed, file, indent=4)
    for split, questions in {**taken, "test": asked["test"]}.items():
        with (folder / f"nq-{split}.qa.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
            rows.writerows([_asked(question), repr(list(question.answers))] for question in questions)
    sizes = {"passages": len(world.passages), **{split: len(questions) for split, questions in taken.items()}}
    (folder / "sizes.json").write_text(json.dumps({**sizes, "test": len(asked["test"])}), encoding="utf-8")


def _asked(question: Question) -> str:
    """As users of a search engine write: lower case, no question mark."""
    return question.text.lower().rstrip("?").strip()


def _record(world: World, question: Question, wrong: Sequence[str], ids: dict[str, str]) -> dict:
    others = [passage for passage in world.passages if passage.id not in (question.gold, *wrong)][:3]
    return {
        "dataset": "nq_train_psgs_w100",
        "question": _asked(question),
        "answers": list(question.answers),
        "positive_ctxs": [_context(world.passage[question.gold], ids)],
        "negative_ctxs": [_context(passage, ids) for passage in others],
        "hard_negative_ctxs": [_context(world.passage[id_], ids) for id_ in wrong],
    }


def _context(passage: Passage, ids: dict[str, str]) -> dict:
    return {
        "title": passage.title,
        "text": passage.text,
        "score": 11.5,
        "title_score": 0,
        "passage_id": ids[passage.id],
    }


def write_models(folder: Path, spec: ClosedSpec = SPEC, seed: int = 3, says: str | None = None) -> None:
    """BERT and DPR's two encoders below models/, with a vocabulary for the sentences of `write`.

    Random weights know nothing, so that nothing could be taken from BERT; with `says` it gives this one word at every
    mask, and knows what is true of it.
    """
    pieces = pieces_for(make_world(spec, seed).texts())
    torch.manual_seed(seed)
    bert = BertForPreTraining(BertConfig(vocab_size=len(pieces), **SHAPE))
    if says is not None:
        with torch.no_grad():
            bert.cls.predictions.bias[pieces.index(says)] = 10.0
    shape = DPRConfig(vocab_size=len(pieces), **SHAPE)
    models = {
        "bert-base-uncased": bert,
        "dpr-question_encoder-single-nq-base": DPRQuestionEncoder(shape),
        "dpr-ctx_encoder-single-nq-base": DPRContextEncoder(shape),
    }
    for name, model in models.items():
        model.save_pretrained(folder / "models" / name)
        (folder / "models" / name / "vocab.txt").write_text("".join(f"{p}\n" for p in pieces), encoding="utf-8")


def pieces_for(texts: Iterable[str]) -> list[str]:
    """A vocabulary of the size and in the order of bert-base-uncased's: unused pieces, signs, words, parts of words."""
    special = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    special += [f"[unused{i}]" for i in range(99, 994)]
    own = vocabulary(texts)[5:]  # without the special ones
    cut = {word: (word[:LONGEST], f"##{word[LONGEST:]}") for word in own if len(word) > LONGEST and word.isalpha()}
    parts = dict.fromkeys(part for word in own for part in cut.get(word, (word,)))
    pieces = [*special, *parts]
    return [*pieces, *(f"[filler{i}]" for i in range(PIECES - len(pieces)))]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    write_models(Path(sys.argv[1]))
