"""Opens networks of timm, torchvision and Hugging Face by name, with weights from local files."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart.data.common.console import first_few
from headstart.data.common.errors import BackboneError, first_line
from headstart.data.storage.files import local_path
from headstart.export.networks.network import NO_WEIGHTS, Original, Weights, chosen_scaling
from headstart.export.networks.scaling import RULES, from_unit
from headstart.export.networks.torch.network import WHOLE, TorchNetwork
from headstart.export.networks.torch.stack import import_torch
from headstart.export.options import BackboneOptions

SEED = 0
CLASSIFIERS = ("fc", "classifier", "head", "heads", "last_linear", "head_drop", "head_dist")


def open_named(framework: str, name: str, options: BackboneOptions) -> Original:
    """Open `timm:NAME`, `torchvision:NAME` or `hf:FOLDER`.

    Raises
    ------
    BackboneError
        If there is no such network, or the weights are missing or do not fit.
    MissingPackageError
        If the extra `torch` is not installed.
    """
    if options.include_top:
        raise BackboneError(
            f"--include-top cannot be used with {framework}:{name}",
            "Name the last layer instead: --layer NAME (`python -m export layers` lists them).",
        )
    openers: dict[str, Callable[[str, BackboneOptions], Original]] = {
        "timm": _open_timm,
        "torchvision": _open_torchvision,
        "hf": _open_hugging_face,
    }
    return openers[framework](name, options)


def _open_timm(name: str, options: BackboneOptions) -> Original:
    torch, timm = import_torch("timm")
    base = name.split(".")[0]
    if base not in timm.list_models():
        raise _unknown("timm", base, timm.list_models())
    torch.manual_seed(SEED)
    pretrained = timm.models.get_pretrained_cfg(name) or timm.models.get_pretrained_cfg(base)
    _, height, width = pretrained.input_size
    size = (options.size, options.size) if options.size else (height, width)
    arguments: dict[str, Any] = {"num_classes": 0, "pretrained": False}
    try:
        try:
            module = timm.create_model(base, img_size=size, **arguments)
        except TypeError:  # convolutional networks take images of any size
            module = timm.create_model(base, **arguments)
    except Exception as error:  # timm's networks raise errors of many classes
        raise BackboneError(
            f"timm:{name} cannot be built at {size[0]}x{size[1]}: {error}", "Choose another --size."
        ) from error
    weights = _load(torch, module, f"timm:{name}", options)
    token = getattr(module, "global_pool", "") == "token"
    return TorchNetwork(
        module,
        base,
        size,
        chosen_scaling(options, from_unit(pretrained.mean, pretrained.std), name),
        weights,
        forward=module.forward_features,
        default_layers=(WHOLE,),
        default_pools=("token",) if token else ("avg",),
    )


def _open_torchvision(name: str, options: BackboneOptions) -> Original:
    torch, torchvision = import_torch("torchvision")
    known = [
        n
        for n in torchvision.models.list_models(module=torchvision.models)
        if not n.startswith("quantized_")
    ]
    if name not in known:
        raise _unknown("torchvision", name, known)
    torch.manual_seed(SEED)
    plain: dict[str, Any] = (
        {"init_weights": True} if "inception" in name or name == "googlenet" else {}
    )
    size = options.size or (299 if name == "inception_v3" else 224)
    if name.startswith("vit_"):
        plain["image_size"] = size
    module = torchvision.models.get_model(name, weights=None, **plain)
    weights = _load(torch, module, f"torchvision:{name}", options)
    scaling = chosen_scaling(options, RULES["torch"], name)
    # In most of them this module has everything before the classifier.
    layers = ("features",) if hasattr(module, "features") else ()
    return TorchNetwork(module, name, (size, size), scaling, weights, default_layers=layers)


def _open_hugging_face(name: str, options: BackboneOptions) -> Original:
    folder = local_path(name)
    if not (folder / "config.json").is_file():
        raise BackboneError(
            f"hf:{name} is not a folder with a config.json, and nothing is downloaded",
            "Download the checkpoint (config.json, preprocessor_config.json, model.safetensors) "
            "and name its folder.",
        )
    torch, transformers = import_torch("transformers")
    transformers.utils.logging.disable_progress_bar()
    config = _json(folder / "config.json")
    if "auto_map" in config and not options.trust:
        raise BackboneError(
            f"hf:{name} contains Python code of its own ({', '.join(config['auto_map'])})",
            "Choose a checkpoint of an architecture that transformers itself has.",
        )
    files = sorted(folder.glob("*.safetensors"))
    random = options.weights == "none"
    try:
        settings = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        size = _size(settings, options)
        if random:
            torch.manual_seed(SEED)
            module, lacking = transformers.AutoModel.from_config(settings), []
        else:
            if not files:
                raise BackboneError(
                    f"hf:{name} has no weights in safetensors (pickled ones are not read)",
                    "Download model.safetensors into it, or convert pytorch_model.bin.",
                )
            module, about = transformers.AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                dtype=torch.float32,
            )
            # A pooler is not part of the features, and classification checkpoints have none.
            lacking = sorted(key for key in about["missing_keys"] if "pooler" not in key)
    except BackboneError:
        raise
    except Exception as error:  # transformers raises errors of many classes for a damaged one
        raise BackboneError(
            f"hf:{name} cannot be loaded: {first_line(error)}",
            "Download the checkpoint again, or choose one that transformers supports.",
        ) from error
    if lacking:
        raise _wrong_weights(f"hf:{name}", [f"{key} is missing" for key in lacking])
    scaling = chosen_scaling(options, _processor_scaling(folder), f"hf:{name}")
    weights = NO_WEIGHTS if random else Weights.of_file(files[0])
    vision = getattr(module, "vision_model", module)
    tokens = "vit" in settings.model_type or "dino" in settings.model_type
    return TorchNetwork(
        vision,
        folder.name,
        (size, size),
        scaling,
        weights,
        forward=lambda pixels: vision(pixel_values=pixels),
        default_layers=(WHOLE,),
        default_pools=("token",) if tokens or vision is not module else ("avg",),
    )


def _size(settings: Any, options: BackboneOptions) -> int:
    vision = getattr(settings, "vision_config", settings)
    size = options.size or getattr(vision, "image_size", None) or 224
    return int(size[0] if isinstance(size, (list, tuple)) else size)


def _processor_scaling(folder: Path) -> Any:
    """The scaling of `preprocessor_config.json`, if there is one."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return None
    about = _json(path)
    if not about.get("do_rescale", True):
        return None
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if about.get("do_normalize", True) and "image_mean" in about:
        mean, std = tuple(about["image_mean"]), tuple(about["image_std"])
    return from_unit(mean, std)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise BackboneError(f"{path} is damaged: {error}", "Download it again.") from error


