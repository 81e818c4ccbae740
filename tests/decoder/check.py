"""Checks this decoder on published vectors, then the golden files with it. Prints `N passed, M failed`."""

import functools
import json
import pathlib
import sys
import traceback

import cbor
import chacha
import curves
import formats
import hpke
import messages

SESSION = pathlib.Path(__file__).resolve().parents[2] / "session"
GOLDEN = SESSION / "golden"
unhex = bytes.fromhex


def golden(name):
    return (GOLDEN / name).read_bytes()


@functools.cache
def inputs():
    return json.loads(golden("inputs.json"))


def refused(function, *arguments):
    try:
        function(*arguments)
    except (formats.Refused, chacha.Forged, cbor.NotDeterministic):
        return True
    return False


# -- published vectors
def test_hpke_with_xwing():
    vectors = json.loads((SESSION / "testdata/hpke-xwing.json").read_text())
    (vector,) = [v for v in vectors if (v["kem_id"], v["kdf_id"], v["aead_id"]) == (0x647A, 1, 3)]
    assert hpke.derive_private_key(unhex(vector["ikmR"])) == unhex(vector["skRm"])
    assert hpke.public_key(unhex(vector["skRm"])) == unhex(vector["pkRm"])
    secret, enc = hpke.encapsulate(unhex(vector["pkRm"]), unhex(vector["ikmE"]))
    assert enc == unhex(vector["enc"]) and secret == hpke.decapsulate(unhex(vector["skRm"]), enc)
    context = hpke.Context(secret, unhex(vector["info"]))
    for message in vector["encryptions"]:
        assert context.open(unhex(message["aad"]), unhex(message["ct"])) == unhex(message["pt"])
    for export in vector["exports"]:
        value = hpke.export(context.exporter_secret, unhex(export["exporter_context"]), export["L"])
        assert value == unhex(export["exported_value"])


def test_a_changed_encapsulated_key_gives_another_secret():
    public = hpke.public_key(bytes(32))
    secret, enc = hpke.encapsulate(public, bytes(64))
    assert hpke.decapsulate(bytes(32), enc) == secret
    assert hpke.decapsulate(bytes(32), bytes([enc[0] ^ 1]) + enc[1:]) != secret


def test_ed25519():
    # RFC 8032 section 7.1, test 2.
    seed = unhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public = unhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = unhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert curves.ed25519_public(seed) == public
    assert curves.ed25519_sign(seed, b"\x72") == signature
    assert curves.ed25519_verify(public, b"\x72", signature)
    assert not curves.ed25519_verify(public, b"\x73", signature)
    assert not curves.ed25519_verify(public, b"\x72", signature[:32] + bytes(32))


def test_x25519():
    # RFC 7748 section 6.1.
    bob = unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice_public = unhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    shared = unhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert curves.x25519(bob, curves.BASE) == unhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    assert curves.x25519(bob, alice_public) == shared


def test_chacha20_poly1305():
    # RFC 8439 section 2.8.2.
    text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
    sealed = chacha.seal(
        bytes(range(0x80, 0xA0)), unhex("070000004041424344454647"), unhex("50515253c0c1c2c3c4c5c6c7"), text
    )
    assert sealed[:16] == unhex("d31a8d34648e60db7b86afbc53ef7ec2")
    assert sealed[-16:] == unhex("1ae10b594f09e26a7e902ecbd0600691")


def test_cbor_is_deterministic_or_refused():
    value = {0: 24, 1: b"\x01", 2: "text", 3: [True, {0: 65536}]}
    assert cbor.decode(cbor.encode(value)) == value
    bad = ["1801", "190001", "5801ff", "bf0001ff", "a200010001", "a201000000", "0000", "61ff", "20", "f6", "c000", "a1"]
    for encoded in bad:
        assert refused(cbor.decode, unhex(encoded)), encoded


# -- golden files
@functools.cache
def identity(at):
    return curves.ed25519_public(unhex(inputs()["enclaves"][at]["identity_seed"]))


@functools.cache
def configs():
    names = ["key-config-padded.bin", "key-config-unpadded.bin"]
    return [formats.key_config(golden(name), identity(at), inputs()["now"]) for at, name in enumerate(names)]


def private_key(at):
    return unhex(inputs()["enclaves"][at]["xwing_private_key"])


@functools.cache
def open_golden(at, m1=None):
    return messages.open_request(
        m1 or golden("m1.bin"), configs()[at], private_key(at), inputs()["cluster_id"], inputs()["now"]
    )


def test_golden_key_configs():
    given = inputs()
    root = formats.spki(curves.ed25519_public(unhex(given["tenant_root_seed"])))
    reference = formats.tenant_ref(given["cluster_id"], formats.tenant_id(root))
    workload = formats.sha256(unhex(given["workload"]))
    for at, config in enumerate(configs()):
        enclave = given["enclaves"][at]
        info = formats.LABEL + b"tenant-window" + hpke.SUITE + reference
        ikm = hpke.expand(unhex(enclave["window_secret"]), info, 64)
        assert hpke.derive_private_key(ikm) == private_key(at)
        assert hpke.public_key(private_key(at)) == config["pk"]
        boot = unhex(enclave["boot_id"])
        assert config["enclave_id"] == formats.enclave_id(formats.spki(identity(at)), boot, workload)
        assert (config["tenant_ref"], config["workload_digest"]) == (reference, workload)
        assert config["padding"] == enclave["padding"]


