"""README and the pages of docs/: their code runs, their links and quotes hold."""

import ast
import re
import runpy
import shutil
import sys
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import shape

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BUILT = ("_build", "reference", "gallery", "gallery_scripts")
PAGES = [
    ROOT / "README.md",
    *(
        path
        for path in sorted(DOCS.rglob("*.md"))
        if path.relative_to(DOCS).parts[0] not in BUILT
    ),
]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
# Fences of what is no Python of ours; "" is a command line.
OTHERS = {"", "bash", "bibtex", "text", "{toctree}", "{include}", "{raw}"}
EXPORTS = all(map(find_spec, ("onnx", "onnxscript", "onnxruntime")))
# Blocks of Python that are not run, by the reason that stands above each.
NOT_RUN = {"needs fastai": 1, "needs Keras": 1, "needs skops": 1, "needs MLflow": 1}
NOT_RUN |= {"needs datasets": 1, "needs h5py": 1, "needs torchrun": 1}
NOT_RUN |= {"needs dask-ml": 1}
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"```(?P<kind>[^\n]*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def blocks(path):
    """Return the fenced blocks of a page: kind, code, line, reason not to run it."""
    text = path.read_text(encoding="utf-8")
    return [
        (m["kind"], m["code"], text[: m.start("code")].count("\n"), m["reason"])
        for m in FENCE.finditer(text)
    ]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return torch's cache, with weights that stand for the download."""
    import torch
    import torchvision

    home = tmp_path_factory.mktemp("torch")
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("mobilenet_v2", "resnet18"):
        url = torchvision.models.get_model_weights(name).DEFAULT.url
        network = torchvision.models.get_model(name)
        torch.save(network.state_dict(), folder / Path(url).name)
    return home


@pytest.fixture
def pages(machine, weights, monkeypatch):
    """Go to a folder with the images that the pages speak of."""
    shutil.copy(machine / "photos" / "bees" / "5.jpg", machine / "new_photo.jpg")
    sheet = pd.DataFrame(np.random.default_rng(0).integers(0, 256, (8, 64)))
    sheet.columns = [f"pixel{i}" for i in range(64)]
    sheet.insert(0, "label", [0, 1] * 4)
    sheet.to_csv(machine / "digits.csv", index=False)
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more would wait for one another over small images
    monkeypatch.chdir(machine)
    monkeypatch.setenv("TORCH_HOME", str(weights))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    yield
    torch.set_num_threads(threads)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def runnable(path):
    return [b for b in blocks(path) if b[0] == "python" and b[3] is None]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=n) for p, n in zip(PAGES, NAMES, strict=True) if runnable(p)],
)
def test_the_code_of_a_page_runs(path, pages, capsys):
    namespace = {"__name__": "__page__"}
    # Threads stand for the processes of n_jobs, each of which would import torch.
    with joblib.parallel_config("threading"):
        for _, code, line, _ in runnable(path):
            try:
                exec(compile("\n" * line + code, str(path), "exec"), namespace)
            except ImportError as error:
                # Without the extra a block ends where it exports, with what to install.
                if EXPORTS or "pip install 'sklearn_dl[export]'" not in str(error):
                    raise
    assert capsys.readouterr().out


def test_no_code_is_left_out_in_silence():
    found = [block for path in PAGES for block in blocks(path)]
    kinds = {kind.partition(" ")[0] for kind, *_ in found}
    assert kinds - OTHERS == {"python"}
    reasons = Counter(reason for *_, reason in found if reason is not None)
    assert reasons == NOT_RUN
    # Each fence that opens is one of a block: none is hidden by indentation or a typo.
    for path in PAGES:
        ticks = re.findall(r"^\s*(```|~~~)", path.read_text(encoding="utf-8"), re.M)
        assert len(ticks) == 2 * len(blocks(path)), path


@pytest.mark.parametrize("path", [pytest.param(p, id=p.name) for p in PAGES])
def test_links_lead_somewhere(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), f"{path.name} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{path.name} links to {target}"


