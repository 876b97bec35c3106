"""Networks in Flax linen whose attributions have derivatives: softplus, and smooth pooling."""

from jaxattr.models.adapters import apply_fn as apply_fn
from jaxattr.models.adapters import init as init
from jaxattr.models.adapters import is_smooth as is_smooth
from jaxattr.models.adapters import logits_fn as logits_fn
from jaxattr.models.conv_net import ConvNet as ConvNet
from jaxattr.models.layers import POOLINGS as POOLINGS
from jaxattr.models.layers import Classifier as Classifier
from jaxattr.models.layers import Pooling as Pooling
from jaxattr.models.layers import convolution as convolution
from jaxattr.models.layers import normalize as normalize
from jaxattr.models.layers import pool as pool
from jaxattr.models.layers import softplus as softplus
from jaxattr.models.mlp import MLP as MLP
from jaxattr.models.resnet import ResNet18 as ResNet18
from jaxattr.models.small_cnn import SmallCNN as SmallCNN

REGISTRY = {"conv_net": ConvNet, "mlp": MLP, "resnet18": ResNet18, "small_cnn": SmallCNN}
"""Constructors by name, for scripts and tables of tests."""
