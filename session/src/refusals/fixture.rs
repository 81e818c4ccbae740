//! A tenant with one member, an attested enclave with keys, and a request whose every part can be made wrong.

use std::{
    collections::BTreeMap,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use cloister_attestation::{
    AttestedPeer, BootId, Endorsements, EngineConfinement, Evidence, Measurement, ModelDigest, PolicyHash,
    Sha256Digest, SwitchIsolation, Tee, UnixTime, Workload, appraise,
    binding::{devices_digest, enclave_id, report_data},
    danger::simulated_policy,
};
use cloister_enclave_attester::{CpuTee, SimulatedTee};
use zeroize::Zeroizing;

use crate::{
    client::{REQUEST_KIND, SealRequest, SealedRequest, seal},
    credential::{MemberCredential, SaltScope, SignedCredential, TenantRoot},
    enclave::{AuthStep, AwaitingAuth, OpenedRequest, Reason, Refused},
    ids::{HeaderHash, RequestId, TenantId, TenantRef, tenant_ref},
    inner::{ApiPath, InnerRequest},
    key_config::{PaddingProfile, VerifiedKeyConfig},
    limits::{DEK_LEN, FIRST_CHUNK_UNIT, MAX_CHUNK, VERSION},
    opener::{Ended, Event, OpenError, ResponseOpener},
    outer::{Header, OuterRequest, Parsed},
    receipt::{Outcome, Receipt},
    signing::SigningKey,
    suite::{self, Dek, PublicKeyBytes},
    window::{EnclaveFacts, LiveKey, WindowKeys},
};

pub(crate) const CLUSTER: &str = "test-cluster";
pub(crate) const MODEL: ModelDigest = ModelDigest::from_bytes([0x11; 32]);
pub(crate) const POLICY: PolicyHash = PolicyHash::from_bytes([0x22; 32]);
/// Small records and buckets, so that tests reach their ends.
pub(crate) const PADDED: PaddingProfile = PaddingProfile {
    record_size: 256,
    tick_millis: 20,
    count_bucket: 4,
};

const MEASUREMENT: [u8; Measurement::LEN] = [0x33; Measurement::LEN];
const IMAGE: Sha256Digest = Sha256Digest::from_bytes([0x44; 32]);

/// The SIMULATED TEE of this test binary. Making one takes seconds.
struct Platform {
    tee: SimulatedTee,
    root: Sha256Digest,
    now: UnixTime,
}

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let root = SimulatedTee::install(dir.path()).unwrap();
        let tee = SimulatedTee::open(dir.path(), MEASUREMENT).unwrap();
        // Its certificates begin to count when they are made.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        Platform {
            tee,
            root,
            now: UnixTime(now),
        }
    })
}

/// The moment at which all tests begin.
pub(crate) fn now() -> UnixTime {
    platform().now
}

pub(crate) fn key() -> SigningKey {
    SigningKey::generate().unwrap()
}

/// An enclave process and what a client has proven of it.
pub(crate) struct Enclave {
    pub(crate) identity: SigningKey,
    pub(crate) facts: EnclaveFacts,
    pub(crate) peer: AttestedPeer,
    pub(crate) keys: WindowKeys,
}

pub(crate) fn workload() -> Workload {
    Workload {
        enclave_version: "1.0.0".into(),
        engine_kind: "simulator".into(),
        engine_image: IMAGE,
        engine_args: Vec::new(),
        engine_env: BTreeMap::new(),
        model: MODEL,
        served_model_name: "tiny".into(),
        scrub_method: "reset".into(),
        switch_isolation: SwitchIsolation::Reset,
        confinement: EngineConfinement::Full,
    }
}

impl Enclave {
    pub(crate) fn new(padding: PaddingProfile) -> Self {
        Self::with(key(), BootId::from_bytes([0x55; 16]), padding)
    }

