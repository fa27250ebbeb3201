"""The one model that every path of deployment is tried on."""

import pytest
from torch import nn


@pytest.fixture
def model() -> nn.Sequential:
    """A ResNet-18 with a head on it, in evaluation."""
    pytest.importorskip("torchvision")
    from deploying import whole_model

    return whole_model()
