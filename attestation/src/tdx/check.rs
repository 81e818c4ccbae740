//! Everything that a verified quote says, against a policy or against the rules for looking at it.

use std::collections::BTreeSet;

use super::attributes::{TdAttributes, check_xfam};
use super::policy::{FixedBits, TcbStatus, TdxPolicy};
use super::refusal::{Collateral, Register, TdxRefusal};
use super::{BitSet, VerifiedQuote};
use crate::check::{Checks, Dimension};
use crate::policy::Measurement;
use crate::rules::Rules;

type Found = Checks<TdxRefusal>;

const ZEROS: Measurement = Measurement::from_bytes([0; Measurement::LEN]);

impl VerifiedQuote {
    /// Compares everything that the quote says with `rules`, but for the binding.
    #[must_use]
    pub fn check(&self, rules: Rules<'_>) -> Found {
        self.check_tdx(rules.policy().map(|policy| &policy.tdx))
    }

    /// The same under the part of a policy that is TDX's; without one, as [`Rules::Genuine`].
    #[must_use]
    pub fn check_tdx(&self, policy: Option<&TdxPolicy>) -> Found {
        let mut found = Found::new();
        found.require(
            Dimension::Hardware,
            "the quote is signed by a genuine platform, and all of its collateral is current",
            Ok(()),
        );
        self.check_firmware(policy, &mut found);
        self.check_module(policy, &mut found);
        self.check_platform(policy, &mut found);
        self.check_attributes(policy, &mut found);
        self.check_configuration(policy, &mut found);
        self.check_measurements(policy, &mut found);
        found
    }

    fn check_firmware(&self, policy: Option<&TdxPolicy>, found: &mut Found) {
        const STATUS: &str = "Intel's rating of the platform's firmware";
        const ADVISORIES: &str = "advisories that the firmware is subject to";
        const EVALUATION: &str = "the collateral is of no older evaluation";
        const AGE: &str = "age of the collateral";
        let refused = || TdxRefusal::TcbStatus(self.status);
        let Some(policy) = policy else {
            found.prefer(
                Dimension::Hardware,
                STATUS,
                holds(self.status == TcbStatus::UpToDate, refused),
            );
            for what in [ADVISORIES, EVALUATION, AGE] {
                found.skip(Dimension::Hardware, what);
            }
            return;
        };
        let allowed = policy.tcb_statuses.contains(&self.status);
        found.require(Dimension::Hardware, STATUS, holds(allowed, refused));
        let other = self
            .advisories
            .iter()
            .find(|id| !policy.allowed_advisories.contains(*id));
        let advisory = other.map_or(Ok(()), |id| Err(TdxRefusal::Advisory(id.clone())));
        found.require(Dimension::Hardware, ADVISORIES, advisory);
        let evaluation = match policy.min_tcb_evaluation_data_number {
            None => Err(TdxRefusal::NoEvaluationFloor),
            Some(least) => holds(self.evaluation >= least, || TdxRefusal::EvaluationRolledBack {
                found: self.evaluation,
                least,
            }),
        };
        found.require(Dimension::Hardware, EVALUATION, evaluation);
        match policy.max_collateral_age_seconds {
            None => found.skip(Dimension::Hardware, AGE),
            Some(most) => found.require(Dimension::Hardware, AGE, self.check_age(most)),
        }
    }

    /// But for the root's revocation list: Intel makes one a year.
    fn check_age(&self, most: u64) -> Result<(), TdxRefusal> {
        let parts = self.windows.iter().filter(|window| window.part != Collateral::RootCrl);
        for window in parts {
            let age = self.verified_at.since(window.from);
            let what = window.part;
            holds(age <= most, || TdxRefusal::CollateralTooOld { what, age, most })?;
        }
        Ok(())
    }

