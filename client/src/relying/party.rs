//! The relying party as the backend of the proxy.

use super::answer::{self, AnswerContext};
use super::draw::Shape;
use super::member::{Member, MemberFiles};
use super::pool::{Candidate, Pool};
use super::trust::Trust;
use super::upstream::Upstream;
use crate::backend::{Answer, Attempt, Call, Readiness, Ready};
use crate::clock::Clock;
use crate::failure::{Code, Failure};
use crate::receipts::ReceiptStore;
use async_trait::async_trait;
use bytes::Bytes;
use cloister_attestation::{ModelDigest, UnixTime};
use cloister_session::client::{SealRequest, SealRequestError, seal};
use cloister_session::key_config::VerifiedKeyConfig;
use cloister_session::opener::ResponseOpener;
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How often keys and evidence are looked over while all is well.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// First and longest wait after a failed look.
const FAILED_LOOK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// What a relying party is made of.
pub struct Settings {
    /// Names that clients use, and the digests that each may mean, in order of preference.
    pub models: BTreeMap<String, Vec<ModelDigest>>,
    /// Candidates of one request; more when the policy wants more platforms.
    pub candidates: usize,
    /// Time to live of a request, 1 to 120 seconds.
    pub ttl: u32,
    /// Where to keep receipts.
    pub receipts: Option<Arc<ReceiptStore>>,
    /// The time.
    pub clock: Clock,
}

/// Seals calls for enclaves that it trusts, and opens their answers.
pub struct RelyingParty {
    upstream: Arc<dyn Upstream>,
    member: MemberFiles,
    trust: Arc<Trust>,
    pools: BTreeMap<ModelDigest, Arc<Pool>>,
    settings: Settings,
    look: Notify,
}

impl RelyingParty {
    /// Contacts nobody yet. Run [`RelyingParty::maintain`] beside it.
    pub fn new(upstream: Arc<dyn Upstream>, member: MemberFiles, trust: Trust, settings: Settings) -> Self {
        let platforms = usize::from(trust.policy().min_distinct_platforms.value());
        let shape = Shape::new(settings.candidates, platforms);
        let digests: BTreeSet<ModelDigest> = settings.models.values().flatten().copied().collect();
        let pools = digests
            .into_iter()
            .map(|model| (model, Arc::new(Pool::new(model, shape))))
            .collect();
        Self {
            upstream,
            member,
            trust: Arc::new(trust),
            pools,
            settings,
            look: Notify::new(),
        }
    }

