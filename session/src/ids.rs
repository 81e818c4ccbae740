//! Identities of the protocol.

use cloister_attestation::{fixed_bytes, identity::sha256};

fixed_bytes!(
    /// SHA-256 of the tenant root's public key: self-certifying. Only ever inside the seal.
    TenantId,
    32
);
fixed_bytes!(
    /// What stands for a tenant outside the seal, different in each cluster.
    TenantRef,
    16
);
fixed_bytes!(
    /// Names one tenant's key of one window of one enclave.
    KeyId,
    16
);
fixed_bytes!(
    /// Random, made by the client.
    RequestId,
    16
);
fixed_bytes!(
    /// SHA-256 of the header of M1.
    HeaderHash,
    32
);

/// The reference of a tenant in one cluster.
#[must_use]
pub fn tenant_ref(cluster_id: &str, tenant: &TenantId) -> TenantRef {
    let digest = sha256(&[b"cloister/v1 tenant-ref", cluster_id.as_bytes(), tenant.as_bytes()]);
    let mut short = [0u8; 16];
    short
        .iter_mut()
        .zip(digest.as_bytes())
        .for_each(|(to, from)| *to = *from);
    TenantRef::from_bytes(short)
}
