"""The report page in a real Chromium: nothing is lost, nothing runs, all can be read.

They need Debian's chromium (or another, named by CHROMIUM) and the package playwright,
whose own browsers aren't used: ``pytest -m browser``. Pictures of the page go into the
folder that SCREENSHOTS names.
"""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from page_cases import (
    HOSTILE,
    ToldClasses,
    ToldLabels,
    ToldNumbers,
    numbered,
    saved,
)
from sklearn.model_selection import StratifiedKFold, cross_val_score

from sklearn_dl import make_feature_classifier
from sklearn_dl.datasets import apply_corrections, load_image_folder
from sklearn_dl.inspection import ReportOptions, write_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium here")
    # The sandbox needs a user; pages of ours are all that is opened.
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    options = {"args": ["--no-sandbox"]} if root else {}
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, **options)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Open a page from disk; it may not ask or complain of anything."""

    @contextmanager
    def open_page(path, width=1280, scheme="light", context=None):
        own = context or chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            accept_downloads=True,
        )
        page, asked, said = own.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        address = Path(path).as_uri()
        page.goto(address)
        yield page
        beyond = ("data:", "blob:", address.partition("#")[0])
        assert [url for url in asked if not url.startswith(beyond)] == []
        assert said == []
        page.close()

    return open_page


def downloaded(page, folder):
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "corrections.csv"
    path = folder / "corrections.csv"
    download.value.save_as(path)
    return path


def told(n=40, classes=("a", "b", "c"), seed=0):
    rng = np.random.default_rng(seed)
    values = rng.dirichlet(np.full(len(classes), 0.4), n)
    y = np.array(classes)[values.argmax(axis=1)]
    y[:10] = rng.choice(classes, 10)
    return ToldClasses(values, classes), y


def focus(page, row, gallery="#worst"):
    page.focus(f'{gallery} .card[data-row="{row}"]')


def marks_of(page):
    cards = page.query_selector_all("#worst .card")
    marked = {
        int(c.get_attribute("data-row")): c.get_attribute("data-mark") for c in cards
    }
    return {row: mark for row, mark in marked.items() if mark}


def test_five_images_are_relabelled_by_keyboard_and_nothing_is_lost(opened, tmp_path):
    model, y = told()
    X = saved(numbered(40), tmp_path / "photos")
    path = write_report(model, X, y, tmp_path / "page.html")
    with opened(path) as page:
        page.select_option("#worst select[data-choice=class]", label="b")
        shown = page.query_selector_all("#worst .card")
        predicted = model.classes_[model.values.argmax(axis=1)]
        with_b = {*np.flatnonzero((y == "b") | (predicted == "b"))}
        assert {int(c.get_attribute("data-row")) for c in shown} == with_b
        page.select_option("#worst select[data-choice=class]", "")
        expected, kept, dropped = {}, None, None
        first = page.query_selector("#worst .card")
        first.focus()
        for step in range(7):
            row = int(page.evaluate("document.activeElement.dataset.row"))
            if step < 5:
                new = next(c for c in "abc" if c != y[row])
                page.keyboard.press(str("abc".index(new) + 1))
                expected[row] = new
            elif step == 5:
                page.keyboard.press("k")
                kept = row
            else:
                page.keyboard.press("d")
                dropped = row
            page.keyboard.press("ArrowRight")
        marks = dict.fromkeys(expected, "relabel") | {kept: "keep", dropped: "drop"}
        said = "7 judged: 5 relabelled, 1 dropped, 1 kept"
        assert said in page.inner_text("#tally")
        assert marks_of(page) == marks
        # Other classes, orders and views, and another look at the file.
        page.select_option("#worst select[data-choice=class]", label="c")
        page.select_option("#worst select[data-choice=sort]", "unsure")
        page.select_option("#worst select[data-choice=which]", "judged")
        page.select_option("#worst select[data-choice=class]", "")
        assert marks_of(page) == marks
        page.reload()
        assert said in page.inner_text("#tally")
        assert marks_of(page) == marks
        file = downloaded(page, tmp_path)
    Xc, yc = apply_corrections((X, y), file)
    wanted, keep = y.copy(), np.arange(40) != dropped
    for row, new in expected.items():
        wanted[row] = new
    assert Xc[:, 0].tolist() == X[keep, 0].tolist()
    assert yc.tolist() == wanted[keep].tolist()
    rows = apply_corrections((X, y), file, return_table=True)[1]
    outcomes = rows["outcome"].value_counts().to_dict()
    assert outcomes == {"relabelled": 5, "dropped": 1, "kept": 1}


def test_marks_are_taken_back_and_shared_by_galleries_and_pages(opened, tmp_path):
    model, y = told()
    path = write_report(model, numbered(40), y, tmp_path / "page.html")
    with opened(path) as page:
        row = page.get_attribute("#doubted .card", "data-row")
        focus(page, row, "#doubted")
        page.keyboard.press("d")
        assert marks_of(page) == {int(row): "drop"}
        with opened(path, context=page.context) as other:
            assert marks_of(other) == {int(row): "drop"}
            focus(other, row)
            other.keyboard.press("u")
        page.wait_for_function("!document.querySelector('#worst [data-mark=drop]')")
        for press in ("k", "k", "d", "d", "1", "1"):  # each takes itself back
            page.keyboard.press(press)
        assert marks_of(page) == {}
        page.click(f'#worst .card[data-row="{row}"] [data-action=drop]')
        assert marks_of(page) == {int(row): "drop"}
        pressed = f'#doubted .card[data-row="{row}"] [data-action=drop]'
        assert page.get_attribute(pressed, "aria-pressed") == "true"
        page.on("dialog", lambda dialog: dialog.accept())
        page.click("#forget")
        assert marks_of(page) == {}
        page.reload()
        assert "0 judged" in page.inner_text("#tally")


def test_a_page_with_fewer_pictures_keeps_all_marks(opened, chromium, tmp_path):
    model, y = told()
    X = saved(numbered(40), tmp_path / "photos")
    context = chromium.new_context(accept_downloads=True)
    for n_images in (40, 2):
        options = ReportOptions(n_images=n_images)
        path = write_report(model, X, y, tmp_path / "page.html", options=options)
        with opened(path, context=context) as page:
            if n_images == 40:
                last = page.query_selector_all("#worst .card")[-1]
                row = int(last.get_attribute("data-row"))
                last.focus()
                page.keyboard.press("d")
            assert "1 judged: 0 relabelled, 1 dropped" in page.inner_text("#tally")
            file = downloaded(page, tmp_path)
        kept = apply_corrections((X, y), file)[0]
        assert kept[:, 0].tolist() == np.delete(X[:, 0], row).tolist()


def test_the_next_to_judge_may_be_further_down(opened, tmp_path):
    model, y = told(60)
    y = np.array(["a", "b", "c"])[model.values.argmin(axis=1)]
    path = write_report(model, numbered(60), y, tmp_path / "page.html")
    with opened(path) as page:
        seen = []
        for _ in range(60):
            page.click("#begin")
            seen.append(int(page.evaluate("document.activeElement.dataset.row")))
            page.keyboard.press("k")
        assert sorted(seen) == [*range(60)]
        assert "60 judged" in page.inner_text("#tally")
        page.click("#begin")  # all are judged: the first
        assert page.evaluate("document.activeElement.className") == "card"


def test_hostile_names_run_nothing(opened, tmp_path):
    classes = [name.replace("\u2028", "") for name in HOSTILE]
    model, y = told(40, classes=HOSTILE)
    names = [f"{row}{HOSTILE[row % 10]}.png".replace("/", "|") for row in range(40)]
    X = saved(numbered(40), tmp_path / "photos", names)
    slices = {HOSTILE[1]: [HOSTILE[row % 10] for row in range(40)]}
    path = write_report(model, X, y, tmp_path / "page.html", slices=slices)
    with opened(path) as page:
        assert page.evaluate("window.ran") is None
        for row in (0, 30):
            focus(page, row)
            for press in ("1", "2", "d", "k", "9"):
                page.keyboard.press(press)
        page.fill(f'#worst .card[data-row="{row}"] input', HOSTILE[3])
        page.keyboard.press("Tab")
        page.wait_for_timeout(200)
        assert page.evaluate("window.ran") is None
        assert page.query_selector_all("main b, main svg[onload], main script") == []
        text = page.text_content("main")
        for name in classes:
            assert name in text
        assert page.query_selector_all("[onerror], [onload]") == []
        file = downloaded(page, tmp_path)
    _, table = apply_corrections((X, y), file, return_table=True)
    assert {*table["path"]} == {X[0, 0], X[30, 0]}
    assert table.set_index("path").loc[X[30, 0], "new"] == HOSTILE[3]


@pytest.mark.skipif(os.name == "nt", reason="such names aren't allowed there")
def test_the_file_has_paths_as_the_model_saw_them(opened, tmp_path):
    names = ['a,"b".png', "new\nline.png", os.fsdecode(b"caf\xe9.png"), "زهرة 🐜.png"]
    X = saved(numbered(4), tmp_path / "photos", names)
    y = np.array(["a,b", 'c"d', "a,b", 'c"d'])
    values = np.full((4, 2), 0.5)
    path = write_report(ToldClasses(values, ["a,b", 'c"d']), X, y, tmp_path / "p.html")
    with opened(path) as page:
        for row in range(4):
            focus(page, row)
            page.keyboard.press("1" if y[row] == 'c"d' else "2")
        file = downloaded(page, tmp_path)
    found, table = apply_corrections((X, y), file, return_table=True)
    assert table["path"].tolist() == X[:, 0].tolist()
    assert found[1].tolist() == ['c"d', "a,b", 'c"d', "a,b"]


def test_numbers_are_written_and_labels_switched(opened, tmp_path):
    rng = np.random.default_rng(0)
    X, y = numbered(20), rng.normal(size=20).round(3)
    path = write_report(ToldNumbers(y + 0.1), X, y, tmp_path / "numbers.html")
    with opened(path) as page:
        page.fill('#worst .card[data-row="3"] input', "2.5")
        page.keyboard.press("Enter")
        page.fill('#worst .card[data-row="4"] input', "much")
        page.keyboard.press("Enter")
        focus(page, 5)
        page.keyboard.press("d")
        assert marks_of(page) == {3: "relabel", 5: "drop"}
        file = downloaded(page, tmp_path)
    _, found = apply_corrections((X, y), file)
    wanted = np.where(np.arange(20) == 3, 2.5, y)[np.arange(20) != 5]
    assert found.tolist() == wanted.tolist()
    y = rng.integers(0, 2, (20, 3))
    y[7] = [1, 0, 1]
    p = np.clip(y + rng.normal(scale=0.4, size=y.shape), 0.01, 0.99)
    path = write_report(ToldLabels(p), X, y, tmp_path / "labels.html")
    with opened(path) as page:
        focus(page, 7)
        for press in ("2", "3", "1", "1"):
            page.keyboard.press(press)
        assert marks_of(page) == {7: "relabel"}
        file = downloaded(page, tmp_path)
    _, found = apply_corrections((X, y), file)
    y[7] = [1, 1, 0]
    assert found.tolist() == y.tolist()


def test_many_classes_are_reached_by_keys_and_by_name(opened, tmp_path):
    classes = [f"class {c}" for c in range(300)]
    model, y = told(20, classes)
    path = write_report(model, numbered(20), y, tmp_path / "page.html")
    with opened(path) as page:
        focus(page, 2)
        page.keyboard.press("3")
        likely = np.argsort(-model.values[2], kind="stable")[2]
        page.fill('#worst .card[data-row="4"] input', "class 123")
        page.keyboard.press("Enter")
        page.fill('#worst .card[data-row="6"] input', "no class")
        page.keyboard.press("Enter")
        assert marks_of(page) == {2: "relabel", 4: "relabel"}
        file = downloaded(page, tmp_path)
    _, table = apply_corrections((numbered(20), y), file, return_table=True)
    assert table["new"].tolist() == [classes[likely], "class 123"]
    assert table["path"].tolist() == ["2", "4"]


# Elements that make the page wider than the window.
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
  .filter((e) => !e.closest(".scroll, .skip"))
  .map((e) => `${e.tagName}.${e.className}`)"""

