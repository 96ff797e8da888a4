"""Opens networks of timm, torchvision and Hugging Face by name, with weights from local files."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headstart.data.common.console import first_few
from headstart.data.common.errors import BackboneError, first_line
from headstart.data.storage.files import local_path
from headstart.export.networks.network import NO_WEIGHTS, Original, Weights, chosen_scaling
from headstart.export.networks.scaling import RULES, from_unit
from headstart.export.networks.torch.network import WHOLE, TorchNetwork
from headstart.export.networks.torch.recipe import STATE_IT, Seen, find_resize, find_scaling
from headstart.export.networks.torch.stack import import_torch
from headstart.export.options import BackboneOptions

SEED = 0
COUNT = ".num_batches_tracked"
AUXILIARY = ("AuxLogits", "aux1", "aux2")  # classifiers in the middle, for training
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
    scaling = from_unit(pretrained.mean, pretrained.std)
    about = timm.data.resolve_data_config(pretrained_cfg=pretrained.to_dict())
    about["input_size"] = (3, *size)
    seen = find_resize(
        timm.data.create_transform(**about), scaling, pretrained.interpolation, f"timm:{name}"
    )
    network = TorchNetwork(
        module,
        base,
        size,
        chosen_scaling(options, scaling, name),
        weights,
        forward=module.forward_features,
        default_layers=(WHOLE,),
        default_pools=("token",) if token else ("avg",),
    )
    return _as_seen(network, seen)


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
    network = TorchNetwork(module, name, (size, size), scaling, weights, default_layers=layers)
    own = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    kind = own.interpolation.value
    return _as_seen(network, find_resize(own, RULES["torch"], kind, f"torchvision:{name}"))


def _as_seen(network: TorchNetwork, seen: Seen) -> TorchNetwork:
    """A network that says how photographs are resized for it."""
    rule = seen.rule
    network.resize, network.interpolation = rule.resize, rule.interpolation
    network.crop_fraction, network.crop_offset = rule.crop_fraction, rule.crop_offset
    network.warnings = seen.warnings
    if (rule.height, rule.width) == (network.height, network.width):
        network.see = seen.see
    return network


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face folder that was loaded."""

    torch: Any
    transformers: Any
    folder: Path
    settings: Any
    module: Any
    weights: Weights


def load_checkpoint(
    name: str, options: BackboneOptions, check: Callable[[Any], Any] = id, **settings: Any
) -> Checkpoint:
    """Load the network of a local Hugging Face folder.

    Parameters
    ----------
    check
        Called with the network's settings before its weights are read.
    settings
        For `AutoModel`.

    Raises
    ------
    BackboneError
        If it is no such folder, contains code, is damaged, or lacks weights.
    """
    folder = local_path(name)
    if not (folder / "config.json").is_file():
        raise BackboneError(
            f"hf:{name} is not a folder with a config.json, and nothing is downloaded",
            "Download the checkpoint (config.json, preprocessor_config.json, model.safetensors) "
            "and name its folder.",
        )
    torch, transformers = import_torch("transformers")
    transformers.utils.logging.disable_progress_bar()
    config = read_config(folder / "config.json")
    if "auto_map" in config and not options.trust:
        raise BackboneError(
            f"hf:{name} contains Python code of its own ({', '.join(config['auto_map'])})",
            "Choose a checkpoint of an architecture that transformers itself has.",
        )
    files = sorted(folder.glob("*.safetensors"))
    random = options.weights == "none"
    try:
        about = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        check(about)
        if random:
            torch.manual_seed(SEED)
            module, lacking = transformers.AutoModel.from_config(about, **settings), []
        else:
            if not files:
                raise BackboneError(
                    f"hf:{name} has no weights in safetensors (pickled ones are not read)",
                    "Download model.safetensors into it, or convert pytorch_model.bin.",
                )
            module, loading = transformers.AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                dtype=torch.float32,
                **settings,
            )
            # A pooler is not part of the features, and classification checkpoints have none.
            lacking = sorted(key for key in loading["missing_keys"] if "pooler" not in key)
    except BackboneError:
        raise
    except Exception as error:  # transformers raises errors of many classes for a damaged one
        raise BackboneError(
            f"hf:{name} cannot be loaded: {first_line(error)}",
            "Download the checkpoint again, or choose one that transformers supports.",
        ) from error
    if lacking:
        raise _wrong_weights(f"hf:{name}", [f"{key} is missing" for key in lacking])
    weights = NO_WEIGHTS if random else Weights.of_file(files[0])
    return Checkpoint(torch, transformers, folder, about, module, weights)


