//! The enclave and the whole chain under attack: real processes, and a scheduler that lies.

mod leases;
