//! Reference values from CoRIMs: one of another project (`testdata/SOURCES.md`), and others that are made here, and signed by
//! keys of the test's own.

use std::collections::BTreeSet;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use cloister_attestation::corim::{
    CorimRefusal, MAX_CORIM_LEN, ReferenceValues, SignerKey, import_signed, import_unsigned,
};
use cloister_attestation::{AppraisalPolicy, Measurement, UnixTime};
use proptest::prelude::*;

const NOW: UnixTime = UnixTime(1_733_011_200);

/// veraison/corim, the output of an example of its tests: a private profile with a private extension.
const VERAISON: &str = include_str!("../testdata/corim/veraison_example.hex");

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.trim()).unwrap()
}

/// Head of a CBOR item.
fn head(major: u8, number: usize) -> Vec<u8> {
    let major = major << 5;
    match u16::try_from(number).unwrap() {
        small @ 0..24 => vec![major | u8::try_from(small).unwrap()],
        byte @ 24..256 => vec![major | 24, u8::try_from(byte).unwrap()],
        word => [vec![major | 25], word.to_be_bytes().to_vec()].concat(),
    }
}

fn bytes(content: &[u8]) -> Vec<u8> {
    [head(2, content.len()), content.to_vec()].concat()
}

fn text(content: &str) -> Vec<u8> {
    [head(3, content.len()), content.as_bytes().to_vec()].concat()
}

fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [head(4, items.len()), items.concat()].concat()
}

fn map(entries: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let written = entries.iter().flat_map(|(name, value)| [head(0, *name), value.clone()]);
    [head(5, entries.len()), written.flatten().collect()].concat()
}

fn tag(number: usize, item: Vec<u8>) -> Vec<u8> {
    [head(6, number), item].concat()
}

fn digest(algorithm: usize, value: &[u8]) -> Vec<u8> {
    array(&[array(&[head(0, algorithm), bytes(value)])])
}

fn comid(triple: Vec<u8>) -> Vec<u8> {
    let triples = map(&[(0, array(&[triple]))]);
    let module = map(&[(0, text("en")), (1, map(&[(0, text("tag"))])), (4, triples)]);
    tag(506, bytes(&module))
}

fn corim(comid: Vec<u8>, more: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let entries = [&[(0, text("id")), (1, array(&[comid]))], more].concat();
    tag(501, map(&entries))
}

const AMD: &[u8] = &[0x2b, 6, 1, 4, 1, 0x9c, 0x78, 3, 1];
const SNP: &str = "tag:amd.com,2024:snp-corim-profile";

fn snp_class() -> Vec<u8> {
    map(&[(0, map(&[(0, tag(111, bytes(AMD)))]))])
}

fn snp_measurement(key: usize, values: Vec<u8>) -> Vec<u8> {
    map(&[(0, head(0, key)), (1, values)])
}

fn snp_with(environment: Vec<u8>, measurement: Vec<u8>) -> Vec<u8> {
    corim(
        comid(array(&[environment, array(&[measurement])])),
        &[(3, tag(32, text(SNP)))],
    )
}

fn snp() -> Vec<u8> {
    snp_with(snp_class(), snp_measurement(641, map(&[(2, digest(7, &[0xab; 48]))])))
}

fn tdx(register: &str) -> Vec<u8> {
    let class = map(&[(0, map(&[(1, text("Intel Corporation")), (2, text("TDX"))]))]);
    let registers = [head(5, 1), text(register), digest(7, &[0xcd; 48])].concat();
    let measurement = map(&[(1, map(&[(14, registers)]))]);
    corim(comid(array(&[class, array(&[measurement])])), &[])
}

fn import(corim: &[u8]) -> Result<ReferenceValues, CorimRefusal> {
    import_unsigned(corim, NOW)
}

fn measurement(byte: u8) -> BTreeSet<Measurement> {
    BTreeSet::from([Measurement::from_bytes([byte; 48])])
}

#[test]
fn a_synthetic_manifest_of_snp_adds_to_a_policy() {
    let values = import(&snp()).unwrap();
    assert_eq!(values.snp, measurement(0xab));
    let mut policy = AppraisalPolicy::default();
    values.add_to(&mut policy);
    assert_eq!(policy.measurements, measurement(0xab));
    assert_eq!(policy.tdx, AppraisalPolicy::default().tdx);
}