    pub(crate) fn with(identity: SigningKey, boot_id: BootId, padding: PaddingProfile) -> Self {
        let peer = attest(&identity, boot_id);
        let workload = workload();
        let facts = EnclaveFacts {
            tee: Tee::Simulated,
            enclave_id: peer.result().enclave_id(),
            boot_id,
            model: MODEL,
            served_model_name: workload.served_model_name.clone(),
            workload: workload.digest(),
            switch_isolation: workload.switch_isolation,
            padding,
        };
        Self {
            identity,
            keys: WindowKeys::new(facts.clone(), 0, now()).unwrap(),
            facts,
            peer,
        }
    }

    /// The tenant's keys that are out at `at`, with those verified that are live at `verified_at`.
    pub(crate) fn configs_at(&mut self, tenant: &TenantRef, at: UnixTime) -> Vec<VerifiedKeyConfig> {
        let configs = self.keys.key_configs(tenant, &self.identity, at).unwrap();
        configs
            .iter()
            .map(|config| {
                let start = config.unverified().not_before.max(at);
                config.verify(&self.peer, tenant, start).unwrap()
            })
            .collect()
    }

    /// The tenant's current key.
    pub(crate) fn config(&mut self, tenant: &TenantRef) -> VerifiedKeyConfig {
        self.configs_at(tenant, now()).remove(0)
    }

    pub(crate) fn open(&self, m1: &[u8]) -> Result<OpenedRequest, Refused> {
        open(&self.keys, m1, now())
    }

    /// Why a request is not opened now.
    pub(crate) fn refusal(&self, m1: &[u8]) -> Option<Reason> {
        self.open(m1).err().map(|refused| refused.reason)
    }

    /// What an honest enclave signs of this answer.
    pub(crate) fn receipt(&self, request: &OpenedRequest, response_hash: Sha256Digest, outcome: Outcome) -> Receipt {
        Receipt {
            tee: self.facts.tee,
            request_id: request.request_id(),
            issued_at: now(),
            enclave_id: self.facts.enclave_id,
            boot_id: self.facts.boot_id,
            epoch: 7,
            key_id: request.key_id(),
            tenant_id: request.tenant(),
            model: self.facts.model,
            workload: self.facts.workload,
            gpu_checked_at: UnixTime(0),
            policy: request.policy(),
            distinct_tenants: 1,
            scrub_proof: Sha256Digest::from_bytes([0x66; 32]),
            sequence: 1,
            usage_bucket: 128,
            request_hash: request.request_hash(),
            response_hash,
            outcome,
        }
    }
}

fn attest(identity: &SigningKey, boot_id: BootId) -> AttestedPeer {
    let (workload, nonce) = (workload(), [0x77; 32]);
    let enclave = enclave_id(&identity.public(), &boot_id, &workload.digest());
    let bound = report_data(&nonce, &enclave, &devices_digest(&[]));
    let cpu = platform().tee.report(&bound).unwrap();
    let evidence = Evidence::of_cpu(identity.public(), boot_id, workload, &nonce, cpu);
    let policy = simulated_policy(
        platform().root,
        Measurement::from_bytes(MEASUREMENT),
        &evidence.workload,
    );
    let result = appraise(&evidence, &nonce, now(), &policy, &Endorsements::default()).unwrap();
    AttestedPeer::new(result, now()).unwrap()
}

/// A tenant and its only member.
pub(crate) struct Tenant {
    pub(crate) root: TenantRoot,
    pub(crate) member: SigningKey,
    pub(crate) credential: SignedCredential,
}

impl Tenant {
    pub(crate) fn new() -> Self {
        let (root, member) = (TenantRoot::new(key()), key());
        let credential = root.issue(&claims(&member));
        Self {
            root,
            member,
            credential,
        }
    }

    pub(crate) fn id(&self) -> TenantId {
        self.root.tenant_id()
    }

    pub(crate) fn reference(&self) -> TenantRef {
        tenant_ref(CLUSTER, &self.id())
    }

    pub(crate) fn seal(
        &self,
        candidates: &[VerifiedKeyConfig],
        created: UnixTime,
        body: &[u8],
    ) -> (SealedRequest, ResponseOpener) {
        seal(&SealRequest {
            candidates,
            tenant: self.id(),
            credential: &self.credential,
            member: &self.member,
            policy: POLICY,
            created,
            ttl: 120,
            inner: &inner(body),
        })
        .unwrap()
    }
}

