"""Protobuf's wire format, as far as reading a model's nodes and writing small ones takes; no protobuf library is needed."""

from collections.abc import Iterator


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message: number, and an integer or bytes."""
    place = 0

    def integer() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        key = integer()
        if key & 7 == 0:
            yield key >> 3, integer()
            continue
        length = {1: 8, 5: 4}.get(key & 7) or integer()
        yield key >> 3, data[place : place + length]
        place += length


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def text_of(field: int, *parts: bytes | str) -> bytes:
    """A field of bytes, put together from its parts."""
    joined = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return _varint(field << 3 | 2) + _varint(len(joined)) + joined


def number_of(field: int, value: int) -> bytes:
    """Return a field that holds an integer."""
    return _varint(field << 3) + _varint(value)


def integers(data: bytes | int) -> list[int]:
    """One integer, or several packed ones."""
    if isinstance(data, int):
        return [data]
    return [
        value for _, value in fields(b"".join(b"\x08" + piece for piece in _pieces(data))) if isinstance(value, int)
    ]


def _pieces(data: bytes) -> Iterator[bytes]:
    start = 0
    for place, byte in enumerate(data):
        if byte < 0x80:
            yield data[start : place + 1]
            start = place + 1
