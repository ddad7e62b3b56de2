"""An encoder of BTF, written from the kernel's description of the format and not from our reader."""

import struct

INT, PTR, ARRAY, STRUCT, UNION, ENUM = 1, 2, 3, 4, 5, 6
TYPEDEF, CONST, FUNC, FUNC_PROTO, FLOAT = 8, 10, 12, 13, 16


class BtfWriter:
    """Collects types; each method returns the new type's id, to be used in later calls.  Id 0 is void.

    With `base`, the section of a module: its numbers go on where those of `base` end, and it repeats none of
    its strings.
    """

    def __init__(self, base=None):
        self._types = b""
        self._strings = b"" if base else b"\0"
        self._count = base._count if base else 0
        self._start = len(base._strings) if base else 0
        self._known = dict(base._known) if base else {"": 0}

    def string(self, text):
        if text not in self._known:
            self._known[text] = self._start + len(self._strings)
            self._strings += text.encode() + b"\0"
        return self._known[text]

    def add(self, kind, name, size_or_type, extra=b"", vlen=0, flag=0):
        self._types += struct.pack("<III", self.string(name), vlen | kind << 24 | flag << 31, size_or_type)
        self._types += extra
        self._count += 1
        return self._count

    def integer(self, name, size, signed=False):
        return self.add(INT, name, size, struct.pack("<I", signed << 24 | size * 8))

    def pointer(self, target):
        return self.add(PTR, "", target)

    def array(self, element, count):
        return self.add(ARRAY, "", 0, struct.pack("<III", element, element, count))

    def aggregate(self, kind, name, size, members, bitfields=False):
        """`members` are (name, type, offset in bits) or, with `bitfields`, (name, type, offset, width)."""
        extra = b""
        for label, of, offset, *width in members:
            place = width[0] << 24 | offset if bitfields else offset
            extra += struct.pack("<III", self.string(label), of, place)
        return self.add(kind, name, size, extra, len(members), int(bitfields))

    def function(self, name, returns, parameters):
        extra = b"".join(struct.pack("<II", self.string(label), of) for label, of in parameters)
        prototype = self.add(FUNC_PROTO, "", returns, extra, len(parameters))
        return self.add(FUNC, name, prototype)

    def data(self):
        header = struct.pack(
            "<HBBIIIII",
            0xEB9F,
            1,
            0,
            24,
            0,
            len(self._types),
            len(self._types),
            len(self._strings),
        )
        return header + self._types + self._strings
