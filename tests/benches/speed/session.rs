//! The sealed session in one process, without IO.

use std::{
    hint::black_box,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cloister_attestation::{
    AttestedPeer, BootId, Endorsements, EngineConfinement, Evidence, Measurement, ModelDigest, PolicyHash,
    Sha256Digest, SwitchIsolation, Tee, UnixTime, Workload, appraise,
    binding::{devices_digest, enclave_id, report_data},
    danger::simulated_policy,
};
use cloister_enclave_attester::{CpuTee, SimulatedTee};
use cloister_session::{
    client::{SealRequest, seal},
    credential::{MemberCredential, SaltScope, SignedCredential, TenantRoot},
    enclave::{AuthStep, OpenedRequest},
    inner::{ApiPath, ContentType, InnerRequest, ResponseHead},
    key_config::{PaddingProfile, VerifiedKeyConfig},
    opener::ResponseOpener,
    outer::{OuterRequest, Parsed},
    response::ResponseSealer,
    signing::SigningKey,
    tenant_ref,
    window::{EnclaveFacts, WindowKeys},
};
use cloister_tests::site::{CLUSTER, simulated_tee};
use hpke::{Kem, OpModeR, OpModeS, aead::ChaCha20Poly1305, kdf::HkdfSha256, kem::XWing, setup_receiver, setup_sender};
use zeroize::Zeroizing;

use crate::report::{Goal, Report};

const SECTION: &str = "session: time of one operation";
const MODEL: ModelDigest = ModelDigest::from_bytes([1; 32]);
const IMAGE: Sha256Digest = Sha256Digest::from_bytes([4; 32]);
const MEASUREMENT: [u8; Measurement::LEN] = [3; Measurement::LEN];
const POLICY: PolicyHash = PolicyHash::from_bytes([2; 32]);
/// An event of a stream with one token, as long as the simulator's.
const EVENT: [u8; 190] = [b'x'; 190];
/// Records of an answer in one sample.
const RECORDS: usize = 1000;
/// Time of a sample, in which an operation is repeated.
const SAMPLE: Duration = Duration::from_millis(4);

/// Measures everything, `samples` samples each.
pub(crate) fn all(report: &mut Report, samples: usize) {
    let mut party = Party::new(PaddingProfile::OFF);
    let mut padded = Party::new(PaddingProfile::DEFAULT);
    report.add_goal(
        SECTION,
        "token record sealed, padding off",
        "us",
        &party.sealed_records(samples),
        Goal::AtMost(2.0),
    );
    report.add_goal(
        SECTION,
        "token record sealed, padded to 1,024 bytes",
        "us",
        &padded.sealed_records(samples),
        Goal::AtMost(2.0),
    );
    report.add(
        SECTION,
        "token record opened, padding off",
        "us",
        &party.opened_records(samples),
    );
    report.add(
        SECTION,
        "token record opened, padded to 1,024 bytes",
        "us",
        &padded.opened_records(samples),
    );
    for (name, length) in [("1 KB", 900), ("32 KB", 32_000)] {
        report.add(
            SECTION,
            format!("request of {name} sealed"),
            "us",
            &party.sealed_requests(length, samples),
        );
        report.add(
            SECTION,
            format!("request of {name} opened"),
            "us",
            &party.opened_requests(length, samples),
        );
    }
    primitives(report, samples);
}

/// What of the above is post-quantum cryptography.
fn primitives(report: &mut Report, samples: usize) {
    let (private, public) = XWing::derive_keypair(&[7; 64]);
    let derive = repeat(samples, || drop(black_box(XWing::derive_keypair(black_box(&[7; 64])))));
    let wrap = || {
        let (enc, mut context) =
            setup_sender::<ChaCha20Poly1305, HkdfSha256, XWing>(&OpModeS::Base, &public, &[8; 51]).expect("a context");
        (enc, context.seal(&[9; 32], &[10; 32]).expect("a sealed key"))
    };
    let (enc, sealed) = wrap();
    let unwrap = || {
        let mut context =
            setup_receiver::<ChaCha20Poly1305, HkdfSha256, XWing>(&OpModeR::Base, &private, &enc, &[8; 51])
                .expect("a context");
        drop(black_box(context.open(&sealed, &[10; 32]).expect("an open key")));
    };
    report.add(
        SECTION,
        "HPKE wrap sealed (X-Wing)",
        "us",
        &repeat(samples, || drop(black_box(wrap()))),
    );
    report.add(SECTION, "HPKE wrap opened (X-Wing)", "us", &repeat(samples, unwrap));
    report.add(SECTION, "key pair derived (X-Wing)", "us", &derive);
}

/// Microseconds of one `operation`, as the mean of each sample.
fn repeat(samples: usize, mut operation: impl FnMut()) -> Vec<f64> {
    let begun = Instant::now();
    operation();
    let times = (SAMPLE.as_nanos() / begun.elapsed().as_nanos().max(1)).clamp(1, 100_000) as u32;
    (0..samples)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..times {
                operation();
            }
            micros(begun) / f64::from(times)
        })
        .collect()
}

fn micros(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6
}

/// An enclave and a tenant that trusts it.
struct Party {
    now: UnixTime,
    root: TenantRoot,
    member: SigningKey,
    credential: SignedCredential,
    keys: WindowKeys,
    key: VerifiedKeyConfig,
}

