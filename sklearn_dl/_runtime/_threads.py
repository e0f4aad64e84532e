"""How many threads a piece of work may take."""

import torch


def decoding_threads() -> int:
    """Return the number of threads that decode images.

    It is torch's own number of threads, which follows ``OMP_NUM_THREADS``, the
    share that joblib gives to each of its workers, and `torch.set_num_threads`.
    """
    return max(1, torch.get_num_threads())
