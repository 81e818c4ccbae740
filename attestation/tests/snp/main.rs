//! SEV-SNP on captured reports and AMD's signed certificates; `testdata/SOURCES.md` says where they are from. What no real file
//! shows is tested on reports and certificates of test roots in `enclave/attester/tests/snp`, and named synthetic there.
//!
//! The binding is not checked here: these reports answer other people's nonces.

mod crl;
mod differential;
mod mutation;
mod policy;
mod real;
mod support;
