"""HPKE (RFC 9180), base mode, with X-Wing (draft-connolly-cfrg-xwing-kem, draft-ietf-hpke-pq), HKDF-SHA256 and
ChaCha20Poly1305."""

import hashlib
import hmac

import chacha
import curves
import mlkem

SUITE = bytes.fromhex("647a00010003")
_SUITE_ID = b"HPKE" + SUITE
_KEM_ID = b"KEM" + SUITE[:2]
_XWING_LABEL = rb"\.//^" + b"\\"
PK_LEN, ENC_LEN = mlkem.EK_LEN + 32, mlkem.CT_LEN + 32


def extract(salt, ikm):
    """HKDF-Extract (RFC 5869) with SHA-256."""
    return hmac.digest(salt or bytes(32), ikm, "sha256")


def expand(prk, info, length):
    """HKDF-Expand (RFC 5869) with SHA-256."""
    out, block, i = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(prk, block + info + bytes([i]), "sha256")
        out += block
        i += 1
    return out[:length]


# -- X-Wing
def _expand_key(seed):
    expanded = hashlib.shake_256(seed).digest(96)
    ek, dk = mlkem.key_gen(expanded[:32], expanded[32:64])
    return ek, dk, expanded[64:]


def _combine(ss_m, ss_x, ct_x, pk_x):
    return hashlib.sha3_256(ss_m + ss_x + ct_x + pk_x + _XWING_LABEL).digest()


def public_key(seed):
    ek, _, sk_x = _expand_key(seed)
    return ek + curves.x25519(sk_x, curves.BASE)


def encapsulate(public, randomness):
    """Shared secret and encapsulated key, from 64 random bytes."""
    pk_m, pk_x = public[:-32], public[-32:]
    ss_m, ct_m = mlkem.encapsulate(pk_m, randomness[:32])
    ct_x = curves.x25519(randomness[32:], curves.BASE)
    return _combine(ss_m, curves.x25519(randomness[32:], pk_x), ct_x, pk_x), ct_m + ct_x


def decapsulate(seed, enc):
    _, dk, sk_x = _expand_key(seed)
    ct_m, ct_x = enc[:-32], enc[-32:]
    pk_x = curves.x25519(sk_x, curves.BASE)
    return _combine(mlkem.decapsulate(dk, ct_m), curves.x25519(sk_x, ct_x), ct_x, pk_x)


def derive_private_key(ikm):
    """DeriveKeyPair of draft-ietf-hpke-pq: LabeledDerive with SHAKE256, empty context, 32 bytes."""
    label = b"DeriveKeyPair"
    labeled = ikm + b"HPKE-v1" + _KEM_ID + len(label).to_bytes(2, "big") + label + (32).to_bytes(2, "big")
    return hashlib.shake_256(labeled).digest(32)


# -- HPKE
def _labeled_extract(salt, label, ikm):
    return extract(salt, b"HPKE-v1" + _SUITE_ID + label + ikm)


def _labeled_expand(prk, label, info, length):
    return expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + _SUITE_ID + label + info, length)


class Context:
    """What sender and receiver share after the key schedule."""

    def __init__(self, shared_secret, info):
        context = b"\x00" + _labeled_extract(b"", b"psk_id_hash", b"") + _labeled_extract(b"", b"info_hash", info)
        secret = _labeled_extract(shared_secret, b"secret", b"")
        self._key = _labeled_expand(secret, b"key", context, 32)
        self._nonce = int.from_bytes(_labeled_expand(secret, b"base_nonce", context, 12), "big")
        self.exporter_secret = _labeled_expand(secret, b"exp", context, 32)
        self._count = 0

    def _next(self):
        nonce = (self._nonce ^ self._count).to_bytes(12, "big")
        self._count += 1
        return nonce

    def seal(self, aad, plaintext):
        return chacha.seal(self._key, self._next(), aad, plaintext)

    def open(self, aad, ciphertext):
        return chacha.open_(self._key, self._next(), aad, ciphertext)


def export(exporter_secret, context, length):
    return _labeled_expand(exporter_secret, b"sec", context, length)
