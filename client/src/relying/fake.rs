//! A cluster played in this process: real keys, real evidence of a SIMULATED TEE, real sealing, and a scheduler that can lie.

use super::upstream::{SealedAnswer, Upstream};
use crate::clock::{self, Clock};
use crate::failure::{Code, Failure};
use async_trait::async_trait;
use bytes::Bytes;
use cloister_attestation::danger::simulated_policy;
use cloister_attestation::{
    AppraisalPolicy, BootId, EnclaveId, EngineConfinement, Evidence, Measurement, ModelDigest, Sha256Digest,
    SwitchIsolation, Tee, UnixTime, Workload, binding,
};
use cloister_enclave_attester::{CpuTee, SimulatedTee};
use cloister_session::enclave::{AuthStep, OpenedRequest};
use cloister_session::inner::{ContentType, ResponseHead};
use cloister_session::key_config::PaddingProfile;
use cloister_session::outer::{OuterRequest, Parsed};
use cloister_session::receipt::{Outcome, Receipt, SignedReceipt};
use cloister_session::record::ErrorCode;
use cloister_session::signing::SigningKey;
use cloister_session::window::{EnclaveFacts, WindowKeys};
use cloister_session::{RequestId, TenantRef};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

pub(crate) const CLUSTER: &str = "local";
pub(crate) const MODEL: ModelDigest = ModelDigest::from_bytes([4; 32]);
const IMAGE: Sha256Digest = Sha256Digest::from_bytes([3; 32]);

/// One way in which the scheduler, or an enclave, is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Gives no keys.
    NoKeys,
    /// Gives things that are no keys.
    GarbageKeys,
    /// Gives another tenant's keys.
    OtherTenantsKeys,
    /// Gives keys that something else has signed.
    KeysBySomeoneElse,
    /// Gives evidence over another nonce.
    OldEvidence,
    /// Gives the evidence of another enclave.
    OthersEvidence,
    /// Gives no evidence.
    NoEvidence,
    /// Cuts the answer off before its end record.
    CutBeforeEnd,
    /// Cuts it off after its head.
    CutAfterHead,
    /// Changes one bit of the body.
    Flip,
    /// Gives the answer to the request before this one.
    OldAnswer,
    /// An enclave that served two tenants in one epoch.
    TwoTenants,
    /// An enclave that seals an error.
    SealedError(ErrorCode),
    /// A scheduler that refuses.
    Refuse(Code),
}

pub(crate) struct FakeEnclave {
    identity: SigningKey,
    boot_id: BootId,
    keys: Mutex<WindowKeys>,
}

pub(crate) struct FakeCluster {
    time: Arc<AtomicU64>,
    enclaves: Mutex<Vec<FakeEnclave>>,
    /// Played in order, each once; then the truth.
    lies: Mutex<Vec<Lie>>,
    last_answer: Mutex<Vec<Bytes>>,
    pub(crate) key_fetches: AtomicUsize,
    pub(crate) evidence_fetches: AtomicUsize,
    pub(crate) seen: Mutex<Vec<Seen>>,
}

/// What an enclave read of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) request_id: RequestId,
    pub(crate) body: Vec<u8>,
    pub(crate) candidates: usize,
    pub(crate) first: EnclaveId,
}

struct Tested {
    tee: SimulatedTee,
    root: Sha256Digest,
}

/// One for all tests: making its RSA keys takes long.
fn tested() -> &'static Tested {
    static TESTED: OnceLock<Tested> = OnceLock::new();
    TESTED.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let root = SimulatedTee::install(dir.path()).unwrap();
        Tested {
            tee: SimulatedTee::open(dir.path(), [9; Measurement::LEN]).unwrap(),
            root,
        }
    })
}

/// A policy that accepts the enclaves played here.
pub(crate) fn policy() -> AppraisalPolicy {
    let measurement = Measurement::from_bytes([9; Measurement::LEN]);
    simulated_policy(tested().root, measurement, &workload())
}

fn workload() -> Workload {
    Workload {
        enclave_version: "1".into(),
        engine_kind: "simulator".into(),
        engine_image: IMAGE,
        engine_args: Vec::new(),
        engine_env: BTreeMap::new(),
        model: MODEL,
        served_model_name: "m".into(),
        scrub_method: "reset".into(),
        switch_isolation: SwitchIsolation::Reset,
        confinement: EngineConfinement::Full,
    }
}

// === impl FakeEnclave ===

impl FakeEnclave {
    fn boot(now: UnixTime) -> Self {
        let identity = SigningKey::generate().unwrap();
        let boot_id = BootId::from_bytes(crate::random::bytes());
        let workload = workload();
        let facts = EnclaveFacts {
            tee: Tee::Simulated,
            enclave_id: binding::enclave_id(&identity.public(), &boot_id, &workload.digest()),
            boot_id,
            model: MODEL,
            served_model_name: workload.served_model_name.clone(),
            workload: workload.digest(),
            switch_isolation: workload.switch_isolation,
            padding: PaddingProfile::OFF,
        };
        Self {
            identity,
            boot_id,
            keys: Mutex::new(WindowKeys::new(facts, 0, now).unwrap()),
        }
    }

