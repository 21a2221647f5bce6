"""Cuts a GGUF file into parts as llama.cpp's gguf-split does: NAME-00001-of-00003.gguf, the metadata in the first."""
import struct

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, U16, I32 = 8, 9, 2, 5
ALIGNMENT = 32


class Reader:
    def __init__(self, content):
        self.content, self.at = content, 0

    def take(self, form):
        value = struct.unpack_from("<" + form, self.content, self.at)
        self.at += struct.calcsize("<" + form)
        return value[0]

    def skip_string(self):
        length = self.take("Q")
        self.at += length

    def skip_value(self, kind):
        if kind == STRING:
            self.skip_string()
        elif kind == ARRAY:
            of, count = self.take("I"), self.take("Q")
            if of == STRING:
                for _ in range(count):
                    self.skip_string()
            else:
                self.at += SIZES[of] * count
        else:
            self.at += SIZES[kind]


def key(name, kind, form, value):
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I" + form, kind, value)


def pad(content):
    return content + b"\0" * (-len(content) % ALIGNMENT)


def cut(content, parts):
    """[bytes] of `parts` files with about equally many tensors."""
    reader = Reader(content)
    assert content[:4] == b"GGUF"
    reader.at = 8
    tensor_count, key_count = reader.take("Q"), reader.take("Q")
    keys_start = reader.at
    for _ in range(key_count):
        reader.skip_string()
        reader.skip_value(reader.take("I"))
    keys = content[keys_start:reader.at]
    tensors = []  # (description without the offset, offset)
    for _ in range(tensor_count):
        start = reader.at
        reader.skip_string()
        dimensions = reader.take("I")
        reader.at += 8 * dimensions + 4
        description = content[start:reader.at]
        tensors.append((description, reader.take("Q")))
    data = content[reader.at + -reader.at % ALIGNMENT:]
    ends = [offset for _, offset in tensors[1:]] + [len(data)]
    files = []
    for i in range(parts):
        mine = range(i * tensor_count // parts, (i + 1) * tensor_count // parts)
        split = (key("split.no", U16, "H", i) + key("split.count", U16, "H", parts) +
                 key("split.tensors.count", I32, "i", tensor_count))
        head = b"GGUF" + struct.pack("<IQQ", 3, len(mine), 3 + (key_count if i == 0 else 0))
        head += (keys if i == 0 else b"") + split
        body = b""
        for t in mine:
            description, offset = tensors[t]
            head += description + struct.pack("<Q", len(body))
            body = pad(body + data[offset:ends[t]])
        files.append(pad(head) + body)
    return files