def _open_hugging_face(name: str, options: BackboneOptions) -> Original:
    loaded = load_checkpoint(name, options, lambda settings: _size(settings, options))
    folder, module, settings = loaded.folder, loaded.module, loaded.settings
    size = _size(settings, options)
    what = f"hf:{name}"
    seen = own = None
    if options.scaling is None and (folder / "preprocessor_config.json").is_file():
        processor = _processor(loaded.transformers, folder, what)

        def own(image: Any, **also: Any) -> Any:
            return processor(images=image, return_tensors="np", **also)["pixel_values"][0]

        whole, own = own, partial(own, do_resize=False, do_center_crop=False, do_pad=False)
        rule = find_scaling(own, (size, size), what)
        kind = getattr(processor, "resample", None)
        seen = find_resize(whole, rule, int(kind) if kind is not None else kind, what)
    scaling = chosen_scaling(options, seen.scaling if seen else None, what)
    vision = getattr(module, "vision_model", module)
    network = TorchNetwork(
        vision,
        folder.name,
        (size, size),
        scaling,
        loaded.weights,
        forward=lambda pixels: vision(pixel_values=pixels),
        default_layers=(WHOLE,),
        own=own,
    )
    (layer,) = network.find([WHOLE])
    if layer.prefix and not getattr(settings, "use_mean_pooling", False):
        network.default_pools = ("token",)
    return _as_seen(network, seen) if seen else network


def _processor(transformers: Any, folder: Path, what: str) -> Any:
    try:
        return transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises errors of many classes for a damaged one
        raise BackboneError(
            f"the preprocessor_config.json of {what} cannot be used: {first_line(error)}", STATE_IT
        ) from error


def _size(settings: Any, options: BackboneOptions) -> int:
    vision = getattr(settings, "vision_config", settings)
    size = options.size or getattr(vision, "image_size", None) or 224
    return int(size[0] if isinstance(size, (list, tuple)) else size)


def read_config(path: Path) -> Any:
    """A JSON file of a checkpoint; raises `BackboneError` if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
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
        inner = state.get(key) if isinstance(state, dict) else None
        state = inner if isinstance(inner, dict) else state
    if not isinstance(state, dict) or not all(
        isinstance(tensor, torch.Tensor) for tensor in state.values()
    ):
        raise BackboneError(
            f"{file} does not contain a state dict: names with their tensors",
            "Save one with torch.save(model.state_dict(), FILE).",
        )
    state = _without_prefix(state, module.state_dict())
    _drop_other_classifier(torch, module, state)
    wanted = module.state_dict()
    # Counts of batches are for training alone, and old files have none.
    state = {name: wanted[name] for name in wanted if name.endswith(COUNT)} | state
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


def _without_prefix(state: dict[str, Any], wanted: Collection[str]) -> dict[str, Any]:
    """The tensors without what a wrapper put before the names of all: `module.`, `_orig_mod.model.`

    With a prefix, what does not have it is not of this network (a loss, a second network).
    """
    prefixes = Counter(
        name.removesuffix(own) for name in state for own in wanted if name.endswith(own)
    )
    best = max(prefixes, key=lambda prefix: (prefixes[prefix], -len(prefix)), default="")
    if best and not best.endswith("."):
        return state
    return {
        name.removeprefix(best): tensor for name, tensor in state.items() if name.startswith(best)
    }


def _drop_other_classifier(torch: Any, module: Any, state: dict[str, Any]) -> None:
    """Remove the layers of the classifier that the file has no weights for, or others.

    Fine-tuning replaces them; what comes before them is the same network.
    """
    for name, tensor in module.state_dict().items():
        owner = name.rpartition(".")[0]
        fits = name in state and state[name].shape == tensor.shape
        if not fits and owner and name.split(".")[0] in (*CLASSIFIERS, *AUXILIARY):
            parent, _, last = owner.rpartition(".")
            setattr(module.get_submodule(parent), last, torch.nn.Identity())


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
