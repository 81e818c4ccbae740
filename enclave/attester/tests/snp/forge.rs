//! Test roots whose keys are known, and reports and certificates under them with anything in them.

use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{EcdsaKeyPair, RSA_PSS_SHA384};
use cloister_attestation::UnixTime;
use cloister_attestation::identity::sha256;
use cloister_attestation::policy::{Generation, TcbVersion};
use cloister_attestation::snp::{Anchor, SnpRefusal, Trust, VerifiedReport, oid, verify};
use cloister_enclave_attester::simulated::pki::{self, Spec, authority_extensions, extension, vcek_extensions};
use const_oid::AssociatedOid;
use der::asn1::{BitString, Ia5StringRef};
use der::flagset::FlagSet;
use der::pem::{LineEnding, encode_string};
use der::{Decode, Encode};
use x509_cert::Certificate;
use x509_cert::ext::pkix::{KeyUsage, KeyUsages};
use x509_cert::serial_number::SerialNumber;

/// 2026-06-01.
pub(crate) const NOW: UnixTime = UnixTime(1_780_272_000);
pub(crate) const PROVIDER: &str = "CN=provider.test";
const ASVK_NAME: &str = "CN=SEV-VLEK-SIMULATED,O=Cloister SIMULATED TEE";
const VLEK_NAME: &str = "CN=SEV-VLEK,O=Cloister SIMULATED TEE";

/// Serial numbers, which AMD's intermediates have and its chips' certificates have not.
pub(crate) const ARK_SERIAL: &[u8] = &[1];
pub(crate) const ASK_SERIAL: &[u8] = &[2];
pub(crate) const ASVK_SERIAL: &[u8] = &[3];
pub(crate) const VCEK_SERIAL: &[u8] = &[4];
pub(crate) const VLEK_SERIAL: &[u8] = &[5];

pub(crate) struct World {
    pub(crate) keys: pki::Chain,
    pub(crate) ark: Vec<u8>,
    pub(crate) ask: Vec<u8>,
    pub(crate) asvk: Vec<u8>,
    pub(crate) chip: pki::Chip,
}

pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let keys = pki::Chain::generate(NOW).unwrap();
        let usage = KeyUsage(FlagSet::from(KeyUsages::KeyCertSign) | KeyUsages::CRLSign);
        let signs_lists = extension(KeyUsage::OID, true, usage.to_der().unwrap()).unwrap();
        let ark = issue(&keys.ark, &keys.ark_key, ARK_SERIAL, |certificate| {
            certificate.tbs_certificate.extensions.as_mut().unwrap()[1] = signs_lists.clone();
        });
        let asvk = Spec {
            subject: ASVK_NAME,
            issuer: pki::ARK_NAME,
            not_before: UnixTime(NOW.0 - 60),
            not_after: NOW.plus(3600),
            spki: pki::rsa_spki(&keys.ask_key).unwrap(),
            extensions: authority_extensions(Some(0)).unwrap(),
        };
        World {
            ask: issue(&keys.ask, &keys.ark_key, ASK_SERIAL, |_| ()),
            asvk: issue(&asvk.sign(&keys.ark_key).unwrap(), &keys.ark_key, ASVK_SERIAL, |_| ()),
            ark,
            chip: pki::Chip::generate().unwrap(),
            keys,
        }
    })
}

/// `der` with another serial number and one more change, signed again.
pub(crate) fn issue(der: &[u8], key: &RsaKeyPair, serial: &[u8], change: impl Fn(&mut Certificate)) -> Vec<u8> {
    let mut certificate = Certificate::from_der(der).unwrap();
    certificate.tbs_certificate.serial_number = SerialNumber::new(serial).unwrap();
    change(&mut certificate);
    certificate.signature = sign(key, &certificate.tbs_certificate.to_der().unwrap());
    certificate.to_der().unwrap()
}

pub(crate) fn sign(key: &RsaKeyPair, message: &[u8]) -> BitString {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), message, &mut signature)
        .unwrap();
    BitString::from_bytes(&signature).unwrap()
}

pub(crate) fn anchor(chain: &[&[u8]]) -> Anchor {
    let pem = |der: &&[u8]| encode_string("CERTIFICATE", LineEnding::LF, der).unwrap();
    let text: String = chain.iter().map(pem).collect();
    let trusted = sha256(&[chain[1]]);
    match chain.len() {
        2 => Anchor::simulated(&text, &trusted).unwrap(),
        _ => Anchor::simulated_with_providers(&text, &trusted).unwrap(),
    }
}

/// The test roots as an anchor.
pub(crate) fn roots() -> Anchor {
    let world = world();
    anchor(&[&world.ask, &world.ark, &world.asvk])
}