def _load(torch: Any, module: Any, what: str, options: BackboneOptions) -> Weights:
    """Load all weights from a file: safetensors, or PyTorch's without pickled code."""
    file = options.weights_file
    if file is None:
        if options.weights == "none":
            return NO_WEIGHTS
        raise BackboneError(
            f"the weights of {what} are not on this machine, and nothing is downloaded",
            "Download them elsewhere and pass --weights FILE (.safetensors or .pth).",
        )
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, truncated, or with other objects than tensors
        why = first_line(error)
        raise BackboneError(
            f"{file} cannot be read as weights: {why}",
            "Give a state dict: torch.save(model.state_dict(), FILE), or safetensors. Anything "
            "else in it could run code and is not loaded.",
        ) from error
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, dict) else state
    wanted = module.state_dict()
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    problems = [f"{name} is missing" for name in wanted if name not in state]
    problems += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    problems += [
        f"{name} is not in the network"
        for name in sorted(set(state) - set(wanted))
        if name.split(".")[0] not in CLASSIFIERS
    ]
    if problems:
        raise _wrong_weights(f"{file}", problems, what)
    module.load_state_dict({name: state[name] for name in wanted})
    return Weights.of_file(file)


def _wrong_weights(file: str, problems: list[str], what: str = "its network") -> BackboneError:
    shown = first_few(problems, separator="; ")
    return BackboneError(
        f"{file} does not contain the weights of {what}: {shown}",
        "Give the weights of exactly this network, or another network's name.",
    )


def _unknown(framework: str, name: str, known: list[str]) -> BackboneError:
    near = difflib.get_close_matches(name, known, 3, 0.5)
    return BackboneError(
        f"{framework} has no network {name!r}",
        f"Did you mean {' or '.join(near)}?" if near else f"{framework} has {len(known)} of them.",
    )
