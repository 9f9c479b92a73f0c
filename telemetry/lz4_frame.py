"""LZ4 frames as Arrow's buffers have them: what was compressed once is joined into new frames without compressing it again.

Invariant: `joined` of the blocks of several texts is a frame of these texts end to end. It holds because all frames here
are of independent blocks of at most 64 kB, without checksums or sizes: their first bytes and their last are the same.

Source: LZ4 Frame Format 1.6.4, "General structure of LZ4 frame format" and "Data blocks".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import lz4.frame
from lz4.frame import BLOCKSIZE_MAX64KB, LZ4FrameDecompressor

_END: Final = bytes(4)
"""EndMark, in place of a block's size."""
MOST: Final = 255
"""No byte of LZ4 stands for more."""


def compress(data: bytes | memoryview) -> bytes:
    """A frame."""
    return lz4.frame.compress(data, block_size=BLOCKSIZE_MAX64KB, block_linked=False, store_size=False)  # type: ignore[no-any-return]


_BEGIN: Final = compress(b"").removesuffix(_END)
"""Magic number and frame descriptor."""


def blocks_of(data: bytes) -> bytes:
    """The blocks of a frame, each with its size before it."""
    return compress(data)[len(_BEGIN) : -len(_END)]


def joined(blocks: Iterable[bytes]) -> bytes:
    """The frame of all these blocks."""
    return b"".join((_BEGIN, *blocks, _END))


def decompress(frame: bytes, size: int) -> bytes:
    """What a frame of `size` bytes of content holds. Raises ValueError for one that holds more or less, or is damaged."""
    if size > MOST * len(frame):
        raise ValueError(f"expected an LZ4 frame of {size} bytes, found one of {len(frame)} that cannot hold as many")
    reader = LZ4FrameDecompressor()
    try:
        found: bytes = reader.decompress(frame, max_length=size)
    except RuntimeError as error:
        raise ValueError(f"expected a frame of LZ4: {error}") from error
    if len(found) != size or not reader.eof:
        raise ValueError(f"expected an LZ4 frame of {size} bytes, found {len(found)} in a frame of another length")
    return found
