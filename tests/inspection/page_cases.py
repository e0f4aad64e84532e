"""Report pages for the tests: what they are of, and what is in them."""

import json
from html.parser import HTMLParser

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from sklearn_dl._images import as_source

HOSTILE = [
    "<b>x</b>",
    "<script>window.ran = 1</script>",
    '"><img src=x onerror="window.ran = 1">',
    "</script><script>window.ran = 1</script>",
    "<!-- <script>",
    "javascript:window.ran=1",
    "';window.ran=1;//",
    "{{ 7 * 7 }}{% raw %}",
    "\u2028`${window.ran = 1}`\u2029",
    "<svg onload=window.ran=1>&lt;&amp;",
]


class Page(HTMLParser):
    """The elements of a page, and the values that its script has."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.bytes = path.read_bytes()
        self.source = self.bytes.decode()
        self.scripts = {}
        self.feed(self.source)
        self.data = json.loads(self.scripts["data"])
        self.pictures = json.loads(self.scripts["pictures"])
        self.cards = {int(row): card for row, card in self.data["cards"].items()}

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, attrs = self._open[-1] if self._open else ("", {})
        if tag in ("script", "style"):
            self.scripts[attrs.get("id", tag)] = data
        else:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


class Told(BaseEstimator):
    """Answers with what it was told of an image: its first pixel is the row."""

    def __init__(self, values=None):
        self.values = values

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y):
        return self

    def _of(self, X):
        source = as_source(X)
        rows = [int(np.asarray(source[i]).flat[0]) for i in range(len(source))]
        return np.asarray(self.values)[rows]


class ToldClasses(ClassifierMixin, Told):
    def __init__(self, values=None, classes=("a", "b")):
        super().__init__(values)
        self.classes = classes

    @property
    def classes_(self):
        return np.array(self.classes)

    def predict_proba(self, X):
        return self._of(X)

    def predict(self, X):
        return self.classes_[self._of(X).argmax(axis=1)]


class ToldLabels(ClassifierMixin, Told):
    def predict_proba(self, X):
        return self._of(X)

    def predict(self, X):
        return (self._of(X) > 0.5).astype(int)


class ToldNumbers(RegressorMixin, Told):
    def predict(self, X):
        return self._of(X)


def numbered(n, size=(20, 24)):
    """Return n colour images whose first pixel is their row, of up to 256."""
    coarse = np.random.default_rng(0).integers(0, 256, (n, 3, 3, 3), "uint8")
    images = np.stack([Image.fromarray(c).resize(size[::-1]) for c in coarse])
    images[:, 0, 0, 0] = np.arange(n)
    return images


def saved(images, folder, names=None):
    """Return an (n, 1) column of paths to images, losslessly on disk."""
    column = np.empty((len(images), 1), dtype=object)
    for row, image in enumerate(images):
        path = folder / (f"{row:03d}.png" if names is None else names[row])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, format="PNG")
        column[row, 0] = str(path)
    return column
