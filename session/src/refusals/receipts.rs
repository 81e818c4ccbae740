//! The receipt in the end record.

use cloister_attestation::{
    BootId, EnclaveId, ModelDigest, PolicyHash, Sha256Digest, Tee, UnixTime, WorkloadDigest, cbor,
};
use minicbor::bytes::ByteVec;

use super::{
    fixture::*,
    round_trip::{HEAD, exchange},
};
use crate::{
    ids::{KeyId, RequestId, TenantId},
    key_config::PaddingProfile,
    opener::OpenError,
    receipt::{Outcome, Receipt, ReceiptError, SignedReceipt},
    record::ErrorCode,
};

/// Why an answer is refused whose enclave signs, or forges, another receipt; everything else of it is right.
fn refusal(outcome: Outcome, sign: impl FnOnce(Receipt, &Enclave) -> SignedReceipt) -> Option<ReceiptError> {
    let (tenant, mut enclave, _) = scene(PaddingProfile::OFF);
    let (request, opener) = exchange(&tenant, &mut enclave);
    let (mut sealer, prefix) = request.respond().unwrap();
    let mut m2 = vec![prefix, sealer.head(&HEAD).unwrap()];
    if outcome == Outcome::Error {
        m2.push(sealer.error(ErrorCode::EngineFailed).unwrap());
    }
    m2.push(
        sealer
            .end(|hash| sign(enclave.receipt(&request, hash, outcome), &enclave))
            .unwrap(),
    );
    match receive(opener, &m2.concat(), usize::MAX).err()? {
        OpenError::Receipt(error) => Some(error),
        OpenError::Forged => panic!("refused for something else than its receipt"),
    }
}

fn changed(change: impl FnOnce(&mut Receipt)) -> Option<ReceiptError> {
    refusal(Outcome::Complete, |mut receipt, enclave| {
        change(&mut receipt);
        receipt.sign(&enclave.identity)
    })
}

#[test]
fn of_another_request() {
    assert_eq!(changed(|_| ()), None);
    let other = Some(ReceiptError::OtherRequest);
    assert_eq!(changed(|r| r.request_hash = Sha256Digest::from_bytes([0; 32])), other);
    assert_eq!(changed(|r| r.request_id = RequestId::from_bytes([0; 16])), other);
    assert_eq!(changed(|r| r.tenant_id = TenantId::from_bytes([0; 32])), other);
    assert_eq!(changed(|r| r.policy = PolicyHash::from_bytes([0; 32])), other);
    assert_eq!(changed(|r| r.model = ModelDigest::from_bytes([0; 32])), other);
    assert_eq!(changed(|r| r.key_id = KeyId::from_bytes([0; 16])), other);
    assert_eq!(changed(|r| r.enclave_id = EnclaveId::from_bytes([0; 32])), other);
    assert_eq!(changed(|r| r.boot_id = BootId::from_bytes([0; 16])), other);
    assert_eq!(changed(|r| r.workload = WorkloadDigest::from_bytes([0; 32])), other);
    assert_eq!(changed(|r| r.tee = Tee::Snp), other);
}

#[test]
fn of_another_answer() {
    assert_eq!(
        changed(|r| r.response_hash = Sha256Digest::from_bytes([0; 32])),
        Some(ReceiptError::OtherResponse)
    );
}

#[test]
fn of_an_epoch_with_more_or_fewer_than_one_tenant() {
    for tenants in [0, 2, u32::MAX] {
        assert_eq!(
            changed(|r| r.distinct_tenants = tenants),
            Some(ReceiptError::NotExclusive)
        );
    }
}

#[test]
fn of_another_outcome() {
    let mismatch = Some(ReceiptError::OtherResponse);
    assert_eq!(changed(|r| r.outcome = Outcome::Error), mismatch);
    let failed = |outcome| {
        refusal(Outcome::Error, |mut receipt, enclave| {
            receipt.outcome = outcome;
            receipt.sign(&enclave.identity)
        })
    };
    assert_eq!(failed(Outcome::Error), None);
    assert_eq!(failed(Outcome::Complete), mismatch);
}

#[test]
fn what_the_client_cannot_know_may_be_anything() {
    assert_eq!(
        changed(|r| {
            r.issued_at = UnixTime(1);
            r.epoch = u64::MAX;
            r.gpu_checked_at = UnixTime(5);
            r.scrub_proof = Sha256Digest::from_bytes([0; 32]);
            r.sequence = u64::MAX;
            r.usage_bucket = 0;
        }),
        None
    );
}

