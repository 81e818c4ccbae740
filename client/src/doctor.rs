//! Looks at everything that a request needs, in the order in which it is needed, and says what to do about what is wrong.

use crate::collateral::{self, Store};
use crate::config::ProxyConfig;
use crate::failure::{Code, Failure};
use crate::files::FileError;
use crate::proxy::ApiKeys;
use crate::relying::{Attested, ContactError, HttpUpstream, Member, Trust, Upstream, parse_offered};
use crate::run::{self, SetupError};
use crate::{clock, files};
use cloister_attestation::{EnclaveId, ModelDigest, PlatformId, Tee};
use cloister_session::key_config::SignedKeyConfig;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Enclaves of one model that are asked for evidence.
const MAX_ASKED: usize = crate::relying::MAX_ATTESTED_PER_DRAW;

/// Outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Good.
    Ok,
    /// Works, and you should know.
    Warning,
    /// Requests will fail.
    Failed,
    /// Needs something that failed before.
    Skipped,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// The outcome.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// All checks, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

/// Names of the checks after the configuration's, in order.
const AFTER_CONFIGURATION: [&str; 8] = [
    "files",
    "credential",
    "endpoint",
    "outer token",
    "key configurations",
    "evidence",
    "policy",
    "models",
];

type Offered = BTreeMap<ModelDigest, BTreeMap<EnclaveId, Vec<SignedKeyConfig>>>;
type Accepted = BTreeMap<EnclaveId, Arc<Attested>>;

// === impl Report ===

impl Report {
    /// Whether requests will succeed.
    pub fn is_good(&self) -> bool {
        self.checks
            .iter()
            .all(|check| matches!(check.status, Status::Ok | Status::Warning))
    }

    /// The report when there is no usable configuration.
    pub fn without_configuration(error: &dyn std::error::Error) -> Self {
        let mut report = Self::default();
        report.fail(
            "configuration",
            error.to_string(),
            "correct the key, or set it as a flag or variable",
        );
        report.skip_from(0);
        report
    }

    fn add(&mut self, name: &'static str, status: Status, detail: impl Into<String>) {
        self.checks.push(Check {
            name,
            status,
            detail: detail.into(),
            advice: None,
        });
    }

    fn fail(&mut self, name: &'static str, detail: impl Into<String>, advice: impl Into<String>) {
        self.checks.push(Check {
            name,
            status: Status::Failed,
            detail: detail.into(),
            advice: Some(advice.into()),
        });
    }

    fn skip_from(&mut self, first: usize) {
        for name in AFTER_CONFIGURATION.iter().skip(first) {
            self.add(name, Status::Skipped, "needs what failed above");
        }
    }
}

/// Runs every check. Sends no prompt and changes nothing.
pub async fn examine(config: &ProxyConfig) -> Report {
    let mut report = Report::default();
    let models: Vec<_> = config.models.keys().map(String::as_str).collect();
    report.add(
        "configuration",
        Status::Ok,
        format!(
            "listen {}, endpoint {}, cluster {}, models {}",
            config.listen,
            config.endpoint,
            config.cluster_id,
            models.join(", ")
        ),
    );
    if !check_files(&mut report, config) {
        report.skip_from(1);
        return report;
    }
    if let Some(dir) = &config.collateral {
        check_collateral(&mut report, dir);
    }
    let Some(member) = check_credential(&mut report, config) else {
        report.skip_from(2);
        return report;
    };
    let upstream = match run::upstream(config) {
        Ok(upstream) => upstream,
        Err(error) => {
            report.fail("endpoint", error.to_string(), "check endpoint and ca");
            report.skip_from(3);
            return report;
        }
    };
    check_upstream(&mut report, config, &member, &upstream).await;
    report
}

