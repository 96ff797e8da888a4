"""Networks as they are trained: their blocks, cuts between them, folded normalization, weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.classify.finetune.training.optimization import choose_parameters, first_block_of
from headstart.data.common.errors import BackboneError
from headstart.data.common.onnx_runtime import open_session
from headstart.export.networks.resolve import open_original
from headstart.export.networks.trainable.opening import open_trainable
from headstart.export.networks.trainable.torch_network import TrainableTorch
from headstart.export.options import BackboneOptions

RANDOM = BackboneOptions(weights="none", size=64)
# One of each way in which networks are built: chains, residual blocks, tokens, dense connections.
NETWORKS = {
    "timm:test_efficientnet": 5,
    "timm:test_vit": 7,
    "torchvision:resnet18": 9,
    "torchvision:mobilenet_v2": 19,
    "torchvision:vgg11": 8,
}


@pytest.fixture(scope="module")
def lite() -> TrainableTorch:
    return open_trainable("efficientnet_lite0", BackboneOptions(size=64))  # type: ignore[return-value]


@pytest.mark.parametrize("name", NETWORKS)
def test_what_follows_a_cut_needs_nothing_else(name: str) -> None:
    import torch

    size = 160 if name.endswith("vit") else 64
    network = open_trainable(name, BackboneOptions(weights="none", size=size))
    assert len(network.blocks) >= NETWORKS[name]
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = network.module(pixels)
        assert whole.shape == (2, network.dim)
        network.prepare()  # folds normalization into convolutions
        assert torch.allclose(network.module(pixels), whole, rtol=1e-4, atol=1e-5)
        for cut in range(1, len(network.blocks) + 1):
            values = network.front(pixels, cut)
            assert torch.allclose(network.module(values, cut), whole, rtol=1e-4, atol=1e-5), cut


def test_folded_gradients_are_those_of_the_layers_apart() -> None:
    import torch

    pixels = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    gradients = []
    for folded in (False, True):
        network = open_trainable("torchvision:resnet18", RANDOM)
        if folded:
            network.prepare()
        network.module(pixels).square().sum().backward()
        gradients.append([p.grad for block in network.blocks for p in block.parameters])
    for plain, other in zip(*gradients, strict=True):
        assert torch.allclose(plain, other, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


def test_the_front_in_onnx_gives_what_pytorch_gives(lite: TrainableTorch) -> None:
    import torch

    pixels = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    session = open_session(lite.front_to_onnx(11), threads=1)
    (found,) = session.run(None, {session.get_inputs()[0].name: pixels})
    with torch.no_grad():
        own = lite.front(torch.from_numpy(pixels), 11).numpy()
    assert np.abs(found - own).max() <= 1e-4 * np.abs(own).max()


def test_efficientnet_lite_is_the_network_that_is_exported(lite: TrainableTorch) -> None:
    import torch

    original = open_original("efficientnet_lite0", BackboneOptions(size=64))
    pixels = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    (own,) = original.run(pixels, ["head"])
    with torch.no_grad():
        features = lite.module(torch.from_numpy(pixels.transpose(0, 3, 1, 2)).contiguous())
    assert np.abs(features.numpy() - own.mean((2, 3))).max() <= 1e-4 * np.abs(own).max()


def test_what_was_trained_is_what_is_exported(lite: TrainableTorch, tmp_path: Path) -> None:
    import torch

    with torch.no_grad():
        network = open_trainable("efficientnet_lite0", BackboneOptions(size=64))
        for parameter in network.blocks[-1].parameters:
            parameter.mul_(1.5)
        file = network.save(tmp_path)
        pixels = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
        tuned = network.module(torch.from_numpy(pixels.transpose(0, 3, 1, 2)).contiguous())
    options = BackboneOptions(weights=str(tmp_path / file), size=64)
    (own,) = open_original("efficientnet_lite0", options).run(pixels, ["head"])
    assert np.abs(tuned.numpy() - own.mean((2, 3))).max() <= 1e-4 * np.abs(own).max()
    again = open_trainable("efficientnet_lite0", options)
    assert torch.equal(again.blocks[-1].parameters[0], network.blocks[-1].parameters[0])


def test_exactly_the_chosen_parameters_have_gradients() -> None:
    import torch

    network = open_trainable("torchvision:resnet18", RANDOM)
    every = {id(p) for block in network.blocks for p in block.parameters}
    for first in (0, 5, len(network.blocks)):
        choose_parameters(network, first, None)
        wanted = {id(p) for block in network.blocks[first:] for p in block.parameters}
        moved = {id(p) for block in network.blocks for p in block.parameters if p.requires_grad}
        assert moved == wanted <= every
    first = first_block_of(network, 3)  # the last block has two convolutions
    assert network.blocks[first].name == "layer4.0"
    chosen = choose_parameters(network, first, 3)
    kernels = [p for block in chosen for p in block if p.ndim == 4]
    assert [tuple(p.shape) for p in kernels[-2:]] == [(512, 512, 3, 3)] * 2
    assert len(kernels) == 3
    assert first_block_of(network, 0) == len(network.blocks)
    assert isinstance(network.blocks[0].parameters[0], torch.nn.Parameter)


def test_a_backbone_file_cannot_be_trained(tmp_path: Path) -> None:
    (tmp_path / "b.onnx").write_bytes(b"")
    with pytest.raises(BackboneError) as caught:
        open_trainable(str(tmp_path / "b.onnx"), BackboneOptions())
    assert str(caught.value) == (
        f"{tmp_path / 'b.onnx'} cannot be trained\n  Networks that can: EfficientNet-Lite "
        "(efficientnet_lite0, efficientnet_lite1, efficientnet_lite2), timm:NAME, "
        "torchvision:NAME, hf:FOLDER, the networks of keras.applications (`python -m export list`)"
        ", .keras files, and small_cnn, which has no weights yet."
    )