    fn check_module(&self, policy: Option<&TdxPolicy>, found: &mut Found) {
        const FLOOR: &str = "the TDX module is no older than the policy's";
        const SEAM: &str = "the TDX module is a listed one";
        const SIGNER: &str = "the TDX module's signer is a listed one";
        let Some(policy) = policy else {
            for what in [FLOOR, SEAM, SIGNER] {
                found.skip(Dimension::Hardware, what);
            }
            return;
        };
        let floor = policy
            .min_tee_tcb_svn
            .ok_or(TdxRefusal::NoModuleFloor)
            .and_then(|floor| {
                let now = self.body.td15.as_ref().map(|td15| td15.tee_tcb_svn2);
                let all = [Some(self.body.tee_tcb_svn), now];
                let below = all.into_iter().flatten().find(|versions| !versions.reaches(&floor));
                below.map_or(Ok(()), |versions| Err(TdxRefusal::ModuleBelowFloor(versions)))
            });
        found.require(Dimension::Hardware, FLOOR, floor);
        let seam = listed(&policy.mr_seam, self.body.mr_seam, Register::MrSeam);
        found.require(Dimension::Hardware, SEAM, seam);
        if policy.mr_signer_seam.is_empty() {
            found.skip(Dimension::Hardware, SIGNER);
        } else {
            let signer = listed(&policy.mr_signer_seam, self.body.mr_signer_seam, Register::MrSignerSeam);
            found.require(Dimension::Hardware, SIGNER, signer);
        }
    }

    fn check_platform(&self, policy: Option<&TdxPolicy>, found: &mut Found) {
        const FMSPC: &str = "the platform is of a listed family (FMSPC)";
        const PPID: &str = "the platform is in the inventory (PPID)";
        const DYNAMIC: &str = "no processor can be added to the platform";
        const CACHED: &str = "nobody else keeps the platform's root keys";
        const SMT: &str = "threads do not share cores";
        let Some(policy) = policy else {
            found.skip(Dimension::InstanceIdentity, FMSPC);
            found.skip(Dimension::InstanceIdentity, PPID);
            for what in [DYNAMIC, CACHED, SMT] {
                found.skip(Dimension::Hardware, what);
            }
            return;
        };
        let family = policy.allowed_fmspcs.contains(&self.fmspc) && !policy.denied_fmspcs.contains(&self.fmspc);
        found.require(
            Dimension::InstanceIdentity,
            FMSPC,
            holds(family, || TdxRefusal::Fmspc(self.fmspc)),
        );
        let inventory = policy.allowed_ppids.as_ref();
        let known = inventory.is_none_or(|all| all.contains(&self.ppid)) && !policy.denied_ppids.contains(&self.ppid);
        found.require(
            Dimension::InstanceIdentity,
            PPID,
            holds(known, || TdxRefusal::Ppid(self.ppid)),
        );
        for (what, flag, allowed, refusal) in [
            (
                DYNAMIC,
                self.flags.dynamic,
                policy.allow_dynamic_platform,
                TdxRefusal::DynamicPlatform,
            ),
            (
                CACHED,
                self.flags.cached_keys,
                policy.allow_cached_keys,
                TdxRefusal::CachedKeys,
            ),
            (SMT, self.flags.smt, policy.allow_smt, TdxRefusal::Smt),
        ] {
            // Certificates of single-processor platforms do not say.
            found.require(
                Dimension::Hardware,
                what,
                holds(flag != Some(true) || allowed, || refusal),
            );
        }
    }

    fn check_attributes(&self, policy: Option<&TdxPolicy>, found: &mut Found) {
        for (what, bit) in TdAttributes::new(self.body.td_attributes).checks() {
            found.require(Dimension::Configuration, what, bit);
        }
        found.require(
            Dimension::Configuration,
            "no other guest serves this one (MRSERVICETD)",
            self.check_service_td(policy),
        );
        found.require(
            Dimension::Configuration,
            "no reserved bit of XFAM is set",
            check_xfam(self.body.xfam),
        );
    }

    /// Without a list: none. With the attribute, the extended report also names those that were bound later.
    fn check_service_td(&self, policy: Option<&TdxPolicy>) -> Result<(), TdxRefusal> {
        let first = self.body.td15.as_ref().map(|td15| td15.mr_service_td);
        let later = self.body.ex.as_ref().map(|ex| ex.cur_service_td);
        let bound = TdAttributes::new(self.body.td_attributes).service_td();
        let named = [first, later].into_iter().flatten();
        let mut served = named.filter(|digest| bound || *digest != ZEROS);
        served.try_for_each(|digest| {
            let allowed = policy.is_some_and(|policy| policy.mr_service_td.contains(&digest));
            holds(allowed, || service_td(digest))
        })
    }

