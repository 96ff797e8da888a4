"""Bytes of a photograph to pixels, with a reason code for everything that can go wrong.

A photograph is decoded as a person sees it, so that two files of one scene give one embedding:

- upright by EXIF; the first frame of an animation, the first page of a document;
- transparent parts on white, as on a page;
- colours as in sRGB, as screens and browsers show them and as in most photographs that backbones
  were trained on. Colours with another embedded ICC profile (Display P3 of telephones, Adobe RGB,
  CMYK of a printer) are converted by LittleCMS; a profile of sRGB costs nothing. RGB is converted
  after resizing, where there are a hundred times fewer pixels; the result differs by about a level
  from converting first;
- CMYK without a profile by (255 - C)(255 - K) / 255; Adobe's files store it inverted, others do not
  (libjpeg's documentation, `libjpeg.txt`, "Special color spaces");
- 16 bits by their upper 8 bits; floating-point numbers from 0 (black) to 1 (white) (Adobe
  Photoshop TIFF Technical Note 3). Other numbers have no defined white: they are refused.

A JPEG that is at least twice as high and wide as the backbone's input is decoded at a half, a
quarter or an eighth of its size, never below the input's: libjpeg then computes only the low
frequencies (libjpeg's documentation, `libjpeg.txt`, `scale_num`), which is several times faster
for large photographs. docs/speed.md has measured the effect on heads.

A photograph of which a part is missing is an error; `truncation.py` says what counts as whole.

Memory: a photograph has at most `MOST_PIXELS`, and decoding one takes less than `MOST_MEMORY`.
"""

from __future__ import annotations

import ctypes
import logging
import re
import struct
import warnings
import zlib
from functools import lru_cache
from io import BytesIO

import numpy as np
import simplejpeg
from PIL import Image, ImageChops, ImageCms, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from headstart.data.modalities.image.formats import (
    FORMATS as OPTIONAL,
)
from headstart.data.modalities.image.formats import (
    JXL,
    decoders,
    format_of,
    lacks_boxes,
    pixels_of_jxl,
)
from headstart.data.modalities.image.truncation import (
    JPEG_ENDS,
    ends_in_header,
    is_truncated,
    lacks_rows,
    lacks_tiles,
)
from headstart.data.modalities.modality import DecodeError

# Formats that Pillow decodes itself: no EPS (which would start Ghostscript). `formats` has others.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
# Photographs that may not be read here: they are listed, and become errors that say so.
OTHERS = (".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2")
EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".pbm",
        ".pgm",
        ".ppm",
        *OTHERS,
    ]
)
# `empty`: no bytes; `not_an_image`: the first bytes fit none of our formats; `truncated`: the end
# is missing; `damaged`; `too_large`: more pixels than `MOST_PIXELS`, a side longer than
# `LONGEST_SIDE`, or no memory; `unsupported`: whole, but black and white are not defined.
REASONS = ("empty", "not_an_image", "truncated", "damaged", "too_large", "unsupported")

DAMAGED = "the header is damaged, or of a kind that is not supported"

MOST_PIXELS = 200_000_000  # as in the largest photographs of telephones and cameras
LONGEST_SIDE = 100_000  # resizing needs memory for each pixel of a side, not only of the area
MOST_MEMORY = 20 * MOST_PIXELS  # bytes; an animated WebP needs the most, others about half

Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow warns above it and refuses above twice it

# Pillow's warnings about odd files would fill a terminal; what matters is raised.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
_libraries = ctypes.CDLL(Image.core.__file__)
for _name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):  # libtiff writes to stderr
    if hasattr(_libraries, _name):  # it is hidden in Pillow's builds for Windows
        getattr(_libraries, _name)(None)

_SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|II[*+]\0|MM\0[*+]", re.DOTALL
)
_OTHERS = re.compile(rb"BM|P[1-6]\s")
_JPEG_2000 = re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ")
MOST_SCANS = 500  # of a JPEG: more are an attack (libjpeg-turbo's own fuzzers stop there)
MOST_COMMENTS = 1 << 16  # bytes of comments in a PPM's header, which Pillow reads one by one
_PPM = re.compile(rb"P[1-7]([\s\d]+|#[^\r\n]*[\r\n]?)*")
_JPEG_MODES = {"RGB": ("RGBX", "RGBX"), "L": ("GRAY", "L"), "CMYK": ("CMYK", "CMYK;I")}
_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = tuple(_UPRIGHT[tag] for tag in (5, 6, 7, 8))  # width and height change places
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF tags, and a value
_MODES = {b"GRAY": "L", b"RGB ": "RGB", b"CMYK": "CMYK"}  # by the colour space of an ICC profile
_PROBE = (15 * np.indices((18, 18, 18), np.uint8)).reshape(3, 18, -1).transpose(1, 2, 0)
_SAME = 2  # of 255: how far a profile may move a colour and still count as sRGB


