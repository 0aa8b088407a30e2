"""What a reader takes away: the claims, how their verdicts depend on the reading, the figures' index, the citation."""

import io
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from dynlib import claims, design, efficiency, figures, sensitivity
from dynlib.files import ROOT

CFF_KEYS = {
    *("abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license"),
    *("license-url", "message", "preferred-citation", "references", "repository", "repository-artifact", "repository-code"),
    *("title", "type", "url", "version"),
}


def test_readme_table_is_current():
    text = claims.README.read_text()
    assert claims.rendered(text) == text, "run `python -m dynlib claims`"


def test_csv_is_current():
    rendered = io.StringIO()
    claims.records().to_csv(rendered, index=False)
    assert claims.CSV.read_text() == rendered.getvalue(), "run `python -m dynlib claims`"


def test_stale_readme_is_noticed(monkeypatch, tmp_path):
    text = claims.README.read_text()
    monkeypatch.setattr(claims, "RESULTS", tmp_path)
    shutil.copytree(claims.ROOT / "results" / "quick" / "minutes", tmp_path / "quick" / "minutes")
    claims.record("C1", claims.Finding("something else", "open", "none"), "quick")
    assert "something else" in claims.rendered(text) != text
    with pytest.raises(ValueError, match="lost the marks"):
        claims.rendered("no table here")


def test_largest_profile_of_each_claim_is_shown(monkeypatch, tmp_path):
    """A larger profile need not hold all of them."""
    monkeypatch.setattr(claims, "RESULTS", tmp_path)
    for profile, found in {"quick": ("C1", "C2"), "overnight": ("C1",)}.items():
        for claim in found:
            claims.record(claim, claims.Finding(f"{claim} in {profile}", "open", "none"), profile)
            with claims.atomic(tmp_path / profile / "minutes" / f"{claims.CLAIMS[claim].notebook}.json") as path:
                path.write_text("{}")
    records = claims.records()
    assert records.seen.tolist()[:3] == ["C1 in overnight", "C2 in quick", "not measured yet"]
    assert [claims.largest(notebook) for notebook in records.notebook[:2]] == records.profile.tolist()[:2] == ["overnight", "quick"]
    assert [line.partition(":")[0] for line in claims.effort(records)] == ["*C1", "*C2"]


def test_records_are_complete_and_hold_no_number_of_the_paper():
    records = claims.records()
    assert records.claim.tolist() == ["C1", "C2", "C3", "C4"]
    assert records.reported.isna().all()
    assert records.drop(columns="reported").notna().all(axis=None)
    assert (records.minutes > 0).all()
    assert all((ROOT / "notebooks" / f"{notebook}.ipynb").exists() for notebook in records.notebook)


@pytest.mark.parametrize(
    ("cells", "low", "high", "expected"),
    [
        ([1, 1, 1, 1, 1, -1], 0.1, 0.2, "supported"),
        ([1, 1, 1, 1, -1, -1], 0.1, 0.2, "partly"),
        ([1, 1, 1, 1, 1, 1], -0.1, 0.2, "not supported"),
        ([-1, -1, -1, -1, -1, 1], -0.2, -0.1, "contradicted"),
        ([-1, -1, -1, -1, 1, 1], -0.2, -0.1, "not supported"),
        ([1, 1], 0.1, 0.2, "supported"),
        ([1, 1, -1], 0.1, 0.2, "partly"),
    ],
)
def test_rule_by_hand(cells, low, high, expected):
    assert claims.ruled(pd.Series(cells), low, high) == expected
    assert claims.verdict(pd.Series(cells), low, high) == (expected if len(cells) == 6 else "open")


@pytest.fixture(scope="module")
def readings():
    """All readings of all claims, from the committed results; each claim's main reading first."""
    table = sensitivity.readings(claims.largest("06_claims"), 0.9, 8)
    return {claim: rows.set_index(["group", "reading"]) for claim, rows in table.groupby("claim")}


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4, surface", "C4, design"])
def test_main_reading_is_the_one_that_was_judged(readings, claim):
    """Value and interval of the first row stand in the finding of the claim, which was made on another way."""
    main = readings[claim].iloc[0]
    assert main.name[0] == sensitivity.MAIN
    values = [main.value, main.low, main.high]
    text = [f"{v:.2f}" for v in values] if claim == "C2" else [f"{100 * v:+.1f}" for v in values]
    seen = claims.finding(claim[:2], claims.largest("06_claims")).seen
    assert f"{text[0]} times the MACs" in seen if claim == "C2" else f"{text[0]} points" in seen
    assert f"[{text[1]}, {text[2]}]" in seen


