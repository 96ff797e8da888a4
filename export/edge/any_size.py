"""Resizing inside the graph, so that it accepts photographs of any height and width.

The graph computes exactly what Pillow does (Pillow's `Resample.c`): the weights of an output
pixel's neighbours in double precision, rounded to 22 bits; along the width first, then along the
height, each in integers and rounded to 8 bits; for `crop` on a box with fractions of pixels. The
operator `Resize` is faster, but up to 1.5 % of its pixels differ by a level, which changes
embeddings by up to 0.7 % and probabilities by some hundredths.

Pillow 13 resizes the height first if that shrinks much more than the width. Some of its pixels
then differ by a level (by more where bicubic overshoots, between black and white); with a crop
fraction, a pixel whose sum ends in one half may.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from headstart.data.common.errors import InputError
from headstart.data.common.onnx_graphs import OPSET, rename_values
from headstart.data.contracts.backbone import INPUT
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.modalities.modality import InputSpec

if TYPE_CHECKING:
    import onnx

RESIZED = "resized"
BLOCK = 32  # rows whose width is resized at a time: more rows need more memory

# The reach of a kernel and its weight at a distance of t, in ONNX's text format.
_BILINEAR = """
    {a}_near = Sub (one, {a}_t)
    {a}_weight = Max ({a}_near, zero)
"""
_BICUBIC = """
    {a}_tt = Mul ({a}_t, {a}_t)
    {a}_n0 = Mul ({a}_t, c1_5)
    {a}_n1 = Sub ({a}_n0, c2_5)
    {a}_n2 = Mul ({a}_n1, {a}_tt)
    {a}_near = Add ({a}_n2, one)
    {a}_f0 = Sub ({a}_t, five)
    {a}_f1 = Mul ({a}_f0, {a}_t)
    {a}_f2 = Add ({a}_f1, eight)
    {a}_f3 = Mul ({a}_f2, {a}_t)
    {a}_f4 = Sub ({a}_f3, four)
    {a}_far = Mul ({a}_f4, minus_half)
    {a}_is_near = Less ({a}_t, one)
    {a}_is_far = Less ({a}_t, two)
    {a}_outer = Where ({a}_is_far, {a}_far, zero)
    {a}_weight = Where ({a}_is_near, {a}_near, {a}_outer)
"""
KERNELS = {"bilinear": ("one", _BILINEAR), "bicubic": ("two", _BICUBIC)}

# Of axis {a} with {a}_length pixels: {a}_index int64 and {a}_whole int32, both [taps, {a} out].
_TAPS = """
    {a}_span = Sub ({a}_stop, {a}_start)
    {a}_scale = Div ({a}_span, {a}_out)
    {a}_wide = Max ({a}_scale, one)
    {a}_support = Mul ({a}_wide, {reach})
    {a}_middle = Add ({a}_positions, half)
    {a}_scaled = Mul ({a}_middle, {a}_scale)
    {a}_centre = Add ({a}_start, {a}_scaled)
    {a}_low0 = Sub ({a}_centre, {a}_support)
    {a}_low1 = Add ({a}_low0, half)
    {a}_low2 = Floor ({a}_low1)
    {a}_low = Max ({a}_low2, zero)
    {a}_high0 = Add ({a}_centre, {a}_support)
    {a}_high1 = Add ({a}_high0, half)
    {a}_high2 = Floor ({a}_high1)
    {a}_high = Min ({a}_high2, {a}_length)
    {a}_reach = Ceil ({a}_support)
    {a}_both = Mul ({a}_reach, two)
    {a}_count = Add ({a}_both, one)
    {a}_row = Range (zero, {a}_count, one)
    {a}_column = Unsqueeze ({a}_row, axis_1)
    {a}_pixel = Add ({a}_low, {a}_column)
    {a}_off0 = Sub ({a}_pixel, {a}_centre)
    {a}_off1 = Add ({a}_off0, half)
    {a}_narrow = Div (one, {a}_wide)
    {a}_off = Mul ({a}_off1, {a}_narrow)
    {a}_t = Abs ({a}_off)
    {kernel}
    {a}_is_in = Less ({a}_pixel, {a}_high)
    {a}_kept = Where ({a}_is_in, {a}_weight, zero)
    {a}_sum = ReduceSum ({a}_kept, axis_0)
    {a}_normal = Div ({a}_kept, {a}_sum)
    {a}_large = Mul ({a}_normal, bits)
    {a}_size = Abs ({a}_large)
    {a}_sign = Sign ({a}_large)
    {a}_size1 = Add ({a}_size, half)
    {a}_size2 = Floor ({a}_size1)
    {a}_signed = Mul ({a}_size2, {a}_sign)
    {a}_whole = Cast <to = 6> ({a}_signed)
    {a}_last = Sub ({a}_length, one)
    {a}_inside = Min ({a}_pixel, {a}_last)
    {a}_index = Cast <to = 7> ({a}_inside)
