"""A sentence encoder of the BERT family from a local Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.common.errors import BackboneError
from headstart.data.modalities.text.tokens import IDS, MASK, Rule, Tokenization, open_tokenizer
from headstart.data.storage.files import local_path
from headstart.export.networks.network import Weights
from headstart.export.networks.torch.conversion import module_to_onnx
from headstart.export.networks.torch.zoo import load_checkpoint, read_config
from headstart.export.options import BackboneOptions

PREFIX = "hf:"
# What a sentence-transformers folder calls our pools, in the order in which it concatenates them.
POOLS = {"cls": "token", "cls_token": "token", "max_tokens": "max", "mean_tokens": "avg"}
GPT2 = (  # the pattern of `ByteLevel`
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
POOLS |= {"max": "max", "mean": "avg"}


@dataclass(frozen=True)
class TextEncoder:
    """A transformer, its tokenizer, and what its folder says about sentence embeddings.

    Parameters
    ----------
    name
        Of its folder.
    module
        From ids and mask to an output with `last_hidden_state`.
    dim
        Channels of a token.
    pools
        Of `text.graph.POOLS`.
    unit
        Whether embeddings have a length of 1.
    """

    name: str
    module: Any
    torch: Any
    tokenization: Tokenization
    dim: int
    pools: tuple[str, ...]
    unit: bool
    weights: Weights

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """PyTorch's own tokens, `[texts, tokens, channels]`."""
        with self.torch.no_grad():
            given = {IDS: self.torch.from_numpy(ids), MASK: self.torch.from_numpy(mask)}
            return np.asarray(self.module(**given).last_hidden_state.numpy())

    def to_onnx(self) -> Any:
        """By PyTorch's own exporter: an `onnx.ModelProto` from ids and mask to tokens."""
        torch, module = self.torch, self.module

        class Hidden(torch.nn.Module):  # type: ignore[name-defined,misc]
            def __init__(self) -> None:
                super().__init__()
                self.module = module

            def forward(self, input_ids: Any, attention_mask: Any) -> Any:
                given = {IDS: input_ids, MASK: attention_mask}
                return self.module(**given).last_hidden_state

        ids = torch.full((2, 7), self.tokenization.pad + 1)
        mask = torch.ones_like(ids)
        mask[1, 4:] = 0
        free = torch.export.Dim.DYNAMIC
        axes = {0: free, 1: free}
        return module_to_onnx(
            Hidden(),
            (ids, mask),
            (axes, axes),
            self.name,
            "Choose another encoder: BERT, MiniLM, DistilBERT, RoBERTa and MPNet are tested.",
        )


def is_text_folder(reference: str) -> bool:
    """Whether `hf:FOLDER` is a transformer for text: it has a vocabulary, and no pictures."""
    config = local_path(reference.removeprefix(PREFIX)) / "config.json"
    if not reference.startswith(PREFIX) or not config.is_file():
        return False
    about = read_config(config)
    return isinstance(about, dict) and "vocab_size" in about and "vision_config" not in about


def open_encoder(reference: str, options: BackboneOptions) -> TextEncoder:
    """Open `hf:FOLDER`, a checkpoint of transformers or of sentence-transformers.

    Raises
    ------
    BackboneError
        If it is damaged, lacks weights or a tokenizer, or makes embeddings in a way that is not
        supported.
    MissingPackageError
        If the extra `torch` is not installed.
    """
    folder = local_path(reference.removeprefix(PREFIX))
    pools, unit = _modules(reference, folder)
    loaded = load_checkpoint(reference.removeprefix(PREFIX), options, attn_implementation="eager")
    module = loaded.module.eval()
    rule = _tokenization(reference, folder, module, options.tokens)
    return TextEncoder(
        name=folder.name,
        module=module,
        torch=loaded.torch,
        tokenization=rule,
        dim=int(module.config.hidden_size),
        pools=pools,
        unit=unit,
        weights=loaded.weights,
    )


def _modules(reference: str, folder: Path) -> tuple[tuple[str, ...], bool]:
    """Pooling and normalization as `modules.json` says; mean of length 1 without it."""
    if not (folder / "modules.json").is_file():
        return ("avg",), True
    pools: tuple[str, ...] = ("avg",)
    unit = False
    for module in read_config(folder / "modules.json"):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            pools = _pools(reference, read_config(folder / module["path"] / "config.json"))
        elif kind == "Normalize":
            unit = True
        elif kind != "Transformer":
            raise BackboneError(
                f"{reference} has a module {kind!r} after its pooling, which is not supported",
                "Choose an encoder of a transformer, pooling and normalization alone.",
            )
    return pools, unit


def _pools(reference: str, about: Mapping[str, Any]) -> tuple[str, ...]:
    own = "pooling_mode"
    asked = [str(about[own])] if isinstance(about.get(own), str) else list(about.get(own) or ())
    asked += [key.removeprefix(f"{own}_") for key, on in about.items() if on is True and own in key]
    unknown = [each for each in asked if each not in POOLS]
    if unknown or not asked:
        raise BackboneError(
            f"{reference} pools its tokens by {' and '.join(unknown) or 'nothing'}, which is not "
            "supported",
            f"Name another pooling: --pool {' or '.join(dict.fromkeys(POOLS.values()))}.",
        )
    return tuple(POOLS[each] for each in POOLS if each in asked)