#[test]
fn a_synthetic_manifest_of_tdx_adds_each_register_to_its_own_list() {
    for register in ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"] {
        let mut policy = AppraisalPolicy::default();
        import(&tdx(register)).unwrap().add_to(&mut policy);
        let lists = [
            ("mrtd", &policy.tdx.mrtd),
            ("rtmr0", &policy.tdx.rtmr0),
            ("rtmr1", &policy.tdx.rtmr1),
            ("rtmr2", &policy.tdx.rtmr2),
            ("rtmr3", &policy.tdx.rtmr3),
        ];
        for (name, list) in lists {
            assert_eq!(!list.is_empty(), name == register, "{register} {name}");
        }
    }
    assert!(matches!(import(&tdx("rtmr4")), Err(CorimRefusal::NotUnderstood(_))));
}

#[test]
fn a_manifest_of_a_profile_that_is_not_known_is_refused() {
    assert!(matches!(import(&unhex(VERAISON)), Err(CorimRefusal::NotUnderstood(_))));
}

#[test]
fn synthetic_manifests_with_what_would_have_to_be_ignored_are_refused() {
    let good = || snp_measurement(641, map(&[(2, digest(7, &[1; 48]))]));
    let of_measurement = |measurement| snp_with(snp_class(), measurement);
    let class = |entries: &[(usize, Vec<u8>)]| map(&[(0, map(entries))]);
    let oid = || tag(111, bytes(AMD));
    let module = |entries: &[(usize, Vec<u8>)]| corim(tag(506, bytes(&map(entries))), &[]);
    for (what, document) in [
        (
            "another key",
            of_measurement(snp_measurement(640, map(&[(2, digest(7, &[1; 48]))]))),
        ),
        ("no key", of_measurement(map(&[(1, map(&[(2, digest(7, &[1; 48]))]))]))),
        (
            "an algorithm",
            of_measurement(snp_measurement(641, map(&[(2, digest(1, &[1; 48]))]))),
        ),
        (
            "a length",
            of_measurement(snp_measurement(641, map(&[(2, digest(7, &[1; 47]))]))),
        ),
        (
            "two digests",
            of_measurement(snp_measurement(
                641,
                map(&[(
                    2,
                    array(&[digest(7, &[1; 48])[1..].to_vec(), digest(7, &[2; 48])[1..].to_vec()]),
                )]),
            )),
        ),
        (
            "a version beside",
            of_measurement(snp_measurement(641, map(&[(1, head(0, 1)), (2, digest(7, &[1; 48]))]))),
        ),
        (
            "authorities",
            of_measurement(map(&[
                (0, head(0, 641)),
                (1, map(&[(2, digest(7, &[1; 48]))])),
                (2, array(&[])),
            ])),
        ),
        (
            "an instance",
            snp_with(map(&[(0, map(&[(0, oid())])), (1, bytes(b"chip"))]), good()),
        ),
        ("a layer", snp_with(class(&[(0, oid()), (3, head(0, 1))]), good())),
        ("a UUID", snp_with(class(&[(0, tag(37, bytes(&[0; 16])))]), good())),
        (
            "another arc",
            snp_with(class(&[(0, tag(111, bytes(&[0x2b, 6, 1])))]), good()),
        ),
        ("no profile", corim(comid(array(&[snp_class(), array(&[good()])])), &[])),
        ("a tag that is a CoSWID", corim(tag(505, bytes(&[0xa0])), &[])),
        (
            "dependencies",
            corim(comid(array(&[snp_class(), array(&[good()])])), &[(2, array(&[]))]),
        ),
        (
            "an entry",
            corim(comid(array(&[snp_class(), array(&[good()])])), &[(9, head(0, 1))]),
        ),
        ("links", module(&[(3, array(&[]))])),
        ("endorsed values", module(&[(4, map(&[(1, array(&[]))]))])),
        ("another entry of a module", module(&[(9, head(0, 1))])),
    ] {
        assert!(
            matches!(import(&document), Err(CorimRefusal::NotUnderstood(_))),
            "{what}: {:?}",
            import(&document)
        );
    }
}

#[test]
fn synthetic_manifests_that_are_malformed_are_refused() {
    let malformed = |document: &[u8]| matches!(import(document), Err(CorimRefusal::Malformed(_)));
    let good = snp();
    assert!(malformed(&[good.clone(), vec![0]].concat()));
    assert!(malformed(&good[3..]));
    for length in 0..good.len() {
        assert!(import(&good[..length]).is_err(), "{length}");
    }
    // Indefinite lengths, names twice, no id, no tags.
    assert!(malformed(&tag(501, vec![0xbf, 0xff])));
    let measurement = snp_measurement(641, map(&[(2, digest(7, &[1; 48]))]));
    let reference = comid(array(&[snp_class(), array(&[measurement])]));
    let twice = tag(501, map(&[(0, text("a")), (0, text("b")), (1, array(&[reference]))]));
    assert!(malformed(&twice));
    assert!(malformed(&tag(501, map(&[(3, text(SNP))]))));
    assert_eq!(import(&tag(501, map(&[(0, text("a"))]))), Err(CorimRefusal::Empty));
    assert_eq!(import(&vec![0; MAX_CORIM_LEN + 1]), Err(CorimRefusal::TooLong));
}

