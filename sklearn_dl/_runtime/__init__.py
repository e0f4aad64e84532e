"""Where and how computation runs: device, precision, threads, memory, seeds."""

from sklearn_dl._runtime._allocator import free_cached_blocks as free_cached_blocks
from sklearn_dl._runtime._allocator import keep_large_blocks as keep_large_blocks
from sklearn_dl._runtime._allocator import release_memory as release_memory
from sklearn_dl._runtime._device import PRECISIONS as PRECISIONS
from sklearn_dl._runtime._device import Execution as Execution
from sklearn_dl._runtime._device import decoding_threads as decoding_threads
from sklearn_dl._runtime._device import resolve_device as resolve_device
from sklearn_dl._runtime._device import resolve_devices as resolve_devices
from sklearn_dl._runtime._device import resolve_precision as resolve_precision
from sklearn_dl._runtime._fingerprint import fingerprint_text as fingerprint_text
from sklearn_dl._runtime._fingerprint import package_versions as package_versions
from sklearn_dl._runtime._memory import fitting_batch_size as fitting_batch_size
from sklearn_dl._runtime._memory import free_bytes as free_bytes
from sklearn_dl._runtime._memory import is_out_of_memory as is_out_of_memory
from sklearn_dl._runtime._memory import raise_no_room as raise_no_room
from sklearn_dl._runtime._random import draw_seed as draw_seed
from sklearn_dl._runtime._random import give_way as give_way
from sklearn_dl._runtime._random import (
    hold_generators_at_forks as hold_generators_at_forks,
)
from sklearn_dl._runtime._random import keyed_generator as keyed_generator
from sklearn_dl._runtime._random import others_meanwhile as others_meanwhile
from sklearn_dl._runtime._random import own_generators as own_generators
from sklearn_dl._runtime._random import reseed as reseed
from sklearn_dl._runtime._random import seeded as seeded