"""

# The weighted sum of pixels along axis {n}, rounded as Pillow rounds.
_SUM = """
    {p}_product = Mul ({p}_gathered, {weights})
    {p}_total = ReduceSum <keepdims = 0> ({p}_product, axis_{n})
    {p}_rounded = Add ({p}_total, rounding)
    {p}_level = Div ({p}_rounded, bits_int)
    {p}_over = Max ({p}_level, zero_int)
    {p}_clipped = Min ({p}_over, most_int)
    {p}_done = Cast <to = 2> ({p}_clipped)
"""

# The box, as `ImageOps.fit` cuts it around the centre; Pillow keeps corners in single precision.
_SQUASH = """
    {a}_start = Identity (zero)
    {a}_stop = Identity ({a}_length)
"""
_CROP = """
    {a}_other = Mul ({b}_length, {a}_per_{b})
    {a}_cut = Min ({a}_length, {a}_other)
    {a}_spare = Sub ({a}_length, {a}_cut)
    {a}_begin = Mul ({a}_spare, half)
    {a}_end = Add ({a}_begin, {a}_cut)
    {a}_begin_single = Cast <to = 1> ({a}_begin)
    {a}_end_single = Cast <to = 1> ({a}_end)
    {a}_start = Cast <to = 11> ({a}_begin_single)
    {a}_stop = Cast <to = 11> ({a}_end_single)
"""

# As `resizing.cut`: resized to whole pixels, of which the centre is cut out.
_RESIZED = {
    "squash": """
    {a}_new = Identity ({a}_resized)
""",
    "crop": """
    {a}_fit0 = Mul ({b}_resized, {a}_length)
    {a}_fit1 = Div ({a}_fit0, {b}_length)
    {a}_fit = Floor ({a}_fit1)
    {a}_new = Max ({a}_resized, {a}_fit)
""",
}
_PART = """
    {a}_margin0 = Sub ({a}_new, {a}_out)
    {a}_margin1 = Mul ({a}_margin0, half)
    {a}_first = {offset} ({a}_margin1)
    {a}_step = Div ({a}_length, {a}_new)
    {a}_begin = Mul ({a}_first, {a}_step)
    {a}_beyond = Add ({a}_first, {a}_out)
    {a}_end0 = Mul ({a}_beyond, {a}_step)
    {a}_end = Min ({a}_end0, {a}_length)
    {a}_begin_single = Cast <to = 1> ({a}_begin)
    {a}_end_single = Cast <to = 1> ({a}_end)
    {a}_start = Cast <to = 11> ({a}_begin_single)
    {a}_stop = Cast <to = 11> ({a}_end_single)
"""

_MODEL = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
resize (uint8[batch, height, width, 3] image) => (uint8[batch, {height}, {width}, 3] resized)
<{constants}>
{{
    shape = Shape (image)
    count, tall, broad, three = Split <num_outputs = 4> (shape)
    tall_0 = Squeeze (tall)
    broad_0 = Squeeze (broad)
    h_length = Cast <to = 11> (tall_0)
    w_length = Cast <to = 11> (broad_0)
    {boxes}
    {taps}
    blocks0 = Add (tall, block_less_1)
    blocks = Div (blocks0, block)
    rows = Mul (blocks, block)
    missing = Sub (rows, tall)
    pads = Concat <axis = 0> (four_zeros, zero_1, missing, two_zeros)
    padded = Pad (image, pads)
    block_shape = Concat <axis = 0> (count, blocks, block, broad, three)
    in_blocks = Reshape (padded, block_shape)
    w_each = Unsqueeze (w_whole, axis_2)
    w_weights = Expand (w_each, channels)
    narrow_blocks = Scan <
        num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
        body = one_block (uint8[batch, {block}, width, 3] rows_in)
            => (uint8[batch, {block}, {width}, 3] w_done)
        {{
            w_int = Cast <to = 6> (rows_in)
            w_gathered = Gather <axis = 2> (w_int, w_index)
            {w_sum}
        }}
    > (in_blocks)
    narrow_shape = Concat <axis = 0> (count, rows, w_out_1, three)
    narrow = Reshape (narrow_blocks, narrow_shape)
    h_weights = Unsqueeze (h_whole, axes_2_3)
    h_int = Cast <to = 6> (narrow)
    h_gathered = Gather <axis = 1> (h_int, h_index)
    {h_sum}
    resized = Identity (h_done)
}}
"""


