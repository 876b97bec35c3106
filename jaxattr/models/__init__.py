"""Build networks in Flax linen whose attributions have derivatives: softplus, and smooth pooling."""

from jaxattr.models.adapters import apply_fn as apply_fn
from jaxattr.models.adapters import init as init
from jaxattr.models.adapters import logits_fn as logits_fn
from jaxattr.models.conv_net import ConvNet as ConvNet
from jaxattr.models.convolutions import convolution as convolution
from jaxattr.models.convolutions import depthwise_convolution as depthwise_convolution
from jaxattr.models.efficientnet_lite import EfficientNetLite0 as EfficientNetLite0
from jaxattr.models.efficientnet_lite import efficientnet_lite0_variables as efficientnet_lite0_variables
from jaxattr.models.layers import POOLINGS as POOLINGS
from jaxattr.models.layers import Classifier as Classifier
from jaxattr.models.layers import Pooling as Pooling
from jaxattr.models.layers import normalize as normalize
from jaxattr.models.layers import pool as pool
from jaxattr.models.layers import softplus as softplus
from jaxattr.models.mlp import MLP as MLP
from jaxattr.models.resnet import ResNet18 as ResNet18
from jaxattr.models.small_cnn import SmallCNN as SmallCNN
from jaxattr.models.torch_weights import read_state_dict as read_state_dict

REGISTRY = {
    "conv_net": ConvNet,
    "efficientnet_lite0": EfficientNetLite0,
    "mlp": MLP,
    "resnet18": ResNet18,
    "small_cnn": SmallCNN,
}
"""Constructors by name, for scripts and tables of tests."""