pub(crate) fn claims(member: &SigningKey) -> MemberCredential {
    MemberCredential {
        root: member.public(),
        member: member.public(),
        not_before: UnixTime(now().0 - 60),
        not_after: now().plus(3000),
        models: vec![MODEL],
        audience: CLUSTER.into(),
        salt_scope: SaltScope::Member,
    }
}

pub(crate) fn inner(body: &[u8]) -> InnerRequest {
    InnerRequest {
        path: ApiPath::ChatCompletions,
        body: Zeroizing::new(body.to_vec()),
    }
}

pub(crate) fn outer(m1: &[u8]) -> Option<(Box<OuterRequest>, usize)> {
    match OuterRequest::parse(m1) {
        Ok(Parsed::Complete { outer, consumed }) => Some((outer, consumed)),
        Ok(Parsed::Incomplete) | Err(_) => None,
    }
}

/// Every step of the enclave for a whole request; an outer part that does not parse counts as bad framing.
pub(crate) fn open(keys: &WindowKeys, m1: &[u8], at: UnixTime) -> Result<OpenedRequest, Refused> {
    let (outer, consumed) = outer(m1).ok_or(Reason::Framing)?;
    let live: LiveKey<'_> = keys.find(&outer, at)?;
    read(keys.open(&live, &outer)?, &m1[consumed..], at, usize::MAX)
}

/// Everything after the wrap, `step` bytes at a time.
pub(crate) fn read(waiting: AwaitingAuth, chunks: &[u8], at: UnixTime, step: usize) -> Result<OpenedRequest, Refused> {
    read_in(CLUSTER, waiting, chunks, at, step)
}

/// The same in a cluster of any name.
pub(crate) fn read_in(
    cluster: &str,
    mut waiting: AwaitingAuth,
    chunks: &[u8],
    at: UnixTime,
    step: usize,
) -> Result<OpenedRequest, Refused> {
    let mut parts = chunks.chunks(step);
    let mut body = loop {
        let part = parts.next().ok_or(Reason::Framing)?;
        match waiting.push(part)? {
            AuthStep::More(more) => waiting = more,
            AuthStep::Claimed(claimed) => break claimed.verify(at, cluster)?,
        }
    };
    parts.try_for_each(|part| body.push(part))?;
    body.finish()
}

/// Pushes a whole answer, `step` bytes at a time.
pub(crate) fn receive(mut opener: ResponseOpener, m2: &[u8], step: usize) -> Result<(Vec<Event>, Ended), OpenError> {
    let mut events = Vec::new();
    for part in m2.chunks(step) {
        events.append(&mut opener.push(part)?);
    }
    Ok((events, opener.finish()?))
}

/// What a request is made of. [`m1`](Self::m1) puts it together as it is, right or wrong.
pub(crate) struct Draft {
    pub(crate) header: Header,
    pub(crate) dek: Dek,
    pub(crate) wraps: Vec<WrapDraft>,
    pub(crate) tenant: TenantId,
    pub(crate) credential: Vec<u8>,
    pub(crate) signer: SigningKey,
    /// What the member signs instead of this request's header and message.
    pub(crate) signs: (Option<HeaderHash>, Option<Vec<u8>>),
    /// Header whose hash salts the key of the chunks, if another.
    pub(crate) chunks_under: Option<HeaderHash>,
    /// What the first chunk is padded with, if not with zeros up to its unit.
    pub(crate) first_padding: Option<Vec<u8>>,
    /// Plaintexts of the chunks after the first one; the last is the final one.
    pub(crate) pieces: Vec<Vec<u8>>,
}

/// What one wrap is sealed with.
#[derive(Clone)]
pub(crate) struct WrapDraft {
    pub(crate) public: PublicKeyBytes,
    pub(crate) config_hash: [u8; 32],
    /// Associated data, if not the hash of the request's header.
    pub(crate) header: Option<HeaderHash>,
    pub(crate) dek: Dek,
}