    fn id(&self) -> EnclaveId {
        self.keys.lock().unwrap().facts().enclave_id
    }

    fn evidence(&self, nonce: [u8; 32]) -> Vec<u8> {
        let report_data = binding::report_data(&nonce, &self.id(), &binding::devices_digest(&[]));
        let (key, cpu) = (self.identity.public(), tested().tee.report(&report_data).unwrap());
        let evidence = Evidence::of_cpu(key, self.boot_id, workload(), &nonce, cpu);
        evidence.to_json().into_bytes()
    }

    fn open(&self, m1: &[u8], now: UnixTime) -> Option<OpenedRequest> {
        let Parsed::Complete { outer, consumed } = OuterRequest::parse(m1).unwrap() else {
            panic!("not whole")
        };
        let mut keys = self.keys.lock().unwrap();
        let awaiting = {
            let live = keys.find(&outer, now).ok()?;
            keys.open(&live, &outer).unwrap()
        };
        let AuthStep::Claimed(claimed) = awaiting.push(&m1[consumed..]).unwrap() else {
            panic!("not whole")
        };
        let opened = claimed.verify(now, CLUSTER).unwrap().finish().unwrap();
        keys.admit(&opened).unwrap();
        Some(opened)
    }

    /// M2 in pieces: prefix and head, body, end.
    fn answer(&self, request: &OpenedRequest, lie: Option<Lie>, now: UnixTime) -> Vec<Bytes> {
        let (mut sealer, prefix) = request.respond().unwrap();
        let mut pieces = vec![prefix];
        let mut outcome = Outcome::Complete;
        if let Some(Lie::SealedError(code)) = lie {
            outcome = Outcome::Error;
            pieces.push(sealer.error(code).unwrap());
        } else {
            let head = ResponseHead {
                status: 200,
                content_type: ContentType::Json,
            };
            pieces.push(sealer.head(&head).unwrap());
            pieces.push(sealer.data(b"{\"answer\":").unwrap());
            pieces.push(sealer.data(b"true}").unwrap());
        }
        let keys = self.keys.lock().unwrap();
        let facts = keys.facts();
        let end = sealer.end(|response_hash| {
            let receipt = Receipt {
                tee: facts.tee,
                request_id: request.request_id(),
                issued_at: now,
                enclave_id: facts.enclave_id,
                boot_id: facts.boot_id,
                epoch: 1,
                key_id: request.key_id(),
                tenant_id: request.tenant(),
                model: facts.model,
                workload: facts.workload,
                gpu_checked_at: UnixTime(0),
                policy: request.policy(),
                distinct_tenants: if lie == Some(Lie::TwoTenants) { 2 } else { 1 },
                scrub_proof: Sha256Digest::from_bytes([0; 32]),
                sequence: 1,
                usage_bucket: 8,
                request_hash: request.request_hash(),
                response_hash,
                outcome,
            };
            receipt.sign(&self.identity)
        });
        pieces.push(end.unwrap());
        pieces.into_iter().map(Bytes::from).collect()
    }
}

// === impl FakeCluster ===

impl FakeCluster {
    pub(crate) fn new(enclaves: usize) -> Arc<Self> {
        let now = clock::now();
        Arc::new(Self {
            time: Arc::new(AtomicU64::new(now.0)),
            enclaves: Mutex::new((0..enclaves).map(|_| FakeEnclave::boot(now)).collect()),
            lies: Mutex::default(),
            last_answer: Mutex::default(),
            key_fetches: AtomicUsize::default(),
            evidence_fetches: AtomicUsize::default(),
            seen: Mutex::default(),
        })
    }

