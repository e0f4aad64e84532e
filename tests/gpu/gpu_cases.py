"""What all tests of this folder need."""

import os

import pytest
import torch

NEEDS_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.threads(os.cpu_count()),  # a GPU is fed by all cores
]
