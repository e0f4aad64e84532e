"""Features, files of them and a search on a Dask cluster: one machine, or many.

::

    pip install -e '.[dask]'
    python examples/dask_cluster.py --data hymenoptera_data --workers 2
    python examples/dask_cluster.py --data /shared/photos --scheduler tcp://head:8786

Inside ``joblib.parallel_config("dask")``, `transform` of some batches is spread over
the workers in chunks, with a progress bar, and so are the fits of scikit-learn's
searches and ensembles, of which joblib reports as `verbose` says. A worker that dies in
mid-`transform` loses nothing: its chunks go to another one. With
``--out /shared/features.npy`` the workers write the features to files themselves, which
is the way for millions of images.

Give each host a folder of its own as ``--cache``: SQLite's database must not lie on a
network file system.
"""

import os
import time
from contextlib import AbstractContextManager, nullcontext

import joblib
import numpy as np
from folders import load_split, parser_for
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sklearn_dl import ImageClassifier, ImageFeatureExtractor, make_feature_classifier
from sklearn_dl.datasets import load_features


def main() -> None:
    """Compare a cluster's results and seconds with those of this process."""
    parser = parser_for(__doc__)
    parser.add_argument("--scheduler", help="address; none starts a local cluster")
    parser.add_argument("--workers", type=int, default=2, help="of a local cluster")
    parser.add_argument("--out", help="file of features, in parts that workers write")
    args = parser.parse_args()
    try:
        from distributed import Client, LocalCluster, get_task_stream
    except ImportError as error:
        raise SystemExit("This example needs Dask: pip install -e '.[dask]'") from error
    X, _, y, _, backbone = load_split(args)
    extractor = ImageFeatureExtractor(**{**backbone, "cache": None}, verbose=1).fit(X)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    search = GridSearchCV(
        make_feature_classifier(**backbone),
        {"classifier__C": [0.2, 2.0, 20.0]},
        cv=folds,
        verbose=1,
    )
    head = ImageClassifier(**backbone, max_epochs=5)
    bag = BaggingClassifier(head, 4, random_state=0, verbose=1)

    def run(name: str, watch: AbstractContextManager) -> np.ndarray:
        start = time.perf_counter()
        with watch:
            features = extractor.transform(X)
        extracted = time.perf_counter()
        search.fit(X, y)
        searched = time.perf_counter()
        accuracy = bag.fit(X, y).score(X, y)
        print(
            f"{name}: transform {extracted - start:.1f} s; search "
            f"{searched - extracted:.1f} s, best {search.best_score_:.3f}; bagging "
            f"{time.perf_counter() - searched:.1f} s, {accuracy:.3f} on its own images",
            flush=True,
        )
        return features

    alone = run("this process", nullcontext())
    if args.scheduler:
        client = Client(args.scheduler)
    else:
        cluster = LocalCluster(
            n_workers=args.workers, threads_per_worker=1, dashboard_address=None
        )
        client = Client(cluster)
    with client, joblib.parallel_config("dask", verbose=10):
        tasks = get_task_stream(client)
        together = run("the cluster", tasks)
        n_workers = len({task["worker"] for task in tasks.data})
        print(f"{n_workers} of {len(client.nthreads())} workers took part in transform")
        if args.out:
            written = write_files(extractor, X, y, args.out)
            print(f"equal to those in files: {np.array_equal(written, together)}")
    if not args.scheduler:
        cluster.close()
    difference = np.abs(together - alone).max() / np.abs(alone).max()
    print(f"Largest difference of a feature, relative to the largest: {difference:.1e}")


def write_files(extractor, X, y, out: str) -> np.ndarray:
    """Let each worker write parts of a file; return the features in them."""
    failed = extractor.transform_to(X, out, y, n_shards=4)
    stem, suffix = os.path.splitext(out)
    found = load_features(f"{stem}-*-of-4{suffix}")
    print(f"{len(found.data)} rows in 4 files, {len(failed)} of them NaN")
    return found.data


if __name__ == "__main__":
    main()
