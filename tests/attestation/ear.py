"""Results of `cloister appraise --output jwt`, read by PyJWT and cryptography, which share nothing with ours.

Reads `CLOISTER_XTASK` (the program beside which `cloister` is), as `cargo xtask test` sets it.
"""

# up: none

import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "attestation/testdata"
CLOISTER = Path(os.environ["CLOISTER_XTASK"]).with_name("cloister")
NOW = "2026-01-01T00:00:00Z"
NOW_SECONDS = 1767225600
PROFILE = "tag:github.com,2023:veraison/ear"
VECTOR = {
    "instance-identity", "configuration", "executables", "file-system", "hardware", "runtime-opaque", "storage-opaque",
    "sourced-data",
}  # fmt: skip
TIERS = {"none", "affirming", "warning", "contraindicated"}


def b64(path):
    return base64.b64encode((DATA / path).read_bytes()).decode()


def bundle(report="snp/oak_genoa.bin"):
    cpu = {"tee": "snp", "report": b64(report), "vek": b64("snp/oak_genoa_vcek.der")}
    return {"cpu": cpu, "devices": []}


def device_bundle():
    device = json.loads((DATA / "nvidia/json/sdk_hopper_evidence.json").read_text())[0]
    return {"devices": [{key: device[key] for key in ("arch", "evidence", "certificate")}]}


class Workshop:
    """A folder with a key, and the command with it."""

    def __init__(self, folder, key):
        self.folder, self.key = Path(folder), key
        self.pem = self.folder / "ear.key"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.pem.touch(mode=0o600)
        self.pem.write_bytes(private)

    def appraise(self, content, *arguments):
        command = [CLOISTER, "appraise", "-", "--policy", "genuine", "--now", NOW, *arguments]
        return subprocess.run(command, input=json.dumps(content), capture_output=True, text=True, timeout=60)

    def token(self, content, *arguments):
        run = self.appraise(content, "--output", "jwt", "--key", self.pem, *arguments)
        return run.stdout.strip(), run.returncode

    def read(self, token, algorithms=("ES384", "EdDSA"), key=None):
        # The times of captured evidence are long past: they are compared below.
        options = {"verify_exp": False, "verify_iat": False, "require": ["exp", "iat", "eat_profile", "submods"]}
        return jwt.decode(token, key or self.key.public_key(), algorithms=list(algorithms), options=options)


def check_claims(claims):
    assert claims["eat_profile"] == PROFILE, claims
    assert claims["iat"] == NOW_SECONDS and NOW_SECONDS < claims["exp"] <= NOW_SECONDS + 86400, claims
    assert set(claims["ear.verifier-id"]) == {"developer", "build"}, claims
    assert claims["ear.status"] in TIERS, claims
    for part in claims["submods"].values():
        assert part["ear.status"] in TIERS, part
        assert set(part["ear.trustworthiness-vector"]) == VECTOR, part
        assert all(value in (0, 2, 32, 96) for value in part["ear.trustworthiness-vector"].values()), part
        assert part["ear.appraisal-policy-id"] == "genuine", part
        assert len(part["ear.veraison.annotated-evidence"]) == 1, part


def genuine_evidence_gives_an_affirming_result(workshop):
    token, code = workshop.token(bundle())
    claims = workshop.read(token)
    check_claims(claims)
    assert code == 0 and claims["ear.status"] == "affirming", claims
    cpu = claims["submods"]["cpu0"]
    assert cpu["ear.trustworthiness-vector"]["hardware"] == 2, cpu
    assert cpu["ear.trustworthiness-vector"]["executables"] == 0, cpu
    assert "snp" in cpu["ear.veraison.annotated-evidence"], cpu
    assert "eat_nonce" not in claims, claims


def a_gpu_has_nvidias_claims(workshop):
    token, code = workshop.token(device_bundle())
    claims = workshop.read(token)
    check_claims(claims)
    assert code == 0 and set(claims["submods"]) == {"gpu0"}, claims
    evidence = claims["submods"]["gpu0"]["ear.veraison.annotated-evidence"]["nvidia"]
    assert any(name.startswith("x-nvidia-") for name in evidence), evidence


def refused_evidence_gives_a_contraindicated_result(workshop):
    token, code = workshop.token(bundle("snp/trustee_report.bin"))
    claims = workshop.read(token)
    check_claims(claims)
    assert code == 1 and claims["ear.status"] == "contraindicated", claims


def the_header_names_the_keys_algorithm(workshop):
    token, _ = workshop.token(bundle())
    expected = "ES384" if isinstance(workshop.key, ec.EllipticCurvePrivateKey) else "EdDSA"
    assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": expected}


def another_key_does_not_verify_it(workshop):
    token, _ = workshop.token(bundle())
    other = ec.generate_private_key(ec.SECP384R1()) if isinstance(workshop.key, ec.EllipticCurvePrivateKey) else None
    other = other or ed25519.Ed25519PrivateKey.generate()
    try:
        workshop.read(token, key=other.public_key())
    except jwt.InvalidSignatureError:
        return
    raise AssertionError("a foreign key verified it")


def its_expiry_is_the_one_that_pyjwt_enforces(workshop):
    token, _ = workshop.token(bundle())
    try:
        jwt.decode(token, workshop.key.public_key(), algorithms=["ES384", "EdDSA"])
    except jwt.ExpiredSignatureError:
        return
    raise AssertionError("a result of the past was accepted")


CASES = [
    genuine_evidence_gives_an_affirming_result,
    a_gpu_has_nvidias_claims,
    refused_evidence_gives_a_contraindicated_result,
    the_header_names_the_keys_algorithm,
    another_key_does_not_verify_it,
    its_expiry_is_the_one_that_pyjwt_enforces,
]


def main():
    passed = failed = 0
    for key in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        with tempfile.TemporaryDirectory() as folder:
            workshop = Workshop(folder, key)
            for case in CASES:
                try:
                    case(workshop)
                    passed += 1
                except Exception as error:  # A case that breaks off has failed; the others still run.
                    failed += 1
                    print(f"FAILED {case.__name__} with {type(key).__name__}: {error!r}", file=sys.stderr)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
