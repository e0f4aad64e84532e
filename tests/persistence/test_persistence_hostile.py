"""A file that is damaged or made to do harm is refused, and nothing of it runs."""

import io
import json
import os
import pickle
import re
import shutil
import struct
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
from persistence_cases import SMALL, X, Y, change_manifest, classifier, rewritten
from scipy.sparse import csr_matrix
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

import sklearn_dl
from sklearn_dl import make_feature_classifier
from sklearn_dl._extraction import FeatureCache
from sklearn_dl._saving._archive import VERSION
from sklearn_dl.persistence import ModelFileError, load, save


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "model"
    save(classifier().fit(X, Y), path)
    return path


@pytest.fixture
def path(good, tmp_path):
    return shutil.copy(good, tmp_path / "model")


def test_the_file_that_the_others_are_made_of_is_good(path):
    rewritten(path, lambda members: None)
    change_manifest(path, lambda manifest: None)
    assert load(path).predict(X[:1]).shape == (1,)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"no zip at all", pickle.dumps([1, 2]), b"\0" * 1000, b"PK\5\6" * 9],
    ids=["empty", "start", "text", "pickle", "zeros", "ends"],
)
def test_what_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"is no model of sklearn_dl"):
        load(tmp_path / "model")


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.9, 0.999, 0.99999])
def test_a_truncated_file_is_refused(path, part):
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ModelFileError):
        load(path)


def test_a_file_of_torch_is_refused_without_being_unpickled(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model")
    with pytest.raises(ModelFileError, match="has a member"):
        load(tmp_path / "model")


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load(tmp_path / "model")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load(tmp_path)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    "name",
    [
        "evil.pkl",
        "../evil.safetensors",
        "/evil.safetensors",
        "tensors-0.safetensors/../../evil",
        "C:\\evil.safetensors",
        "folder/",
        "tensors-1.safetensors\nx",
        "manifest.json ",
    ],
)
def test_members_that_save_never_writes_are_refused(path, name, tmp_path):
    ran = tmp_path / "ran"
    evil = pickle.dumps(Bomb(ran))
    rewritten(path, lambda members: members.update({name: evil}))
    with pytest.raises(ModelFileError, match="Nothing of it was read"):
        load(path)
    assert sorted(os.listdir(tmp_path)) == ["model"]


def test_a_pickle_in_place_of_tensors_is_refused(path, tmp_path):
    ran = tmp_path / "ran"
    with_digest(path, "tensors-0.safetensors", pickle.dumps(Bomb(ran)))
    with pytest.raises(ModelFileError, match="holds no tensors"):
        load(path)
    assert not ran.exists()


def test_duplicate_and_missing_members_are_refused(path):
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("tensors-0.safetensors", b"other")
    with pytest.raises(ModelFileError, match="two members of one name"):
        load(path)


@pytest.mark.parametrize("name", ["manifest.json", "tensors-0.safetensors"])
def test_missing_members_are_named(path, name):
    rewritten(path, lambda members: members.pop(name))
    with pytest.raises(ModelFileError, match=r"missing|incomplete"):
        load(path)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(path):
    bomb = {"tensors-7.safetensors": b"\0" * 2**28}
    rewritten(
        path, lambda members: members.update(bomb), compression=zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 2**24
    with pytest.raises(ModelFileError, match="is compressed or encrypted"):
        load(path)


def test_declared_sizes_are_compared_with_the_file(path):
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\1\2")  # the last entry of the directory
    data[place + 20 : place + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="declares"):
        load(path)


def with_digest(path, name, data):
    """Put other bytes in a member, and their digest in the manifest."""
    import hashlib

    def change(members):
        members[name] = data
        manifest = json.loads(members["manifest.json"])
        manifest["members"][name] = hashlib.sha256(data).hexdigest()
        members["manifest.json"] = json.dumps(manifest).encode()

    rewritten(path, change)


def header(**tensor):
    text = json.dumps({"0": tensor}).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**60),
        header(dtype="F32", shape=[2**40], data_offsets=[0, 2**42]) + b"\0" * 8,
        header(dtype="F32", shape=[2**62, 2**62], data_offsets=[0, 8]) + b"\0" * 8,
        header(dtype="F32", shape=[2], data_offsets=[8, 0]) + b"\0" * 8,
        header(dtype="P32", shape=[2], data_offsets=[0, 8]) + b"\0" * 8,
        struct.pack("<Q", 8) + b"{{{{{{{{",
        b"",
    ],
    ids=["header", "tensor", "overflow", "backwards", "dtype", "json", "empty"],
)
def test_tensors_that_are_none_are_refused(path, data):
    with_digest(path, "tensors-0.safetensors", data)
    with pytest.raises(ModelFileError):
        load(path)