#[test]
fn a_synthetic_manifest_is_refused_outside_of_its_validity() {
    let with = |entries: &[(usize, Vec<u8>)]| {
        let measurement = snp_measurement(641, map(&[(2, digest(7, &[1; 48]))]));
        let comid = comid(array(&[snp_class(), array(&[measurement])]));
        corim(comid, &[(3, text(SNP)), (4, map(entries))])
    };
    let at = |seconds: u64| {
        tag(
            1,
            [vec![0x1a], u32::try_from(seconds).unwrap().to_be_bytes().to_vec()].concat(),
        )
    };
    assert!(import(&with(&[(0, at(NOW.0)), (1, at(NOW.0))])).is_ok());
    assert_eq!(import(&with(&[(1, at(NOW.0 - 1))])), Err(CorimRefusal::NotValid));
    assert_eq!(
        import(&with(&[(0, at(NOW.0 + 1)), (1, at(NOW.0 + 2))])),
        Err(CorimRefusal::NotValid)
    );
    assert!(matches!(
        import(&with(&[(0, at(NOW.0))])),
        Err(CorimRefusal::Malformed(_))
    ));
}

/// COSE_Sign1 of `payload`.
fn signed(payload: &[u8], key: &EcdsaKeyPair, protected: &[u8]) -> Vec<u8> {
    let to_be_signed = array(&[text("Signature1"), bytes(protected), bytes(&[]), bytes(payload)]);
    let signature = key.sign(&SystemRandom::new(), &to_be_signed).unwrap();
    tag(
        18,
        array(&[bytes(protected), head(5, 0), bytes(payload), bytes(signature.as_ref())]),
    )
}

fn protected(algorithm: i8) -> Vec<u8> {
    let algorithm = head(1, usize::try_from(-1 - algorithm).unwrap());
    map(&[(1, algorithm), (3, text("application/rim+cbor")), (8, bytes(&[0xa0]))])
}

#[test]
fn a_synthetic_signed_manifest_is_imported_under_its_signers_key_only() {
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let key = SignerKey::Es384(p384.public_key().as_ref());
    let good = signed(&snp(), &p384, &protected(-35));
    assert_eq!(import_signed(&good, key, NOW).unwrap().snp, measurement(0xab));
    let other = signed(&snp(), &p256, &protected(-7));
    let es256 = SignerKey::Es256(p256.public_key().as_ref());
    assert_eq!(import_signed(&other, es256, NOW).unwrap().snp, measurement(0xab));

    let refused =
        |document: &[u8], expected: CorimRefusal| assert_eq!(import_signed(document, key, NOW), Err(expected));
    refused(&other, CorimRefusal::Signature);
    refused(&signed(&snp(), &p256, &protected(-35)), CorimRefusal::Signature);
    refused(&signed(&snp(), &p384, &protected(-7)), CorimRefusal::Signature);
    let other_content = map(&[(1, head(1, 34)), (3, text("application/json"))]);
    refused(&signed(&snp(), &p384, &other_content), CorimRefusal::Signature);
    let critical = map(&[(1, head(1, 34)), (2, array(&[])), (3, text("application/rim+cbor"))]);
    refused(
        &signed(&snp(), &p384, &critical),
        CorimRefusal::NotUnderstood("another protected header"),
    );
    let mut changed = good.clone();
    let at = changed.windows(48).position(|window| window == [0xab; 48]).unwrap();
    changed[at] ^= 1;
    refused(&changed, CorimRefusal::Signature);
    refused(
        &[good.clone(), vec![0]].concat(),
        CorimRefusal::Malformed("bytes follow where it should end"),
    );
    refused(&snp(), CorimRefusal::Signedness("not signed"));
    assert!(matches!(import(&good), Err(CorimRefusal::Signedness(_))));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(data: Vec<u8>, at in 0usize..64, byte: u8) {
        prop_assert!(import(&data).is_err());
        let mut changed = snp();
        changed[at] = byte;
        if let Ok(values) = import(&changed) {
            prop_assert_eq!(values.snp.len(), 1);
        }
    }
}
