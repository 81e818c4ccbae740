//! Collateral and RIMs: what vendors sign and evidence does not bring along. It is fetched ahead, kept in a directory, and read
//! from there, so that an appraisal needs no network.
//!
//! [`Store`] is the directory, [`fetch`](fetch::fetch) fills it, [`listing`](expiry::listing) says what is there and until when it holds, and [`read_rims`]
//! reads a folder of RIM documents whatever their names.
//!
//! ```text
//! DIR/amd/<Product>/cert_chain.pem             ASK and ARK
//! DIR/amd/<Product>/vlek_cert_chain.pem        ASVK and ARK
//! DIR/amd/<Product>/crl.der                    revocation list of the ARK
//! DIR/amd/<Product>/<chip id in hex>/<TCB>.der VCEK; TCB as 03-00-08-115: [FMC,] boot loader, TEE, SNP, microcode
//! DIR/intel/<FMSPC>/<platform|processor>.json  `QuoteCollateralV3` of dcap-qvl, the inner JSON as Intel signed it
//! DIR/nvidia/rims/<ID>.swidtag                 RIM document as NVIDIA signed it
//! DIR/nvidia/ocsp/<SHA-256 of certificate>.der OCSP response
//! ```
//!
//! There is no index: a name says what a file answers, and the vendor's signature whether it is true. So nothing in the store is
//! trusted for being there, and the verifier checks all of it; who can write to the directory can withhold, not forge. AMD's chains
//! are kept to be looked at: the verifier's roots are built in.

pub mod expiry;
pub mod fetch;
pub mod http;
pub mod need;

mod amd;
mod fields;
mod gather;
mod intel;
mod name;
mod nvidia;
mod rims;
mod source;
mod store;

pub use amd::{KDS_URL, Tcb};
pub use gather::{CompleteError, Gathered, complete, summary};
pub use intel::{PCS_URL, ROOT_CRL_URL};
pub use name::{Entry, FmspcCa, NameError, Product, TcbName};
pub use nvidia::{OCSP_URL, RIM_URL};
pub use rims::{MAX_RIM_BYTES, MAX_RIM_FILES, RimFile, RimFolder, load_rims, read_rims};
pub use source::Source;
pub use store::{MAX_ENTRY_BYTES, Store, StoreError};

#[cfg(test)]
mod tests;
