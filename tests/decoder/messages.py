"""M1 and M2 of WIRE.md: sealing and opening, as the enclave and as the client."""

import chacha
import curves
import formats
import hpke
from formats import LABEL, require, sha256

CHUNK, TAG = 16384, chacha.TAG
FIRST_CHUNK, END_RECORD = 1024, 2048
HEAD, DATA, DUMMY, ERROR, END = 1, 2, 3, 4, 5


# -- chunks
class Chunks:
    """Key and nonces of one direction."""

    def __init__(self, prk, direction):
        self._key = hpke.expand(prk, LABEL + direction + b" key", 32)
        self._nonce = int.from_bytes(hpke.expand(prk, LABEL + direction + b" nonce", 12), "big")
        self._count = 0

    def _next(self):
        nonce = (self._nonce ^ self._count).to_bytes(12, "big")
        self._count += 1
        return nonce

    def seal(self, plaintext, last=False):
        """The framed chunk."""
        sealed = chacha.seal(self._key, self._next(), b"final" if last else b"", plaintext)
        return formats.varint(0 if last else len(sealed)) + sealed

    def open_all(self, data):
        """(framed chunk, plaintext, is final) of a whole message."""
        while True:
            length, rest = formats.read_varint(data) or (1, b"")
            last = length == 0
            length = len(rest) if last else length
            require(TAG < length <= CHUNK + TAG and len(rest) >= length, "length of a chunk")
            framed = data[: len(data) - len(rest) + length]
            plaintext = chacha.open_(self._key, self._next(), b"final" if last else b"", rest[:length])
            yield framed, plaintext, last
            if last:
                return
            data = rest[length:]


# -- M1
_HEADER = [("request_id", 16), ("created", 8), ("ttl", 4), ("tenant_ref", 16), ("model_digest", 32)]
_HEADER += [("padding_bucket", 4), ("dek_commit", 32)]
_NUMBERS = ("created", "ttl", "padding_bucket")


def encode_header(header):
    parts = []
    for name, length in _HEADER:
        value = header[name]
        parts.append(value.to_bytes(length, "big") if name in _NUMBERS else value)
    return b"".join(parts) + bytes([len(header["candidates"])]) + b"".join(header["candidates"])


def decode_header(data):
    header, at = {}, 0
    for name, length in _HEADER:
        value = data[at : at + length]
        require(len(value) == length, "header is cut short")
        header[name] = int.from_bytes(value, "big") if name in _NUMBERS else value
        at += length
    count = data[at] if at < len(data) else 0
    require(1 <= count <= 4 and len(data) == 113 + 16 * count, "candidates")
    header["candidates"] = [data[at + 1 + 16 * i : at + 17 + 16 * i] for i in range(count)]
    require(len(set(header["candidates"])) == count, "repeated candidate")
    require(1 <= header["ttl"] <= 120 and header["padding_bucket"] in formats.BUCKETS, "ttl or bucket")
    return header


def split_request(m1):
    """Header, wraps by key id, chunks."""
    require(len(m1) > 3 and m1[0] == 1, "version")
    length = int.from_bytes(m1[1:3], "big")
    require(length <= 1024 and len(m1) > 3 + length, "header length")
    header_bytes = m1[3 : 3 + length]
    header = decode_header(header_bytes)
    rest = m1[3 + length :]
    require(rest[0] == len(header["candidates"]), "count of wraps")
    rest = rest[1:]
    wraps = {}
    for candidate in header["candidates"]:
        wrap, rest = rest[:1184], rest[1184:]
        require(len(wrap) == 1184 and wrap[:16] == candidate, "wrap")
        wraps[candidate] = wrap[16:]
    return header_bytes, header, wraps, rest


def _wrap_info(config):
    return LABEL + b"request" + config["hash"]


def _request_chunks(header_bytes, dek):
    return Chunks(hpke.extract(sha256(header_bytes), dek), b"request")


def _member_proof(header_bytes, padded):
    return sha256(header_bytes) + sha256(padded)


