"""Where and how computation runs: device, precision, threads, memory, seeds."""

from sklearn_dl._runtime._allocator import keep_large_blocks, release_memory
from sklearn_dl._runtime._device import (
    PRECISIONS,
    Execution,
    decoding_threads,
    resolve_device,
    resolve_precision,
)
from sklearn_dl._runtime._fingerprint import fingerprint_text, package_versions
from sklearn_dl._runtime._memory import (
    fitting_batch_size,
    free_cached_blocks,
    is_out_of_memory,
    machine_bytes,
)
from sklearn_dl._runtime._random import draw_seed, keyed_generator, reseed, seeded

__all__ = [
    "PRECISIONS",
    "Execution",
    "decoding_threads",
    "draw_seed",
    "fingerprint_text",
    "fitting_batch_size",
    "free_cached_blocks",
    "is_out_of_memory",
    "keep_large_blocks",
    "keyed_generator",
    "machine_bytes",
    "package_versions",
    "release_memory",
    "reseed",
    "resolve_device",
    "resolve_precision",
    "seeded",
]
