import os
import sys

import processes
import pytest
import torch

from sklearn_dl import _runtime as runtime


def test_auto_takes_the_cpu_where_there_is_nothing_else(monkeypatch):
    for backend in (torch.cuda, torch.xpu, torch.backends.mps):
        monkeypatch.setattr(backend, "is_available", lambda: False)
    assert runtime.resolve_device("auto") == torch.device("cpu")


def test_auto_prefers_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert runtime.resolve_device("auto").type == "cuda"
    assert runtime.resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ValueError, match="cuda:1' is not available"):
        runtime.resolve_device("cuda:1")


def test_a_device_that_is_not_there_is_an_error_or_a_fallback(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'cuda' is not available on this machine"):
        runtime.resolve_device("cuda")
    with pytest.warns(UserWarning, match="the CPU is used"):
        device = runtime.resolve_device("cuda", fall_back=True)
    assert device == torch.device("cpu")
    with pytest.raises(ValueError, match="'gpu' is not a device of torch"):
        runtime.resolve_device("gpu")


@pytest.mark.parametrize(
    ("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)]
)
def test_auto_precision_follows_the_hardware(monkeypatch, native, expected):
    capabilities = {"avx512_bf16": native}
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: capabilities, raising=False
    )
    assert runtime.resolve_precision("auto", torch.device("cpu")) == expected


def test_half_precision_computes_under_autocast():
    x = torch.ones(2, 3)
    for precision, module in [("bfloat16", "float32"), ("float32", "float32")]:
        execution = runtime.Execution.of("cpu", precision, 32)
        with execution.autocast():
            assert torch.nn.Linear(3, 1)(x).dtype == getattr(torch, precision)
        assert execution.module_dtype == getattr(torch, module)
    assert runtime.Execution.of("cpu", "float64", 32).module_dtype == torch.float64


def test_an_execution_is_what_the_parameters_stand_for(monkeypatch):
    execution = runtime.Execution.of("auto", "float32", "auto", 2)
    assert (execution.batch_size, execution.step_size, execution.verbose) == (
        "auto",
        32,
        2,
    )
    assert execution.requested_device == "auto"
    assert runtime.Execution.of("cpu", "float32", 7).step_size == 7
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="the CPU is used"):
        execution = runtime.Execution.of("cuda", "float32", 7, fall_back=True)
    assert execution.device == torch.device("cpu")
    assert execution.requested_device == "cuda"


def test_a_seeded_block_repeats_and_leaves_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with runtime.seeded(0):
        first = torch.rand(4)
    with runtime.seeded(0):
        assert torch.equal(first, torch.rand(4))
    with runtime.seeded(1):
        assert not torch.equal(first, torch.rand(4))
    assert torch.equal(torch.rand(4), expected)


def test_decoding_takes_as_many_threads_as_torch():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert runtime.decoding_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux")
@pytest.mark.parametrize(("setting", "kept"), [("", True), ("system", False)])
def test_the_allocator_setting_can_be_switched_off(setting, kept):
    code = "from sklearn_dl._runtime import keep_large_blocks as k; print(k())"
    env = os.environ | {"SKLEARN_DL_ALLOCATOR": setting}
    assert processes.run(code, env=env).stdout.strip() == str(kept)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux")
def test_an_argument_switches_the_allocator_for_this_process_and_its_children():
    code = (
        "import os; from sklearn_dl._runtime import keep_large_blocks as k\n"
        "print(k(), k(False), k(), k(None))\n"
        "print(os.environ['SKLEARN_DL_ALLOCATOR'])\n"
        "print(k(True), k())\n"
    )
    env = os.environ | {"SKLEARN_DL_ALLOCATOR": ""}
    for first in ("True", "False"):  # a parent; a child, which has its environment
        said = processes.run(code, env=env).stdout.splitlines()
        assert said == [f"{first} False False False", "system", "True True"]
        env["SKLEARN_DL_ALLOCATOR"] = said[1]


def test_all_takes_every_gpu_or_what_auto_takes(monkeypatch):
    for backend in (torch.cuda, torch.xpu, torch.backends.mps):
        monkeypatch.setattr(backend, "is_available", lambda: False)
    assert runtime.resolve_devices("all") == (torch.device("cpu"),)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    two = (torch.device("cuda:0"), torch.device("cuda:1"))
    assert runtime.resolve_devices("all") == two
    assert runtime.resolve_devices(["cuda:0", "cuda:1"]) == two
    with pytest.raises(ValueError, match="cuda:2' is not available"):
        runtime.resolve_devices(["cuda:0", "cuda:2"])
    with pytest.warns(UserWarning, match="cuda:2' is not available"):
        found = runtime.resolve_devices(["cuda:0", "cuda:2"], fall_back=True)
    assert found == two[:1]


@pytest.mark.parametrize("device", [["cpu", "cuda"], []])
def test_several_devices_are_of_one_kind(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="must name devices of one kind"):
        runtime.resolve_devices(device)


def test_gpus_that_are_gone_leave_one_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="the CPU is used"):
        found = runtime.resolve_devices(["cuda:0", "cuda:1"], fall_back=True)
    assert found == (torch.device("cpu"),)
