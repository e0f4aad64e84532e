"""Pretrained networks behind one contract: images in, features out.

:func:`list_backbones` shows what there is, :func:`load_backbone` gives a
:class:`Backbone`: the network without its last layer, its ordered stages (for freezing)
and the :class:`Preprocessing` its weights were trained with.
"""

from sklearn_dl.backbones._backbone import Backbone
from sklearn_dl.backbones._backbone import digest_architecture as digest_architecture
from sklearn_dl.backbones._backbone import digest_weights as digest_weights
from sklearn_dl.backbones._backbone import handed_out as handed_out
from sklearn_dl.backbones._backbone import images_seen as images_seen
from sklearn_dl.backbones._backbone import indexed as indexed
from sklearn_dl.backbones._backbone import is_known as is_known
from sklearn_dl.backbones._backbone import named_tensors as named_tensors
from sklearn_dl.backbones._backbone import place as place
from sklearn_dl.backbones._cut import find_head as find_head
from sklearn_dl.backbones._cut import find_layers
from sklearn_dl.backbones._cut import further_kernels as further_kernels
from sklearn_dl.backbones._load import assemble_torchvision as assemble_torchvision
from sklearn_dl.backbones._load import input_size as input_size
from sklearn_dl.backbones._load import load_backbone
from sklearn_dl.backbones._load import share as share
from sklearn_dl.backbones._load import shared_backbone as shared_backbone
from sklearn_dl.backbones._preprocessing import CallablePreprocessing, Preprocessing
from sklearn_dl.backbones._preprocessing import blank_image as blank_image
from sklearn_dl.backbones._preprocessing import resize_strip as resize_strip
from sklearn_dl.backbones._zoo import backbone_names as backbone_names
from sklearn_dl.backbones._zoo import build as build
from sklearn_dl.backbones._zoo import list_backbones
from sklearn_dl.backbones._zoo import resolve_backbone as resolve_backbone

__all__ = [
    "Backbone",
    "CallablePreprocessing",
    "Preprocessing",
    "find_layers",
    "list_backbones",
    "load_backbone",
]