impl Draft {
    /// A good request.
    pub(crate) fn new(tenant: &Tenant, candidates: &[VerifiedKeyConfig], body: &[u8]) -> Self {
        let (padded, bucket) = inner(body).encode().unwrap();
        let mut dek: Dek = Zeroizing::new([0; DEK_LEN]);
        aws_lc_rs::rand::fill(dek.as_mut_slice()).unwrap();
        Self {
            header: Header {
                request_id: RequestId::from_bytes([0x88; 16]),
                created: now(),
                ttl: 120,
                tenant_ref: tenant.reference(),
                model: MODEL,
                bucket,
                dek_commit: suite::dek_commit(&dek).unwrap(),
                candidates: candidates.iter().map(|c| c.config().key_id).collect(),
            },
            wraps: candidates
                .iter()
                .map(|candidate| WrapDraft {
                    public: *candidate.config().public_key,
                    config_hash: *candidate.hash(),
                    header: None,
                    dek: dek.clone(),
                })
                .collect(),
            dek,
            tenant: tenant.id(),
            credential: tenant.credential.to_bytes(),
            signer: SigningKey::from_pkcs8(&tenant.member.to_pkcs8().unwrap()).unwrap(),
            signs: (None, None),
            chunks_under: None,
            first_padding: None,
            pieces: padded.chunks(MAX_CHUNK).map(<[u8]>::to_vec).collect(),
        }
    }

    fn first_chunk(&self) -> Vec<u8> {
        let hash = self.signs.0.unwrap_or_else(|| self.header.hash());
        let message = self.signs.1.clone().unwrap_or_else(|| self.pieces.concat());
        let digest = cloister_attestation::identity::sha256(&[&message]);
        let proof = [hash.as_bytes().as_slice(), digest.as_bytes()].concat();
        let mut first = self.tenant.as_bytes().to_vec();
        first.extend_from_slice(&u16::try_from(self.credential.len()).unwrap().to_be_bytes());
        first.extend_from_slice(&self.credential);
        first.extend_from_slice(POLICY.as_bytes());
        first.extend_from_slice(&self.signer.sign(REQUEST_KIND, &proof));
        let missing = first.len().next_multiple_of(FIRST_CHUNK_UNIT) - first.len();
        first.extend(self.first_padding.clone().unwrap_or(vec![0; missing]));
        first
    }

    /// Version, header and wraps.
    pub(crate) fn outer(&self) -> Vec<u8> {
        let header = self.header.to_bytes();
        let mut m1 = vec![VERSION];
        m1.extend_from_slice(&u16::try_from(header.len()).unwrap().to_be_bytes());
        m1.extend_from_slice(&header);
        m1.push(u8::try_from(self.wraps.len()).unwrap());
        for (wrap, key_id) in self.wraps.iter().zip(&self.header.candidates) {
            let hash = wrap.header.unwrap_or_else(|| self.header.hash());
            let (sealed, _) = suite::seal_wrap(&wrap.public, &wrap.config_hash, &hash, &wrap.dek).unwrap();
            m1.extend_from_slice(key_id.as_bytes());
            m1.extend_from_slice(&sealed);
        }
        m1
    }

    /// The framed chunks, the last one final.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let hash = self.chunks_under.unwrap_or_else(|| self.header.hash());
        let prk = suite::request_prk(&hash, &self.dek);
        let mut cipher =
            crate::chunk::ChunkCipher::new(&prk, b"cloister/v1 request key", b"cloister/v1 request nonce").unwrap();
        let plaintexts = std::iter::once(self.first_chunk()).chain(self.pieces.iter().cloned());
        plaintexts
            .enumerate()
            .map(|(i, mut plaintext)| {
                let mut frame = Vec::new();
                cipher
                    .seal_any(&mut plaintext, i == self.pieces.len(), &mut frame)
                    .unwrap();
                frame
            })
            .collect()
    }

    pub(crate) fn m1(&self) -> Vec<u8> {
        [self.outer(), self.frames().concat()].concat()
    }
}

/// A tenant, an enclave and the tenant's current key of it.
pub(crate) fn scene(padding: PaddingProfile) -> (Tenant, Enclave, VerifiedKeyConfig) {
    let (tenant, mut enclave) = (Tenant::new(), Enclave::new(padding));
    let config = enclave.config(&tenant.reference());
    (tenant, enclave, config)
}