def open_image(content: bytes, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Decode a photograph upright, its first frame, grey (`L`) or `RGB`.

    `info["icc_profile"]` holds its colour profile, if it has one.

    Parameters
    ----------
    at_least
        Width and height in pixels that are enough: a larger JPEG may be decoded at a reduced size.

    Raises
    ------
    DecodeError
        With a reason code.
    """
    if not content:
        raise DecodeError("empty", "the file has no bytes")
    _refuse_endless(content)
    optional = format_of(content)
    try:
        if optional is JXL and pixels_of_jxl(content) > MOST_PIXELS:
            raise Image.DecompressionBombError
        formats = decoders(optional) if optional else FORMATS
        image = Image.open(BytesIO(content), formats=formats)
        if max(image.size) > LONGEST_SIDE:
            raise DecodeError(
                "too_large",
                f"a side of {max(image.size):,} pixels; at most {LONGEST_SIDE:,} are decoded",
            )
        if image.format == "PNG":
            _check_sums(content)
        if at_least is not None and isinstance(image, JpegImageFile):
            image.draft(image.mode, at_least[::-1] if _turn(image) in _SIDEWAYS else at_least)
        return _flatten(_load(image, content), _turn(image))
    except DecodeError:
        raise
    except Image.DecompressionBombError:
        raise DecodeError(
            "too_large", f"more than {MOST_PIXELS:,} pixels, the most that are decoded"
        ) from None
    except MemoryError:
        raise DecodeError("too_large", "there is not enough memory to decode it") from None
    except UnidentifiedImageError:
        if _JPEG_2000.match(content):
            raise DecodeError(
                "unsupported", "JPEG 2000 is not read: convert it to JPEG or PNG"
            ) from None
        if optional:
            raise _of_boxes(content, DAMAGED) from None
        if not _SIGNATURE.match(content):
            raise DecodeError(
                "not_an_image", f"no supported image format begins with {content[:8]!r}"
            ) from None
        if ends_in_header(content, FORMATS):
            raise DecodeError("truncated", "the file ends in its header") from None
        raise DecodeError("damaged", DAMAGED) from None
    except Exception as error:  # Pillow's decoders raise all kinds of errors for damaged bytes
        if optional:
            raise _of_boxes(content, str(error) or type(error).__name__) from None
        reason = "truncated" if is_truncated(error, content, FORMATS) else "damaged"
        raise DecodeError(reason, str(error) or type(error).__name__) from None


def _of_boxes(content: bytes, message: str) -> DecodeError:
    """The error of a HEIC, AVIF or JPEG XL, of which the decoders do not say whether it is cut."""
    if lacks_boxes(content):
        return DecodeError("truncated", "the file ends before its last box")
    return DecodeError("damaged", message)


def looks_like_image(content: bytes) -> bool:
    """Whether bytes begin as those of a photograph do."""
    known = (_SIGNATURE, _OTHERS, _JPEG_2000, *(each.signature for each in OPTIONAL))
    return any(signature.match(content) for signature in known)


def _refuse_endless(content: bytes) -> None:
    """Refuse what takes a decoder minutes, however few bytes it has."""
    if content[:3] == b"\xff\xd8\xff":
        scans = content.count(b"\xff\xda")  # in the pixels themselves, 0xff is never followed by it
        if scans > MOST_SCANS:
            raise DecodeError("unsupported", f"{scans:,} scans; at most {MOST_SCANS} are decoded")
    elif found := _PPM.match(content[: 2 * MOST_COMMENTS]):
        comments = sum(map(len, re.findall(rb"#[^\r\n]*", found[0])))
        if comments > MOST_COMMENTS:
            raise DecodeError("unsupported", "a header with more than 65,536 bytes of comments")


def _load(image: Image.Image, content: bytes) -> Image.Image:
    """The photograph with its pixels.

    An ordinary JPEG is decoded by TurboJPEG: the pixels are the same as Pillow's, but faster
    (docs/speed.md). If it reports any problem, Pillow decodes, whose messages become our reasons;
    it takes no notice of an end of the data before the end of the picture.
    """
    if isinstance(image, JpegImageFile) and image.mode in _JPEG_MODES:
        width, height = image.size  # of the draft
        # RGB has an unused byte after each pixel, as in Pillow's own memory.
        colours, raw_mode = _JPEG_MODES[image.mode]
        try:
            pixels = simplejpeg.decode_jpeg(content, colours, min_height=height, min_width=width)
        except ValueError as error:
            if JPEG_ENDS.search(str(error)):
                raise _ends_early() from None
            pixels = None
        if pixels is not None and pixels.shape[:2] == (height, width):
            fast = Image.frombytes(image.mode, (width, height), pixels, "raw", raw_mode)
            fast.info, fast.format = image.info, image.format
            return fast
    image.load()
    if isinstance(image, TiffImageFile) and lacks_tiles(image):
        raise _ends_early()
    if image.format == "PNG" and lacks_rows(image, content):
        raise _ends_early()
    return image


def _ends_early() -> DecodeError:
    return DecodeError("truncated", "the pixels end before the height and width of the header")


def _check_sums(content: bytes) -> None:
    """Check a PNG's pixels by their checksums (PNG, 5.5), which Pillow ignores."""
    view, offset = memoryview(content), 8
    while offset + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, offset)
        end = offset + 8 + length
        found = view[end : end + 4]
        whole = kind == b"IDAT" and len(found) == 4
        if whole and zlib.crc32(view[offset + 4 : end]) != int.from_bytes(found, "big"):
            raise DecodeError("damaged", "the pixels do not match their checksum")
        offset = end + 4


