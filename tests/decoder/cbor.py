"""Deterministic CBOR (RFC 8949 section 4.2) of what the protocol uses: unsigned integers, byte and text strings, arrays,
maps, booleans. Everything else, and every other encoding of the same, is refused."""


class NotDeterministic(Exception):
    """Not CBOR, or not its one deterministic form."""


def _head(major, value):
    for length, info in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if value < 24:
            return bytes([major << 5 | value])
        if value < 1 << (8 * length):
            return bytes([major << 5 | info]) + value.to_bytes(length, "big")
    raise ValueError(value)


def encode(value):
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _head(0, value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        entries = sorted((encode(key), encode(item)) for key, item in value.items())
        return _head(5, len(entries)) + b"".join(key + item for key, item in entries)
    raise TypeError(type(value))


def decode(data):
    value, rest = _read(data, 8)
    if rest:
        raise NotDeterministic("bytes after the value")
    return value


def _take(data, length):
    if len(data) < length:
        raise NotDeterministic("cut short")
    return data[:length], data[length:]


def _read_head(data):
    first, data = _take(data, 1)
    major, info = first[0] >> 5, first[0] & 31
    if info < 24:
        return major, info, data
    if info > 27:
        raise NotDeterministic("indefinite or reserved length")
    length = 1 << (info - 24)
    encoded, data = _take(data, length)
    value = int.from_bytes(encoded, "big")
    if value < (24 if length == 1 else 1 << (4 * length)):
        raise NotDeterministic("longer than necessary")
    return major, value, data


def _read(data, depth):
    if depth == 0:
        raise NotDeterministic("too deep")
    if data[:1] in (b"\xf4", b"\xf5"):
        return data[:1] == b"\xf5", data[1:]
    major, value, data = _read_head(data)
    if major == 0:
        return value, data
    if major == 2:
        return _take(data, value)
    if major == 3:
        text, data = _take(data, value)
        try:
            return text.decode(), data
        except UnicodeDecodeError:
            raise NotDeterministic("not UTF-8") from None
    if major == 4:
        items = []
        for _ in range(value):
            item, data = _read(data, depth - 1)
            items.append(item)
        return items, data
    if major == 5:
        entries, last = {}, b""
        for _ in range(value):
            start = data
            key, data = _read(data, depth - 1)
            encoded = start[: len(start) - len(data)]
            if encoded <= last:
                raise NotDeterministic("keys out of order")
            last = encoded
            entries[key], data = _read(data, depth - 1)
        return entries, data
    raise NotDeterministic("a type that the protocol does not use")
