"""Seeds that leave the caller's generators as they were, one thread at a time."""

import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state

# Seconds that a fit has the generators to itself while others wait for them.
_TURN = 0.05
# Seconds that a fork waits for its turn.
_FORK = 30.0


def draw_seed(random_state) -> int:
    """Draw one seed from a scikit-learn `random_state`."""
    return int(check_random_state(random_state).randint(2**31 - 1))


class _Turns:
    """Whose turn it is with torch's generators, which belong to the process.

    Threads come in the order in which they asked. Whoever takes another lock too, takes
    it after this one. A fork has its turn as well: while a thread draws, a generator is
    locked, and it would stay so in the child.
    """

    def __init__(self) -> None:
        self.holder: int | None = None  # a thread
        self.since = 0.0
        self.before: list[tuple] = []  # the generators as they were before its turn
        self.forking: int | None = None  # a thread that took its turn for that
        self.begin()

    def begin(self) -> None:
        self.changed = threading.Condition()
        self.waiting: deque[object] = deque()

    def before_fork(self) -> None:
        # Not for ever: the one who has them may wait for a lock of the one who forks.
        if not self.mine and self.take(timeout=_FORK, first=True):
            self.forking = self.holder

    def after_fork(self) -> None:
        if self.forking == threading.get_ident():
            self.forking = None
            self.give()

    def after_fork_in_child(self) -> None:
        self.begin()
        if not self.mine:  # it is another thread's, which isn't here
            self.holder = None
        self.after_fork()
        self.forking = None

    @property
    def mine(self) -> bool:
        return self.holder == threading.get_ident()

    def take(self, timeout: float | None = None, first: bool = False) -> bool:
        """Wait for the generators; tell whether it is this thread's turn."""
        place = object()

        def is_next() -> bool:
            return self.holder is None and self.waiting[0] is place

        with self.changed:
            self.waiting.insert(0 if first else len(self.waiting), place)
            try:
                if not self.changed.wait_for(is_next, timeout):
                    return False
                self.holder, self.since = threading.get_ident(), time.monotonic()
                self.before = _states()
            finally:
                self.waiting.remove(place)
                self.changed.notify_all()
        return True

    def give(self) -> None:
        with self.changed:
            self.holder = None
            self.changed.notify_all()


_TURNS = _Turns()


def hold_generators_at_forks() -> None:
    """Register what a fork does; of such hooks the last that came go first."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_TURNS.before_fork,
            after_in_parent=_TURNS.after_fork,
            after_in_child=_TURNS.after_fork_in_child,
        )


hold_generators_at_forks()


@contextmanager
def own_generators(*, put_back: bool = True) -> Iterator[None]:
    """Have torch's generators to oneself for a block, and put them back after it.

    Dropout and initial weights draw from generators that belong to the process: with
    two threads in such blocks at once, neither would draw the same again. The other
    waits. Without `put_back` the caller's generators move on.
    """
    if _TURNS.mine:
        before = _states() if put_back else []
        try:
            yield
        finally:
            if _TURNS.mine:
                _restore(before)
        return
    try:
        _TURNS.take()
        yield
    finally:
        if _TURNS.mine:  # unless Ctrl-C came while it waited
            _restore(_TURNS.before if put_back else [])
            _TURNS.give()


@contextmanager
def others_meanwhile() -> Iterator[None]:
    """Let other threads have torch's generators during a block that draws nothing."""
    if not _TURNS.mine:
        yield
        return
    own = _states()
    _restore(_TURNS.before)
    _TURNS.give()
    try:
        yield
    finally:
        _TURNS.take()
        _restore(own)


def give_way() -> None:
    """Let the threads that wait for torch's generators go first, if it's their turn."""
    if _TURNS.waiting and _TURNS.mine and time.monotonic() > _TURNS.since + _TURN:
        with others_meanwhile():
            pass


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's generators for a block, as `own_generators` has them."""
    if device is not None and device.type == "cuda":
        torch.cuda.init()
    with own_generators():
        reseed(seed, device)
        yield


def reseed(seed: int, device: torch.device | None = None) -> None:
    """Seed torch's generator of the CPU, and that of the device."""
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


def _states() -> list[tuple[torch.Generator, torch.Tensor]]:
    """Return torch's generators, with their states."""
    others = *torch.cuda.default_generators, *torch.xpu.default_generators
    every: tuple[torch.Generator, ...] = (torch.default_generator, *others)
    return [(generator, generator.get_state()) for generator in every]


def _restore(states: list[tuple[torch.Generator, torch.Tensor]]) -> None:
    for generator, state in states:
        generator.set_state(state)


def keyed_generator(*key: int) -> np.random.Generator:
    """Return a generator that depends on the key alone."""
    return np.random.default_rng(key)
