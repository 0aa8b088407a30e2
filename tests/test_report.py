"""What a run's report says, and the pages that are generated."""

import pandas as pd
import pytest

from dynlib.report import report
from dynlib.report.report import ReportError, agree, check_figures, figure_names, rendered


def row(low, high):
    return pd.Series({"low": low, "high": high})


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(row(0, 2), row(1, 3), "yes"), (row(0, 1), row(2, 3), "no"), (row(0, 1), row(1, 2), "yes"), (row(0, 1), None, "")],
)
def test_two_numbers_agree_where_their_intervals_overlap(one, other, expected):
    assert agree(one, other) == expected


def test_a_run_of_fewer_cells_says_so(monkeypatch):
    """One cell of six, and everything else as published."""
    theirs = report.main_rows("published")
    monkeypatch.setattr(report, "main_rows", lambda run: theirs.assign(cells=1) if run == "quick" else theirs)
    monkeypatch.setattr(report, "effort", lambda run: [])
    text = report.report("quick")
    assert "fewer cells than what is published" in text
    assert "| supported, open | yes |" in text
    monkeypatch.setattr(report, "main_rows", lambda run: theirs)
    assert "fewer cells" not in report.report("quick")


def test_a_figure_of_no_notebook_is_named():
    names = figure_names(["01_transferability"])
    assert "fig1a_directions" in names
    with pytest.raises(ReportError, match=r"fig\w+ is made by no notebook"):
        check_figures(names)


def test_a_readme_that_has_lost_its_marks_is_refused():
    with pytest.raises(ReportError, match="lost the marks around its findings"):
        rendered("# A README")
