"""The text of an example, from its bytes.

Reasons: `empty` (no characters, or nothing but white space), `not_text` (many zero bytes),
`not_utf8`, `too_long`.
"""

from __future__ import annotations

from headstart.data.examples.foreign import MARKS
from headstart.data.modalities.modality import DecodeError

LONGEST = 20_000_000  # bytes; a tokenizer needs some hundred bytes of memory for each


def read_text(content: bytes) -> str:
    """UTF-8, or what a byte order mark says.

    Raises
    ------
    DecodeError
        With a reason code.
    """
    if len(content) > LONGEST:
        raise DecodeError("too_long", f"{len(content):,} bytes of text, more than {LONGEST:,}")
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and content.count(0) > len(content) // 4:
        raise DecodeError(
            "not_text", "many of its bytes are zero: it may be UTF-16 without a byte order mark"
        )
    try:
        text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        where = f"byte 0x{content[error.start]:02x} at position {error.start:,}"
        raise DecodeError("not_utf8", f"it is not {encoding.upper()}: {where}") from None
    if not text.strip():
        what = "it has nothing but white space" if text else "it has no characters"
        raise DecodeError("empty", what)
    return text
