"""The data of zoos: the tab reader on a table written by hand, and what the splits promise."""

from itertools import chain

import pytest

from cuvee.evaluate.zoo.splits import Example, distinct, limit_classes, normalise, split
from cuvee.evaluate.zoo.tab import parse_tab

TABLE = (
    "Is retweet\tAuthor\tContent\r\n"
    "discrete\tdiscrete\tstring\r\n"
    "\tclass\tmeta include=True title=True\r\n"
    "\r\n"
    'False\tann\t"She said ""no"",\ttwice"\r\n'
    "True\tbob\tplain\r\n"
)


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def examples(count: int = 300) -> list[Example]:
    """Two classes in groups of five; every seventh text repeats an earlier one in capitals, in another group."""
    return [
        Example(
            text=f"Text {index // 2}!" if index % 7 == 6 else f"text {index}",
            label="even" if index % 2 == 0 else "odd",
            group=f"group {index // 5}",
        )
        for index in range(count)
    ]


def test_tab_headers_name_type_and_flag_the_columns() -> None:
    table = parse_tab(lines(TABLE))
    assert table.types == {"Is retweet": "discrete", "Author": "discrete", "Content": "string"}
    assert table.flags["Content"] == "meta include=True title=True"
    assert table.class_column == "Author"


def test_tab_cells_keep_quoted_tabs_and_quotes_and_blank_rows_are_skipped() -> None:
    assert parse_tab(lines(TABLE)).rows == [
        {"Is retweet": "False", "Author": "ann", "Content": 'She said "no",\ttwice'},
        {"Is retweet": "True", "Author": "bob", "Content": "plain"},
    ]


def test_tab_cells_may_be_longer_than_the_csv_default() -> None:
    text = "word " * 100_000
    assert parse_tab(["Text\n", "string\n", "meta\n", text + "\n"]).rows == [{"Text": text}]


@pytest.mark.parametrize("text", ["", "a\tb\nd\td\n", "a\tb\nd\td\n\tclass\nonly one\n"])
def test_tab_without_its_headers_or_with_a_short_row_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="header"):
        parse_tab(lines(text))


def test_normalised_text_ignores_case_links_punctuation_and_spacing() -> None:
    assert normalise("Great  NEW poll: https://t.co/abc!") == normalise("great new, poll") == "great new poll"


def test_distinct_keeps_the_first_of_equal_texts_and_no_empty_one() -> None:
    first, again, empty = Example("One", "a", "1"), Example("one.", "b", "2"), Example("https://t.co/x", "a", "3")
    assert distinct([first, again, empty]) == [first]


def test_limit_applies_to_each_class() -> None:
    kept = limit_classes(examples(), 20, seed=1)
    assert [sum(example.label == label for example in kept) for label in ("even", "odd")] == [20, 20]
    assert set(kept) <= set(examples())


@pytest.mark.parametrize("seed", range(5))
def test_splits_share_no_text_and_no_group_and_lose_nothing(seed: int) -> None:
    parts = split(examples(), seed=seed)
    for key in (lambda example: normalise(example.text), lambda example: example.group):
        values = [{key(example) for example in part} for part in parts]
        assert sum(map(len, values)) == len(set.union(*values))
    assert sorted(chain(*parts)) == sorted(distinct(examples()))


@pytest.mark.parametrize("seed", range(5))
def test_each_split_has_each_class_and_about_its_share(seed: int) -> None:
    parts = split(examples(), seed=seed)
    assert all({example.label for example in part} == {"even", "odd"} for part in parts)
    total = sum(map(len, parts))
    assert [len(part) / total for part in parts] == pytest.approx([0.6, 0.2, 0.2], abs=0.03)


def test_splits_depend_on_the_seed_alone() -> None:
    assert split(examples(), seed=3) == split(iter(examples()), seed=3)
    assert split(examples(), seed=3) != split(examples(), seed=4)


def test_a_class_that_cannot_be_in_each_split_is_refused() -> None:
    with pytest.raises(ValueError, match="no example of rare"):
        split([*examples(), Example("a rare one", "rare", "rare")], seed=0)
