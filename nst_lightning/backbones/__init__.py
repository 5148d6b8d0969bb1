"""The frozen networks whose features the losses compare: specs, weights, the network, and what its layers see."""

from nst_lightning.backbones.network import Backbone
from nst_lightning.backbones.specs import OXFORD, SPECS, Origin, Spec, spec_of
from nst_lightning.backbones.surgery import Border, Pooling

__all__ = ["OXFORD", "SPECS", "Backbone", "Border", "Origin", "Pooling", "Spec", "spec_of"]
