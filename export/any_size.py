"""Resizing inside the graph, so that a photograph of any height and width can be given.

The operator `Resize` (opset 18) with `antialias` and `exclude_outside` weighs pixels as Pillow
does: for uint8 `[batch, height, width, 3]` the answer is Pillow's, but for a level or two
in a few pixels (more where bicubic overshoots, between black and white). Without `exclude_outside`
the pixels at the border differ by ten levels and more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.backbone import INPUT
from data.errors import InputError
from data.graph import rename_values
from data.preprocessing import Preprocessing

if TYPE_CHECKING:
    import onnx

MODES = {"bilinear": 'mode = "linear"', "bicubic": 'mode = "cubic", cubic_coeff_a = -0.5'}
RESIZED = "resized"

# The part of the photograph with the proportions of the input, around its centre, of whole pixels.
_CROP = """
    shape = Shape <start = 1, end = 3> (image)
    float_shape = Cast <to = 1> (shape)
    ratios = Div (float_shape, float_size)
    ratio = ReduceMin <keepdims = 0> (ratios)
    cut_float = Mul (float_size, ratio)
    cut_round = Round (cut_float)
    cut_wide = Cast <to = 7> (cut_round)
    cut = Max (cut_wide, one)
    left_over = Sub (shape, cut)
    begin = Div (left_over, two)
    end = Add (begin, cut)
    image_part = Slice (image, begin, end, axes)
"""


def check_any_size(preprocessing: Preprocessing) -> None:
    """Raise `InputError` where the rule has no form in ONNX."""
    if preprocessing.interpolation not in MODES:
        raise InputError(
            f"--any-size: ONNX cannot resize by {preprocessing.interpolation}",
            f"It can by {' and '.join(MODES)}: export a backbone with --interpolation bilinear.",
        )


def accept_any_size(model: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Put the resizing before a graph's `image`, which becomes uint8 `[batch, height, width, 3]`.

    Parameters
    ----------
    model
        Of opset 18, without metadata.
    preprocessing
        What `image` went through so far. Of the rule `crop`, the part is cut out at whole pixels,
        where Pillow cuts at halves of a pixel if it must.
    """
    import onnx

    height, width = preprocessing.height, preprocessing.width
    crop = preprocessing.resize == "crop"
    resize = onnx.parser.parse_model(
        f"""
        <ir_version: {model.ir_version}, opset_import: ["" : 18]>
        resize (uint8[batch, height, width, 3] image)
            => (uint8[batch, {height}, {width}, 3] {RESIZED})
        <
            int64[2] size = {{{height}, {width}}}, float[2] float_size = {{{height}, {width}}},
            int64[2] axes = {{1, 2}}, int64[2] one = {{1, 1}}, int64[2] two = {{2, 2}}
        >
        {{
            {_CROP if crop else ""}
            {RESIZED} = Resize <
                {MODES[preprocessing.interpolation]}, antialias = 1, exclude_outside = 1,
                axes = [1, 2], coordinate_transformation_mode = "half_pixel"
            > ({"image_part" if crop else INPUT}, , , size)
        }}
        """
    )
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for domain in sorted(set(versions) - {""}):
        resize.opset_import.add(domain=domain, version=versions[domain])
    used = {name for node in resize.graph.node for name in node.input}
    kept = [tensor for tensor in resize.graph.initializer if tensor.name in used]
    del resize.graph.initializer[:]
    resize.graph.initializer.extend(kept)
    joined = onnx.compose.merge_models(
        resize, model, io_map=[(RESIZED, INPUT)], prefix1="resize/", name="classifier"
    )
    rename_values(joined, {f"resize/{INPUT}": INPUT})
    return joined
