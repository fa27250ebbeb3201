"""Where Triton's kernels can run."""

import pytest
import torch

from devices import OF_KERNELS
from fdrl_layers.ops import backend


@pytest.fixture(autouse=True)
def _a_gpu_that_knows_the_kernels(request: pytest.FixtureRequest) -> None:
    # It is of the folder's name, or of the form's among the test's parameters.
    if request.node.get_closest_marker("cuda") and "triton" in request.node.nodeid:
        obstacle = backend._obstacle_on(torch.device(OF_KERNELS))
        if obstacle is not None:
            pytest.skip(obstacle)
