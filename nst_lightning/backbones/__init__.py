"""The frozen networks whose features the losses compare: specs, weights, the network, and what its layers see."""

from nst_lightning.backbones.network import OXFORD, SPECS, Backbone, Origin, Spec, spec_of
from nst_lightning.backbones.surgery import Pooling

__all__ = ["OXFORD", "SPECS", "Backbone", "Origin", "Pooling", "Spec", "spec_of"]
