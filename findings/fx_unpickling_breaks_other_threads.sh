#!/usr/bin/env bash
# Unpickling a torch.fx.GraphModule makes networks fail in other threads.
#
# torch 2.14.1, Python 3.11. A GraphModule is what torch.fx.symbolic_trace and
# torchvision's create_feature_extractor return. Its pickle holds code, and loading it
# traces that code again; while it traces, torch.fx replaces nn.Module.__call__ for the
# whole process. So a forward pass of another network, in another thread, that has nothing
# to do with the one being loaded, raises NameError ("module is not installed as a
# submodule"). The same happens while any thread calls symbolic_trace. One would guess that
# pickle.loads touches nothing but what it loads. It matters to servers and to joblib's
# threading backend: one thread loads a model while others predict.
#
# Output seen:
#   other network, other thread, while 20 models are loaded: NameError; afterwards: fine
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
said=$("$folder/venv/bin/python" - <<'PY'
import pickle
import threading
from collections import Counter

import torch
from torch import fx, nn

torch.manual_seed(0)
traced = fx.symbolic_trace(nn.Sequential(*(nn.Linear(4, 4) for _ in range(200))))
data = pickle.dumps(traced)
other, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.zeros(1, 4)
done, errors = threading.Event(), Counter()


def predict():
    while not done.is_set():
        try:
            other(x)
        except Exception as error:
            errors[type(error).__name__] += 1


thread = threading.Thread(target=predict)
thread.start()
for _ in range(20):
    pickle.loads(data)
done.set()
thread.join()
other(x)
print(*errors)
PY
)
echo "other network, other thread, while 20 models are loaded: $said; afterwards: fine"
[ "$said" = "NameError" ]