def _turn(image: Image.Image) -> Image.Transpose | None:
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return None  # its decoder has turned it; one that is a packed JPEG is left as it was
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF; the pixels are whole, and viewers show them unturned
        return None


def _flatten(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """To `L` or `RGB`, upright, with no more than two copies of the pixels at a time."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes):  # a damaged TIFF may have a number
        profile = None
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _deep_to_grey(image)
    elif image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        image = white
    elif image.mode in ("CMYK", "LAB"):
        if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
            image = ImageChops.invert(image)  # Pillow treats every file as one of Adobe's
        conversion = conversion_to_srgb(profile, image.mode)
        image = conversion.apply(image) if conversion else image.convert("RGB")
        profile = None
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if turn is not None:
        image = image.transpose(turn)
    image.info = {"icc_profile": profile} if profile else {}
    return image


def _deep_to_grey(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits to 8 bits."""
    tags = getattr(image, "tag_v2", {})
    pixels = np.asarray(image)
    if image.mode == "F":
        low, high = pixels.min(), pixels.max()
        if not (low >= 0 and high <= 1):  # also refuses NaN
            raise DecodeError(
                "unsupported",
                f"floating-point pixels from {low:g} to {high:g}; only 0 (black) to 1 (white) "
                "is defined",
            )
        grey = (pixels * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    elif image.mode == "I" and tags:
        raise DecodeError(
            "unsupported",
            "pixels of 32 bits or with a sign have no defined black and white; convert to 16 bits",
        )
    else:
        grey = (pixels >> (4 if tags.get(_BITS_PER_SAMPLE) == (12,) else 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = ~grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[pixels == transparent] = 255
    return Image.fromarray(grey)


@lru_cache(maxsize=16)
def conversion_to_srgb(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What converts the colours of a profile to sRGB; None if there is nothing to convert.

    A profile that is damaged, or of other colours than the picture's, is ignored.
    """
    own_mode = "LAB" if mode == "LAB" else _MODES.get(profile[16:20] if profile else b"", "")
    if own_mode != mode and (mode, own_mode) != ("L", "RGB"):
        return None
    try:
        own = ImageCms.ImageCmsProfile(
            ImageCms.createProfile("LAB") if mode == "LAB" else BytesIO(profile or b"")
        )
        conversion = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), own_mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
    if own_mode in ("L", "RGB"):
        probe = Image.fromarray(_PROBE).convert(own_mode)
        moved = np.asarray(conversion.apply(probe)).astype(int)
        if np.abs(moved - np.asarray(probe.convert("RGB"))).max() <= _SAME:
            return None
    return conversion
