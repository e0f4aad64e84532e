import os
import signal
import subprocess
import sys

import processes
import pytest


@pytest.fixture
def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def start(environment, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "sklearn_dl", *map(str, arguments)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Background jobs of a shell ignore Ctrl-C, and their children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **options,
    )


def run_code(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True)


HEAVY = "{'torch', 'torchvision', 'sklearn', 'numpy', 'pandas', 'PIL', 'skorch'}"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"]])
def test_help_and_version_load_nothing_heavy(arguments):
    result = run_code(
        "import atexit, sys\n"
        f"atexit.register(lambda: sys.stderr.write(str(set(sys.modules) & {HEAVY})))\n"
        "from sklearn_dl.__main__ import main\n"
        f"main({arguments!r})"
    )
    assert result.returncode == 0
    assert result.stderr == "set()"
    expected = "sklearn_dl 0." if arguments == ["--version"] else "usage:"
    assert result.stdout.startswith(expected)


def test_help_has_an_example_and_the_exit_codes(capsys):
    from sklearn_dl.__main__ import main

    for arguments in (["--help"], *([c, "--help"] for c in COMMANDS)):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        text = capsys.readouterr().out
        assert "    python -m sklearn_dl " in text
        assert all(len(line) <= 88 for line in text.splitlines())
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "130  interrupted by Ctrl-C" in capsys.readouterr().out


COMMANDS = ("train", "predict", "export", "info", "features", "report")


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train"], ["info", "m", "--nø"]])
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, capsys):
    from sklearn_dl.__main__ import main

    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(" --help)\n")
    assert err.count("\n") == 1


def test_an_exported_graph_needs_no_torch(graph, folder):
    result = run_code(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'skorch', 'onnx'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from sklearn_dl.__main__ import main\n"
        f"raise SystemExit(main(['predict', {str(graph)!r}, {str(folder)!r}])\n"
        f"    or main(['info', {str(graph)!r}]))"
    )
    assert result.stderr == ""
    assert result.returncode == 0
    assert result.stdout.count(",dark,") + result.stdout.count(",light,") == 12


def test_rows_come_as_paths_do_and_a_reader_may_leave(graph, folder, environment):
    process = start(environment, "predict", graph, "-", "--batch-size", "1")
    paths = f"{folder}/dark/0.png\n".encode() * 4
    process.stdin.write(paths)
    process.stdin.flush()
    assert process.stdout.readline().startswith(b"path,prediction,")
    assert process.stdout.readline().startswith(str(folder).encode())
    process.stdout.close()
    for _ in range(8):
        try:
            process.stdin.write(paths)
            process.stdin.flush()
        except BrokenPipeError:
            break
    process.stdin.close()
    assert process.wait(30) == 0
    assert process.stderr.read() == b""


def test_an_interrupted_prediction_leaves_the_file_that_was_there(
    graph, folder, tmp_path, environment
):
    output = tmp_path / "rows.csv"
    output.write_text("before")
    process = start(environment, "predict", graph, "-", "--output", output)
    process.stdin.write(f"{folder}/dark/0.png\n".encode() * 200)
    process.stdin.flush()
    while len(os.listdir(tmp_path)) < 2:  # it has begun to write
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert process.stderr.read() == b"python -m sklearn_dl: interrupted\n"
    assert process.stdout.read() == b""
    assert os.listdir(tmp_path) == ["rows.csv"]
    assert output.read_text() == "before"


def test_an_interrupted_training_saves_nothing(folder, tmp_path, environment):
    out = tmp_path / "m"
    out.write_text("before")
    process = processes.start(
        "import sys\n"
        "from sklearn_dl.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))",
        *("train", folder, "--backbone", "squeezenet1_1", "--set", "weights=None"),
        *("--set", "image_size=32", "--epochs", "100000", "--out", out),
    )
    assert process.stderr.readline().startswith(b"epoch 1 of 100000: train_loss")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert b"interrupted; nothing was saved" in process.stderr.read()
    assert os.listdir(tmp_path) == ["m"]
    assert out.read_text() == "before"


def test_what_is_being_done_outlives_its_reader(tmp_path, monkeypatch):
    from sklearn_dl._commands._terminal import say

    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        say("one")  # would raise BrokenPipeError
        say("two")
        assert os.fstat(writing).st_rdev == os.stat(os.devnull).st_rdev