def test_altered_tensors_are_refused_by_their_digest(path):
    def change(members):
        data = bytearray(members["tensors-0.safetensors"])
        data[-5] ^= 1
        members["tensors-0.safetensors"] = bytes(data)

    rewritten(path, change)
    with pytest.raises(ModelFileError, match="its digest differs"):
        load(path)


@pytest.mark.parametrize(
    ("version", "advice"),
    [(VERSION + 1, "update sklearn_dl"), (1, "fit and save again with this version")],
)
def test_another_format_names_who_wrote_it_and_what_to_do(path, version, advice):
    def other(manifest):
        manifest["version"] = version
        manifest["versions"]["sklearn_dl"] = "9.9"

    change_manifest(path, other)
    with pytest.raises(ModelFileError, match=r"written by sklearn_dl '?9\.9") as caught:
        load(path)
    assert sklearn_dl.__version__ in str(caught.value)
    assert advice in str(caught.value)


def test_every_error_names_the_file(path):
    of_nodes(path, {"kind": "lambda", "items": []})
    with pytest.raises(ModelFileError, match=re.escape(str(path))):
        load(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000 + "]" * 200_000,
        '{"format": "sklearn_dl model", "version": 3' + "0" * 5000 + "}",
        "{}",
        "[]",
        "null",
        '{"format": "sklearn_dl model"}',
        '{"format": "sklearn_dl model", "version": 3, "members": {}}',
        '{"format": "sklearn_dl model", "version": 3, "members": {}, "nodes": 1}',
        '{"format": "sklearn_dl model", "version": 3, "members": {}, "nodes": [], '
        '"root": "text"}',
        "\xff",
    ],
)
def test_other_manifests_are_refused(path, text):
    change_manifest(path, lambda manifest: text)
    with pytest.raises(ModelFileError):
        load(path)


def of_nodes(path, *nodes, root=None):
    """Give a file these nodes in place of its own."""

    def change(manifest):
        manifest["nodes"] = list(nodes)
        manifest["root"] = [len(nodes) - 1] if root is None else root

    change_manifest(path, change)


@pytest.mark.parametrize("kind", ["object", "call", "value", "estimator"])
@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "builtins:exec",
        "subprocess:Popen",
        "sklearn_dl.persistence:load",
        "torch:load",
        "torch.hub:load",
        "joblib:load",
        "numpy:load",
        "numpy:frombuffer",
        "sklearn.datasets:fetch_openml",
        "sklearn.utils._testing:assert_run_python_script_without_output",
        "sklearn.pipeline:make_pipeline",
        "sklearn.pipeline:os",
        "sklearn.utils:os.system",
        "sklearn.externals.joblib:load",
        "sklearn:show_versions",
        "torch.optim.lr_scheduler:partial",
        "pickle:Unpickler",
        "a b:c",
        "",
        ":",
    ],
)
def test_what_is_not_trusted_is_refused(path, kind, name):
    node = {"kind": kind, "name": name, "arguments": ["true"], "state": {}}
    of_nodes(path, {**node, "parameters": {}})
    with pytest.raises(ModelFileError):
        load(path)


@pytest.mark.parametrize(
    "name",
    ["sklearn.utils.parallel:Parallel", "sklearn.utils._tags:Tags"],
)
def test_of_scikit_learn_only_estimators_and_their_parts_are_made(path, name):
    of_nodes(path, {"kind": "object", "name": name, "state": {}})
    with pytest.raises(ModelFileError, match="which sklearn_dl doesn't know"):
        load(path)