def check_any_size(preprocessing: InputSpec) -> Preprocessing:
    """The rule of a graph that is to resize by itself.

    Raises
    ------
    InputError
        If the graph is not for photographs, or cannot follow the rule.
    """
    if not isinstance(preprocessing, Preprocessing):
        raise InputError(
            f"only a graph for photographs can resize; this one is for {preprocessing.modality}",
            "Leave --any-size out.",
        )
    if preprocessing.interpolation not in KERNELS:
        raise InputError(
            f"a graph cannot resize with {preprocessing.interpolation} interpolation",
            f"Supported are {' and '.join(KERNELS)}: export a backbone with --interpolation "
            "bilinear.",
        )
    return preprocessing


def accept_any_size(model: onnx.ModelProto, spec: InputSpec) -> onnx.ModelProto:
    """Put the resizing before a graph's `image`, which becomes uint8 `[batch, height, width, 3]`.

    Parameters
    ----------
    model
        Of opset 18, without metadata.
    spec
        How photographs were resized to `image` so far.
    """
    import onnx

    resize = onnx.parser.parse_model(_text(check_any_size(spec), model.ir_version))
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for domain in sorted(set(versions) - {""}):
        resize.opset_import.add(domain=domain, version=versions[domain])
    inside = "pixels"  # the old input needs another name than the new one
    rename_values(model, {INPUT: inside})
    return onnx.compose.merge_models(resize, model, io_map=[(RESIZED, inside)], name="classifier")


def _text(rule: Preprocessing, ir_version: int) -> str:
    height, width = rule.height, rule.width
    reach, kernel = KERNELS[rule.interpolation]
    box = _CROP if rule.resize == "crop" else _SQUASH
    if rule.crop_fraction is not None:
        box = (_RESIZED[rule.resize] + _PART).replace("{offset}", rule.crop_offset.capitalize())
    axes = ("h", "w"), ("w", "h")
    boxes = "".join(box.format(a=a, b=b) for a, b in axes)
    taps = "".join(_TAPS.format(a=a, reach=reach, kernel=kernel.format(a=a)) for a, _ in axes)
    return _MODEL.format(
        ir_version=ir_version,
        opset=OPSET,
        height=height,
        width=width,
        block=BLOCK,
        constants=", ".join(_constants(rule, boxes + taps)),
        boxes=boxes,
        taps=taps,
        w_sum=_SUM.format(p="w", weights="w_weights", n=2),
        h_sum=_SUM.format(p="h", weights="h_weights", n=1),
    )


def _constants(rule: Preprocessing, text: str) -> list[str]:
    height, width = rule.height, rule.width
    doubles = {"zero": 0, "one": 1, "two": 2, "four": 4, "five": 5, "eight": 8, "half": 0.5}
    doubles |= {"minus_half": -0.5, "c1_5": 1.5, "c2_5": 2.5, "bits": 1 << 22}
    doubles |= {"h_out": height, "w_out": width}
    doubles |= {"h_per_w": height / width, "w_per_h": width / height}
    doubles |= dict(zip(("w_resized", "h_resized"), rule.resized, strict=True))
    used = set(re.findall(r"\w+", text))
    found = [
        f"double {name} = {{{float(value)!r}}}" for name, value in doubles.items() if name in used
    ]
    for axis, length in (("h", height), ("w", width)):
        positions = ", ".join(f"{float(number)!r}" for number in range(length))
        found.append(f"double[{length}] {axis}_positions = {{{positions}}}")
    whole = {"rounding": 1 << 21, "bits_int": 1 << 22, "zero_int": 0, "most_int": 255}
    found += [f"int32 {name} = {{{value}}}" for name, value in whole.items()]
    lists = {"axis_0": [0], "axis_1": [1], "axis_2": [2], "axes_2_3": [2, 3], "zero_1": [0]}
    lists |= {"block": [BLOCK], "block_less_1": [BLOCK - 1], "w_out_1": [width]}
    lists |= {"channels": [1, 1, 3], "four_zeros": [0] * 4, "two_zeros": [0, 0]}
    for name, values in lists.items():
        found.append(f"int64[{len(values)}] {name} = {{{', '.join(map(str, values))}}}")
    return found
