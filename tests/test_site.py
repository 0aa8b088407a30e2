"""The site builds without a warning, its pages to play with say what the library says, and nothing is fetched from elsewhere."""

import functools
import io
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from dynlib import data
from dynlib.analysis import choices, design, slowdown, stats, surface
from dynlib.analysis.design import Design, evaluate
from dynlib.analysis.measured import costs, measured
from dynlib.datasets import DATASETS
from dynlib.files import PUBLISHED, ROOT
from dynlib.mechanisms import ConfidenceExit, EntropyExit, PatienceExit
from dynlib.report import pictures, play

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, such as Debian's package chromium")
PAGES = ("index", "fool", "design")
WIDTHS = (360, 1280)
CLASSES = DATASETS["cifar10"].class_names


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "html"
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "-q", "-c", str(ROOT / "docs"), str(ROOT), str(out)]
    sheet = pictures.SHEET.read_bytes()
    made = subprocess.run(command, capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")
    stale = pictures.SHEET.read_bytes() != sheet  # a name, so that no difference of thousands of bytes is spelled out
    assert not stale, "the sheet of pictures was stale, and has been made anew: commit it"
    return out


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def open_page(site, browser):
    """Opens a page of the site; an error in its scripts fails the test."""
    opened, errors = [], []

    def open_page(name, width=WIDTHS[1]):
        page = browser.new_page(viewport={"width": width, "height": 800})
        opened.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((site / "docs" / f"{name}.html").as_uri())
        return page

    yield open_page
    for page in opened:
        page.close()
    assert errors == []


def test_formulas_are_drawn(site):
    for page in (site / "notebooks").glob("*.html"):
        text = re.sub(r"<pre>.*?</pre>", "", page.read_text(), flags=re.DOTALL)  # code may have dollars
        assert "$" not in text, page.name
    assert (site / "notebooks" / "04_early_attack.html").read_text().count("<math") > 5


@functools.cache
def seen(campaign, source, target, attack):
    """What a target answers, straight from the records."""
    wanted = (source, target, attack)
    return next(one for one in measured(PUBLISHED, campaign).seen() if (one.source, one.target, one.attack) == wanted)


def attack_name(campaign, eps, **wanted):
    wanted |= {"eps_255": eps, "seed": measured(PUBLISHED, campaign).profile.seed}
    (name,) = rows(measured(PUBLISHED, campaign).attacks, **wanted).index
    return name


def rows(table, **wanted):
    return table[np.logical_and.reduce([table[key] == value for key, value in wanted.items()])]


# The attacks of the pages by their names in the controls; each campaign has settings of its own for them.
ATTACKS = {
    "sdnn": ("transfer", {"attack": "pgd", "loss": "final"}),
    "dynn": ("transfer", {"attack": "pgd", "loss": "average"}),
    "early": ("surface", {"attack": "early_pgd", "loss": "early=log-probability/equal", "goal": "open_surface"}),
    "slow": ("slowdown", {"attack": "pgd", "goal": "slow_down"}),
}


def attacked(network, kind, eps):
    campaign, wanted = ATTACKS[kind]
    source = network.sibling(exits="none") if kind == "sdnn" else network
    return seen(campaign, source, network, attack_name(campaign, eps, **wanted))


def chosen_images():
    return pictures.chosen("cifar10", len(attacked(networks(1)[0], "sdnn", 1).truth))


def clean(network):
    return choices.clean_answers(PUBLISHED, "test")[network]


def shown(text):
    """The number that a page shows, rounded to one digit, as a share."""
    return pytest.approx(float(text.split("\xa0")[0]) / 100, abs=0.0005 + 1e-9)


def switch_exits(page, n_exits, on):
    for k in range(n_exits - 1):
        page.set_checked(f"#exit-{k}", k in on)


def move(page, slider, value):
    page.locator(slider).fill(f"{value:g}")


def networks(n):
    return play.networks(PUBLISHED)[:n]


SETTINGS = [
    # network, image, attack, radius, threshold, early exits that are on
    (0, 0, "early", 1, 0.9, (0, 1, 2, 3, 4, 5)),
    (0, 3, "early", 8, 0.99, (2, 4)),
    (1, 5, "sdnn", 4, 0.9, (0, 1, 2, 3, 4, 5)),
    (1, 9, "slow", 2, 0.75, (1, 2, 5)),
    (2, 7, "dynn", 8, 0.5, ()),
    (2, 2, "slow", 8, 0.95, (0, 1, 2, 3, 4)),
]


@needs_chromium
@pytest.mark.parametrize(("which", "image", "kind", "eps", "threshold", "on"), SETTINGS)
def test_fool_a_network_says_what_the_library_decides(open_page, which, image, kind, eps, threshold, on):
    network, page = networks(3)[which], open_page("fool")
    page.select_option("#network", network.id)
    page.select_option("#attack", kind)
    page.select_option("#radius", f"{eps:g}")
    page.check(f"#image-{image}")
    move(page, "#threshold", threshold)
    n_exits = len(costs(network))
    switch_exits(page, n_exits, on)
    index = int(chosen_images()[image])
    for column, line, one in ((2, "#clean-line", clean(network)), (3, "#attacked-line", attacked(network, kind, eps))):
        answers = one.answers.images(slice(index, index + 1))
        found = evaluate(network, answers, Design((*on, n_exits - 1), ConfidenceExit(threshold)))
        exit, label = found.exit.item(), found.label.item()
        left = answers.confidence[exit].item() >= threshold
        text = page.inner_text(line)
        assert (f"leaves at exit {exit + 1};" if left else f"no exit is sure enough, so that exit {exit + 1} answers;") in text
        assert f"“{CLASSES[label]}” ({'right' if label == one.truth[index] else 'wrong'})" in text
        assert found.cost.item() / costs(network)[-1].item() == shown(re.search(r"cost: (\S+)", text)[1])
        for k in range(n_exits):
            said = page.inner_text(f"#answers tr:nth-child({k + 1}) > :nth-child({column + 1}) .said")
            assert CLASSES[answers.label[k]] in said
            assert answers.confidence[k].item() == shown(said.split(", ")[1])
            assert ("✓" in said) == (answers.label[k] == one.truth[index])
            state = page.inner_text(f"#answers tr:nth-child({k + 1}) > :nth-child({column + 1}) .state")
            assert state.startswith("answers") == (k == exit)
            assert (state == "switched off") == (k not in (*on, n_exits - 1))


@needs_chromium
def test_fool_a_network_says_what_the_static_network_answers(open_page):
    network, page = networks(1)[0], open_page("fool")
    page.select_option("#attack", "dynn")
    static = seen("transfer", network, network.sibling(exits="none"), attack_name("transfer", 1, **ATTACKS["dynn"][1]))
    index = int(chosen_images()[0])
    for column, one in ((3, clean(static.target)), (4, static)):
        said = page.inner_text(f"#answers .static > :nth-child({column}) .said")
        assert CLASSES[one.answers.label[0, index]] in said
        assert one.answers.confidence[0, index].item() == shown(said.split(", ")[1])


@needs_chromium
def test_the_pictures_differ_by_what_the_attack_adds(open_page):
    page, eps = open_page("fool"), 8
    page.select_option("#attack", "sdnn")
    page.select_option("#radius", f"{eps}")
    page.check("#image-4")

    def canvas(name):
        url = page.evaluate(f"document.getElementById('{name}').toDataURL()")
        return np.asarray(Image.open(io.BytesIO(b64decode(url.split(",")[1]))).convert("RGB")).astype(int)

    image = data.load("cifar10", "test", 1000).images[chosen_images()[4]].permute(1, 2, 0).numpy()
    assert (canvas("clean") == image).all()
    change = canvas("attacked") - canvas("clean")
    assert np.abs(change).max() == eps
    (row,) = [k for k, made in enumerate(sheet_rows()) if made == (networks(1)[0], "sdnn", eps)]
    assert (change == np.asarray(Image.open(pictures.SHEET)).astype(int)[32 * row : 32 * row + 32, 128:160] - pictures.GREY).all()
    assert np.abs(canvas("change") - pictures.GREY - change * 127 / eps).max() <= 0.5


def sheet_rows():
    each = ((network, play.shown(PUBLISHED, network, network)) for network in networks(3))
    return [(network, kind, eps) for network, own in each for kind, at in own.items() for eps in at]


def test_the_sheet_shows_the_attacks():
    images, rows = chosen_images(), sheet_rows()
    network, kind, eps = next(row for row in rows if row[0] == networks(3)[2] and row[1] == "early")
    at = 32 * rows.index((network, kind, eps))
    stored = torch.from_numpy(np.array(Image.open(pictures.SHEET))[at : at + 32]).view(32, len(images), 32, 3).permute(1, 3, 0, 2)
    again = pictures.added(PUBLISHED, play.shown(PUBLISHED, network, network)[kind][eps], images)
    assert (again == stored).double().mean() > 0.9  # other processors round otherwise


DESIGNS = [
    # network, early exits that are on, mechanism, its setting, fall-back
    (0, (0, 1, 2, 3, 4, 5), ConfidenceExit, 0.9, "most_confident"),
    (1, (2, 4), ConfidenceExit, 0.99, "final"),
    (2, (), ConfidenceExit, 0.6, "most_confident"),
    (3, (0, 3), EntropyExit, 0.2, "most_confident"),
    (4, (1, 2, 3, 4, 5), EntropyExit, 0.07, "final"),
    (5, (0, 1, 2, 4), PatienceExit, 2, "final"),
]


@needs_chromium
@pytest.mark.parametrize(("which", "on", "mechanism", "value", "fall_back"), DESIGNS)
def test_design_one_says_what_the_library_measures(open_page, which, on, mechanism, value, fall_back):
    network, page = networks(6)[which], open_page("design")
    page.select_option("#network", network.id)
    n_exits, eps = len(costs(network)), choices.design_radius(PUBLISHED)[network.dataset]
    page.check(f"#mechanism-{mechanism.name}")
    if mechanism is not PatienceExit:
        page.check(f"#fall-back-{fall_back}")
    move(page, "#value", value)
    switch_exits(page, n_exits, on)
    rule = mechanism(value) if mechanism is PatienceExit else mechanism(value, fall_back)
    for prefix, one in (("", Design((*on, n_exits - 1), rule)), ("default-", Design(tuple(range(n_exits)), ConfidenceExit()))):
        for name, number in numbers(network, eps, one).items():
            cell = page.inner_text(f"#{prefix}{name}").split()
            expected = number if isinstance(number, stats.Estimate) else [number]
            assert [*expected] == [shown(part.strip("[],")) for part in cell]


def numbers(network, eps, one):
    """A design's numbers; those with an interval as ``Estimate``."""
    sets = {kind: attacked(network, kind, eps) for kind in ("sdnn", "early", "slow")}
    found = {kind: evaluate(network, each.answers, one) for kind, each in sets.items()}
    n, full, truth = len(sets["sdnn"].truth), costs(network)[-1].item(), sets["sdnn"].truth
    calm = evaluate(network, clean(network).answers.images(slice(n)), one)
    counts = (calm.label == truth) & (clean(network).answers.label[-1, :n] == truth)
    opened = (found["early"].label != truth) & (sets["early"].answers.label[-1] == truth)
    return {
        "clean": stats.rate((calm.label == truth).numpy()),
        "cost": calm.cost.double().mean().item() / full,
        "robust": stats.rate((found["sdnn"].label == truth).numpy()),
        "surface": stats.rate(opened[counts].numpy()),
        "efficacy": slowdown.efficacy((found["slow"].cost / full).numpy()),
    }


@needs_chromium
def test_the_default_design_has_the_numbers_of_the_notebooks(open_page):
    network, page = networks(1)[0], open_page("design")
    eps = choices.design_radius(PUBLISHED)[network.dataset]
    outcomes = surface.outcomes(surface.on_itself(PUBLISHED), surface.counted(measured(PUBLISHED, "clean")))
    early = attack_name("surface", eps, **ATTACKS["early"][1])
    (row,) = rows(outcomes, source=network, attack=early).itertuples()
    assert [row.surface, row.low, row.high] == [shown(part.strip("[],")) for part in page.inner_text("#default-surface").split()]
    (row,) = rows(slowdown.effects(PUBLISHED), network=network, who=slowdown.OWN, eps_255=eps).itertuples()
    assert row.attacked == shown(page.inner_text("#default-efficacy"))


@needs_chromium
def test_the_front_is_the_library_s(open_page):
    network, page = networks(1)[0], open_page("design")
    eps = choices.design_radius(PUBLISHED)[network.dataset]
    one = attacked(network, "sdnn", eps)
    clean = choices.clean_answers(PUBLISHED, "test")[network]  # the page counts those that were attacked
    clean = clean._replace(truth=one.truth, answers=clean.answers.images(slice(len(one.truth))))
    table = design.shares(design.space(clean, one, measured(PUBLISHED, "transfer").mechanism))
    start = table[table.default].iloc[0]
    at_least = (table.clean >= start.clean) & (table.robust >= start.robust) & (table.macs <= start.macs)
    better = (table.clean > start.clean) | (table.robust > start.robust) | (table.macs < start.macs)
    assert page.inner_text("#verdict").startswith(f"{(at_least & better).sum()} of the {len(table)} designs")
    options = page.locator("#start option").all_inner_texts()
    assert sum(option.startswith("front") for option in options) == table.pareto.sum()
    cheapest = table[table.pareto].sort_values("macs").iloc[0]
    page.select_option("#start", index=next(k for k, option in enumerate(options) if option.startswith("front")))
    for name, number in (
        ("clean", cheapest.clean),
        ("robust", cheapest.robust),
        ("cost", cheapest.macs / costs(network)[-1].item()),
    ):
        assert number == shown(page.inner_text(f"#{name} span"))
    assert page.inner_text("#verdict").startswith("None of")
    chosen = choices.chosen_design(PUBLISHED, one.source, network, one.attack)
    page.select_option("#start", index=2)
    assert chosen["default"] + chosen["gain"] == shown(page.inner_text("#robust span"))


@needs_chromium
@pytest.mark.parametrize(("name", "width"), [*product(PAGES, WIDTHS)])
def test_pages_fit_and_every_control_has_a_label(open_page, name, width):
    page = open_page(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    unlabelled = "[...document.querySelectorAll('form.play :is(input, select)')].filter(e => !e.labels.length).map(e => e.id)"
    assert page.evaluate(unlabelled) == []
    clipped = "[...document.querySelectorAll('form.play *')].filter(e => e.getBoundingClientRect().right > innerWidth).length"
    assert page.evaluate(clipped) == 0


@needs_chromium
def test_the_keyboard_is_enough(open_page):
    page, reached = open_page("fool"), set()
    before = page.inner_text("#clean-line")
    page.focus("#network")
    for _ in range(20):
        reached.add(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert {"network", "attack", "radius", "threshold", "image-0", *(f"exit-{k}" for k in range(6))} <= reached
    page.focus("#image-0")
    page.keyboard.press("ArrowRight")
    assert page.is_checked("#image-1")
    assert page.inner_text("#clean-line") != before
    page.focus("#threshold")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#threshold-value") == "89\xa0%"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.focus("#exit-0")
    page.keyboard.press("Space")
    assert not page.is_checked("#exit-0")


@needs_chromium
def test_no_request_leaves_the_site_and_search_finds(site, browser):
    asked = []
    context = browser.new_context()
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    page.wait_for_url("**/docs/index.html")
    for path in {*site.rglob("*.html")} - {site / "index.html"}:
        page.goto(path.as_uri())
    page.goto((site / "search.html").as_uri() + "?q=slowdown")
    page.wait_for_selector("#search-results a")
    assert any("07_slowdown" in link.get_attribute("href") for link in page.locator("#search-results a").all())
    context.close()
    assert [url for url in asked if not url.startswith((site.as_uri(), "data:"))] == []


def test_what_the_pages_ship_is_small(site):
    assert sum((site / "_static" / f"{name}_data.js").stat().st_size for name in ("fool", "design")) < 5e6