def test_nothing_is_imported_that_is_not_trusted(path, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("open('ran', 'w'); class_ = int")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for kind in ("object", "call", "value", "estimator"):
        of_nodes(path, {"kind": kind, "name": "evil_module:class_"})
        with pytest.raises(ModelFileError, match=r"evil_module\.class_"):
            load(path)
    assert "evil_module" not in sys.modules
    assert not (tmp_path / "ran").exists()


def test_a_transformer_with_a_function_is_refused(tmp_path):
    path = tmp_path / "model"
    save(FunctionTransformer(np.log1p).fit([[1.0]]), path)
    assert load(path).transform([[0.0]]) == 0
    change_manifest(
        path,
        lambda manifest: (
            [
                node.update(name="os:system")
                for node in manifest["nodes"]
                if node.get("name") == "numpy:log1p"
            ]
            and None
        ),
    )
    with pytest.raises(ModelFileError, match=r"os\.system"):
        load(path)


@pytest.mark.parametrize(
    "node",
    [
        {"kind": "array", "dtype": "<f8", "shape": [2**40], "data": "arrays/0"},
        {"kind": "array", "dtype": "<f8", "shape": [2**40]},
        {"kind": "array", "dtype": "<f8", "shape": [-1], "data": "arrays/0"},
        {"kind": "array", "dtype": "|O", "shape": [1], "data": "arrays/0"},
        {"kind": "array", "dtype": "<f8", "shape": [1], "data": "../../x/0"},
        {"kind": "array", "dtype": "<f8", "shape": [1], "data": "arrays/99"},
        {"kind": "objects", "shape": [2**40], "items": []},
        {"kind": "scalar", "items": ["|O", "00" * 8]},
        {"kind": "dtype", "items": ["|O"]},
        {"kind": "list", "items": [[0]]},
        {"kind": "list", "items": [[-1]]},
        {"kind": "list", "items": [{"kind": "list"}]},
        {"kind": "lambda", "items": []},
        {"kind": ["list"], "items": []},
        {"items": []},
        [],
        {"kind": "weights", "items": ["os.system"]},
        {"kind": "generator", "items": ["PCG64"]},
        {"kind": "preprocessing", "items": ["text"]},
        {"kind": "float", "items": ["text"]},
        {"kind": "device", "items": ["nowhere"]},
        {"kind": "call", "name": "sklearn.tree._tree:Tree", "arguments": []},
        {"kind": "array", "dtype": "|S0", "shape": [2**36]},
        {"kind": "array", "dtype": "<U0", "shape": [2**34]},
        {"kind": "array", "dtype": "|V0", "shape": [1]},
        {"kind": "metadata request", "items": ["a", "b"]},
        {"kind": "frame", "columns": {"a": 1}, "n_rows": 2 * 10**9},
        {
            "kind": "object",
            "name": "sklearn_dl:ImageClassifier",
            "state": {"x": 1},
        },
    ],
    ids=str,
)
def test_values_that_are_none_are_refused(path, node):
    of_nodes(path, node)
    with pytest.raises(ModelFileError):
        load(path)


@pytest.mark.parametrize("last", ["set", "frozenset", "dict"])
def test_a_value_nested_in_itself_is_not_hashed_for_ever(path, last):
    nodes = [{"kind": "tuple", "items": [1, 1]}]
    nodes += [{"kind": "tuple", "items": [[i], [i]]} for i in range(40)]
    items = [[[40], 1]] if last == "dict" else [[40]]
    of_nodes(path, *nodes, {"kind": last, "items": items})
    with pytest.raises(ModelFileError, match="nested too often"):
        load(path)


@pytest.mark.parametrize("place", [-1, 625, 10**9, 1.0, "1"])
def test_a_generator_that_stands_behind_its_memory_is_refused(place, tmp_path):
    for made in (
        np.random.RandomState(0),
        np.random.Generator(np.random.MT19937(0)),
        np.random.Generator(np.random.Philox(0)),
    ):
        file = tmp_path / "model"
        save(KNeighborsClassifier(metric_params={"rng": made}), file)
        load(file)

        def elsewhere(manifest):
            for node in manifest["nodes"]:
                for pair in node.get("items", []):
                    if isinstance(pair, list) and pair[0] in ("pos", "buffer_pos"):
                        pair[1] = place

        change_manifest(file, elsewhere)
        with pytest.raises(ModelFileError, match=r"stands at|is damaged"):
            load(file)


@pytest.mark.parametrize("kind", [DecisionTreeClassifier, GradientBoostingRegressor])
def test_trees_of_more_features_than_their_rows_have_are_refused(kind, tmp_path):
    model = kind(random_state=0).fit(X.reshape(18, -1), Y == Y[0])
    save(model, tmp_path / "model")
    load(tmp_path / "model")
    model.n_features_in_ = 1
    save(model, tmp_path / "model")
    with pytest.raises(ModelFileError, match="looks at more than 1 features"):
        load(tmp_path / "model")


def test_a_folder_for_features_that_a_file_names_is_not_taken(tmp_path):
    file, folder = tmp_path / "model", tmp_path / "features"
    save(classifier(cache=str(folder)).fit(X, Y), file)
    shutil.rmtree(folder)
    again = load(file)
    assert again.cache == "memory"
    again.predict(X[:2])
    assert not folder.exists()
    save(classifier(cache=FeatureCache(str(folder))).fit(X, Y), file)
    assert load(file).cache == "memory"
    save(
        classifier(cache=FeatureCache("memory", name="saved", max_bytes=10**7)).fit(
            X, Y
        ),
        file,
    )
    assert load(file).cache.max_bytes == 10**7


def network_of(manifest):
    return estimator_of(manifest)["network"]


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net["backbone"].update(architecture="os.system"),
        lambda net: net["backbone"].update(architecture="resnet18"),
        lambda net: net["backbone"].update(size=[10**9, 10**9]),
        lambda net: net["backbone"].update(size=[2, 2]),
        lambda net: net["backbone"].update(layer="features.2"),
        lambda net: net["backbone"].update(layer=None),
        lambda net: net["backbone"]["tensors"].popitem(),
        lambda net: net["backbone"]["tensors"].update(other="tensors-0/0"),
        lambda net: net["backbone"].update(trained=["some stage"]),
        lambda net: net["tensors"].update(weight="tensors-0/0"),
        lambda net: net.update(head="text"),
        lambda net: net.update(n_outputs=3),
    ],
)
def test_networks_that_do_not_fit_are_refused(path, change):
    change_manifest(path, lambda manifest: change(network_of(manifest)) and None)
    with pytest.raises(ModelFileError):
        load(path)


