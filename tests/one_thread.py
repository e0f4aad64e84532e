"""A fixture for tests of small images: import it, and it is used."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Leave the other cores alone: threads gain nothing on small images."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