def open_request(m1, config, private_key, cluster_id, now):
    """M1 as the enclave whose key `config` describes."""
    header_bytes, header, wraps, chunks = split_request(m1)
    require(header["created"] - 30 <= now < header["created"] + header["ttl"], "request is not live")
    require(header["created"] < config["not_after"], "sealed after the end of its key")
    require(header["model_digest"] == config["model_digest"], "model")
    require(config["key_id"] in wraps, "no wrap for this key")
    wrap = wraps[config["key_id"]]
    context = hpke.Context(hpke.decapsulate(private_key, wrap[: hpke.ENC_LEN]), _wrap_info(config))
    dek = context.open(sha256(header_bytes), wrap[hpke.ENC_LEN :])
    require(len(dek) == 32, "DEK")
    require(header["dek_commit"] == hpke.expand(dek, LABEL + b"dek-commit", 32), "commitment")
    plaintexts = [(p, last) for _, p, last in _request_chunks(header_bytes, dek).open_all(chunks)]
    require(not plaintexts[0][1], "first chunk is final")
    require(all(len(p) == CHUNK for p, _ in plaintexts[1:-1]), "chunk is not full")
    first, padded = plaintexts[0][0], b"".join(p for p, _ in plaintexts[1:])
    require(len(padded) == header["padding_bucket"], "length of the message")
    length = int.from_bytes(first[32:34], "big")
    signature, padding = first[34 + length + 32 : 34 + length + 96], first[34 + length + 96 :]
    require(len(signature) == 64 and len(first) % FIRST_CHUNK == 0, "length of the first chunk")
    require(len(padding) < FIRST_CHUNK and not any(padding), "padding of the first chunk")
    claims = formats.credential(first[34 : 34 + length], cluster_id, now)
    tenant = formats.tenant_id(claims["root"])
    require(first[:32] == tenant and header["tenant_ref"] == formats.tenant_ref(cluster_id, tenant), "tenant")
    require(header["model_digest"] in claims["models"], "model not allowed")
    proof = _member_proof(header_bytes, padded)
    require(formats.verify(formats.raw_key(claims["member"]), b"request", proof, signature), "member signature")
    path, body = formats.decode_request(padded)
    return {
        "header": header,
        "header_hash": sha256(header_bytes),
        "tenant_id": tenant,
        "member": claims["member"],
        "policy_hash": first[34 + length : 34 + length + 32],
        "request_hash": sha256(LABEL, b"request-hash", header_bytes, chunks),
        "exporter_secret": context.exporter_secret,
        "path": path,
        "body": body,
    }


def seal_request(ask, configs, dek, randomness):
    """M1 as a client, with 64 random bytes per candidate; and what its answer is opened with."""
    padded = formats.encode_request(ask["path"], ask["body"])
    header_bytes = encode_header(
        {
            "request_id": ask["request_id"],
            "created": ask["created"],
            "ttl": ask["ttl"],
            "tenant_ref": configs[0]["tenant_ref"],
            "model_digest": configs[0]["model_digest"],
            "padding_bucket": len(padded),
            "dek_commit": hpke.expand(dek, LABEL + b"dek-commit", 32),
            "candidates": [config["key_id"] for config in configs],
        }
    )
    m1 = b"\x01" + len(header_bytes).to_bytes(2, "big") + header_bytes + bytes([len(configs)])
    exporters = {}
    for config, random in zip(configs, randomness):
        secret, enc = hpke.encapsulate(config["pk"], random)
        context = hpke.Context(secret, _wrap_info(config))
        m1 += config["key_id"] + enc + context.seal(sha256(header_bytes), dek)
        exporters[config["key_id"]] = context.exporter_secret
    signature = formats.sign(ask["member_seed"], b"request", _member_proof(header_bytes, padded))
    credential = ask["credential"]
    first = ask["tenant_id"] + len(credential).to_bytes(2, "big") + credential + ask["policy_hash"] + signature
    sealer = _request_chunks(header_bytes, dek)
    chunks = sealer.seal(first + bytes(-len(first) % FIRST_CHUNK))
    for at in range(0, len(padded), CHUNK):
        chunks += sealer.seal(padded[at : at + CHUNK], last=at + CHUNK >= len(padded))
    expected = {
        "request_id": ask["request_id"],
        "tenant_id": ask["tenant_id"],
        "policy_hash": ask["policy_hash"],
        "request_hash": sha256(LABEL, b"request-hash", header_bytes, chunks),
    }
    return m1 + chunks, {"expected": expected, "header_hash": sha256(header_bytes), "exporters": exporters}


