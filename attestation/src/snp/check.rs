//! What a verified report says, compared with the rules: one entry per thing looked at.

use std::collections::BTreeSet;

use super::crl::{CrlRefusal, RevocationList};
use super::policy::MaxVmpl;
use super::refusal::{Role, SnpRefusal, TcbKind};
use super::report::SigningKey;
use super::{SnpPolicy, VerifiedReport};
use crate::check::{Checks, Dimension};
use crate::ids::Sha256Digest;
use crate::policy::{AppraisalPolicy, KeyDigest};
use crate::rules::Rules;

/// `MIGRATE_MA` of the guest's policy.
pub(super) const MIGRATION_AGENT: u64 = 1 << 18;
/// `DEBUG` of the guest's policy.
pub(super) const DEBUG: u64 = 1 << 19;
/// The bit of the guest's policy that is always one.
const POLICY_ONE_BIT: u64 = 1 << 17;
/// Bits of the platform's information that no version of AMD's table knows.
const PLATFORM_ZERO_BITS: u64 = u64::MAX << 8;

type Found = Checks<SnpRefusal>;

impl VerifiedReport {
    /// Compares everything that the report says with `rules`, but for the binding. `crl` is AMD's list of revoked certificates
    /// for the processor's generation (DER), if the relying party has one; [`Self::claims`] says the generation.
    ///
    /// The first group of entries says what [`verify`](super::verify) proved.
    #[must_use]
    pub fn check(&self, rules: Rules<'_>, crl: Option<&[u8]>) -> Found {
        let policy = rules.policy();
        let mut checks = Checks::new();
        self.proven(&mut checks);
        self.check_revocation(policy.map(|policy| &policy.snp), crl, &mut checks);
        self.check_platform(policy, &mut checks);
        self.check_guest_policy(policy, &mut checks);
        self.check_tcb(policy, &mut checks);
        self.check_identity(policy, &mut checks);
        checks
    }

    fn proven(&self, checks: &mut Found) {
        let chain = if self.simulated {
            "certificate chain to the SIMULATED root"
        } else {
            "certificate chain to AMD's root"
        };
        checks.require(Dimension::Hardware, chain, Ok(()));
        checks.require(Dimension::Hardware, "signature of the report", Ok(()));
        checks.require(Dimension::Hardware, "certificate is for the report's firmware", Ok(()));
        let chip = "certificate is for the report's chip";
        match self.fields.signing_key {
            SigningKey::Vcek => checks.require(Dimension::InstanceIdentity, chip, Ok(())),
            SigningKey::Vlek => checks.skip(Dimension::InstanceIdentity, chip),
        }
    }

    fn check_revocation(&self, policy: Option<&SnpPolicy>, crl: Option<&[u8]>, checks: &mut Found) {
        let what = "certificates are not revoked";
        let most_age = policy.and_then(|policy| policy.max_crl_age_seconds);
        match (crl, most_age) {
            (Some(list), _) => checks.require(Dimension::Hardware, what, self.revocation(list, most_age)),
            (None, Some(_)) => checks.require(Dimension::Hardware, what, Err(SnpRefusal::Crl(CrlRefusal::Missing))),
            (None, None) => checks.skip(Dimension::Hardware, what),
        }
    }

    fn revocation(&self, list: &[u8], most_age: Option<u64>) -> Result<(), SnpRefusal> {
        let root = self.anchor.ark()?;
        let list = RevocationList::verify(list, &root, self.verified_at).map_err(SnpRefusal::Crl)?;
        if most_age.is_some_and(|most| self.verified_at.since(list.this_update()) > most) {
            return Err(SnpRefusal::Crl(CrlRefusal::TooOld));
        }
        let intermediate = self.anchor.intermediate(self.fields.signing_key)?;
        let (above, own) = match self.fields.signing_key {
            SigningKey::Vcek => (Role::Ask, Role::Vcek),
            SigningKey::Vlek => (Role::Asvk, Role::Vlek),
        };
        for (role, serial) in [
            (Role::Ark, root.serial()),
            (above, intermediate.serial()),
            (own, self.vek_serial.as_slice()),
        ] {
            if list.has(serial) {
                return Err(SnpRefusal::Revoked(role));
            }
        }
        Ok(())
    }