def test_golden_credential():
    given = inputs()
    claims = formats.credential(golden("credential.bin"), given["cluster_id"], given["now"])
    assert claims["member"] == formats.spki(curves.ed25519_public(unhex(given["member_seed"])))
    assert claims["salt_scope"] == "member" and len(claims["models"]) == 2
    assert refused(formats.credential, golden("credential.bin"), "other", given["now"])
    assert refused(formats.credential, golden("credential.bin"), given["cluster_id"], given["now"] + 3600)


def test_golden_request():
    given = inputs()
    for at in (0, 1):
        request = open_golden(at)
        assert request["body"] == golden(given["body_file"]) and request["path"] == given["path"]
        assert request["policy_hash"].hex() == given["policy_hash"]
        assert request["header"]["request_id"].hex() == given["request_id"]
    assert messages.encode_header(messages.decode_header(golden("m1-header.bin"))) == golden("m1-header.bin")


def test_golden_request_is_what_this_client_seals():
    given = inputs()
    m1 = golden("m1.bin")
    ask = {
        "path": given["path"],
        "body": golden(given["body_file"]),
        "request_id": unhex(given["request_id"]),
        "created": given["now"],
        "ttl": given["ttl"],
        "member_seed": unhex(given["member_seed"]),
        "credential": golden("credential.bin"),
        "tenant_id": open_golden(0)["tenant_id"],
        "policy_hash": unhex(given["policy_hash"]),
    }
    ours, _ = messages.seal_request(ask, configs(), unhex(given["dek"]), [bytes(64), bytes(64)])
    header, wraps = 3 + len(golden("m1-header.bin")) + 1, 2 * 1184
    assert ours[:header] == m1[:header] and ours[header + wraps :] == m1[header + wraps :]


def test_a_changed_golden_request_is_refused():
    m1 = golden("m1.bin")
    for at in (0, 2, 3, 30, 60, 149, 150, 1000, 1400, 2500, len(m1) - 20000, len(m1) - 1):
        changed = bytearray(m1)
        changed[at] ^= 1
        # The second candidate's wrap is nothing to the first.
        assert refused(open_golden, 0, bytes(changed)) or 1333 <= at < 2517, at
    assert refused(open_golden, 0, m1[:-1]) and refused(open_golden, 0, m1 + b"\x00")


@functools.cache
def answers():
    """What the client of the golden request knows; receiver and sender export the same."""
    request = open_golden(0)
    exporters = {configs()[at]["key_id"]: open_golden(at)["exporter_secret"] for at in (0, 1)}
    names = ("tenant_id", "policy_hash", "request_hash")
    expected = {name: request[name] for name in names} | {"request_id": request["header"]["request_id"]}
    return {"expected": expected, "header_hash": request["header_hash"], "exporters": exporters}


def open_answer(m2):
    return messages.open_response(m2, answers(), configs(), [identity(0), identity(1)])


def test_golden_answers():
    given = inputs()
    for name in ("m2-padded.bin", "m2-unpadded.bin"):
        answer = open_answer(golden(name))
        assert answer["head"] == (given["status"], given["content_type"])
        assert answer["body"] == "".join(given["pieces"]).encode() and answer["error"] is None
    assert open_answer(golden("m2-padded-error.bin"))["error"] == given["error_code"]
    assert golden("error-record.bin") == formats.encode_error(given["error_code"])


def test_golden_receipts():
    signed = open_answer(golden("m2-unpadded.bin"))["receipt"]
    assert signed == golden("receipt.bin")
    assert formats.receipt_as_cose(signed) == golden("receipt.cose.bin")


def test_golden_answers_are_what_this_enclave_seals():
    given = inputs()
    for at, name in enumerate(["m2-padded.bin", "m2-unpadded.bin"]):
        config, request, enclave = configs()[at], open_golden(at), given["enclaves"][at]
        stored = open_answer(golden(name))["receipt"]
        values = formats.receipt(stored, identity(at))

        def receipt(response_hash):
            return formats.sign_receipt(unhex(enclave["identity_seed"]), values | {"response_hash": response_hash})

        records = [(messages.HEAD, formats.encode_head(given["status"], given["content_type"]))]
        records += [(messages.DATA, piece.encode()) for piece in given["pieces"]]
        m2 = messages.seal_response(request, config, unhex(enclave["response_nonce"]), records, receipt)
        assert m2 == golden(name), name


def test_a_changed_golden_answer_is_refused():
    m2 = golden("m2-unpadded.bin")
    for at in range(0, len(m2), 37):
        changed = bytearray(m2)
        changed[at] ^= 1
        assert refused(open_answer, bytes(changed)), at
    assert refused(open_answer, m2[:-1]) and refused(open_answer, m2 + b"\x00")


def main():
    passed = failed = 0
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            try:
                test()
                passed += 1
            except Exception:
                failed += 1
                print(f"FAILED {name}\n{traceback.format_exc()}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