impl Party {
    fn new(padding: PaddingProfile) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
        let now = UnixTime(since.as_secs());
        let new_key = || SigningKey::generate().expect("a key");
        let (root, member, identity) = (TenantRoot::new(new_key()), new_key(), new_key());
        let credential = root.issue(&MemberCredential {
            root: member.public(),
            member: member.public(),
            not_before: now,
            not_after: now.plus(3000),
            models: vec![MODEL],
            audience: CLUSTER.to_owned(),
            salt_scope: SaltScope::Tenant,
        });
        let boot_id = BootId::from_bytes([5; 16]);
        let peer = attest(&identity, boot_id, now);
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
        let mut keys = WindowKeys::new(facts, 0, now).expect("keys");
        let reference = tenant_ref(CLUSTER, &root.tenant_id());
        let signed = keys.key_configs(&reference, &identity, now).expect("a key");
        let key = signed[0].verify(&peer, &reference, now).expect("a good key");
        Self {
            now,
            root,
            member,
            credential,
            keys,
            key,
        }
    }

    fn seal(&self, inner: &InnerRequest) -> (Vec<u8>, ResponseOpener) {
        let (sealed, opener) = seal(&SealRequest {
            candidates: std::slice::from_ref(&self.key),
            tenant: self.root.tenant_id(),
            credential: &self.credential,
            member: &self.member,
            policy: POLICY,
            created: self.now,
            ttl: 120,
            inner,
        })
        .expect("a sealed request");
        (sealed.bytes, opener)
    }

    /// Every check but the replay cache, which would let each request pass once.
    fn open(&self, m1: &[u8]) -> OpenedRequest {
        let Parsed::Complete { outer, consumed } = OuterRequest::parse(m1).expect("a request") else {
            panic!("all of it is there");
        };
        let key = self.keys.find(&outer, self.now).expect("a live key");
        let waiting = self.keys.open(&key, &outer).expect("an open wrap");
        let AuthStep::Claimed(claimed) = waiting.push(&m1[consumed..]).expect("a first chunk") else {
            panic!("all of it is there");
        };
        let body = claimed.verify(self.now, CLUSTER).expect("a good credential");
        body.finish().expect("a good request")
    }

    fn sealed_requests(&self, length: usize, samples: usize) -> Vec<f64> {
        let inner = inner(length);
        repeat(samples, || drop(black_box(self.seal(&inner))))
    }

    fn opened_requests(&self, length: usize, samples: usize) -> Vec<f64> {
        let (m1, _) = self.seal(&inner(length));
        repeat(samples, || drop(black_box(self.open(&m1))))
    }

    /// An answer that has begun: what seals it, what opens it, and what was sealed so far.
    fn answer(&self) -> (ResponseSealer, ResponseOpener, Vec<u8>) {
        let (m1, opener) = self.seal(&inner(900));
        let (mut sealer, mut begun) = self.open(&m1).respond().expect("an answer");
        let head = ResponseHead {
            status: 200,
            content_type: ContentType::EventStream,
        };
        begun.extend(sealer.head(&head).expect("a record"));
        (sealer, opener, begun)
    }

    fn sealed_records(&mut self, samples: usize) -> Vec<f64> {
        let sample = |_| {
            let (mut sealer, _, _) = self.answer();
            let begun = Instant::now();
            for _ in 0..RECORDS {
                black_box(sealer.data(black_box(&EVENT)).expect("a record"));
            }
            micros(begun) / RECORDS as f64
        };
        (0..samples).map(sample).collect()
    }

    fn opened_records(&mut self, samples: usize) -> Vec<f64> {
        let sample = |_| {
            let (mut sealer, mut opener, head) = self.answer();
            opener.push(&head).expect("a head");
            let records: Vec<_> = (0..RECORDS).map(|_| sealer.data(&EVENT).expect("a record")).collect();
            let begun = Instant::now();
            for record in &records {
                black_box(opener.push(record).expect("a record"));
            }
            micros(begun) / RECORDS as f64
        };
        (0..samples).map(sample).collect()
    }
}

fn inner(length: usize) -> InnerRequest {
    InnerRequest {
        path: ApiPath::ChatCompletions,
        body: Zeroizing::new(vec![b'x'; length]),
    }
}

fn workload() -> Workload {
    Workload {
        enclave_version: "1.0.0".into(),
        engine_kind: "simulator".into(),
        engine_image: IMAGE,
        engine_args: Vec::new(),
        engine_env: [].into(),
        model: MODEL,
        served_model_name: "tiny".into(),
        scrub_method: "reset".into(),
        switch_isolation: SwitchIsolation::Reset,
        confinement: EngineConfinement::Full,
    }
}

fn attest(identity: &SigningKey, boot_id: BootId, now: UnixTime) -> AttestedPeer {
    let tee = SimulatedTee::open(simulated_tee(), MEASUREMENT).expect("a SIMULATED TEE");
    let root = SimulatedTee::root_hash(simulated_tee()).expect("its root");
    let (workload, nonce) = (workload(), [7; 32]);
    let enclave = enclave_id(&identity.public(), &boot_id, &workload.digest());
    let bound = report_data(&nonce, &enclave, &devices_digest(&[]));
    let cpu = tee.report(&bound).expect("a report");
    let evidence = Evidence::of_cpu(identity.public(), boot_id, workload, &nonce, cpu);
    let measurement = Measurement::from_bytes(MEASUREMENT);
    let policy = simulated_policy(root, measurement, &evidence.workload);
    let result = appraise(&evidence, &nonce, now, &policy, &Endorsements::default()).expect("good evidence");
    AttestedPeer::new(result, now).expect("fresh evidence")
}