fn check_files(report: &mut Report, config: &ProxyConfig) -> bool {
    let checks: [Result<(), SetupError>; 4] = [
        cloister_transport::client_config(&config.ca, None)
            .map(drop)
            .map_err(SetupError::from),
        run::outer_token(&config.outer_token).map(drop),
        run::trusted_policy(config, clock::now()).map(drop),
        config
            .api_keys
            .as_deref()
            .map_or(Ok(()), |path| ApiKeys::load(path).map(drop).map_err(SetupError::from)),
    ];
    let readable = [&config.credential, &config.member_key].map(|path| {
        files::read_secret(path, crate::pem::MAX_PEM_BYTES)
            .map(drop)
            .map_err(SetupError::from)
    });
    let first_error = checks.into_iter().chain(readable).find_map(Result::err);
    match first_error {
        None => {
            report.add("files", Status::Ok, "all readable, secrets closed to others");
            true
        }
        Some(error) => {
            let advice = advice_for_file(&error);
            report.fail("files", error.to_string(), advice);
            false
        }
    }
}

/// The store of collateral, if there is one: what has ended may be what evidence needs, and need not be.
fn check_collateral(report: &mut Report, dir: &Path) {
    let files = Store::open(dir).and_then(|store| collateral::expiry::listing(&store, clock::now()));
    let files = match files {
        Ok(files) => files,
        Err(error) => {
            return report.fail(
                "collateral",
                error.to_string(),
                "make it with `cloister collateral fetch`",
            );
        }
    };
    let good = files.iter().all(|file| file.state == collateral::expiry::State::Good);
    let status = if good { Status::Ok } else { Status::Warning };
    report.checks.push(Check {
        name: "collateral",
        status,
        detail: collateral::summary(&files),
        advice: (!good).then(|| "`cloister collateral show` lists it; fetch it again".to_owned()),
    });
}

fn advice_for_file(error: &SetupError) -> &'static str {
    match error {
        SetupError::File(FileError::TooOpen { .. }) => {
            "chmod 600 the file, and replace the secret if others may have read it"
        }
        SetupError::File(_) => "check the path and who may read it; `cloister tenant` makes credential, key and token",
        SetupError::Policy { .. } | SetupError::NotText(_) => "correct the policy; quote digests",
        SetupError::Token { .. } => "make a token with `cloister tenant token`",
        SetupError::ApiKeys(_) => "write one key a line and chmod 600 the file",
        SetupError::Tls(_) | SetupError::Endpoint(_) => "check ca and endpoint",
        SetupError::SignedPolicy { .. } => "ask the tenant's administrator for a policy that its root signed",
    }
}

fn check_credential(report: &mut Report, config: &ProxyConfig) -> Option<Member> {
    let advice = "issue a new one with `cloister tenant issue`";
    let member = match run::member_files(config).load() {
        Ok(member) => member,
        Err(error) => {
            report.fail("credential", error.to_string(), advice);
            return None;
        }
    };
    let uncovered: Vec<_> = config
        .digests()
        .into_iter()
        .filter(|model| !member.verified.allows(model))
        .collect();
    if let Some(model) = uncovered.first() {
        let detail = format!("valid, but does not cover model {model}");
        report.fail("credential", detail, "issue one with this digest among --models");
        return None;
    }
    let left = member.not_after().0.saturating_sub(clock::now().0);
    let detail = format!("tenant_ref {}, valid for {} more minutes", member.tenant_ref, left / 60);
    report.add(
        "credential",
        if left < 300 { Status::Warning } else { Status::Ok },
        detail,
    );
    Some(member)
}

async fn check_upstream(report: &mut Report, config: &ProxyConfig, member: &Member, upstream: &HttpUpstream) {
    if let Err(failure) = upstream.health().await {
        report.fail(
            "endpoint",
            failure.message,
            "check that the scheduler runs there and that ca issued its certificate",
        );
        return report.skip_from(3);
    }
    report.add("endpoint", Status::Ok, format!("{} answers over TLS", config.endpoint));

    let offered = match offers(config, member, upstream).await {
        Ok(offered) => offered,
        Err(failure) => return report_offer_failure(report, &failure),
    };
    report.add("outer token", Status::Ok, "accepted for this tenant_ref");
    let without: Vec<_> = offered
        .iter()
        .filter(|(_, enclaves)| enclaves.is_empty())
        .map(|(model, _)| *model)
        .collect();
    let Some(missing) = nameless(config, &without) else {
        return check_trust(report, config, member, upstream, &offered).await;
    };
    report.fail(
        "key configurations",
        format!("the scheduler offers no key of model {missing:?}"),
        "check the digest (`cloister-enclave measure` prints it) and that an enclave with this model is up",
    );
    report.skip_from(5);
}

