"""Where Triton's kernels can run."""

import pytest
import torch

from devices import OF_KERNELS
from fdrl_layers.ops import backend


@pytest.fixture(autouse=True)
def _a_gpu_that_knows_the_kernels(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("cuda"):
        obstacle = backend._obstacle_on(torch.device(OF_KERNELS))
        if obstacle is not None:
            pytest.skip(obstacle)
