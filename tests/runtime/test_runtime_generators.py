"""Torch's generators belong to the process: who seeds them has them alone."""

import os
import signal
import threading

import processes
import pytest
import torch

from sklearn_dl import _runtime as runtime

PATIENCE = 60


def draws(seed, between=lambda: None):
    """Return what a seeded block draws, with something done after each draw."""
    with runtime.seeded(seed):
        found = []
        for _ in range(20):
            found.append(torch.rand(3))
            between()
    return torch.stack(found)


def in_threads(*functions):
    """Return what functions return that run at once, each in a thread."""
    results = [None] * len(functions)
    barrier = threading.Barrier(len(functions))

    def call(k):
        barrier.wait(PATIENCE)
        results[k] = functions[k]()

    threads = [
        threading.Thread(target=call, args=(k,), daemon=True)
        for k in range(len(functions))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    return results


def forked(function):
    """Return 0 if a function is true in the child of a fork."""
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        os._exit(not function())
    return os.waitpid(child, 0)[1]


def meanwhile():
    with runtime.others_meanwhile():
        pass


@pytest.mark.parametrize("between", [lambda: None, meanwhile, runtime.give_way])
def test_seeded_blocks_of_threads_draw_what_each_draws_alone(monkeypatch, between):
    monkeypatch.setattr(runtime._random, "_TURN", 0.0)
    expected = [draws(seed) for seed in range(4)]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    functions = [lambda seed=seed: draws(seed, between) for seed in range(4)]
    for found, alone in zip(in_threads(*functions), expected, strict=True):
        assert torch.equal(found, alone)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_thread_that_gives_way_lets_the_one_that_waits_go_first(monkeypatch):
    monkeypatch.setattr(runtime._random, "_TURN", 0.0)
    asked, order = threading.Event(), []

    def second():
        asked.set()
        with runtime.seeded(1):
            order.append("second")

    thread = threading.Thread(target=second, daemon=True)
    with runtime.seeded(0):
        thread.start()
        assert asked.wait(PATIENCE)
        while not order and thread.is_alive():
            runtime.give_way()
        order.append("first")
    thread.join(PATIENCE)
    assert order == ["second", "first"]


def test_a_block_within_a_block_is_put_back_to_the_one_around_it():
    with runtime.seeded(0):
        expected = torch.rand(2)
    with runtime.seeded(0):
        with runtime.seeded(1), runtime.others_meanwhile():
            with runtime.seeded(2):
                torch.rand(5)
        with runtime.own_generators():
            torch.rand(5)
        assert torch.equal(torch.rand(2), expected)


def test_generators_that_are_not_put_back_move_on():
    torch.manual_seed(0)
    expected = torch.rand(2), torch.rand(2)
    torch.manual_seed(0)
    with runtime.own_generators(put_back=False):
        assert torch.equal(torch.rand(2), expected[0])
    assert torch.equal(torch.rand(2), expected[1])


def test_an_error_while_others_have_the_generators_leaves_them_to_the_block():
    with runtime.seeded(0):
        expected = torch.rand(2)
    with runtime.seeded(0):
        with pytest.raises(KeyError), runtime.others_meanwhile():
            raise KeyError
        assert torch.equal(torch.rand(2), expected)
    assert in_threads(lambda: draws(0).shape) == [(20, 3)]


CTRL_C = """
import os, signal, threading, time, torch
from sklearn_dl._runtime import seeded

inside, leave = threading.Event(), threading.Event()

def hold():
    with seeded(0):
        inside.set()
        leave.wait(60)

holder = threading.Thread(target=hold)
holder.start()
inside.wait(60)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    with seeded(1):
        print("not reached")
except KeyboardInterrupt:
    leave.set()
    holder.join()
    with seeded(2):
        print("interrupted, then its turn")
"""


@pytest.mark.skipif(not processes.HAS_FORK, reason="os.kill ends the process there")
def test_ctrl_c_ends_the_wait_for_the_generators():
    output = processes.run(CTRL_C).stdout
    assert output.strip() == "interrupted, then its turn"


@pytest.mark.skipif(not processes.HAS_FORK, reason="there is no fork here")
def test_a_child_of_a_fork_finds_the_generators_free():
    stop, inside = threading.Event(), threading.Event()

    def train():
        with runtime.seeded(0):
            while not stop.is_set():
                torch.rand(10_000)
                inside.set()
                runtime.give_way()

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    assert inside.wait(PATIENCE)
    expected = draws(5)
    try:
        for _ in range(5):
            assert forked(lambda: torch.equal(draws(5), expected)) == 0
    finally:
        stop.set()
        thread.join(PATIENCE)
    with runtime.seeded(1):  # one that forks within a block has it in the child too
        assert forked(lambda: torch.equal(draws(5), expected)) == 0