def estimator_of(manifest):
    return next(n for n in manifest["nodes"] if n["kind"] == "estimator")


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("format None", lambda found: found.pop("version")),
        ("versions", lambda found: found.update(versions=[])),
        ("members", lambda found: found.update(members=None)),
        ("root", lambda found: found.update(root="x")),
        (r"nodes\[1\]", lambda found: found["nodes"].insert(1, {"items": []})),
        *(
            (name, lambda found, name=name: found["state"].pop(name))
            for name in ("_fitted_kind", "_targets", "preprocessing_")
        ),
        ("preprocessing_", lambda found: found["state"].update(preprocessing_=7)),
        ("classes_", lambda found: found["state"].update(classes_=["x"])),
        ("network", lambda found: found.pop("network")),
        ("tol", lambda found: found["parameters"].update(tol=-1)),
        ("batch_size", lambda found: found["parameters"].update(batch_size="x")),
        ("image_shape", lambda found: found["parameters"].update(image_shape=-7)),
        ("tta", lambda found: found["parameters"].update(tta="x")),
        ("device", lambda found: found["parameters"].update(device="x")),
        ("preprocessing", lambda found: found["network"]["backbone"].update(
            preprocessing="x"
        )),
    ],
)  # fmt: skip
def test_a_manifest_that_is_wrong_names_the_file_and_the_field(path, field, change):
    def wrong(manifest):
        whole = field in ("format None", "versions", "members", "root", r"nodes\[1\]")
        change(manifest if whole else estimator_of(manifest))

    change_manifest(path, wrong)
    with pytest.raises(ModelFileError, match=rf"{re.escape(str(path))}.*{field}"):
        load(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("resize_size", v) for v in (0, -3, 2**15, "x", 1.5, True)),
        *(("crop_size", v) for v in (32, "xy", 0)),
        *(("mean", v) for v in (0.5, "xyz", None)),
        *(("std", v) for v in (0.0, "xyz")),
        *(("interpolation", v) for v in ("magic", None, 3)),
        *(("antialias", v) for v in (None, 1)),
    ],
)
def test_numbers_of_a_preprocessing_are_checked_when_read(path, field, value):
    def wrong(manifest):
        (node,) = (
            node
            for node in manifest["nodes"]
            if node["kind"] == "dict" and node["items"][0][0] == "resize_size"
        )
        next(pair for pair in node["items"] if pair[0] == field)[1] = value

    change_manifest(path, wrong)
    with pytest.raises(ModelFileError, match=rf"{re.escape(str(path))}.*{field} must"):
        load(path)


