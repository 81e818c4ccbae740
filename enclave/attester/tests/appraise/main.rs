//! Evidence of the SIMULATED TEE through the verifier of SEV-SNP: one test for each reason to refuse.

mod certificate;
mod evidence;
mod install;
mod report;
mod support;