def anchors(path):
    """Return the anchors of a page's headings, as the repository's web page has them.

    A page that includes a file of the repository has that file's headings.
    """
    text = path.read_text(encoding="utf-8")
    for included in re.findall(r"^```\{include\} (\S+)", text, re.M):
        text += (path.parent / included).read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 160


def table():
    sys.path.insert(0, str(DOCS))
    try:
        return import_module("public_names")
    finally:
        sys.path.remove(str(DOCS))


def test_the_reference_has_all_public_names_and_no_others():
    package = ROOT / "sklearn_dl"
    public = {
        room
        for room in map(shape.room_of, shape.modules(package))
        if room is not None and not room.startswith("_")
    }
    rooms = {f"sklearn_dl.{room}": shape.public_names(package, room) for room in public}
    modules = {room.removeprefix("sklearn_dl.") for room in rooms}
    rooms["sklearn_dl"] = list(set(shape.public_names(package)) - modules)
    found = {room: names for room, (_, names) in table().ROOMS.items()}
    assert {room: sorted(names) for room, names in found.items()} == {
        room: sorted(names) for room, names in rooms.items()
    }


def test_pages_of_the_reference_differ_in_more_than_case():
    page_of = table().page_of
    pages = [page_of(room, n) for room, (_, ns) in table().ROOMS.items() for n in ns]
    assert len({page.lower() for page in pages}) == len(pages)


def test_estimators_link_to_their_page_of_the_reference():
    import sklearn_dl

    pages = table()
    estimators = [name for name in pages.ROOMS["sklearn_dl"][1] if name[0].isupper()]
    for name in {*estimators} - {"FeatureCache"}:
        link = getattr(sklearn_dl, name)()._get_doc_link()
        site = "https://sklearn-dl.readthedocs.io/en/stable/"
        assert link == f"{site}{pages.page_of('sklearn_dl', name)}.html"
        assert link in getattr(sklearn_dl, name)()._repr_html_()


def written_texts():
    """Return all texts in the code of the package, with "..." for values."""
    found = []
    for path in shape.modules(ROOT / "sklearn_dl").values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (getattr(part, "value", None) for part in node.values)
                found.append("".join(p if isinstance(p, str) else "..." for p in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return [" ".join(text.split()) for text in found]


def test_the_messages_of_troubleshooting_are_those_of_the_code():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quotes = [
        " ".join(quote.replace("\n> ", " ").split())
        for quote in re.findall(r"^> (.*(?:\n> .*)*)", text, re.M)
    ]
    assert len(quotes) >= 25
    texts = written_texts()
    assert [q for q in quotes if not any(q in text for text in texts)] == []


def test_the_picture_of_the_rooms_is_that_of_the_code():
    rooms = runpy.run_path(str(DOCS / "rooms.py"))
    picture = (DOCS / "pictures" / "rooms.svg").read_text(encoding="utf-8")
    assert picture == rooms["draw"](), "draw it again: python docs/rooms.py"
    drawn = set(re.findall(r'font-weight="bold"[^>]*>(\w+)<', picture))
    assert drawn == {shape.room_of(m) for m in shape.modules(ROOT / "sklearn_dl")} - {
        None
    }
    assert drawn == set(rooms["PURPOSES"])


def test_the_arrows_of_the_picture_imply_all_imports():
    rooms = runpy.run_path(str(DOCS / "rooms.py"))
    below = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set(), "e": {"d"}}
    arrows = [("a", "b"), ("b", "c"), ("c", "d"), ("e", "d")]
    assert rooms["reduced"](below) == arrows
    corners, width, height = rooms["places"](below)
    for room, others in below.items():
        x, y = corners[room]
        assert 0 <= x <= width - rooms["WIDTH"]
        assert 0 <= y <= height - rooms["HEIGHT"]
        assert all(corners[other][1] > y for other in others)


def test_each_question_is_answered_in_two_clicks():
    assert "(docs/questions.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(questions.md)" in (DOCS / "index.md").read_text(encoding="utf-8")
    text = (DOCS / "questions.md").read_text(encoding="utf-8")
    answers = re.split(r"^## ", text, flags=re.M)[1:]
    assert len(answers) >= 10
    assert [a for a in answers if not re.search(r"\]\(|^```", a, re.M)] == []