/// Offers of every model of the configuration.
async fn offers(config: &ProxyConfig, member: &Member, upstream: &HttpUpstream) -> Result<Offered, Failure> {
    let mut offered = Offered::new();
    for model in config.digests() {
        let objects = upstream.key_configs(&member.tenant_ref, &model).await?;
        offered.insert(model, parse_offered(&objects, &member.tenant_ref, &model));
    }
    Ok(offered)
}

fn report_offer_failure(report: &mut Report, failure: &Failure) {
    let message = failure.message.to_string();
    match failure.code {
        Code::OuterTokenRefused => {
            report.fail(
                "outer token",
                message,
                "`cloister tenant token` printed the hash; the scheduler's credentials need it",
            );
            report.skip_from(4);
        }
        Code::TenantRefused => {
            report.fail(
                "outer token",
                message,
                "`cloister tenant show` prints the tenant_ref; the scheduler's tenants need it",
            );
            report.skip_from(4);
        }
        _ => {
            report.add("outer token", Status::Ok, "not refused");
            report.fail("key configurations", message, "look at the scheduler's log");
            report.skip_from(5);
        }
    }
}

/// The first name none of whose digests is left once `without` are taken away.
fn nameless(config: &ProxyConfig, without: &[ModelDigest]) -> Option<String> {
    let gone = |digests: &Vec<ModelDigest>| digests.iter().all(|digest| without.contains(digest));
    config
        .models
        .iter()
        .find(|(_, digests)| gone(digests))
        .map(|(name, _)| name.clone())
}

async fn check_trust(
    report: &mut Report,
    config: &ProxyConfig,
    member: &Member,
    upstream: &HttpUpstream,
    offered: &Offered,
) {
    let enclaves: BTreeSet<EnclaveId> = offered.values().flat_map(|enclaves| enclaves.keys().copied()).collect();
    report.add(
        "key configurations",
        Status::Ok,
        format!("offered by {}", counted(enclaves.len(), "enclave")),
    );
    let trust = match run::trusted_policy(config, clock::now()) {
        Ok(policy) => Trust::new(policy, config.collateral.clone()),
        Err(error) => {
            report.fail("evidence", error.to_string(), "correct the policy");
            return report.skip_from(6);
        }
    };
    let Some(accepted) = check_evidence(report, &trust, member, upstream, &enclaves).await else {
        return report.skip_from(6);
    };
    check_policy(report, &trust, &accepted);
    check_models(report, config, member, offered, &accepted);
}

async fn check_evidence(
    report: &mut Report,
    trust: &Trust,
    member: &Member,
    upstream: &HttpUpstream,
    enclaves: &BTreeSet<EnclaveId>,
) -> Option<Accepted> {
    let mut accepted = Accepted::new();
    let mut refusals = Vec::new();
    for enclave in enclaves.iter().take(MAX_ASKED) {
        match trust.attest(upstream, &member.tenant_ref, enclave, clock::now()).await {
            Ok(attested) => {
                accepted.insert(*enclave, attested);
            }
            Err(ContactError::Refused(reason)) => refusals.push(reason),
            Err(ContactError::Unreachable(failure)) => refusals.push(failure.message.into_owned()),
        }
    }
    let detail = format!(
        "{} enclaves accepted by the policy, {} not",
        accepted.len(),
        refusals.len()
    );
    match (accepted.is_empty(), refusals.first()) {
        (true, reason) => {
            let reason = reason.cloned().unwrap_or_else(|| "no enclave is offered".to_owned());
            report.fail(
                "evidence",
                reason,
                "do NOT loosen the policy before you know why the enclave is another one than you expect",
            );
            return None;
        }
        (false, Some(reason)) => report.add("evidence", Status::Warning, format!("{detail}: {reason}")),
        (false, None) => report.add("evidence", Status::Ok, detail),
    }
    Some(accepted)
}

