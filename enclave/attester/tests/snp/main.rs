//! The verifier of SEV-SNP on synthetic reports and certificates of test roots: what no captured file shows. The captured ones are in
//! `attestation/tests/snp`.

mod crl;
mod forge;
mod layout;
mod sev_accepts;
mod vlek;
