//! Evidence collection inside the TEE.
