"""Where the tests of this folder run: on a GPU where there is one (``pytest -m gpu``), else on the CPU, to rehearse."""

from __future__ import annotations

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
cuda_only = pytest.mark.skipif(DEVICE.type != "cuda", reason="no GPU")