# Contrast of all texts against what is behind them, as WCAG 2 computes it.
CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const low = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const box = element.getBoundingClientRect();
    if (!walker.currentNode.data.trim() || !box.width || element.disabled) continue;
    if (element.closest("script, style, option, noscript, datalist")) continue;
    const svg = element.closest("svg");
    const own = getComputedStyle(element);
    let behind = element;
    while (behind && channels(getComputedStyle(behind).backgroundColor)[3] === 0) {
      behind = behind.parentElement;
    }
    const around = getComputedStyle(behind || document.body);
    const back = light(channels(around.backgroundColor));
    const ink = light(channels(svg ? own.fill : own.color));
    const ratio = (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
    if (ratio < 4.5) low.set(`${element.tagName}.${element.className}`, ratio);
  }
  return [...low];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_can_be_read_on_a_phone_in_the_dark_and_on_paper(
    opened, tmp_path, width, scheme
):
    classes = ["Ameisenjungfern, gemeine", "نحلة العسل", "Donaudampfschifffahrt" * 3]
    model, y = told(60, classes)
    X = saved(numbered(60, (60, 80)), tmp_path / "a folder with a long name")
    slices = {"camera": ["old", "new"] * 30}
    path = write_report(model, X, y, tmp_path / "page.html", slices=slices)
    with opened(path, width, scheme) as page:
        focus(page, 3)
        page.keyboard.press("1")
        page.keyboard.press("d")
        assert page.evaluate(TOO_WIDE) == []
        assert page.evaluate(CONTRAST) == []
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        names = page.query_selector_all("#worst .card bdi")
        directions = {n.evaluate("e => getComputedStyle(e).direction") for n in names}
        assert directions == {"ltr", "rtl"}
        for image in page.query_selector_all("main .card img"):
            assert image.get_attribute("alt")
            assert image.evaluate("e => e.decode().then(() => e.naturalWidth)") > 0
        if folder := os.environ.get("SCREENSHOTS"):
            picture = Path(folder, f"page-{width}-{scheme}.png")
            page.screenshot(path=picture, full_page=True)
        page.emulate_media(media="print", color_scheme=scheme)
        assert page.query_selector("#bar").is_hidden()
        assert page.query_selector("#worst .controls").is_hidden()
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == "rgb(255, 255, 255)"
        assert page.evaluate(CONTRAST) == []