    /// Keeps keys and evidence fresh, so that calls find them warm. Runs until it is dropped.
    pub async fn maintain(&self) {
        let mut wait = FAILED_LOOK.0;
        loop {
            let pause = match self.look_over().await {
                Ok(()) => {
                    wait = FAILED_LOOK.0;
                    LOOK_EVERY
                }
                Err(failure) => {
                    tracing::warn!(code = failure.code.as_str(), reason = %failure.message, "no candidates");
                    let pause = wait;
                    wait = wait.saturating_mul(2).min(FAILED_LOOK.1);
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.look.notified() => {}
            }
        }
    }

    /// Renews what is due; the first failure, when there is one.
    async fn look_over(&self) -> Result<(), Failure> {
        let member = self.member.current()?;
        let now = (self.settings.clock)();
        let due = self.pools.values().filter(|pool| pool.is_due(&self.trust, now));
        let refreshed = join_all(due.map(|pool| self.refresh(pool, &member, now, pool.generation()))).await;
        refreshed.into_iter().collect()
    }

    async fn refresh(&self, pool: &Pool, member: &Member, now: UnixTime, seen: u64) -> Result<(), Failure> {
        pool.refresh(&*self.upstream, &self.trust, &member.tenant_ref, now, seen)
            .await
    }

    /// Candidates of a model that are there now, without asking anyone.
    fn warm(&self, name: &str, member: &Member, now: UnixTime) -> Option<(Arc<Pool>, Vec<Candidate>)> {
        self.pools_of(name)
            .filter(|(model, _)| member.verified.allows(model))
            .find_map(|(_, pool)| Some((pool.clone(), pool.candidates(&self.trust, &member.tenant_ref, now)?)))
    }

    /// Candidates of a model, fetched if need be.
    async fn candidates(&self, name: &str, member: &Member) -> Result<(Arc<Pool>, Vec<Candidate>), Failure> {
        let now = (self.settings.clock)();
        if let Some(found) = self.warm(name, member, now) {
            return Ok(found);
        }
        let mut failure = None;
        for (model, pool) in self.pools_of(name) {
            let seen = pool.generation();
            let outcome = match member.check_model(&model) {
                Ok(()) => self.refresh(pool, member, now, seen).await,
                Err(refused) => Err(refused),
            };
            match outcome {
                Ok(()) => {
                    if let Some(candidates) = pool.candidates(&self.trust, &member.tenant_ref, now) {
                        return Ok((pool.clone(), candidates));
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure
            .unwrap_or_else(|| Failure::retryable(Code::NoEnclave, "no attested enclave of this model has a live key")))
    }

    fn pools_of(&self, name: &str) -> impl Iterator<Item = (ModelDigest, &Arc<Pool>)> {
        let digests = self.settings.models.get(name).map(Vec::as_slice).unwrap_or_default();
        digests
            .iter()
            .filter_map(|model| Some((*model, self.pools.get(model)?)))
    }

    async fn seal(
        &self,
        call: &Call,
        member: Arc<Member>,
        candidates: &[Candidate],
    ) -> Result<(Bytes, ResponseOpener), Failure> {
        let keys: Vec<VerifiedKeyConfig> = candidates.iter().map(|candidate| candidate.key.clone()).collect();
        let (inner, policy, ttl) = (call.inner.clone(), self.trust.policy_hash(), self.settings.ttl);
        let created = (self.settings.clock)();
        // Half a millisecond a candidate, and more for megabytes of body: not on a thread that drives streams.
        let sealed = tokio::task::spawn_blocking(move || {
            seal(&SealRequest {
                candidates: &keys,
                tenant: member.tenant(),
                credential: &member.credential,
                member: &member.key,
                policy,
                created,
                ttl,
                inner: &inner,
            })
        })
        .await
        .map_err(|_| Failure::new(Code::Internal, "sealing ended early"))?;
        let (sealed, opener) = sealed.map_err(|error| match error {
            SealRequestError::TooLarge => Failure::new(Code::RequestTooLarge, error.to_string()),
            // The window or the evidence ended between the draw and now.
            SealRequestError::NotLive => {
                Failure::retryable(Code::KeysReplaced, "the keys ended while the request was sealed")
            }
            _ => Failure::new(Code::Internal, error.to_string()),
        })?;
        Ok((Bytes::from(sealed.bytes), opener))
    }

    /// A refusal that may be about keys: they are fetched again before the next attempt. A scheduler that is not there may
    /// come back with other enclaves, and until it does nothing is ready.
    fn heed(&self, pool: &Pool, failure: &Failure) {
        let in_doubt = matches!(
            failure.code,
            Code::KeysReplaced | Code::EnclaveRefused | Code::EnclaveUnavailable | Code::EndpointUnreachable
        );
        if in_doubt && failure.retryable {
            pool.invalidate();
            self.look.notify_one();
        }
    }
}

/// An enclave refuses a request that names its model otherwise, and the proxy does not change what a client wrote.
fn check_name(name: &str, candidates: &[Candidate]) -> Result<(), Failure> {
    let other = candidates
        .iter()
        .map(|candidate| &candidate.key.config().served_model_name)
        .find(|served| *served != name);
    other.map_or(Ok(()), |served| {
        let message =
            format!("the enclaves serve this digest as {served:?}: use that name in the proxy's configuration");
        Err(Failure::new(Code::ModelNotFound, message).with_param("model"))
    })
}

#[async_trait]
impl Attempt for RelyingParty {
    async fn attempt(&self, call: &Call) -> Result<Answer, Failure> {
        let member = self.member.current()?;
        let (pool, candidates) = self.candidates(&call.model, &member).await?;
        check_name(&call.model, &candidates)?;
        let sealed = self.seal(call, member, &candidates).await;
        let (sealed, opener) = sealed.inspect_err(|failure| self.heed(&pool, failure))?;
        let records = self
            .upstream
            .send(sealed)
            .await
            .inspect_err(|failure| self.heed(&pool, failure))?;
        let context = AnswerContext {
            trust: self.trust.clone(),
            pool,
            candidates,
            receipts: self.settings.receipts.clone(),
        };
        answer::open(opener, records, context).await
    }
}

#[async_trait]
impl Ready for RelyingParty {
    async fn ready(&self) -> Result<Readiness, Failure> {
        let member = self.member.current()?;
        let now = (self.settings.clock)();
        let mut tees = BTreeSet::new();
        for name in self.settings.models.keys() {
            let Some((_, candidates)) = self.warm(name, &member, now) else {
                return Err(Failure::retryable(
                    Code::NoEnclave,
                    "a model has no attested enclave with a live key yet: the log says why, `cloister doctor` in detail",
                ));
            };
            tees.extend(
                candidates
                    .iter()
                    .map(|candidate| candidate.attested.peer.result().tee().label()),
            );
        }
        Ok(Readiness {
            tee: tees.into_iter().collect::<Vec<_>>().join(", "),
        })
    }
}