    fn check_platform(&self, policy: Option<&AppraisalPolicy>, checks: &mut Found) {
        let (version, generation) = ("version of the report", "generation of the processor");
        if let Some(policy) = policy {
            let least = policy.min_report_version.value();
            let found = self.fields.version;
            let old = SnpRefusal::OldVersion { found, least };
            checks.require(Dimension::Hardware, version, holds(found >= least, old));
            let allowed = policy.allowed_generations.contains(&self.generation);
            let refusal = SnpRefusal::Generation(self.generation);
            checks.require(Dimension::Hardware, generation, holds(allowed, refusal));
        } else {
            checks.skip(Dimension::Hardware, version);
            checks.skip(Dimension::Hardware, generation);
        }
        self.check_signer(policy, checks);
        self.check_chip(policy, checks);
        let known = self.fields.platform & PLATFORM_ZERO_BITS == 0;
        let reserved = holds(known, SnpRefusal::ReservedPlatformBits);
        checks.require(
            Dimension::Hardware,
            "reserved bits of the platform's information",
            reserved,
        );
        let alias = "check for aliased memory (BadRAM)";
        let complete = holds(self.fields.alias_check() == Some(true), SnpRefusal::AliasCheck);
        match (policy, self.fields.alias_check()) {
            (Some(policy), _) if policy.danger.skip_alias_check => checks.skip(Dimension::Hardware, alias),
            // Version 2 has no place to say it.
            (None, None) => checks.skip(Dimension::Hardware, alias),
            _ => checks.require(Dimension::Hardware, alias, complete),
        }
    }

    /// Whether the provider whose key signed may.
    fn check_signer(&self, policy: Option<&AppraisalPolicy>, checks: &mut Found) {
        let what = "key that signed the report";
        let allowed = match (policy, &self.provider) {
            (Some(policy), Some(provider)) => {
                let listed = policy.snp.vlek_providers.contains(provider);
                holds(listed, SnpRefusal::Provider(provider.clone()))
            }
            (_, None) | (None, Some(_)) => Ok(()),
        };
        checks.require(Dimension::Hardware, what, allowed);
    }

    /// Which chip it is. One that stays unnamed can be on no list, and cannot be shown to be off one.
    fn check_chip(&self, policy: Option<&AppraisalPolicy>, checks: &mut Found) {
        let (denied, inventory) = ("processor is not denied", "processor is in the inventory");
        let chip = self.platform_id();
        match policy {
            Some(policy) if !policy.denied_platforms.is_empty() => {
                let found = if self.names_chip() {
                    let refusal = SnpRefusal::DeniedPlatform(chip);
                    holds(!policy.denied_platforms.contains(&chip), refusal)
                } else {
                    Err(SnpRefusal::MaskedChipId)
                };
                checks.require(Dimension::InstanceIdentity, denied, found);
            }
            _ => checks.skip(Dimension::InstanceIdentity, denied),
        }
        match policy {
            Some(policy) if !policy.snp.platforms.is_empty() => {
                let listed = self.names_chip() && policy.snp.platforms.contains(&chip);
                let found = holds(listed, SnpRefusal::UnknownPlatform(chip));
                checks.require(Dimension::InstanceIdentity, inventory, found);
            }
            _ => checks.skip(Dimension::InstanceIdentity, inventory),
        }
    }