def test_what_a_reader_takes_away_is_so(readings):
    """The sentences of the last notebook: where one has become untrue, it must be changed there."""
    c1, c2, c3, surface, design = (readings[claim] for claim in ("C1", "C2", "C3", "C4, surface", "C4, design"))
    assert c1.loc["loss", "exit taken"].value < 0 < c1.iloc[0].value  # which exit is differentiated
    assert abs(c1.loc["training", "exits only"].value) < abs(c1.iloc[0].value)  # whether weights are shared
    assert c2.iloc[0].high < 1 < c2.loc["currency", "gradient steps"].low  # in which currency
    assert (c3.loc["choice"].value < c3.iloc[0].value).all()  # one knob gains less than all
    for rows in (c1, c2, c3, surface, design):
        main, (again,) = rows.iloc[0], rows.loc["random start"].itertuples()
        assert main.low <= again.value <= main.high
        assert (again.ruled == main.ruled) == (rows is not c3)
    assert (surface.low > 0).all()  # a surface of its own
    knobs = design.loc["choice"].value
    assert knobs["only the exits"] > knobs.drop("only the exits").max()  # the exits are what counts
    assert design.loc["choice"].low["only the threshold"] <= 0 < design.loc["choice"].low["only the fall-back"]


def drawn(notebook: str, figure: str) -> pd.DataFrame:
    """The data behind a figure, of the largest profile."""
    return pd.read_csv(figures.FIGURES / claims.largest(notebook) / f"{figure}.csv")


def test_what_is_said_of_the_published_attack_is_so():
    """What notebook 4 says about the weight of the final exit, on CIFAR-10."""
    table = drawn("04_early_attack", "fig4a_published").query("dataset == 'cifar10'").set_index("model")
    small, one, large = table[table.alpha <= 0.01], table[table.alpha == 1], table[table.alpha > 1]
    assert small.kept.max() == 0
    assert one.deployed.min() > 0.5
    assert (one.index[one.strict > 0.5] == ["resnet56"]).all()
    assert large.kept.min() > 0.95
    assert large.strict.max() < 0.05
    assert (large.l2 >= 3 * one.l2.reindex(large.index)).all()
    assert table.linf.min() > 30


def test_what_is_said_of_the_objectives_is_so():
    """What notebook 4 says about exits weighted by their confidence."""
    table = drawn("04_early_attack", "fig4c_ablation").query("goal == 'deployed'")
    equal, confidence = (
        table[table.loss == f"early=log-probability/{weighting}"].set_index(["dataset", "model"])
        for weighting in ("equal", "confidence")
    )
    gain = confidence.surface - equal.surface
    assert len(gain) == claims.CELLS
    assert (100 * gain.agg(["min", "max"])).round().tolist() == [1, 19]
    assert (confidence.low < equal.high).all()


def test_what_is_said_of_cost_is_so():
    """That C2 depends on the data: every cell of CIFAR-10 is on the claim's side, none of CIFAR-100."""
    table = drawn("02_efficiency", "fig2c_cost_ratio")
    taken = table[table.loss == "taken"].set_index("dataset").log_ratio
    assert taken["cifar10"].max() < 0 < taken["cifar100"].min()


def test_what_is_said_of_designs_is_so():
    """The last of those sentences, in every cell: single early exits, a low threshold, the fall-back."""
    table, fall_back = drawn("05_attack_design", "fig5b_two_attackers"), {"cifar10": [], "cifar100": []}
    for (dataset, _), cell in table.groupby(["dataset", "model"]):
        start = cell[cell.default].iloc[0]
        late = cell[cell.factor == "first exit"].iloc[-1]
        first = cell[(cell.factor == "number of early exits") & (cell.level == "1")].iloc[0]
        best, other = (late, first) if dataset == "cifar10" else (first, late)
        assert best.robust > other.robust > start.robust
        assert best.mmacs > start.mmacs
        hasty = cell[cell.factor == "threshold"].iloc[0]
        assert hasty.transfer > start.transfer
        assert hasty.robust <= start.robust
        fall_back[dataset].append(cell[(cell.factor == "fall-back") & (cell.level == "final")].gain.item())
    assert min(fall_back["cifar100"]) > max(fall_back["cifar10"])
    # Its price stands in notebook 3, which has ten times as many images.
    table = drawn("03_exit_design", "fig3b_factors")
    for _, cell in table[(table.attacker == "a separate SDNN") & (table.factor == "threshold")].groupby(["dataset", "model"]):
        clean = cell.set_index("level").clean
        assert clean.iloc[0] < clean[str(design.DEFAULT_THRESHOLD)]