def _tokenization(reference: str, folder: Path, module: Any, tokens: int | None) -> Tokenization:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BackboneError(
            f"{reference} has no tokenizer.json",
            "Write one into it: transformers.AutoTokenizer.from_pretrained(FOLDER)"
            ".save_pretrained(FOLDER)",
        )
    about = read_config(path)
    own = [folder / name for name in ("sentence_bert_config.json", "tokenizer_config.json")]
    sentence, settings = (read_config(each) if each.is_file() else {} for each in own)
    if sentence.get("do_lower_case"):
        lower, before = {"type": "Lowercase"}, about.get("normalizer")
        both = [lower, before] if before else [lower]
        about["normalizer"] = {"type": "Sequence", "normalizers": both}
    about |= {"truncation": None, "padding": None}
    about["pre_tokenizer"] = portable(about.get("pre_tokenizer"))
    content = json.dumps(about, ensure_ascii=False)
    tokenizer = open_tokenizer(content)
    known, rows = tokenizer.get_vocab_size(), module.get_input_embeddings().num_embeddings
    if known > rows:
        raise BackboneError(
            f"the tokenizer of {reference} has {known:,} tokens, and its network {rows:,}",
            "Download the folder again: the two belong to different encoders.",
        )
    most = _positions(module)
    length = sentence.get("max_seq_length") or min(settings.get("model_max_length", most), most)
    if tokens is not None and tokens > most:
        raise BackboneError(
            f"{reference} takes texts of at most {most} tokens, not {tokens}",
            "Give fewer --tokens.",
        )
    with_special = tokenizer.encode("a").ids
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    starts = range(len(with_special) - len(plain) + 1)
    start = next(at for at in starts if with_special[at : at + len(plain)] == plain)
    return Rule(
        tokens=int(tokens or min(length, most)),
        pad=int(getattr(module.config, "pad_token_id", None) or 0),
        prefix=tuple(with_special[:start]),
        suffix=tuple(with_special[start + len(plain) :]),
    ).with_tokenizer(content)


def portable(pre_tokenizer: Any) -> Any:
    """The same rule, with what JavaScript's tokenizers do in another way written out.

    Their own form of GPT-2's pattern takes a byte order mark inside a text for white space.
    SentencePiece's words are not divided there, so that sums over a whole text decide between
    pieces of equal probability.
    """
    rule = pre_tokenizer or {}
    if rule.get("type") == "Sequence":
        return rule | {"pretokenizers": [portable(each) for each in rule["pretokenizers"]]}
    if rule.get("type") == "Metaspace" and rule.get("split", True):
        mark = rule.get("replacement", "\u2581")
        words = _split(f"{mark}[^{mark}]*|[^{mark}]+", "Removed", invert=True)
        own = "always" if rule.get("add_prefix_space", True) else "never"  # of older files
        whole = {"prepend_scheme": own} | rule | {"split": False}
        return {"type": "Sequence", "pretokenizers": [whole, words]}
    if rule.get("type") != "ByteLevel" or not rule.get("use_regex", True):
        return pre_tokenizer
    if rule.get("add_prefix_space"):  # it would be added to every piece
        return pre_tokenizer
    pieces = _split(GPT2, "Isolated", invert=False)
    return {"type": "Sequence", "pretokenizers": [pieces, rule | {"use_regex": False}]}


def _split(pattern: str, behavior: str, invert: bool) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


# The parts that the package @huggingface/tokenizers has; `portable` writes out some others.
IN_JAVASCRIPT = {
    "model": {"BPE", "Unigram", "WordPiece"},
    "normalizer": {
        *("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Precompiled", "Prepend"),
        *("Replace", "Sequence", "Strip", "StripAccents"),
    },
    "pre_tokenizer": {
        *("BertPreTokenizer", "ByteLevel", "Digits", "FixedLength", "Metaspace", "Punctuation"),
        *("Sequence", "Split", "Whitespace", "WhitespaceSplit"),
    },
}


def not_in_javascript(tokenizer: str) -> list[str]:
    """The parts of a `tokenizer.json` that JavaScript's tokenizers do not have, by their types."""
    about = json.loads(tokenizer)
    found: dict[str, None] = {}
    for part, known in IN_JAVASCRIPT.items():
        rules = [about.get(part) or {}]
        for rule in rules:  # grows
            rules += rule.get("normalizers", []) + rule.get("pretokenizers", [])
            if rule and rule.get("type") not in known:
                found[f"{part} {rule.get('type')}"] = None
    return list(found)


def _positions(module: Any) -> int:
    """The most tokens of a text: some networks count positions from the id of padding on."""
    most = int(getattr(module.config, "max_position_embeddings", 0) or 512)
    table = getattr(getattr(module, "embeddings", None), "position_embeddings", None)
    offset = getattr(table, "padding_idx", None)
    return most if offset is None else most - offset - 1
