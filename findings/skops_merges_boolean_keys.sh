#!/usr/bin/env bash
# skops loads a dict with the keys True and False as a dict with True alone.
#
# skops 0.16.0, scikit-learn 1.9.1, Python 3.11. The keys of a dict become keys of a JSON
# object, "true" and "false", and are made again by their type: bool("false") is True. So
# the class weights of boolean labels come back as one, with the other one's value, without
# a word; the classifier predicts as before, but fitted again (by a search, by
# cross-validation, on new rows) it is another. One would guess that a parameter that can
# be dumped comes back, as numbers and texts as keys do; {1: "a", "1": "b"} loses one too.
# It matters to who keeps a classifier of yes and no with class_weight={...} for a refit:
# this library's own files keep such parameters.
#
# Output seen:
#   class_weight {True: 9.0, False: 1.0} -> {True: 1.0}
#   share of rows predicted True, loaded 0.88, fitted again 0.47
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  skops==0.16.0 scikit-learn==1.9.1 numpy==2.4.6
said=$("$folder/venv/bin/python" - <<'PY'
import numpy as np
import skops.io
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 2))
y = X[:, 0] + rng.normal(size=200) > 0
model = LogisticRegression(class_weight={True: 9.0, False: 1.0}).fit(X, y)
again = skops.io.loads(skops.io.dumps(model))
assert (again.predict(X) == model.predict(X)).all()
loaded, refit = again.predict(X).mean(), again.fit(X, y).predict(X).mean()
print("class_weight", model.class_weight, "->", again.class_weight)
print(f"share of rows predicted True, loaded {loaded:.2f}, fitted again {refit:.2f}")
assert again.class_weight == {True: 1.0}
assert refit < loaded - 0.2
PY
)
echo "$said"