    fn check_guest_policy(&self, policy: Option<&AppraisalPolicy>, checks: &mut Found) {
        let dimension = Dimension::Configuration;
        let (vmpl, what) = (self.fields.vmpl, "privilege level that asked for the report");
        let within = |most: MaxVmpl| holds(vmpl <= most.value(), SnpRefusal::Vmpl(vmpl));
        match policy {
            Some(policy) => checks.require(dimension, what, within(policy.snp.max_vmpl)),
            // What is no level at all the host asked for, and no guest.
            None if vmpl > MaxVmpl::LAST.value() => checks.require(dimension, what, within(MaxVmpl::LAST)),
            None => checks.prefer(dimension, what, within(MaxVmpl::default())),
        }
        let bits = self.fields.policy;
        let debug = holds(bits & DEBUG == 0, SnpRefusal::Debug);
        checks.require(dimension, "debugging is off", debug);
        let migration = holds(bits & MIGRATION_AGENT == 0, SnpRefusal::MigrationAgent);
        checks.require(dimension, "no migration agent", migration);
        let right = bits & POLICY_ONE_BIT != 0 && bits & self.fields.reserved_policy_bits() == 0;
        let reserved = holds(right, SnpRefusal::ReservedPolicyBits);
        checks.require(dimension, "reserved bits of the guest's policy", reserved);
    }

    fn check_tcb(&self, policy: Option<&AppraisalPolicy>, checks: &mut Found) {
        let all = [
            (TcbKind::Reported, "reported firmware", self.tcb.reported),
            (TcbKind::Current, "current firmware", self.tcb.current),
            (TcbKind::Committed, "committed firmware", self.tcb.committed),
            (TcbKind::Launch, "firmware at launch", self.tcb.launch),
        ];
        for (kind, what, found) in all {
            let Some(policy) = policy else {
                checks.skip(Dimension::Hardware, what);
                continue;
            };
            let result = match policy.min_tcb.get(&self.generation) {
                None => Err(SnpRefusal::NoTcbFloor(self.generation)),
                Some(floor) => holds(found.reaches(floor), SnpRefusal::TcbBelowFloor { kind, found }),
            };
            checks.require(Dimension::Hardware, what, result);
        }
    }

    fn check_identity(&self, policy: Option<&AppraisalPolicy>, checks: &mut Found) {
        let measurement = self.measurement();
        let host_data = Sha256Digest::from_bytes(self.fields.host_data);
        let id_key = KeyDigest::from_bytes(self.fields.id_key_digest);
        let author_key = KeyDigest::from_bytes(self.fields.author_key_digest);
        let (launch, host) = ("measurement of the guest", "digest of the init data (HOST_DATA)");
        let (id, author) = ("key of the identity block", "key of the identity block's author");
        let Some(policy) = policy else {
            checks.skip(Dimension::Executables, launch);
            checks.skip(Dimension::Configuration, host);
            checks.skip(Dimension::Executables, id);
            checks.skip(Dimension::Executables, author);
            return;
        };
        let listed = policy.measurements.contains(&measurement);
        let found = holds(listed, SnpRefusal::Measurement(measurement));
        checks.require(Dimension::Executables, launch, found);
        let found = holds(policy.host_data.contains(&host_data), SnpRefusal::HostData(host_data));
        checks.require(Dimension::Configuration, host, found);
        check_key(checks, id, &policy.id_key_digests, id_key, SnpRefusal::IdKey);
        check_key(
            checks,
            author,
            &policy.author_key_digests,
            author_key,
            SnpRefusal::AuthorKey,
        );
    }
}

/// A key that is compared only where the policy lists some.
fn check_key(
    checks: &mut Found,
    what: &'static str,
    listed: &BTreeSet<KeyDigest>,
    found: KeyDigest,
    refusal: impl Fn(KeyDigest) -> SnpRefusal,
) {
    if listed.is_empty() {
        checks.skip(Dimension::Executables, what);
    } else {
        let result = holds(listed.contains(&found), refusal(found));
        checks.require(Dimension::Executables, what, result);
    }
}

fn holds(condition: bool, otherwise: SnpRefusal) -> Result<(), SnpRefusal> {
    if condition { Ok(()) } else { Err(otherwise) }
}
