"""A network, optimized."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from placement_support import Twice

from burnish.compiler import driver


@pytest.fixture(scope="module")
def optimized() -> Any:
    torch.manual_seed(0)
    return driver.optimize(driver.import_model(Twice().eval(), (torch.randn(1, 3, 8, 32),)), "cpu")