pub(crate) const fn tcb(generation: Generation) -> TcbVersion {
    TcbVersion {
        fmc: match generation {
            Generation::Turin => Some(1),
            Generation::Milan | Generation::Genoa => None,
        },
        bootloader: 2,
        tee: 3,
        snp: 4,
        microcode: 5,
    }
}

/// The chip's certificate.
pub(crate) fn vcek(generation: Generation, tcb: &TcbVersion, id: &[u8]) -> Vec<u8> {
    let world = world();
    let mut spec = world.chip.spec(NOW).unwrap();
    spec.extensions = vcek_extensions(&generation.to_string(), tcb, id).unwrap();
    let signed = spec.sign(&world.keys.ask_key).unwrap();
    issue(&signed, &world.keys.ask_key, VCEK_SERIAL, |_| ())
}

/// A provider's certificate, of the chip's own key, after one change.
pub(crate) fn vlek(change: impl Fn(&mut Spec)) -> Vec<u8> {
    let world = world();
    let mut spec = world.chip.spec(NOW).unwrap();
    let mut extensions = vcek_extensions("Genoa", &tcb(Generation::Genoa), &[]).unwrap();
    // No chip.
    extensions.remove(1);
    extensions.push(provider(PROVIDER));
    (spec.subject, spec.issuer, spec.extensions) = (VLEK_NAME, ASVK_NAME, extensions);
    change(&mut spec);
    let signed = spec.sign(&world.keys.ask_key).unwrap();
    issue(&signed, &world.keys.ask_key, VLEK_SERIAL, |_| ())
}

pub(crate) fn provider(name: &str) -> x509_cert::ext::Extension {
    let value = Ia5StringRef::new(name).unwrap().to_der().unwrap();
    extension(oid::PROVIDER, false, value).unwrap()
}

/// The id that chips of this generation have: 64 bytes, or 8 and zeros.
pub(crate) fn chip_id(generation: Generation) -> [u8; 64] {
    let mut id = world().chip.id;
    if generation == Generation::Turin {
        id[8..].fill(0);
    }
    id
}

/// A report of the chip, unsigned.
pub(crate) fn report(generation: Generation, version: u32) -> Vec<u8> {
    let (cpuid, tcb) = match generation {
        Generation::Milan => ([0x19, 0x01, 0x01], [2, 3, 0, 0, 0, 0, 4, 5]),
        Generation::Genoa => ([0x19, 0x11, 0x01], [2, 3, 0, 0, 0, 0, 4, 5]),
        Generation::Turin => ([0x1a, 0x02, 0x01], [1, 2, 3, 4, 0, 0, 0, 5]),
    };
    let mut report = vec![0; 0x4a0];
    let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x000, &version.to_le_bytes());
    put(0x008, &(1u64 << 17).to_le_bytes());
    put(0x034, &1u32.to_le_bytes());
    if version > 2 {
        put(0x040, &(1u64 << 5).to_le_bytes());
        put(0x188, &cpuid);
    }
    for at in [0x038, 0x180, 0x1e0, 0x1f0] {
        put(at, &tcb);
    }
    put(0x1a0, &chip_id(generation));
    report
}

/// The same by a provider's key, naming no chip.
pub(crate) fn provider_report() -> Vec<u8> {
    let mut report = report(Generation::Genoa, 5);
    report[0x048] = 1 << 2;
    report[0x1a0..0x1e0].fill(0);
    report
}

/// Puts a signature by `key` into `report`: r and s, little-endian, 72 bytes each.
pub(crate) fn signed(mut report: Vec<u8>, key: &EcdsaKeyPair) -> Vec<u8> {
    let signature = key.sign(&SystemRandom::new(), &report[..0x2a0]).unwrap();
    let (r, s) = signature.as_ref().split_at(48);
    for (at, scalar) in [(0x2a0, r), (0x2e8, s)] {
        for (index, byte) in scalar.iter().rev().enumerate() {
            report[at + index] = *byte;
        }
    }
    report
}

/// The verdict over a report that the chip's key signs, under the test roots.
pub(crate) fn verdict(report: Vec<u8>, vek: &[u8]) -> Result<VerifiedReport, SnpRefusal> {
    let report = signed(report, &world().chip.key);
    verify(&report, vek, Trust::Simulated(&roots()), NOW)
}

/// The same with the right certificate.
pub(crate) fn of_chip(generation: Generation, report: Vec<u8>) -> Result<VerifiedReport, SnpRefusal> {
    let id = chip_id(generation);
    let id = if generation == Generation::Turin { &id[..8] } else { &id };
    verdict(report, &vcek(generation, &tcb(generation), id))
}