    fn check_configuration(&self, policy: Option<&TdxPolicy>, found: &mut Found) {
        const ATTRIBUTES: &str = "the guest's attributes are listed ones";
        const XFAM: &str = "what the guest may use of the processor is listed (XFAM)";
        const INIT_DATA: &str = "the guest's init data is listed (MRCONFIGID)";
        const OWNER: &str = "the guest's owner is listed, or there is none (MROWNER)";
        const OWNER_CONFIG: &str = "the owner's configuration is listed, or there is none (MROWNERCONFIG)";
        let Some(policy) = policy else {
            for what in [ATTRIBUTES, XFAM, INIT_DATA, OWNER, OWNER_CONFIG] {
                found.skip(Dimension::Configuration, what);
            }
            return;
        };
        let body = &self.body;
        let attributes = fixed(&policy.td_attributes, body.td_attributes);
        found.require(
            Dimension::Configuration,
            ATTRIBUTES,
            holds(attributes, || TdxRefusal::TdAttributes(body.td_attributes)),
        );
        let xfam = fixed(&policy.xfam, body.xfam);
        found.require(
            Dimension::Configuration,
            XFAM,
            holds(xfam, || TdxRefusal::Xfam(body.xfam)),
        );
        let init_data = listed(&policy.mr_config_id, body.mr_config_id, Register::MrConfigId);
        found.require(Dimension::Configuration, INIT_DATA, init_data);
        let owner = listed_or_zeros(&policy.mr_owner, body.mr_owner, Register::MrOwner);
        found.require(Dimension::Configuration, OWNER, owner);
        let config = listed_or_zeros(&policy.mr_owner_config, body.mr_owner_config, Register::MrOwnerConfig);
        found.require(Dimension::Configuration, OWNER_CONFIG, config);
    }

    fn check_measurements(&self, policy: Option<&TdxPolicy>, found: &mut Found) {
        const MRTD: &str = "the guest's first memory is a listed one (MRTD)";
        const RTMR: [&str; 4] = [
            "the firmware's settings are listed ones (RTMR0)",
            "the boot loader and kernel are listed ones (RTMR1)",
            "the kernel's arguments and initial disk are listed ones (RTMR2)",
            "the guest's own measurement is a listed one (RTMR3)",
        ];
        let Some(policy) = policy else {
            found.skip(Dimension::Executables, MRTD);
            for what in RTMR {
                found.skip(Dimension::Executables, what);
            }
            return;
        };
        let first = listed(&policy.mrtd, self.body.mr_td, Register::MrTd);
        found.require(Dimension::Executables, MRTD, first);
        let lists = [&policy.rtmr0, &policy.rtmr1, &policy.rtmr2, &policy.rtmr3];
        let registers = RTMR.into_iter().zip(lists).zip(self.body.rtmr).zip(0..);
        for (((what, list), value), at) in registers {
            found.require(Dimension::Executables, what, listed(list, value, Register::Rtmr(at)));
        }
    }
}

fn holds(holds: bool, refusal: impl FnOnce() -> TdxRefusal) -> Result<(), TdxRefusal> {
    if holds { Ok(()) } else { Err(refusal()) }
}

fn listed(list: &BTreeSet<Measurement>, found: Measurement, register: Register) -> Result<(), TdxRefusal> {
    holds(list.contains(&found), || TdxRefusal::NotListed { register, found })
}

fn listed_or_zeros(list: &BTreeSet<Measurement>, found: Measurement, register: Register) -> Result<(), TdxRefusal> {
    if list.is_empty() && found == ZEROS {
        return Ok(());
    }
    listed(list, found, register)
}

fn fixed(rules: &BTreeSet<FixedBits>, found: BitSet) -> bool {
    rules.iter().any(|rule| rule.matches(found))
}

const fn service_td(found: Measurement) -> TdxRefusal {
    TdxRefusal::ServiceTd {
        register: Register::MrServiceTd,
        found,
    }
}