def test_a_reading_that_says_otherwise_is_ruled_otherwise():
    """Cheaper in MACs and dearer in steps: ten images, all fooled, at half the MACs and twice the steps."""
    rows = []
    for kind, loss, mmacs, steps in (("sdnn", "final", 4.0, 2), ("dynn", "taken", 2.0, 4)):
        columns = (np.full(10, True), np.full(10, True), np.full(10, steps), np.full(10, mmacs))
        rows.append(("cifar10", "resnet56", kind, loss, 0.1, *columns))
    white = pd.DataFrame(rows, columns=[*efficiency.NETWORKS, "seconds", "counts", "success", "steps", "mmacs"])
    macs, steps, again = sensitivity.c2(white, white).itertuples()
    assert (macs.value, macs.ruled) == (pytest.approx(0.5), "supported")
    assert (steps.value, steps.ruled) == (pytest.approx(2), "contradicted")
    assert (again.group, again.value) == ("random start", macs.value)


def test_a_choice_that_hangs_on_the_half_is_shown():
    """A design that withstands on the half it is chosen on and nowhere else; chosen on the other half, the default stays."""
    first, right = np.arange(100) < 50, np.full(100, True)
    about = ("cifar10", "resnet56", "dynn", 8)
    rows = [(*about, exits, 0.9, "most_confident", right, robust, 1.0) for exits, robust in (((0, 1, 2), ~first), ((1, 2), first))]
    columns = ["dataset", "model", "kind", "eps_255", "exits", "threshold", "fall_back", "clean", "robust", "mmacs"]
    designs = pd.DataFrame(rows, columns=columns)
    table = sensitivity.c4_design(designs, designs, 8).set_index("reading")
    assert table.loc["another"].value == table.loc["8/255, all choices"].value
    assert table.loc["8/255, all choices", ["value", "ruled"]].tolist() == [-1, "contradicted"]
    assert table.loc["chosen on the other half", ["value", "ruled"]].tolist() == [0, "not supported"]


def test_index_of_the_figures_is_current():
    text = figures.index()
    assert (figures.FIGURES / "README.md").read_text() == text, "run the workflow"
    for name in re.findall(r"\]\(([^)]+)\)", text):
        assert (figures.FIGURES / name).exists(), name


def test_figures_without_a_rule_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(figures, "FIGURES", tmp_path)
    (tmp_path / "quick").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "quick" / "fig9z_stray.png")
    with pytest.raises(figures.FigureError, match="fig9z_stray is made by no rule"):
        figures.check_figures("quick", [])
    with pytest.raises(figures.FigureError, match="fig1a_lost is missing"):
        figures.check_figures("quick", ["fig9z_stray", "fig1a_lost"])
    figures.check_figures("quick", ["fig9z_stray"])


def test_citation_holds_what_its_format_demands():
    """Required keys and the types of those used, by the schema of the Citation File Format 1.2.0."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"authors", "cff-version", "message", "title"} <= cff.keys()
    assert cff.keys() <= CFF_KEYS
    assert cff["cff-version"] == "1.2.0"
    assert cff["type"] == "software"
    paper = cff["preferred-citation"]
    assert {"authors", "title", "type"} <= paper.keys()
    for who in cff["authors"] + paper["authors"]:
        assert ("name" in who) != ({"given-names", "family-names"} <= who.keys())
    assert isinstance(paper["year"], int)
    assert re.match(r"https?://", paper["url"])
    texts = [cff["title"], cff["message"], cff["license"], paper["title"], paper["journal"], str(cff["version"])]
    assert all(isinstance(text, str) and text for text in texts)
