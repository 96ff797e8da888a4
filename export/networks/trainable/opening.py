"""Opens the network that the user named, to be trained."""

from __future__ import annotations

from headstart.data.common.errors import BackboneError
from headstart.data.contracts.tuned import TUNED
from headstart.data.storage.files import local_path
from headstart.export.networks.catalogue import APPLICATIONS, LITE
from headstart.export.networks.resolve import FRAMEWORKS, application_name, plain_name
from headstart.export.networks.torch.network import TorchNetwork
from headstart.export.networks.trainable.trainable import Trainable
from headstart.export.networks.tuned import tuned_options, tuned_reference
from headstart.export.options import BackboneOptions

CAN_BE_TRAINED = (
    "EfficientNet-Lite (efficientnet_lite0, efficientnet_lite1, efficientnet_lite2), timm:NAME, "
    "torchvision:NAME, hf:FOLDER, the networks of keras.applications (`python -m export list`), "
    ".keras files, and small_cnn, which has no weights yet"
)
KERAS_FILE, SMALL = ".keras", "small_cnn"


def open_trainable(reference: str, options: BackboneOptions) -> Trainable:
    """Open a network as PyTorch trains it.

    Raises
    ------
    BackboneError
        If there is no such network, or it is one that cannot be trained.
    MissingPackageError
        If the framework it needs is not installed.
    """
    options.check()
    path = local_path(reference)
    if (path / TUNED).is_file():
        tuned, options = tuned_options(path, options)
        reference, options = tuned_reference(tuned, options)
    framework, _, rest = reference.partition(":")
    if framework in FRAMEWORKS and rest:
        from headstart.export.networks.torch.zoo import open_named
        from headstart.export.networks.trainable.torch_network import TrainableTorch

        network = open_named(framework, rest, options)
        if not isinstance(network, TorchNetwork):
            raise TypeError(f"{reference} is not a network of PyTorch")
        return TrainableTorch(network)
    lite = plain_name(reference)
    if lite in LITE:
        from headstart.export.networks.trainable.lite import open_trainable_lite

        return open_trainable_lite(lite, options)
    if application_name(reference) in APPLICATIONS:
        from headstart.export.networks.trainable.keras_network import open_trainable_application

        return open_trainable_application(application_name(reference), options)
    if lite == SMALL:
        from headstart.export.networks.trainable.keras_network import open_small_cnn

        return open_small_cnn(options)
    if path.suffix.lower() == KERAS_FILE and path.exists():
        from headstart.export.networks.trainable.keras_network import open_trainable_file

        return open_trainable_file(path, options)
    raise BackboneError(f"{reference} cannot be trained", f"Networks that can: {CAN_BE_TRAINED}.")
