"""ML-KEM-768 (FIPS 203), for tests: not constant-time. Names of algorithms as there."""

import hashlib

Q, N, K, DU, DV = 3329, 256, 3, 10, 4
EK_LEN, CT_LEN = 384 * K + 32, 32 * (DU * K + DV)


def _bit_reverse(i):
    return int(f"{i:07b}"[::-1], 2)


_ZETAS = [pow(17, _bit_reverse(i), Q) for i in range(128)]
_GAMMAS = [pow(17, 2 * _bit_reverse(i) + 1, Q) for i in range(128)]


def _g(data):
    digest = hashlib.sha3_512(data).digest()
    return digest[:32], digest[32:]


def _byte_encode(d, values):
    number = sum(value << (d * i) for i, value in enumerate(values))
    return number.to_bytes(32 * d, "little")


def _byte_decode(d, data):
    number = int.from_bytes(data, "little")
    return [(number >> (d * i)) & ((1 << d) - 1) for i in range(N)]


def _compress(d, poly):
    return [((x << d) + Q // 2) // Q % (1 << d) for x in poly]


def _decompress(d, values):
    return [(y * Q + (1 << (d - 1))) >> d for y in values]


def _sample_ntt(seed):
    stream = hashlib.shake_128(seed).digest(2048)
    poly, at = [], 0
    while len(poly) < N:
        c0, c1, c2 = stream[at : at + 3]
        at += 3
        poly += [d for d in (c0 + 256 * (c1 % 16), c1 // 16 + 16 * c2) if d < Q]
    return poly[:N]


def _sample_cbd(seed, n):
    """SamplePolyCBD with eta = 2."""
    bits = _byte_decode(4, hashlib.shake_256(seed + bytes([n])).digest(128))
    return [((b & 1) + (b >> 1 & 1) - (b >> 2 & 1) - (b >> 3)) % Q for b in bits]


def _ntt(poly):
    f, i, length = list(poly), 1, 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            zeta = _ZETAS[i]
            i += 1
            for j in range(start, start + length):
                t = zeta * f[j + length] % Q
                f[j + length], f[j] = (f[j] - t) % Q, (f[j] + t) % Q
        length //= 2
    return f


def _inverse_ntt(poly):
    f, i, length = list(poly), 127, 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            zeta = _ZETAS[i]
            i -= 1
            for j in range(start, start + length):
                t = f[j]
                f[j], f[j + length] = (t + f[j + length]) % Q, zeta * (f[j + length] - t) % Q
        length *= 2
    return [x * 3303 % Q for x in f]


def _multiply(f, g):
    out = []
    for i, gamma in enumerate(_GAMMAS):
        (a0, a1), (b0, b1) = f[2 * i : 2 * i + 2], g[2 * i : 2 * i + 2]
        out += [(a0 * b0 + a1 * b1 * gamma) % Q, (a0 * b1 + a1 * b0) % Q]
    return out


def _add(*polys):
    return [sum(column) % Q for column in zip(*polys)]


def _matrix(rho):
    return [[_sample_ntt(rho + bytes([j, i])) for j in range(K)] for i in range(K)]


def key_gen(d, z):
    """ML-KEM.KeyGen_internal: encapsulation key, decapsulation key."""
    rho, sigma = _g(d + bytes([K]))
    a = _matrix(rho)
    s = [_ntt(_sample_cbd(sigma, n)) for n in range(K)]
    e = [_ntt(_sample_cbd(sigma, K + n)) for n in range(K)]
    t = [_add(e[i], *(_multiply(a[i][j], s[j]) for j in range(K))) for i in range(K)]
    ek = b"".join(_byte_encode(12, poly) for poly in t) + rho
    dk = b"".join(_byte_encode(12, poly) for poly in s)
    return ek, dk + ek + hashlib.sha3_256(ek).digest() + z


def _encrypt(ek, message, randomness):
    t = [_byte_decode(12, ek[384 * i : 384 * (i + 1)]) for i in range(K)]
    a = _matrix(ek[384 * K :])
    y = [_ntt(_sample_cbd(randomness, n)) for n in range(K)]
    e1 = [_sample_cbd(randomness, K + n) for n in range(K)]
    e2 = _sample_cbd(randomness, 2 * K)
    u = [_add(e1[i], _inverse_ntt(_add(*(_multiply(a[j][i], y[j]) for j in range(K))))) for i in range(K)]
    mu = _decompress(1, _byte_decode(1, message))
    v = _add(_inverse_ntt(_add(*(_multiply(t[i], y[i]) for i in range(K)))), e2, mu)
    return b"".join(_byte_encode(DU, _compress(DU, poly)) for poly in u) + _byte_encode(DV, _compress(DV, v))


def _decrypt(dk, ciphertext):
    u = [_decompress(DU, _byte_decode(DU, ciphertext[320 * i : 320 * (i + 1)])) for i in range(K)]
    v = _decompress(DV, _byte_decode(DV, ciphertext[320 * K :]))
    s = [_byte_decode(12, dk[384 * i : 384 * (i + 1)]) for i in range(K)]
    product = _inverse_ntt(_add(*(_multiply(s[i], _ntt(u[i])) for i in range(K))))
    return _byte_encode(1, _compress(1, [(a - b) % Q for a, b in zip(v, product)]))


def is_key(ek):
    """The modulus check of FIPS 203 section 7.2."""
    values = (x for i in range(K) for x in _byte_decode(12, ek[384 * i : 384 * (i + 1)]))
    return len(ek) == EK_LEN and all(x < Q for x in values)


def encapsulate(ek, message):
    """ML-KEM.Encaps_internal: shared secret, ciphertext."""
    secret, randomness = _g(message + hashlib.sha3_256(ek).digest())
    return secret, _encrypt(ek, message, randomness)


def decapsulate(dk, ciphertext):
    """ML-KEM.Decaps_internal."""
    pke, rest = dk[: 384 * K], dk[384 * K :]
    ek, digest, z = rest[:EK_LEN], rest[EK_LEN : EK_LEN + 32], rest[EK_LEN + 32 :]
    message = _decrypt(pke, ciphertext)
    secret, randomness = _g(message + digest)
    if _encrypt(ek, message, randomness) != ciphertext:
        return hashlib.shake_256(z + ciphertext).digest(32)
    return secret