def test_a_pooling_that_there_is_not_is_refused(tmp_path):
    path = tmp_path / "model"
    save(classifier(layer=("features.5", "max")).fit(X, Y), path)

    def change(manifest):
        for node in manifest["nodes"]:
            if node.get("items") == ["features.5", "max"]:
                node["items"] = ["features.5", "all"]

    change_manifest(path, change)
    with pytest.raises(ModelFileError, match="pooling"):
        load(path)


def test_a_head_of_terabytes_takes_no_memory(path):
    def widen(manifest):
        for node in manifest["nodes"]:
            if node.get("name") == "sklearn_dl.training:Head":
                node["state"]["hidden_layer_sizes"] = 2**36

    change_manifest(path, widen)
    with pytest.raises(ModelFileError, match=r"tensors are not those|is damaged"):
        load(path)


def test_trees_that_lead_out_of_their_memory_are_refused(tmp_path):
    path = tmp_path / "model"
    forest = RandomForestClassifier(1, random_state=0).fit(X.reshape(18, -1), Y)
    for field, value in (("left_child", 10**6), ("right_child", 0), ("feature", 9999)):
        tree = forest.estimators_[0].tree_
        state = tree.__reduce__()[2]
        nodes = state["nodes"].copy()
        nodes[field][0] = value
        again = type(tree)(*tree.__reduce__()[1])
        again.__setstate__({**state, "nodes": nodes})
        forest.estimators_[0].tree_ = again
        save(forest, path)
        forest.estimators_[0].tree_ = tree
        with pytest.raises(ModelFileError, match="tree leads nowhere"):
            load(path)
    save(forest, path)
    assert load(path).predict(X.reshape(18, -1)).shape == (18,)


def test_sparse_arrays_with_indices_outside_are_refused(tmp_path):
    path = tmp_path / "model"
    model = KNeighborsClassifier(1).fit(csr_matrix(np.eye(4)), [0, 1, 0, 1])
    save(model, path)
    np.testing.assert_array_equal(load(path).predict(np.eye(4)), [0, 1, 0, 1])
    model._fit_X.indices[0] = 10**6
    save(model, path)
    with pytest.raises(ModelFileError, match=r"column index|indices"):
        load(path)


def test_a_memory_that_a_file_names_is_not_taken(tmp_path):
    path = tmp_path / "model"
    save(make_feature_classifier(**SMALL).fit(X, Y), path)

    def with_memory(manifest):
        for node in manifest["nodes"]:
            if node.get("name") == "sklearn.pipeline:Pipeline":
                node["state"]["memory"] = str(tmp_path / "pickles")

    change_manifest(path, with_memory)
    assert load(path).memory is None


def test_reading_stops_at_a_file_that_is_no_model_but_a_zip(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("manifest.json", '{"format": "another"}')
    (tmp_path / "model").write_bytes(buffer.getvalue())
    with pytest.raises(ModelFileError, match="is no model of sklearn_dl"):
        load(tmp_path / "model")
