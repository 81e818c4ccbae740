"""Signed objects, identities and the small formats of WIRE.md."""

import hashlib

import cbor
import curves

LABEL = b"cloister/v1 "
SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
BUCKETS = [1 << i for i in range(10, 24)]
PATHS = ["/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings"]
CONTENT_TYPES = ["application/json", "text/event-stream"]
ERRORS = {
    "preempted": (True, "the lease of the model server ended before the answer did; send the request again"),
    "engine_failed": (True, "the model server failed while it answered"),
    "engine_timeout": (True, "the model server did not answer in time"),
    "replayed": (False, "this sealed request was already answered once"),
    "quota_exceeded": (True, "too many requests of this tenant in this key window"),
    "answer_too_large": (False, "the answer is larger than the enclave delivers"),
    "revoked": (True, "the enclave's attestation ended; send the request again"),
}


class Refused(Exception):
    """WIRE.md does not allow this."""


def require(condition, what):
    if not condition:
        raise Refused(what)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


# -- identities
def spki(public):
    return SPKI_PREFIX + public


def raw_key(der):
    require(len(der) == 44 and der[:12] == SPKI_PREFIX, "key is not Ed25519")
    return der[12:]


def tenant_id(root_spki):
    return sha256(root_spki)


def tenant_ref(cluster_id, tenant):
    return sha256(LABEL, b"tenant-ref", cluster_id.encode(), tenant)[:16]


def enclave_id(identity_spki, boot_id, workload_digest):
    return sha256(cbor.encode({0: identity_spki, 1: boot_id, 2: workload_digest}))


def key_id(enclave, boot_id, window, tenant, public):
    return sha256(LABEL, b"key-id", enclave, boot_id, window.to_bytes(8, "big"), tenant, public)[:16]


# -- signed objects
def sign(seed, kind, payload):
    return curves.ed25519_sign(seed, LABEL + kind + b"\x00" + payload)


def verify(public, kind, payload, signature):
    return curves.ed25519_verify(public, LABEL + kind + b"\x00" + payload, signature)


def signed_parts(data, count=2, longest=8192):
    require(len(data) <= longest, "signed object too long")
    parts = cbor.decode(data)
    require(isinstance(parts, list) and len(parts) == count, "signed object")
    require(all(isinstance(part, bytes) for part in parts), "signed object")
    require(all(len(part) == 64 for part in parts[1:]), "signature")
    return parts


def fields(payload, names):
    """The map of a payload by name; `names` is a list of (name, type, length), in the order of the keys."""
    values = payload if isinstance(payload, dict) else cbor.decode(payload)
    require(isinstance(values, dict) and list(values) == list(range(len(names))), "keys of the map")
    for (name, kind, length), value in zip(names, values.values()):
        require(type(value) is kind and (length is None or len(value) == length), name)
    return {name: value for (name, _, _), value in zip(names, values.values())}


_KEY_CONFIG = [
    ("version", int, None),
    ("tee", str, None),
    ("key_id", bytes, 16),
    ("pk", bytes, 1216),
    ("enclave_id", bytes, 32),
    ("boot_id", bytes, 16),
    ("tenant_ref", bytes, 16),
    ("model_digest", bytes, 32),
    ("served_model_name", str, None),
    ("workload_digest", bytes, 32),
    ("switch_isolation", str, None),
    ("window", int, None),
    ("not_before", int, None),
    ("not_after", int, None),
    ("padding", dict, None),
]
_PADDING = [("record_size", int, None), ("tick_millis", int, None), ("count_bucket", int, None)]


def key_config(data, identity, now):
    """A KeyConfig signed by `identity` and live at `now`, with the hash of its payload."""
    payload, signature = signed_parts(data)
    require(verify(identity, b"key-config", payload, signature), "key config signature")
    config = fields(payload, _KEY_CONFIG)
    padding = config["padding"] = fields(config["padding"], _PADDING)
    size = padding["record_size"]
    require(size == 0 or 256 <= size <= 16384, "record size")
    require(1 <= padding["tick_millis"] <= 1000 and 1 <= padding["count_bucket"] <= 1024, "padding")
    require(config["version"] == 1 and config["tee"] in ("snp", "tdx", "simulated"), "version or tee")
    require(1 <= len(config["served_model_name"].encode()) <= 128, "served model name")
    require(config["switch_isolation"] in ("reset", "restart"), "switch isolation")
    require(config["not_before"] <= now < config["not_after"], "key config is not live")
    names = [config[name] for name in ("enclave_id", "boot_id", "window", "tenant_ref", "pk")]
    require(config["key_id"] == key_id(*names), "key id")
    config["hash"] = sha256(payload)
    return config


_CREDENTIAL = [
    ("version", int, None),
    ("root", bytes, 44),
    ("member", bytes, 44),
    ("not_before", int, None),
    ("not_after", int, None),
    ("models", list, None),
    ("audience", str, None),
    ("salt_scope", str, None),
]


