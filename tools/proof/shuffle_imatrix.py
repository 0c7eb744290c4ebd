"""shuffle_imatrix.py - an importance matrix whose columns are in a random order: a control.

    shuffle_imatrix.py IN.gguf OUT.gguf

The vectors keep their values, so their spread, but these belong to other columns. What a matrix
gains by telling columns apart must be gone. The same every time."""
import random
import struct
import sys

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, F32 = 8, 9, 0


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        value = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value[0] if len(value) == 1 else value

    def text(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            kind, n = self.take("IQ")
            return [self.value(kind) for _ in range(n)]
        self.at += SIZES[kind]
        return self.data[self.at - SIZES[kind]:self.at]


def tensors(data):
    """(name, dims, place) of every F32 tensor."""
    r = Reader(data)
    magic, version, n_tensor, n_kv = r.take("4sIQQ")
    if magic != b"GGUF":
        raise ValueError("not a GGUF file")
    alignment, found = 32, []
    for _ in range(n_kv):
        key, kind = r.text(), r.take("I")
        value = r.value(kind)
        if key == "general.alignment":
            alignment = struct.unpack("<I", value)[0]
    for _ in range(n_tensor):
        name = r.text()
        dims = [r.take("Q") for _ in range(r.take("I"))]
        kind, offset = r.take("IQ")
        found.append((name, dims, kind, offset))
    begin = (r.at + alignment - 1) // alignment * alignment
    return [(n, d, begin + o) for n, d, k, o in found if k == F32]


def main():
    with open(sys.argv[1], "rb") as f:
        data = bytearray(f.read())
    for name, dims, at in tensors(data):
        stem, _, kind = name.rpartition(".")
        if kind not in ("in_sum2", "in_sum"):
            continue
        cols, rest = dims[0], 1
        for d in dims[1:]:
            rest *= d
        for i in range(rest):
            row = list(struct.unpack_from("<%df" % cols, data, at + 4 * cols * i))
            random.Random("%s %d" % (stem, i)).shuffle(row)
            struct.pack_into("<%df" % cols, data, at + 4 * cols * i, *row)
    with open(sys.argv[2], "wb") as f:
        f.write(data)


if __name__ == "__main__":
    main()