    pub(crate) fn clock(&self) -> Clock {
        let time = self.time.clone();
        Arc::new(move || UnixTime(time.load(Ordering::Relaxed)))
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.time.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Replaces every enclave by a new one.
    pub(crate) fn restart(&self) {
        let now = self.now();
        self.enclaves
            .lock()
            .unwrap()
            .iter_mut()
            .for_each(|enclave| *enclave = FakeEnclave::boot(now));
    }

    pub(crate) fn lie(&self, lies: impl IntoIterator<Item = Lie>) {
        self.lies.lock().unwrap().extend(lies);
    }

    /// A receipt as the first enclave would sign it, had it wanted to say something else.
    pub(crate) fn resign(&self, receipt: &Receipt) -> SignedReceipt {
        receipt.sign(&self.enclaves.lock().unwrap()[0].identity)
    }

    fn now(&self) -> UnixTime {
        UnixTime(self.time.load(Ordering::Relaxed))
    }

    /// The next lie, if it is one of these.
    fn next_lie(&self, wanted: impl Fn(&Lie) -> bool) -> Option<Lie> {
        let mut lies = self.lies.lock().unwrap();
        let found = lies.first().copied().filter(wanted);
        if found.is_some() {
            lies.remove(0);
        }
        found
    }

    fn offers(&self, tenant: &TenantRef, by: Option<&SigningKey>) -> Vec<Vec<u8>> {
        let now = self.now();
        let enclaves = self.enclaves.lock().unwrap();
        let configs = enclaves.iter().flat_map(|enclave| {
            let identity = by.unwrap_or(&enclave.identity);
            enclave.keys.lock().unwrap().key_configs(tenant, identity, now).unwrap()
        });
        configs.map(|config| config.to_bytes()).collect()
    }

    fn process(&self, m1: &[u8], lie: Option<Lie>) -> Result<Vec<Bytes>, Failure> {
        let now = self.now();
        let enclaves = self.enclaves.lock().unwrap();
        let opened = enclaves
            .iter()
            .find_map(|enclave| Some((enclave, enclave.open(m1, now)?)));
        let Some((enclave, opened)) = opened else {
            return Err(Failure::retryable(Code::KeysReplaced, "unknown key"));
        };
        let Parsed::Complete { outer, .. } = OuterRequest::parse(m1).unwrap() else {
            panic!("not whole")
        };
        let first = outer.header().candidates[0];
        let is_first = |enclave: &&FakeEnclave| {
            let offered = enclave
                .keys
                .lock()
                .unwrap()
                .key_configs(&outer.header().tenant_ref, &enclave.identity, now);
            offered
                .unwrap()
                .iter()
                .any(|config| config.unverified().key_id == first)
        };
        self.seen.lock().unwrap().push(Seen {
            request_id: opened.request_id(),
            body: opened.body().to_vec(),
            candidates: outer.header().candidates.len(),
            first: enclaves.iter().find(is_first).unwrap().id(),
        });
        Ok(enclave.answer(&opened, lie, now))
    }
}

#[async_trait]
impl Upstream for FakeCluster {
    async fn key_configs(&self, tenant: &TenantRef, model: &ModelDigest) -> Result<Vec<Vec<u8>>, Failure> {
        assert_eq!(*model, MODEL);
        self.key_fetches.fetch_add(1, Ordering::Relaxed);
        // As over a network: others run meanwhile.
        tokio::task::yield_now().await;
        let about_keys = |lie: &Lie| {
            matches!(
                lie,
                Lie::NoKeys | Lie::GarbageKeys | Lie::OtherTenantsKeys | Lie::KeysBySomeoneElse
            )
        };
        Ok(match self.next_lie(about_keys) {
            Some(Lie::NoKeys) => Vec::new(),
            Some(Lie::GarbageKeys) => vec![vec![0; 100]],
            Some(Lie::OtherTenantsKeys) => self.offers(&TenantRef::from_bytes([1; 16]), None),
            Some(_) => {
                let someone = SigningKey::generate().unwrap();
                // Keys are signed once and then remembered, so they have to be new for this.
                self.restart();
                self.offers(tenant, Some(&someone))
            }
            None => self.offers(tenant, None),
        })
    }

    async fn evidence(&self, _: &TenantRef, enclave: &EnclaveId, nonce: &[u8; 32]) -> Result<Vec<u8>, Failure> {
        self.evidence_fetches.fetch_add(1, Ordering::Relaxed);
        let about_evidence = |lie: &Lie| matches!(lie, Lie::OldEvidence | Lie::OthersEvidence | Lie::NoEvidence);
        let lie = self.next_lie(about_evidence);
        let enclaves = self.enclaves.lock().unwrap();
        let asked = enclaves.iter().find(|known| known.id() == *enclave).unwrap();
        match lie {
            Some(Lie::OldEvidence) => Ok(asked.evidence([7; 32])),
            Some(Lie::OthersEvidence) => Ok(FakeEnclave::boot(self.now()).evidence(*nonce)),
            Some(_) => Err(Failure::retryable(Code::UpstreamTimeout, "away")),
            None => Ok(asked.evidence(*nonce)),
        }
    }

    async fn send(&self, sealed: Bytes) -> Result<SealedAnswer, Failure> {
        let lie = self.next_lie(|_| true);
        if let Some(Lie::Refuse(code)) = lie {
            return Err(Failure::retryable(code, "refused"));
        }
        let mut pieces = self.process(&sealed, lie)?;
        match lie {
            Some(Lie::CutBeforeEnd) => drop(pieces.pop()),
            Some(Lie::CutAfterHead) => pieces.truncate(2),
            Some(Lie::Flip) => {
                let mut changed = pieces[2].to_vec();
                *changed.last_mut().unwrap() ^= 1;
                pieces[2] = changed.into();
            }
            Some(Lie::OldAnswer) => pieces.clone_from(&self.last_answer.lock().unwrap()),
            _ => {}
        }
        self.last_answer.lock().unwrap().clone_from(&pieces);
        Ok(futures::stream::iter(pieces.into_iter().map(Ok)).boxed())
    }
}
