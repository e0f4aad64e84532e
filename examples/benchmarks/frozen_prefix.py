"""Training of the last stages, beside another checkout and a loop by hand.

    git worktree add ../before 2da30a0
    python examples/benchmarks/frozen_prefix.py --before ../before \
        --data hymenoptera_data --weights mobilenet_v2_imagenet.pth

Each contender works in a process of its own, in turns, and measures the seconds of
CPU of `fit` over the photographs in files, from an empty cache; so others on the
machine disturb little. The weights are of mobilenet_v2; other backbones get random
ones. "Again" is a second fit, whose maps are in the cache. The loop by hand trains on
maps that are ready, with BatchNorm of good weights kept still; "one pass" is that of
the frozen stages over all images, decoding included. With `--search` a grid search of
three rates and five folds is measured too, and how often an image went through the
first layer is counted by a hook; `--trainable` without numbers leaves out the rest.

With `--equal`, and without another checkout, the weights after five epochs at 128
pixels are compared with those of the long way, which a callback of one's own asks for.
"""

import copy
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import harness
import numpy as np
import torch


def main() -> None:
    """Race the contenders, and print a table."""
    parser = harness.parser(__doc__)
    parser.add_argument("--before", type=Path, help="the other checkout")
    parser.add_argument("--after", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("--data", type=Path, help="folder of photographs")
    parser.add_argument("--weights", help="file of weights of mobilenet_v2")
    parser.add_argument("--backbones", nargs="+", default=["mobilenet_v2", "resnet18"])
    parser.add_argument("--trainable", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--images", type=int, default=245)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--equal", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.contender:
        checkout, backbone, trainable, work = args.contender.split("|")
        sys.path.insert(0, str(getattr(args, checkout).resolve()))
        short = work not in ("search", "passes")
        return serve(WORK[work](args, backbone, int(trainable)), warm_up=short)
    if args.equal:
        return equal(args)
    if args.before is None:
        parser.error("--before is needed")
    options = ["--before", str(args.before), "--after", str(args.after)]
    for name in ("data", "weights", "images", "epochs", "threads"):
        if value := getattr(args, name):
            options += [f"--{name}", str(value)]
    rows = []
    for backbone in args.backbones:
        for k in args.trainable:
            rows.append(compare(backbone, k, options, args))
            print(*rows[-1], sep="  ", flush=True)
    title = f"The last stages, {args.images} photographs, {args.epochs} epochs"
    header = ["backbone", "trainable", "before, s", "after, s", "before / after"]
    header += ["before / again", "after / (loop + one pass)"]
    if rows:
        harness.table(f"{title}: seconds of CPU", header, rows, args.output)
    if args.search:
        rows = [search(backbone, options, args) for backbone in args.backbones]
        header = ["backbone", "before, s", "after, s", "before / after"]
        header += ["passes before", "passes after"]
        title = "A grid search of three rates and five folds, trainable=1"
        harness.table(f"{title}: seconds of CPU", header, rows, args.output)


def equal(args) -> None:
    """Train on maps and the long way, and print how far the results are apart."""
    from skorch.callbacks import Callback

    from sklearn_dl.training import Trainable

    class Watching(Callback):
        """Could look at pixels."""

    X, y = photographs(args)
    rows = []
    for backbone in args.backbones:
        for still in (True, False):
            models = [
                classifier(
                    args,
                    backbone,
                    Trainable(1, freeze_batch_norm=still),
                    max_epochs=5,
                    image_size=128,
                    callbacks=callbacks,
                ).fit(X, y)
                for callbacks in (None, [Watching()])
            ]
            states = [model.module_.state_dict() for model in models]
            most = max(
                (states[0][name] - tensor).abs().max().item()
                for name, tensor in states[1].items()
                if tensor.is_floating_point()
            )
            accuracies = [f"{100 * model.score(X, y):.1f}" for model in models]
            kept = "kept" if still else "trained"
            rows.append([backbone, kept, f"{most:.1e}", *accuracies])
    header = ["backbone", "BatchNorm", "largest difference of a weight or statistic"]
    header += ["accuracy on maps, %", "the long way, %"]
    title = f"Trained on maps and the long way, {len(X)} photographs"
    harness.table(title, header, rows, args.output)


def compare(backbone: str, k: int, options: list[str], args) -> list:
    """Return the row of one backbone and number of stages."""
    works = ("before", "fit"), ("after", "fit"), ("after", "again"), ("after", "hand")
    names = [f"{checkout}|{backbone}|{k}|{work}" for checkout, work in works]
    took = harness.race(__file__, names, options, args.rounds)
    before, after, again, hand = (took[name] for name in names)
    medians = [f"{np.median(seconds):.2f}" for seconds in (before, after)]
    pairs = (before, after), (before, again), (after, hand)
    return [backbone, k, *medians, *(f"{harness.ratio(*pair):.2f}" for pair in pairs)]


def search(backbone: str, options: list[str], args) -> list:
    """Return the row of a grid search."""
    names = [f"{checkout}|{backbone}|1|search" for checkout in ("before", "after")]
    names += [name.replace("search", "passes") for name in names]
    took = harness.race(__file__, names, options, 1)
    seconds = [took[name] for name in names[:2]]
    shown = [f"{value[0]:.2f}" for value in seconds]
    passes = [f"{took[name][0]:.2f}" for name in names[2:]]
    return [backbone, *shown, f"{harness.ratio(*seconds):.2f}", *passes]


def serve(work, *, warm_up: bool) -> None:
    """Be a contender that measures itself; the turn of a warm-up is for nothing."""
    if warm_up:
        work()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(work(), flush=True)


def cpu_seconds(work) -> float:
    """Return the seconds of CPU that work took, in all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


# ----------------------------------------------------------------- what contends


def photographs(args):
    """Return paths and classes."""
    from sklearn_dl.datasets import load_image_folder

    X, y = load_image_folder(args.data / "train", return_X_y=True)
    index = np.random.default_rng(0).permutation(len(X))[: args.images]
    return np.asarray(X)[index], np.asarray(y)[index]


def classifier(args, backbone: str, k: int, **parameters):
    """Return the model that is trained."""
    from sklearn_dl import ImageClassifier

    weights = args.weights if backbone == "mobilenet_v2" else None
    options = {"weights": weights, "trainable": k, "max_epochs": args.epochs}
    options |= {"batch_size": 16, "random_state": 0, **parameters}
    return ImageClassifier(backbone, **options)


def clear() -> None:
    """Empty the cache."""
    from sklearn_dl import FeatureCache

    FeatureCache("memory").clear()


def fit(args, backbone: str, k: int):
    """Return a fit from an empty cache."""
    X, y = photographs(args)
    model = classifier(args, backbone, k)

    def work() -> float:
        clear()
        return cpu_seconds(lambda: model.fit(X, y))

    return work


def again(args, backbone: str, k: int):
    """Return a fit of images that another fit has seen."""
    X, y = photographs(args)
    model = classifier(args, backbone, k).fit(X, y)
    return lambda: cpu_seconds(lambda: model.fit(X, y))


def hand(args, backbone: str, k: int):
    """Return a loop over ready maps, and a pass of the frozen stages, by hand."""
    from PIL import Image

    X, y = photographs(args)
    model = classifier(args, backbone, k, max_epochs=1).fit(X[:16], y[:16])
    network = copy.deepcopy(model.module_).float()
    whole, head = network.backbone, network.head
    stages = list(whole.stages.values())
    trained = {name for stage in stages[-k:] for name in stage}
    layers = list(whole.module.features) if hasattr(whole.module, "features") else None
    if layers is None:  # resnet18
        net = whole.module
        layers = [torch.nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)]
        layers += [net.layer1, net.layer2, net.layer3, net.layer4]
    named = {id(p): name for name, p in whole.module.named_parameters()}
    frozen = [
        m for m in layers if not any(named[id(p)] in trained for p in m.parameters())
    ]
    first = torch.nn.Sequential(*frozen).eval().requires_grad_(False)
    last = torch.nn.Sequential(*layers[len(frozen) :])
    last.requires_grad_(True)
    for network in (first, last, head):
        network.to(memory_format=torch.channels_last)
    harness.keep_blocks()
    preprocess, target = model.preprocessing_, np.unique(y, return_inverse=True)[1]
    target = torch.from_numpy(target)
    paths = [str(path) for path in np.ravel(X)]
    still = whole.pretrained
    state = copy.deepcopy([last.state_dict(), head.state_dict()])

    def pixels(some):
        images = [preprocess.geometry(Image.open(path).convert("RGB")) for path in some]
        stack = np.stack([np.asarray(image) for image in images])
        tensor = torch.from_numpy(stack).permute(0, 3, 1, 2)
        return preprocess.normalize(tensor)

    def work() -> float:
        start = time.process_time()
        with torch.inference_mode():
            starts = range(0, len(paths), 16)
            maps = [first(pixels(paths[k : k + 16])) for k in starts]
        maps = torch.cat(maps).clone()
        passed = time.process_time() - start
        last.load_state_dict(state[0])
        head.load_state_dict(state[1])
        groups = [{"params": last.parameters(), "lr": 1e-4}]
        groups += [{"params": head.parameters(), "lr": 1e-2}]
        optimizer = torch.optim.SGD(groups, lr=1e-2, momentum=0.9)
        start = time.process_time()
        for _ in range(args.epochs):
            last.train(not still)
            for index in torch.randperm(len(maps)).split(16):
                features = last(maps[index]).mean((2, 3))
                loss = torch.nn.functional.cross_entropy(head(features), target[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return passed + time.process_time() - start

    return work


def grid_search(args, backbone: str, k: int, *, count: bool):
    """Return a search over three rates; its seconds, or its passes of the network."""
    from sklearn.model_selection import GridSearchCV

    X, y = photographs(args)
    path = Path(tempfile.mkdtemp()) / "seen"

    def counting():
        from torchvision.models import get_model

        torch.manual_seed(0)
        network = get_model(backbone, weights=None)
        network.classifier = network.fc = torch.nn.Identity()
        conv = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
        conv.register_forward_hook(partial(note, path))
        return network

    model = classifier(args, backbone, k)
    if count:
        model.set_params(backbone=counting, weights="DEFAULT", max_epochs=2)

    def work() -> float:
        clear()
        path.write_text("")
        search = GridSearchCV(model, {"lr": [3e-3, 1e-2, 3e-2]}, cv=5, refit=False)
        took = cpu_seconds(lambda: search.fit(X, y))
        return sum(map(int, path.read_text().split())) / len(X) if count else took

    return work


def note(path: Path, module, inputs, output) -> None:
    """Write down how many images a batch has; copies of a network write there too."""
    if output.device.type != "meta":
        with path.open("a") as file:
            file.write(f"{len(output)}\n")


WORK = {
    "fit": fit,
    "again": again,
    "hand": hand,
    "search": partial(grid_search, count=False),
    "passes": partial(grid_search, count=True),
}


if __name__ == "__main__":
    main()