@pytest.mark.threads(2)
def test_a_round_through_the_page_gives_back_what_wrong_labels_cost(
    opened, tmp_path, assets
):
    photos = load_image_folder(assets / "hymenoptera_data" / "train")
    X, truth = photos.data, photos.target
    rng = np.random.default_rng(0)
    flipped = rng.choice(len(truth), 12, replace=False)
    y = truth.copy()
    y[flipped] = np.where(truth[flipped] == "ants", "bees", "ants")
    weights = str(assets / "mobilenet_v2_imagenet.pth")
    model = make_feature_classifier(weights=weights)
    path = write_report(model, X, y, tmp_path / "page.html", cv=5)
    with opened(path) as page:
        cards = page.query_selector_all("#doubted .card")[:20]
        rows = [int(card.get_attribute("data-row")) for card in cards]
        assert len(rows) == 20
        assert len({*rows} & {*flipped.tolist()}) >= 10
        page.click("#begin")
        for row in rows:  # somebody who knows ants from bees
            assert page.evaluate("document.activeElement.dataset.row") == str(row)
            page.keyboard.press("1" if truth[row] == "ants" else "2")
            page.keyboard.press("ArrowRight")
        corrected = apply_corrections((X, y), downloaded(page, tmp_path))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    clean, before, after = (
        cross_val_score(model, X, labels, cv=folds).mean()
        for labels in (truth, y, corrected[1])
    )
    assert clean - before >= 10 / len(y)
    assert after >= clean - 2.5 / len(y)
