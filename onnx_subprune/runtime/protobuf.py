"""Protobuf's wire format, as far as a model is put together from serialized parts of its graph.

A message within another is its field's tag, its length and its text, and what stands behind one another is merged: so a model is the
concatenation of models that have one node, one input or one weight each.
"""

from enum import IntEnum

GRAPH = 7
"""The field of a ModelProto that holds the graph."""
TEXT = 2
"""Wire type of strings, bytes and messages."""


class Field(IntEnum):
    """Fields of a GraphProto."""

    NODE = 1
    NAME = 2
    INITIALIZER = 5
    INPUT = 11
    OUTPUT = 12
    SPARSE_INITIALIZER = 15


def in_graph(field: Field, text: bytes) -> bytes:
    """Return a serialized ModelProto whose graph has nothing but this."""
    head = head_of(field, len(text))
    return b"".join([head_of(GRAPH, len(head) + len(text)), head, text])


def head_of(field: int, length: int) -> bytes:
    """Return what stands before the text of a field."""
    return _varint(field << 3 | TEXT) + _varint(length)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
