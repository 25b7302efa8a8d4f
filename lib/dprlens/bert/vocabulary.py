"""WordPiece for a closed world: a vocabulary of whole words for transformers' own BERT tokenizer.

A vocabulary *trained* at this size splits most words; here every word of the world is one piece, and single
characters are the pieces for words that the world does not have.
"""

import string
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertTokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = "vocab.txt"


def vocabulary(texts: Iterable[str]) -> list[str]:
    """List the pieces for these texts: special tokens, characters (alone and as continuations), words, sorted."""
    normalise, split = BertNormalizer(lowercase=True), BertPreTokenizer()
    words = {word for text in set(texts) for word, _ in split.pre_tokenize_str(normalise.normalize_str(text))}
    characters = sorted(set(string.ascii_lowercase + string.digits + string.punctuation).union(*words))
    pieces = [*SPECIAL, *characters, *(f"##{character}" for character in characters)]
    return pieces + sorted(words - set(pieces))


def make_tokenizer(pieces: Sequence[str]) -> BertTokenizer:
    """Make an uncased BERT tokenizer over these pieces, in this order."""
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=True)


def save_vocabulary(tokenizer: BertTokenizer, folder: Path) -> None:
    """Write `vocab.txt`, one piece a line, in the order of their ids."""
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda piece_id: piece_id[1])
    (folder / VOCABULARY).write_text("".join(f"{piece}\n" for piece, _ in pieces), encoding="utf-8")


def load_vocabulary(folder: Path) -> BertTokenizer:
    """Load the tokenizer of a folder's `vocab.txt`."""
    return make_tokenizer((folder / VOCABULARY).read_text(encoding="utf-8").split("\n")[:-1])


def decode(tokenizer: BertTokenizer, pieces: list[int]) -> str:
    """Decode token ids to text."""
    return str(tokenizer.decode(pieces))  # by its type also a list, for many texts


def with_places(
    tokenizer: BertTokenizer, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]
) -> list[tuple[list[int], list[list[int]]]]:
    """Tokenize each text, special tokens included, and find the tokens in each of its character spans."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), return_offsets_mapping=True, add_special_tokens=True)
    return [
        (ids, [[t for t, (a, b) in enumerate(offsets) if start <= a < b <= end] for start, end in of_text])
        for ids, offsets, of_text in zip(encoded["input_ids"], encoded["offset_mapping"], spans, strict=True)
    ]
