"""Independent check of NVIDIA's reference integrity manifests, by lxml and cryptography: tests only.

It shares nothing with the verifier in Rust: another parser, another canonicalisation, another implementation of ECDSA and
X.509. It knows no shape: it takes what XML-DSig allows of what it meets, so that it says what a lenient verifier would say.

    rim.py verify ROOT FILE…  JSON per file on standard output: digest, signature, chain, version, ids, active measurements
    rim.py c14n              standard input: JSON list of base64 documents; output: JSON list of base64 canonical forms, or null
"""

import base64
import hashlib
import json
import sys

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from lxml import etree

DS = "{http://www.w3.org/2000/09/xmldsig#}"
SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
HASH = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
HALF = 48


def parse(document):
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=False)
    return etree.fromstring(document, parser)


def canonical(element):
    """Inclusive C14N. For a whole document and for what has no attributes of the xml prefix above it, 1.0 and 1.1 are one."""
    return etree.tostring(element, method="c14n", exclusive=False, with_comments=False)


def without_signature(document):
    """The enveloped-signature transform: the document without its signature, the text after it kept."""
    root = parse(document)
    (signature,) = root.iter(f"{DS}Signature")
    parent, before, tail = signature.getparent(), signature.getprevious(), signature.tail or ""
    parent.remove(signature)
    if before is None:
        parent.text = (parent.text or "") + tail
    else:
        before.tail = (before.tail or "") + tail
    return root


def text(element, path):
    return base64.b64decode("".join(element.findtext(path).split()))


def chain(signature, root):
    """Whether the certificates lead from the signer to the pinned root; and when all of them are valid."""
    found = [
        x509.load_der_x509_certificate(base64.b64decode(certificate.text))
        for certificate in signature.findall(f"{DS}KeyInfo/{DS}X509Data/{DS}X509Certificate")
    ]
    good = len(found) == 4 and found[-1] == root
    for below, above in zip(found, found[1:]):
        try:
            below.verify_directly_issued_by(above)
        except (InvalidSignature, ValueError, TypeError):
            good = False
    start = max(certificate.not_valid_before_utc for certificate in found)
    end = min(certificate.not_valid_after_utc for certificate in found)
    return found[0].public_key(), good, start, end


def signed(key, value, message):
    r, s = int.from_bytes(value[:HALF]), int.from_bytes(value[HALF:])
    try:
        key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def verify(document, root):
    tree = parse(document)
    (signature,) = tree.iter(f"{DS}Signature")
    key, good, start, end = chain(signature, root)
    digest = hashlib.sha384(canonical(without_signature(document))).digest()
    info = signature.find(f"{DS}SignedInfo")
    meta = tree.find(f"{SWID}Meta")
    resources = tree.findall(f"{SWID}Payload/{SWID}Resource")
    active = {
        int(resource.get("index")): [value for name, value in resource.items() if name.startswith(HASH)]
        for resource in resources
        if resource.get("active") == "True"
    }
    return {
        "digest": digest == text(info, f"{DS}Reference/{DS}DigestValue"),
        "signature": signed(key, text(signature, f"{DS}SignatureValue"), canonical(info)),
        "chain": good,
        "notBefore": int(start.timestamp()),
        "notAfter": int(end.timestamp()),
        "tagId": tree.get("tagId"),
        "name": tree.get("name"),
        "version": meta.get("colloquialVersion"),
        "measurements": len(resources),
        "active": active,
    }


def canonical_or_none(document):
    try:
        return base64.b64encode(canonical(parse(document))).decode()
    except etree.XMLSyntaxError:
        return None


def main(task, *arguments):
    if task == "c14n":
        documents = [base64.b64decode(document) for document in json.load(sys.stdin)]
        json.dump([canonical_or_none(document) for document in documents], sys.stdout)
        return
    root, *files = arguments
    with open(root, "rb") as file:
        root = x509.load_pem_x509_certificate(file.read())
    found = {}
    for name in files:
        with open(name, "rb") as file:
            found[name] = verify(file.read(), root)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
