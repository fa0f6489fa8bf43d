"""Options of the command line that set a field."""

from __future__ import annotations

from transferkit.options import by_path


def test_a_list_is_split_at_its_commas_and_blanks_around_them_do_not_count() -> None:
    given = {"data__label_names": "World, Sports ,Sci/Tech", "data__source": "a, b.csv", "data__label": None}
    assert by_path(given) == {
        "data.label_names": ["World", "Sports", "Sci/Tech"],
        "data.source": "a, b.csv",
        "data.label": None,
    }