# -- M2
def _response_chunks(exporter_secret, header_hash, key, nonce):
    secret = hpke.export(exporter_secret, LABEL + b"response" + header_hash + key + nonce, 32)
    return Chunks(secret, b"response")


def _record(kind, payload, size):
    record = bytes([kind]) + len(payload).to_bytes(2, "big") + payload
    return record + bytes(max(size - len(record), 0))


def seal_response(request, config, nonce, records, receipt):
    """M2 as the enclave: `records` as (type, payload) before padding, `receipt` makes the signed one from the hash."""
    padding = config["padding"]
    size, bucket = padding["record_size"], padding["count_bucket"]
    if size:
        records = records + [(DUMMY, b"")] * (-len(records) % bucket)
    sealer = _response_chunks(request["exporter_secret"], request["header_hash"], config["key_id"], nonce)
    m2 = b"\x01" + config["key_id"] + nonce
    for kind, payload in records:
        m2 += sealer.seal(_record(kind, payload, size))
    signed = receipt(sha256(LABEL, b"response-hash", m2))
    return m2 + sealer.seal(_record(END, signed, END_RECORD if size else 0), last=True)


def _read_record(plaintext, size):
    require(len(plaintext) >= 3 and size in (0, len(plaintext)), "size of a record")
    length = int.from_bytes(plaintext[1:3], "big")
    payload, padding = plaintext[3 : 3 + length], plaintext[3 + length :]
    require(len(payload) == length and not any(padding) and (size or not padding), "padding of a record")
    return plaintext[0], payload


def open_response(m2, sealed, configs, identities):
    """Head, body, error code, receipt and the answering key of M2 as the client that sealed the request."""
    require(m2[:1] == b"\x01" and len(m2) >= 49, "prefix")
    key, nonce = m2[1:17], m2[17:49]
    require(key in sealed["exporters"], "no candidate")
    at = [config["key_id"] for config in configs].index(key)
    config, size = configs[at], configs[at]["padding"]["record_size"]
    opener = _response_chunks(sealed["exporters"][key], sealed["header_hash"], key, nonce)
    head, body, error, count, hashed, signed = None, b"", None, 0, m2[:49], None
    for framed, plaintext, last in opener.open_all(m2[49:]):
        kind, payload = _read_record(plaintext, END_RECORD if size and last else size)
        require(last == (kind == END), "end")
        if last:
            require(head or error, "end of nothing")
            signed = payload
            break
        hashed += framed
        count += 1
        if kind == HEAD and not head and not error:
            head = formats.decode_head(payload)
        elif kind == DATA and head and not error and payload:
            body += payload
        elif kind == ERROR and not error:
            error = formats.decode_error(payload)
        else:
            require(kind == DUMMY and size and (head or error) and not payload, "order of the records")
    require(not size or count % config["padding"]["count_bucket"] == 0, "count of the records")
    receipt = formats.receipt(signed, identities[at])
    _check_receipt(receipt, sealed["expected"], config)
    require(receipt["outcome"] == ("error" if error else "complete"), "outcome")
    require(receipt["response_hash"] == sha256(LABEL, b"response-hash", hashed), "response hash")
    return {"head": head, "body": body, "error": error, "receipt": signed, "key_id": key}


def _check_receipt(receipt, expected, config):
    names = ("tee", "enclave_id", "boot_id", "key_id", "model_digest", "workload_digest")
    for name, value in list(expected.items()) + [(name, config[name]) for name in names]:
        require(receipt[name] == value, "receipt: " + name)
    require(receipt["distinct_tenants"] == 1, "distinct tenants")
