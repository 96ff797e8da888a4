"""Writes a backbone file for texts, after it was loaded and compared with its original."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from headstart.data.common.cosine import cosines
from headstart.data.common.errors import BackboneError, Checklist
from headstart.data.common.onnx_graphs import IR_VERSION, OPSET
from headstart.data.common.onnx_runtime import open_session
from headstart.data.contracts.backbone import OUTPUT, BackboneSpec, load_backbone
from headstart.data.modalities.text.tokens import Tokenization
from headstart.data.storage.files import check_output, local_path, write_whole
from headstart.export.backbone.quantize import Quantized, quiet, to_fp16
from headstart.export.backbone.written import BackboneExport
from headstart.export.networks.network import Weights
from headstart.export.networks.onnx.surgery import refuse_huge, to_opset
from headstart.export.options import (
    BackboneOptions,
    FeatureOptions,
    PrecisionOptions,
    SoundOptions,
)
from headstart.export.text.encoder import (
    TextEncoder,
    is_text_folder,
    not_in_javascript,
    open_encoder,
)
from headstart.export.text.graph import POOLS, embed, encoder_graph, words_graph
from headstart.export.text.words import MOST_TOKENS, MOST_WORDS, read_words, tokenization

WORDS = "words:"
LAYER = "last_hidden_state"
TOLERANCE = 1e-4  # largest relative difference of the embeddings
LENGTHS = (1, 5, 30, 3)  # tokens of the texts that graph and original are compared on
TIMED, TIMED_TOKENS = 8, 64  # texts and tokens whose speed is measured
SECONDS = 2.0
SEED = 0


def is_text(reference: str) -> bool:
    """Whether a reference is `words:FILE`, or `hf:FOLDER` of a transformer for text."""
    return reference.startswith(WORDS) or is_text_folder(reference)


@dataclass(frozen=True)
class _Draft:
    """A graph in fp32, its metadata, and what computes the same without it."""

    graph: bytes
    spec: BackboneSpec
    reference: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ids: int
    warnings: tuple[str, ...] = ()


def export_text(
    output: str | Path,
    reference: str,
    options: BackboneOptions,
    features: FeatureOptions,
    precision: PrecisionOptions,
    sound: SoundOptions | None,
    overwrite: bool,
) -> BackboneExport:
    """Write a backbone file for texts, and `NAME.tokenizer.json` beside it.

    Parameters
    ----------
    reference
        `words:FILE` or `hf:FOLDER`.

    Raises
    ------
    InputError
        If the options are not for texts, the original cannot be read, or its export differs.
    """
    checks = Checklist()
    with checks.item():
        path = local_path(output)
        check_output(path, overwrite)
    with checks.item():
        check_text_options(reference, options, features, precision, sound)
    checks.finish()
    if reference.startswith(WORDS):
        draft = _words(Path(local_path(reference.removeprefix(WORDS))), options)
    else:
        draft = _encoder(open_encoder(reference, options), features)
    beside = {path.with_suffix(end): data for end, data in draft.spec.preprocessing.files().items()}
    for each in beside:
        with checks.item():
            check_output(each, overwrite)
    checks.finish()
    content = _described(onnx.load_model_from_string(draft.graph), draft.spec)
    parity = _check(content, draft)
    quantized = None
    if precision.precision != "fp32":
        quantized = _lower(content, draft, precision.precision)
        content = quantized.content
    for file, data in beside.items():
        write_whole(file, data)
    write_whole(path, content)
    backbone, found = load_backbone(path), draft.warnings
    if quantized:
        found += tuple(quantized.warnings(backbone.spec))
    return BackboneExport(backbone, parity, quantized, found)


def check_text_options(
    reference: str,
    options: BackboneOptions,
    features: FeatureOptions,
    precision: PrecisionOptions,
    sound: SoundOptions | None,
) -> None:
    """Raise `InputError` with everything that is wrong with the options of an export for texts."""
    checks = Checklist()
    given = {
        "size": options.size,
        "resize": options.resize,
        "interpolation": options.interpolation,
        "crop-fraction": options.crop_fraction,
        "scaling": options.scaling,
        "input": options.input,
        "include-top": options.include_top,
        "layer": features.layers,
        "power": features.power,
        "views": features.views != "none",
        "calibrate": precision.calibrate,
        "weights": options.weights_file,
        "sound": sound,
    }
    if reference.startswith(WORDS):
        given |= {"pool": features.pools}
    else:
        given |= {"most-words": options.most_words}
    useless = [name for name, value in given.items() if value]
    with checks.item():
        if useless:
            raise BackboneError(
                f"{' and '.join(f'--{name}' for name in useless)} cannot be used with {reference}, "
                "which is for texts",
                "Leave it out." if len(useless) == 1 else "Leave them out.",
            )
    with checks.item():
        if unknown := [pool for pool in features.pools if pool not in POOLS]:
            raise BackboneError(
                f"the tokens of a text cannot be pooled by {' and '.join(unknown)}",
                f"Choose from {', '.join(POOLS)}.",
            )
    with checks.item():
        precision.check_name()
    checks.finish()


def _encoder(encoder: TextEncoder, features: FeatureOptions) -> _Draft:
    pools = tuple(dict.fromkeys(features.pools)) or encoder.pools
    proto = to_opset(encoder.to_onnx(), OPSET, encoder.name)
    refuse_huge(proto, encoder.name)
    spec = BackboneSpec(
        name=encoder.name,
        preprocessing=encoder.tokenization,
        layers=(LAYER,),
        pooling="+".join(pools) + (", of length 1" if encoder.unit else ""),
        dim=encoder.dim * len(pools),
        weights=encoder.weights.origin,
        licence=encoder.weights.licence,
    )

    def reference(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return embed(encoder.run(ids, mask), mask, pools, encoder.unit)

    graph = encoder_graph(proto, pools, encoder.unit, spec.dim)
    ids = encoder.module.get_input_embeddings().num_embeddings
    warnings: tuple[str, ...] = ()
    if strange := not_in_javascript(encoder.tokenization.tokenizer):
        warnings = (
            f"its tokenizer has {' and '.join(strange)}, which JavaScript's tokenizers do not "
            "have: use edge models with it in Python, not on the page or in Node",
        )
    return _Draft(graph, spec, reference, ids, warnings)


def _words(path: Path, options: BackboneOptions) -> _Draft:
    found = read_words(path, options.most_words or MOST_WORDS)
    rule = tokenization(found.words, options.tokens or MOST_TOKENS)
    dim = found.vectors.shape[1]
    # The ids of padding and of unknown words come first.
    table = np.concatenate([np.zeros((2, dim), np.float32), found.vectors])
    spec = BackboneSpec(
        name=path.name,
        preprocessing=rule,
        layers=("words",),
        pooling="avg",
        dim=dim,
        weights=Weights.of_file(path).origin,
        licence="not stated",
    )

    def reference(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        known = (mask > 0) & (ids != rule.unknown)
        return np.stack(
            [
                table[row[keep]].mean(axis=0) if keep.any() else np.zeros(dim)
                for row, keep in zip(ids, known, strict=True)
            ]
        )

    warnings: tuple[str, ...] = ()
    if found.cut:
        warnings = (
            f"only the first {len(found.words):,} words were taken: --most-words takes more",
        )
    return _Draft(words_graph(table, 1), spec, reference, len(table), warnings)


def _described(proto: Any, spec: BackboneSpec) -> bytes:
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, spec.to_metadata())
    proto.producer_name, proto.producer_version, proto.doc_string = "headstart", "", ""
    proto.ir_version, proto.graph.name = IR_VERSION, "backbone"
    refuse_huge(proto, spec.name)
    return bytes(proto.SerializeToString())


def _tokens(rule: Tokenization, ids: int, lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """Random texts of some lengths, as a graph takes them."""
    random = np.random.default_rng(SEED)
    least = min(2, ids - 1)
    rows = [random.integers(least, ids, min(length, rule.room)) for length in lengths]
    return rule.feed(rule.stack(rows))


def _check(content: bytes, draft: _Draft) -> float:
    """The largest relative difference of a graph from its original.

    Raises
    ------
    BackboneError
        If it cannot be loaded, or differs by more than `TOLERANCE`.
    """
    name, rule = draft.spec.name, draft.spec.preprocessing
    assert isinstance(rule, Tokenization)  # noqa: S101  (for the type checker)

    def broken(why: str) -> BackboneError:
        return BackboneError(
            f"the ONNX export of {name} is broken: {why}", "Choose another encoder."
        )

    try:
        session = open_session(content)
    except Exception as error:  # ONNX Runtime has no common class for what it cannot load
        raise broken(f"it cannot be loaded ({error})") from error
    worst = 0.0
    for lengths in (LENGTHS[:1], LENGTHS, (rule.tokens,)):
        given = _tokens(rule, draft.ids, lengths)
        expected = draft.reference(*given.values())
        if not np.isfinite(expected).all():
            raise BackboneError(
                f"the embedding that {name} itself computes for random tokens has NaN or infinite "
                "numbers, so its export cannot be checked",
                "Check its weights.",
            )
        try:
            (got,) = session.run([OUTPUT], given)
        except Exception as error:  # such as a length that is fixed inside the graph
            raise broken(f"it does not run on {len(lengths)} texts ({error})") from error
        if got.shape != expected.shape or got.dtype != np.float32 or not np.isfinite(got).all():
            raise broken(f"its embedding is {got.dtype} {list(got.shape)}, or not finite")
        worst = max(worst, float(np.abs(got - expected).max() / np.abs(expected).max()))
    if worst > TOLERANCE:
        raise broken(
            f"its numbers differ from the original's by {worst:.1e}, more than {TOLERANCE:.0e}"
        )
    return worst


def _lower(content: bytes, draft: _Draft, precision: str) -> Quantized:
    """The graph in fp16 or dynamic int8, compared with fp32 on random texts."""
    proto = onnx.load_model_from_string(content)
    lower = to_fp16(proto) if precision == "fp16" else _to_int8(content)
    made = _described(lower, replace(draft.spec, precision=precision))
    rule = draft.spec.preprocessing
    assert isinstance(rule, Tokenization)  # noqa: S101  (for the type checker)
    sessions = [open_session(each, 1) for each in (content, made)]
    given = _tokens(rule, draft.ids, range(1, 33))
    found = cosines(*(session.run([OUTPUT], given)[0] for session in sessions))
    given = _tokens(rule, draft.ids, [TIMED_TOKENS] * TIMED)
    took: list[list[float]] = [[], []]
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or len(took[0]) < 3:
        for session, times in zip(sessions, took, strict=True):
            start = time.perf_counter()
            session.run([OUTPUT], given)
            times.append(time.perf_counter() - start)
    fp32_speed, speed = (TIMED / float(np.median(times)) for times in took)
    return Quantized(
        content=made,
        fp32_bytes=len(content),
        speed=speed,
        fp32_speed=fp32_speed,
        cosine_mean=float(found.mean()),
        cosine_worst=float(found.min()),
        photographs=len(found),
        random=True,
    )


def _to_int8(content: bytes) -> Any:
    """Dynamic: weights per channel, activations by what each batch has; needs no calibration.

    7 bits of the weights, so that CPUs without VNNI compute the same: theirs overflow with 8.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, quiet():
        before, after = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        before.write_bytes(content)
        quantize_dynamic(
            before,
            after,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(after)