def credential(data, cluster_id, now):
    payload, signature = signed_parts(data)
    claims = fields(payload, _CREDENTIAL)
    require(verify(raw_key(claims["root"]), b"credential", payload, signature), "credential signature")
    raw_key(claims["member"])
    models = claims["models"]
    require(1 <= len(models) <= 64 and all(type(m) is bytes and len(m) == 32 for m in models), "models")
    require(claims["version"] == 1 and claims["salt_scope"] in ("member", "tenant"), "version or salt scope")
    require(claims["audience"] == cluster_id, "audience")
    require(claims["not_before"] < claims["not_after"] <= claims["not_before"] + 3600, "life of the credential")
    require(claims["not_before"] <= now < claims["not_after"], "credential is not live")
    return claims


_RECEIPT = [
    ("version", int, None),
    ("tee", str, None),
    ("request_id", bytes, 16),
    ("issued_at", int, None),
    ("enclave_id", bytes, 32),
    ("boot_id", bytes, 16),
    ("epoch", int, None),
    ("key_id", bytes, 16),
    ("tenant_id", bytes, 32),
    ("model_digest", bytes, 32),
    ("workload_digest", bytes, 32),
    ("gpu_checked_at", int, None),
    ("policy_hash", bytes, 32),
    ("distinct_tenants", int, None),
    ("scrub_proof", bytes, 32),
    ("sequence", int, None),
    ("usage_bucket", int, None),
    ("request_hash", bytes, 32),
    ("response_hash", bytes, 32),
    ("outcome", str, None),
]


def _cose_to_be_signed(payload):
    return cbor.encode(["Signature1", bytes.fromhex("a10127"), b"", payload])


def sign_receipt(seed, values):
    payload = cbor.encode({i: values[name] for i, (name, _, _) in enumerate(_RECEIPT)})
    return cbor.encode(
        [payload, sign(seed, b"receipt", payload), curves.ed25519_sign(seed, _cose_to_be_signed(payload))]
    )


def receipt(data, identity):
    payload, signature, cose = signed_parts(data, 3, 2045)
    require(verify(identity, b"receipt", payload, signature), "receipt signature")
    require(curves.ed25519_verify(identity, _cose_to_be_signed(payload), cose), "COSE signature of the receipt")
    values = fields(payload, _RECEIPT)
    require(values["version"] == 1 and values["outcome"] in ("complete", "error"), "version or outcome")
    return values


def receipt_as_cose(data):
    payload, _, cose = signed_parts(data, 3, 2045)
    return b"\xd2" + cbor.encode([bytes.fromhex("a10127"), {}, payload, cose])


# -- Binary HTTP
def varint(value):
    for length, bits in ((1, 0), (2, 1), (4, 2)):
        if value < 1 << (8 * length - 2):
            return (value | bits << (8 * length - 2)).to_bytes(length, "big")
    raise ValueError(value)


def read_varint(data):
    """Value and rest; `None` if more bytes are needed."""
    if not data:
        return None
    length = 1 << (data[0] >> 6)
    require(length < 8, "varint of 8 bytes")
    if len(data) < length:
        return None
    value = int.from_bytes(data[:length], "big") & ((1 << (8 * length - 2)) - 1)
    require(varint(value) == data[:length], "varint is not the shortest")
    return value, data[length:]


def _str(value):
    return varint(len(value)) + value


def _field(content_type):
    return _str(_str(b"content-type") + _str(content_type.encode()))


def _request_head(path):
    return b"\x00" + _str(b"POST") + _str(b"https") + _str(b"") + _str(path.encode()) + _field("application/json")


def encode_request(path, body):
    """The padded message."""
    message = _request_head(path) + _str(body) + b"\x00"
    bucket = next(size for size in BUCKETS if size >= len(message))
    return message + bytes(bucket - len(message))


def decode_request(padded):
    """Path and body."""
    for path in PATHS:
        head = _request_head(path)
        if padded.startswith(head):
            length, rest = read_varint(padded[len(head) :]) or (0, b"")
            require(len(rest) > length and not any(rest[length:]), "trailer or padding")
            return path, rest[:length]
    raise Refused("inner request")


def encode_head(status, content_type):
    return b"\x01" + varint(status) + _field(content_type) + b"\x00\x00"


def decode_head(data):
    status, _ = read_varint(data[1:]) or (0, b"")
    for content_type in CONTENT_TYPES:
        if 200 <= status <= 599 and data == encode_head(status, content_type):
            return status, content_type
    raise Refused("head")


def encode_error(code):
    retryable, message = ERRORS[code]
    return cbor.encode({0: code, 1: message, 2: retryable})


def decode_error(data):
    for code in ERRORS:
        if data == encode_error(code):
            return code
    raise Refused("error record")
