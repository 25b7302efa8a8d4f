"""English for the writer of statements: word lists, verb forms, and words of questions."""

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple


def words_of(*words: str) -> list[str]:
    """Split several lines into words."""
    return " ".join(words).split()


NUMBERS = words_of("zero one two three four five six seven eight nine ten eleven twelve")
DIGITS = {word: str(i) for i, word in enumerate(NUMBERS)}
OF_TIME = {*words_of("year date day month decade century era season time")}
BE = ("is", "are", "was", "were")
DO = ("do", "does", "did")
HAVE = ("has", "have", "had")
MODALS = ("will", "can", "could", "should", "would", "may", "might", "must")
PREPOSITIONS = {
    *words_of(
        "in on at of for from to with by about after before during through into near between against under over as",
        "out up off around within among until since behind above below beneath inside outside along across",
    )
}
DETERMINERS = {*words_of("the a an his her its their our my your this that these those each every all")}
ADVERBS = {
    *words_of(
        "first originally last officially ever finally also actually mostly most commonly usually currently being",
        "not now still generally often primarily initially always",
    )
}
_NO_PARTICIPLES = {*words_of("united red hundred bed seed speed need breed weed indeed shed mohamed ahmed alfred fred")}
# base, past and participle; of three words where the last two differ
_IRREGULAR = {
    base: (past, participle[0] if participle else past)
    for base, past, *participle in (
        line.split()
        for line in """
        become became become;begin began begun;bite bit bitten;break broke broken;bring brought;build built;buy bought
        ;catch caught;choose chose chosen;come came come;cut cut;die died;do did done;draw drew drawn;drink drank drunk
        ;drive drove driven;eat ate eaten;fall fell fallen;feed fed;feel felt;fight fought;find found;fly flew flown
        ;forget forgot forgotten;get got gotten;give gave given;go went gone;grow grew grown;have had;hear heard;hit hit
        ;hold held;keep kept;know knew known;lead led;learn learned;leave left;lie lay lain;lose lost;make made
        ;mean meant;meet met;pay paid;put put;read read;ride rode ridden;rise rose risen;run ran run;say said
        ;see saw seen;sell sold;send sent;set set;shoot shot;shut shut;sing sang sung;sink sank sunk;sit sat;sleep slept
        ;speak spoke spoken;spend spent;stand stood;steal stole stolen;swim swam swum;take took taken;teach taught
        ;tell told;think thought;throw threw thrown;wake woke woken;wear wore worn;win won;write wrote written
        ;beat beat beaten;strike struck;swear swore sworn;flee fled;shrink shrank shrunk;split split;spread spread
        """.replace("\n", " ").split(";")
        if line.strip()
    )
}
_REGULAR = {
    *words_of(
        "marry live move premiere happen occur join discover invent create start study attend graduate retire",
        "direct produce publish appear arrive become believe belong sign stop serve settle travel migrate sail",
        "establish found introduce abolish legalize adopt declare defeat conquer invade colonize gain achieve",
        "receive earn celebrate contain consist originate develop evolve form enter refer represent symbolize",
        "describe translate stay relocate perform compete qualify drop ban surrender annex acquire purchase merge",
        "collapse explode erupt land launch switch host feature portray date sell work employ govern own kill",
        "murder assassinate vote use need love like cost cause open close show play air end record act return",
        "change walk race rule trade cover connect border flow cross pass lead depend require provide protect",
        "control manufacture divorce replace succeed",
    )
}
VERBS = {*_IRREGULAR, *_REGULAR}
_DOUBLED = {"stop": "stopp", "ban": "bann", "drop": "dropp"}


def third_form(verb: str) -> str:
    """Form the third person of a verb: "writes"."""
    if verb == "have":
        return "has"
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return verb + "es"
    return verb[:-1] + "ies" if re.search("[^aeiou]y$", verb) else verb + "s"


def past_form(verb: str) -> str:
    """Form the past of a base form; one that is not listed is regular."""
    if verb in _IRREGULAR:
        return _IRREGULAR[verb][0]
    if verb.endswith("e"):
        return verb + "d"
    return verb[:-1] + "ied" if re.search("[^aeiou]y$", verb) else _DOUBLED.get(verb, verb) + "ed"


_PARTICIPLES = {*(participle for _, participle in _IRREGULAR.values()), *map(past_form, _REGULAR), "born", "shown"}
_FINITE = {*map(third_form, VERBS), *map(past_form, VERBS)}


def is_participle(token: str) -> bool:
    """Test for a listed participle, or a word that ends as one."""
    return token in _PARTICIPLES or _ends_as_past(token)


def is_finite(token: str) -> bool:
    """Test for a listed verb in its third person or past, or a word that ends as a past."""
    return token in _FINITE or _ends_as_past(token)


def _ends_as_past(token: str) -> bool:
    return len(token) > 4 and token.endswith("ed") and token not in _NO_PARTICIPLES


def up_to(tokens: Sequence[str], stops: Collection[str], also: Callable[[str], bool]) -> list[str]:
    """Take the tokens before the first one that stops them."""
    found = []
    for token in tokens:
        if token in stops or also(token):
            break
        found.append(token)
    return found


class Tokens(NamedTuple):
    """Words of a text, as they are written and in lower case."""

    words: tuple[str, ...]
    low: tuple[str, ...]

    def part(self, start: int, end: int | None = None) -> "Tokens":
        """Take the tokens from `start` to `end`."""
        return Tokens(self.words[start:end], self.low[start:end])

    @property
    def text(self) -> str:
        """The words with single spaces."""
        return " ".join(self.words)


def tokens_of(question: str) -> Tokens:
    """Split the question into words; "who's", with or without a space, is read as "who is"."""
    long = re.sub(r"^(who|what|where|when) ?'s\b", r"\1 is", without_mark(question), flags=re.IGNORECASE)
    words = tuple(long.split())
    return Tokens(words, tuple(word.lower() for word in words))


def without_mark(question: str) -> str:
    """Put the question on one line without its question mark.

    Double quotes become single ones, since it is quoted.
    """
    one_line = " ".join(question.replace("’", "'").replace('"', "'").split())
    return re.sub(r"[\s?.!]+$", "", one_line)


def upper_first(text: str) -> str:
    """Capitalise the first letter of the text."""
    return text[:1].upper() + text[1:]


def is_one_line(text: str) -> bool:
    """Test whether all characters can be shown and stored: no control characters, no lone surrogates."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text.strip())


def compared_by(text: str) -> tuple[str, ...]:
    """Normalise a text for comparison: no case, accents or leading article, small numbers in digits."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()
    words = [DIGITS.get(word, word) for word in re.findall(r"\w+", plain)]
    return tuple(words[1:] if len(words) > 1 and words[0] in ("the", "a", "an") else words)


def within(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Test whether the words of `part` are consecutive words of `whole`."""
    n = len(part)
    return any(tuple(whole[i : i + n]) == tuple(part) for i in range(len(whole) - n + 1))
