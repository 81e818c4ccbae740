//! What ties evidence to one nonce, one identity key and one set of devices.

use aws_lc_rs::digest;
use minicbor::Encode;

use crate::cbor;
use crate::identity::{IdentityKey, sha256};
use crate::ids::{BootId, EnclaveId, Sha256Digest, WorkloadDigest};

/// Length in bytes of a relying party's nonce.
pub const NONCE_LEN: usize = 32;
/// Length in bytes of the field of a CPU's report that the guest chooses.
pub const REPORT_DATA_LEN: usize = 64;

/// First field of what [`report_data`] hashes.
const CPU_LABEL: &[u8] = b"cloister/cpu/v1";
/// First field of what [`gpu_nonce`] hashes.
const GPU_LABEL: &[u8] = b"cloister/gpu/v1";

/// `K`: SHA-256 of the CBOR map {0 identity SPKI bstr, 1 boot_id bstr, 2 workload_digest bstr}.
#[must_use]
pub fn enclave_id(identity: &IdentityKey, boot_id: &BootId, workload: &WorkloadDigest) -> EnclaveId {
    #[derive(Encode)]
    #[cbor(map)]
    struct Preimage {
        #[cbor(n(0), with = "minicbor::bytes")]
        spki: [u8; crate::identity::SPKI_LEN],
        #[n(1)]
        boot_id: BootId,
        #[n(2)]
        workload: WorkloadDigest,
    }
    let preimage = Preimage {
        spki: identity.spki_der(),
        boot_id: *boot_id,
        workload: *workload,
    };
    EnclaveId::from_bytes(*sha256(&[&cbor::encode(&preimage)]).as_bytes())
}

/// `D`: SHA-256 over the evidence of each device in order, each as its length (u64, big-endian) and its exact bytes. With no
/// devices it is the SHA-256 of nothing.
#[must_use]
pub fn devices_digest(devices: &[&[u8]]) -> Sha256Digest {
    let lengths: Vec<[u8; 8]> = devices
        .iter()
        .map(|device| (device.len() as u64).to_be_bytes())
        .collect();
    let parts: Vec<&[u8]> = lengths
        .iter()
        .zip(devices)
        .flat_map(|(length, device)| [length.as_slice(), device])
        .collect();
    sha256(&parts)
}

/// The nonce of every GPU of one enclave: SHA-256 over `"cloister/gpu/v1"`, N and K, each preceded by its length in bytes as
/// u16, big-endian: `000f "cloister/gpu/v1" 0020 N 0020 K`.
#[must_use]
pub fn gpu_nonce(nonce: &[u8; NONCE_LEN], enclave: &EnclaveId) -> [u8; NONCE_LEN] {
    // Every field is a constant 15 or 32 bytes long.
    let length = |field: &[u8]| (field.len() as u16).to_be_bytes();
    let fields = [GPU_LABEL, nonce, enclave.as_bytes()];
    let parts = fields.map(|field| [&length(field), field].concat());
    *sha256(&parts.each_ref().map(Vec::as_slice)).as_bytes()
}

/// The 64 bytes that a CPU's report must carry: SHA-512 over `"cloister/cpu/v1"`, N, K and D, each preceded by its length in
/// bytes as u16, big-endian: `000f "cloister/cpu/v1" 0020 N 0020 K 0020 D`.
#[must_use]
pub fn report_data(nonce: &[u8; NONCE_LEN], enclave: &EnclaveId, devices: &Sha256Digest) -> [u8; REPORT_DATA_LEN] {
    let mut context = digest::Context::new(&digest::SHA512);
    for field in [CPU_LABEL, nonce, enclave.as_bytes(), devices.as_bytes()] {
        // Every field is a constant 15 or 32 bytes long.
        context.update(&(field.len() as u16).to_be_bytes());
        context.update(field);
    }
    let mut out = [0u8; REPORT_DATA_LEN];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enclave_id_is_the_hash_of_the_documented_bytes() {
        let key = IdentityKey::from_raw([5; 32]);
        let (boot, workload) = (BootId::from_bytes([6; 16]), WorkloadDigest::from_bytes([7; 32]));
        let preimage = [
            &[0xa3, 0x00, 0x58, 44][..],
            &key.spki_der(),
            &[0x01, 0x50],
            boot.as_bytes(),
            &[0x02, 0x58, 32],
            workload.as_bytes(),
        ];
        assert_eq!(
            enclave_id(&key, &boot, &workload).as_bytes(),
            sha256(&preimage).as_bytes()
        );
    }

    #[test]
    fn report_data_is_the_hash_of_the_documented_bytes() {
        let (nonce, enclave, devices) = (
            [1; 32],
            EnclaveId::from_bytes([2; 32]),
            Sha256Digest::from_bytes([3; 32]),
        );
        let preimage = [
            b"\x00\x0fcloister/cpu/v1\x00\x20".as_slice(),
            &nonce,
            b"\x00\x20",
            enclave.as_bytes(),
            b"\x00\x20",
            devices.as_bytes(),
        ]
        .concat();
        let expected = digest::digest(&digest::SHA512, &preimage);
        assert_eq!(report_data(&nonce, &enclave, &devices).as_slice(), expected.as_ref());
    }

    #[test]
    fn gpu_nonce_is_the_hash_of_the_documented_bytes() {
        let (nonce, enclave) = ([1; 32], EnclaveId::from_bytes([2; 32]));
        let preimage = [
            b"\x00\x0fcloister/gpu/v1\x00\x20".as_slice(),
            &nonce,
            b"\x00\x20",
            enclave.as_bytes(),
        ];
        assert_eq!(gpu_nonce(&nonce, &enclave), *sha256(&preimage).as_bytes());
    }

    #[test]
    fn moving_a_byte_between_devices_changes_their_digest() {
        assert_ne!(devices_digest(&[b"ab", b"c"]), devices_digest(&[b"a", b"bc"]));
        assert_ne!(devices_digest(&[]), devices_digest(&[b""]));
        assert_eq!(devices_digest(&[]), sha256(&[]));
    }
}
