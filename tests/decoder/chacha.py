"""ChaCha20-Poly1305 (RFC 8439), for tests: not constant-time."""

import hmac
import struct

TAG = 16
_MASK = 0xFFFFFFFF


class Forged(Exception):
    """The tag does not fit."""


def _quarter(s, a, b, c, d):
    s[a] = (s[a] + s[b]) & _MASK
    x = s[d] ^ s[a]
    s[d] = ((x << 16) | (x >> 16)) & _MASK
    s[c] = (s[c] + s[d]) & _MASK
    x = s[b] ^ s[c]
    s[b] = ((x << 12) | (x >> 20)) & _MASK
    s[a] = (s[a] + s[b]) & _MASK
    x = s[d] ^ s[a]
    s[d] = ((x << 8) | (x >> 24)) & _MASK
    s[c] = (s[c] + s[d]) & _MASK
    x = s[b] ^ s[c]
    s[b] = ((x << 7) | (x >> 25)) & _MASK


def _block(key, counter, nonce):
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    start += struct.unpack("<8I", key) + (counter,) + struct.unpack("<3I", nonce)
    s = list(start)
    for _ in range(10):
        _quarter(s, 0, 4, 8, 12)
        _quarter(s, 1, 5, 9, 13)
        _quarter(s, 2, 6, 10, 14)
        _quarter(s, 3, 7, 11, 15)
        _quarter(s, 0, 5, 10, 15)
        _quarter(s, 1, 6, 11, 12)
        _quarter(s, 2, 7, 8, 13)
        _quarter(s, 3, 4, 9, 14)
    return struct.pack("<16I", *((a + b) & _MASK for a, b in zip(s, start)))


def _xor(key, nonce, data):
    out = bytearray()
    for i in range(0, len(data), 64):
        stream = _block(key, 1 + i // 64, nonce)
        out += bytes(a ^ b for a, b in zip(data[i : i + 64], stream))
    return bytes(out)


def _poly1305(key, message):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(message), 16):
        total = (total + int.from_bytes(message[i : i + 16] + b"\x01", "little")) * r % ((1 << 130) - 5)
    return ((total + int.from_bytes(key[16:], "little")) & ((1 << 128) - 1)).to_bytes(16, "little")


def _tag(key, nonce, aad, ciphertext):
    def padded(data):
        return data + bytes(-len(data) % 16)

    lengths = struct.pack("<QQ", len(aad), len(ciphertext))
    return _poly1305(_block(key, 0, nonce)[:32], padded(aad) + padded(ciphertext) + lengths)


def seal(key, nonce, aad, plaintext):
    """Ciphertext and tag."""
    ciphertext = _xor(key, nonce, plaintext)
    return ciphertext + _tag(key, nonce, aad, ciphertext)


def open_(key, nonce, aad, sealed):
    """The plaintext; `Forged` if key, nonce, associated data or ciphertext are others."""
    if len(sealed) < TAG:
        raise Forged
    ciphertext, tag = sealed[:-TAG], sealed[-TAG:]
    if not hmac.compare_digest(tag, _tag(key, nonce, aad, ciphertext)):
        raise Forged
    return _xor(key, nonce, ciphertext)