fn check_policy(report: &mut Report, trust: &Trust, accepted: &Accepted) {
    let wanted = usize::from(trust.policy().min_distinct_platforms.value());
    let platforms: BTreeSet<PlatformId> = accepted
        .values()
        .map(|attested| attested.peer.result().platform_id())
        .collect();
    let tees: BTreeSet<&str> = accepted
        .values()
        .map(|attested| attested.peer.result().tee().label())
        .collect();
    let detail = format!(
        "{} on {}; policy {}",
        tees.into_iter().collect::<Vec<_>>().join(", "),
        counted(platforms.len(), "platform"),
        trust.policy_hash()
    );
    let simulated = accepted
        .values()
        .any(|attested| attested.peer.result().tee() == Tee::Simulated);
    if platforms.len() < wanted {
        report.fail(
            "policy",
            format!("{detail}; minDistinctPlatforms is {wanted}"),
            "add enclaves on other machines",
        );
    } else if simulated {
        report.checks.push(Check {
            name: "policy",
            status: Status::Warning,
            detail,
            advice: Some(
                "a SIMULATED TEE protects nothing from whoever runs its machine: use it for trials only".to_owned(),
            ),
        });
    } else {
        report.add("policy", Status::Ok, detail);
    }
}

fn check_models(report: &mut Report, config: &ProxyConfig, member: &Member, offered: &Offered, accepted: &Accepted) {
    let now = clock::now();
    let live = |model: &ModelDigest| {
        offered.get(model).into_iter().flatten().any(|(enclave, keys)| {
            accepted.get(enclave).is_some_and(|attested| {
                keys.iter()
                    .any(|key| key.verify(&attested.peer, &member.tenant_ref, now).is_ok())
            })
        })
    };
    let dead: Vec<_> = config.digests().into_iter().filter(|model| !live(model)).collect();
    if let Some(name) = nameless(config, &dead) {
        let detail = format!("no accepted enclave has a live key of {name:?}");
        return report.fail("models", detail, "check this machine's clock, and the enclave's log");
    }
    match misnamed(config, offered) {
        None => report.add("models", Status::Ok, "each has a live key of an accepted enclave"),
        Some((name, served)) => report.fail(
            "models",
            format!("{name:?} is served as {served:?}"),
            "use the served name in models: an enclave refuses another",
        ),
    }
}

/// A name of the configuration under which no enclave serves its digests, and a name under which one does.
fn misnamed(config: &ProxyConfig, offered: &Offered) -> Option<(String, String)> {
    config.models.iter().find_map(|(name, digests)| {
        let keys = digests
            .iter()
            .filter_map(|digest| offered.get(digest))
            .flat_map(BTreeMap::values)
            .flatten();
        let served: BTreeSet<&str> = keys.map(|key| key.unverified().served_model_name.as_str()).collect();
        let other = *served.first()?;
        (!served.contains(name.as_str())).then(|| (name.clone(), other.to_owned()))
    })
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_is_in_the_report_whatever_fails() {
        let report = Report::without_configuration(&std::io::Error::other("broken"));
        assert_eq!(report.checks.len(), 1 + AFTER_CONFIGURATION.len());
        assert_eq!(report.checks[0].status, Status::Failed);
        assert!(report.checks[1..].iter().all(|check| check.status == Status::Skipped));
        assert!(!report.is_good());
    }

    #[test]
    fn a_warning_is_good_enough_and_a_skip_is_not() {
        let mut report = Report::default();
        report.add("policy", Status::Warning, "SIMULATED");
        assert!(report.is_good());
        report.add("models", Status::Skipped, "");
        assert!(!report.is_good());
    }

    #[test]
    fn refusals_of_the_scheduler_are_told_apart() {
        for (code, failing) in [
            (Code::OuterTokenRefused, "outer token"),
            (Code::TenantRefused, "outer token"),
            (Code::UpstreamFailed, "key configurations"),
        ] {
            let mut report = Report::default();
            report_offer_failure(&mut report, &Failure::new(code, "no"));
            let failed: Vec<_> = report
                .checks
                .iter()
                .filter(|check| check.status == Status::Failed)
                .map(|check| check.name)
                .collect();
            assert_eq!(failed, [failing]);
            assert!(
                report
                    .checks
                    .iter()
                    .any(|check| check.name == "models" && check.status == Status::Skipped)
            );
        }
    }
}