#[test]
fn signed_by_another_key() {
    assert_eq!(
        refusal(Outcome::Complete, |receipt, _| receipt.sign(&key())),
        Some(ReceiptError::Signature)
    );
}

/// `[payload, signature, COSE signature]` of three receipts.
fn mixed(payload: &SignedReceipt, signature: &SignedReceipt, cose: &SignedReceipt) -> SignedReceipt {
    type Parts = (ByteVec, ByteVec, ByteVec);
    let parts = |receipt: &SignedReceipt| minicbor::decode::<Parts>(&receipt.to_bytes()).unwrap();
    let bytes = cbor::encode(&(parts(payload).0, parts(signature).1, parts(cose).2));
    SignedReceipt::parse(&bytes).unwrap()
}

#[test]
fn with_one_of_its_signatures_forged() {
    let with = |mix: fn(&SignedReceipt, &SignedReceipt) -> SignedReceipt| {
        refusal(Outcome::Complete, |receipt, enclave| {
            mix(&receipt.sign(&enclave.identity), &receipt.sign(&key()))
        })
    };
    assert_eq!(with(|good, _| mixed(good, good, good)), None);
    let signature = Some(ReceiptError::Signature);
    assert_eq!(with(|good, forged| mixed(good, forged, good)), signature);
    assert_eq!(with(|good, forged| mixed(good, good, forged)), signature);
}

#[test]
fn with_a_signature_over_another_receipt() {
    let with = |mix: fn(&SignedReceipt, &SignedReceipt) -> SignedReceipt| {
        refusal(Outcome::Complete, |receipt, enclave| {
            let mut other = receipt.clone();
            other.sequence += 1;
            mix(&receipt.sign(&enclave.identity), &other.sign(&enclave.identity))
        })
    };
    let signature = Some(ReceiptError::Signature);
    assert_eq!(with(|good, other| mixed(other, good, good)), signature);
    assert_eq!(with(|good, other| mixed(good, other, good)), signature);
    assert_eq!(with(|good, other| mixed(good, good, other)), signature);
}

#[test]
fn of_another_version() {
    let with = |version| {
        refusal(Outcome::Complete, |receipt, enclave| {
            let mut payload = receipt.sign(&enclave.identity).payload().to_vec();
            assert_eq!(payload[..3], [0xb4, 0x00, 0x01]);
            payload[2] = version;
            SignedReceipt::of_payload(payload, &enclave.identity)
        })
    };
    assert_eq!(with(1), None);
    assert_eq!(with(2), Some(ReceiptError::Malformed));
}

#[test]
fn longer_than_the_end_record() {
    let parses = |payload: usize| {
        let bytes = cbor::encode(&(
            ByteVec::from(vec![0; payload]),
            ByteVec::from(vec![0; 64]),
            ByteVec::from(vec![0; 64]),
        ));
        SignedReceipt::parse(&bytes).map(|_| bytes.len()).ok()
    };
    assert_eq!(parses(1909), Some(2045));
    assert_eq!(parses(1910), None);
}

#[test]
fn the_cose_form_is_one_that_others_can_read() {
    let enclave = Enclave::new(PaddingProfile::OFF);
    let tenant = Tenant::new();
    let mut other = Enclave::new(PaddingProfile::OFF);
    let (request, _) = exchange(&tenant, &mut other);
    let signed = enclave
        .receipt(&request, Sha256Digest::from_bytes([1; 32]), Outcome::Complete)
        .sign(&enclave.identity);
    let cose = signed.to_cose();
    // Tag 18, array of four, protected {1: -8} as a byte string, empty unprotected map (RFC 9052 section 4.2).
    assert_eq!(cose[..7], [0xd2, 0x84, 0x43, 0xa1, 0x01, 0x27, 0xa0]);
    let mut decoder = minicbor::Decoder::new(&cose[7..]);
    let payload = decoder.bytes().unwrap();
    let signature = decoder.bytes().unwrap();
    assert_eq!(decoder.position(), cose.len() - 7);
    let mut to_be_signed = vec![0x84, 0x6a];
    to_be_signed.extend_from_slice(b"Signature1\x43\xa1\x01\x27\x40");
    to_be_signed.extend_from_slice(&cbor::encode(&ByteVec::from(payload.to_vec())));
    enclave.identity.public().verify_raw(&to_be_signed, signature).unwrap();
}
