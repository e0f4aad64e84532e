"""Pretrained networks behind one contract: images in, features out.

:func:`list_backbones` shows what there is, :func:`load_backbone` gives a
:class:`Backbone`: the network without its last layer, its ordered stages (for freezing)
and the :class:`Preprocessing` its weights were trained with. :func:`load_shared` gives
the same frozen, with tensors that are in the process only once.
"""

from sklearn_dl.backbones._assemble import assemble_torchvision as assemble_torchvision
from sklearn_dl.backbones._assemble import input_size as input_size
from sklearn_dl.backbones._backbone import Backbone, images_seen
from sklearn_dl.backbones._folding import predicting
from sklearn_dl.backbones._identity import digest_architecture as digest_architecture
from sklearn_dl.backbones._identity import digest_weights as digest_weights
from sklearn_dl.backbones._load import load_backbone
from sklearn_dl.backbones._preprocessing import CallablePreprocessing, Preprocessing
from sklearn_dl.backbones._shared import (
    SharedCopies,
    forget_shared,
    load_shared,
    place,
)
from sklearn_dl.backbones._surgery import find_head as find_head
from sklearn_dl.backbones._surgery import find_layers
from sklearn_dl.backbones._walk import named_parameters, named_tensors, walk
from sklearn_dl.backbones._zoo import backbone_names as backbone_names
from sklearn_dl.backbones._zoo import build as build
from sklearn_dl.backbones._zoo import list_backbones

__all__ = [
    "Backbone",
    "CallablePreprocessing",
    "Preprocessing",
    "SharedCopies",
    "find_layers",
    "forget_shared",
    "images_seen",
    "list_backbones",
    "load_backbone",
    "load_shared",
    "named_parameters",
    "named_tensors",
    "place",
    "predicting",
    "walk",
]
