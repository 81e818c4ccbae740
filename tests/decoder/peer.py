"""One side of the sealed session, for the tests of the other implementation: `peer.py enclave|client|reader FOLDER`.

Each reads `FOLDER/<role>.json`, in which byte strings are hex, and writes its messages and what it learnt to FOLDER:

- `enclave` opens `m1.bin` and answers it in `m2.bin`; `opened.json` says what it read.
- `client` seals `m1.bin` and keeps in `sealed.json` what its answer is opened with.
- `reader` opens `m2.bin` with that; `answer.json` says what it read.
"""

import json
import os
import pathlib
import sys

import formats
import messages


def unhex(value):
    """`value` with its hex strings as bytes."""
    if isinstance(value, dict):
        return {key: unhex(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unhex(item) for item in value]
    return bytes.fromhex(value[2:]) if isinstance(value, str) and value.startswith("0x") else value


def tohex(value):
    if isinstance(value, dict):
        return {key: tohex(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tohex(item) for item in value]
    return "0x" + value.hex() if isinstance(value, bytes) else value


def enclave(folder, given):
    identity = given["identity"]
    config = formats.key_config(given["key_config"], identity, given["now"])
    m1 = (folder / "m1.bin").read_bytes()
    request = messages.open_request(m1, config, given["xwing_private_key"], given["cluster_id"], given["now"])
    records = [(messages.HEAD, formats.encode_head(given["status"], given["content_type"]))]
    records += [(messages.DATA, piece) for piece in given["pieces"]]
    if given["error"]:
        records.append((messages.ERROR, formats.encode_error(given["error"])))

    def receipt(response_hash):
        names = ("tee", "enclave_id", "boot_id", "key_id", "model_digest", "workload_digest")
        return formats.sign_receipt(
            given["identity_seed"],
            {name: config[name] for name in names}
            | {name: request[name] for name in ("tenant_id", "policy_hash", "request_hash")}
            | {
                "version": 1,
                "request_id": request["header"]["request_id"],
                "issued_at": given["now"],
                "epoch": 1,
                "gpu_checked_at": 0,
                "distinct_tenants": 1,
                "scrub_proof": bytes(32),
                "sequence": 1,
                "usage_bucket": 64,
                "response_hash": response_hash,
                "outcome": "error" if given["error"] else "complete",
            },
        )

    m2 = messages.seal_response(request, config, os.urandom(32), records, receipt)
    (folder / "m2.bin").write_bytes(m2)
    return "opened.json", {"path": request["path"], "body": request["body"], "policy_hash": request["policy_hash"]}


def _configs(given):
    pairs = zip(given["key_configs"], given["identities"])
    return [formats.key_config(data, identity, given["now"]) for data, identity in pairs]


def client(folder, given):
    configs = _configs(given)
    ask = given | {"request_id": os.urandom(16), "created": given["now"]}
    m1, sealed = messages.seal_request(ask, configs, os.urandom(32), [os.urandom(64) for _ in configs])
    (folder / "m1.bin").write_bytes(m1)
    exporters = [sealed["exporters"][config["key_id"]] for config in configs]
    return "sealed.json", sealed | {"exporters": exporters}


def reader(folder, given):
    configs = _configs(given)
    sealed = unhex(json.loads((folder / "sealed.json").read_text()))
    sealed["exporters"] = {config["key_id"]: secret for config, secret in zip(configs, sealed["exporters"])}
    m2 = (folder / "m2.bin").read_bytes()
    return "answer.json", messages.open_response(m2, sealed, configs, given["identities"])


def main():
    role, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    roles = {"enclave": enclave, "client": client, "reader": reader}
    given = unhex(json.loads((folder / f"{role}.json").read_text()))
    name, learnt = roles[role](folder, given)
    (folder / name).write_text(json.dumps(tohex(learnt)))


if __name__ == "__main__":
    main()
