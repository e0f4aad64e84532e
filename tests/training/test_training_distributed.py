"""Two processes that train together: what one process finds, and how they end."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("distributed_fits.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


def start(case, folder, command):
    # A port that is free, so that tests may run side by side.
    if len(command) > 1:
        command = [*command, "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(SCRIPT), case, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def of_two(case, folder):
    """Return what each of two processes found."""
    done = start(case, folder, TORCHRUN)
    assert done.returncode == 0, done.stderr
    return [pickle.loads((folder / f"{k}.pickle").read_bytes()) for k in (0, 1)]


def assert_equal(one, other, within=0.0):
    assert one[0].keys() == other[0].keys()
    for name, values in one[0].items():
        np.testing.assert_allclose(other[0][name], values, rtol=0, atol=within)
    assert one[1].columns.equals(other[1].columns)
    np.testing.assert_allclose(
        one[1].astype(float), other[1].astype(float), rtol=0, atol=within
    )


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    first, second = of_two("results", tmp_path)
    done = start("results", tmp_path, [sys.executable])
    assert done.returncode == 0, done.stderr
    alone = pickle.loads((tmp_path / "alone.pickle").read_bytes())
    for name, expected in alone.items():
        assert_equal(first[name], second[name])
        assert_equal(expected, first[name], within=1e-9)
        assert expected[2] == first[name][2]


@pytest.mark.slow
def test_what_one_process_ends_ends_in_all(tmp_path):
    first, second = of_two("ends", tmp_path)
    for name, end in [("interrupted", "KeyboardInterrupt"), ("stopped", "enough")]:
        assert_equal(first[name], second[name])
        assert len(first[name][1]) == 0  # within the first epoch
        assert first[name][2] == second[name][2] == end


@pytest.mark.slow
def test_the_first_process_writes_and_all_go_on(tmp_path):
    first, second = of_two("checkpoint", tmp_path)
    for one, other in zip(first, second, strict=True):
        assert_equal(one, other)
    assert_equal(*first)
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.slow
def test_what_cannot_be_right_is_refused(tmp_path):
    for batch_norm, data in of_two("errors", tmp_path):
        assert "can't train BatchNorm" in batch_norm
        assert "must be given the same y and weights" in data


@pytest.mark.slow
def test_what_fails_in_one_process_fails_in_all_and_they_go_on(tmp_path):
    (errors, one), (others, other) = of_two("failures", tmp_path)
    assert errors == others
    assert "row 5," in errors["images"]  # which the first process reads
    assert "row 30," in errors["images"]
    assert "row 24," in errors["images in training"]
    assert errors["step"] == errors["epoch"] == "rank 1 broke"
    assert "draws random numbers in one of them" in errors["draws"]
    assert "the same lr." in errors["lr"]
    assert "the same y and weights, images." in errors["rows"]
    assert "the same images." in errors["other images"]
    assert "the same images." in errors["names"]
    assert "the target y is None" in errors["no y"]
    assert "in their main threads" in errors["threads"]
    assert_equal(one, other)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_other(tmp_path):
    began = time.monotonic()
    done = start("killed", tmp_path, TORCHRUN)
    assert done.returncode != 0
    assert time.monotonic() - began < 90  # of which 30 are for the end
    assert not list(tmp_path.glob("*.pickle"))


@pytest.mark.slow
def test_alone_nothing_of_it_is_imported():
    code = (
        "import sys; import sklearn_dl.training._net; "
        "assert 'sklearn_dl.training._distributed' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
