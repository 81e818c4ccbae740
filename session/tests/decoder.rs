//! The independent implementation in `tests/decoder` on the other side of the session: it answers what this crate sealed,
//! and this crate opens and answers what it sealed.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
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
use cloister_session::{
    KeyId, TenantRef,
    client::{SealRequest, seal},
    credential::{MemberCredential, SaltScope, SignedCredential, TenantRoot},
    enclave::{AuthStep, OpenedRequest},
    inner::{ApiPath, ContentType, InnerRequest, ResponseHead},
    key_config::{KeyConfig, PaddingProfile, SignedKeyConfig},
    opener::{Ended, Event, ResponseOpener},
    outer::{OuterRequest, Parsed},
    receipt::{Outcome, Receipt},
    record::ErrorCode,
    signing::SigningKey,
    tenant_ref,
    window::{EnclaveFacts, WindowKeys},
};
use hpke::{Deserializable, Kem, Serializable, kem::XWing};
use serde_json::{Value, json};
use zeroize::Zeroizing;

const CLUSTER: &str = "test-cluster";
const MODEL: ModelDigest = ModelDigest::from_bytes([1; 32]);
const POLICY: PolicyHash = PolicyHash::from_bytes([2; 32]);
const MEASUREMENT: [u8; Measurement::LEN] = [3; Measurement::LEN];
const IMAGE: Sha256Digest = Sha256Digest::from_bytes([4; 32]);
const BOOT: BootId = BootId::from_bytes([5; 16]);
const PADDED: PaddingProfile = PaddingProfile {
    record_size: 256,
    tick_millis: 20,
    count_bucket: 4,
};
/// `PrivateKeyInfo` of an Ed25519 seed (RFC 8410 section 7) before the seed.
const PKCS8_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

fn key(seed: [u8; 32]) -> SigningKey {
    SigningKey::from_pkcs8(&[PKCS8_PREFIX.as_slice(), &seed].concat()).unwrap()
}

fn hex(bytes: &[u8]) -> Value {
    format!("0x{}", hex::encode(bytes)).into()
}

fn unhex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap().strip_prefix("0x").unwrap()).unwrap()
}

/// Runs a script of the decoder; its standard output, or `None` where there is no Python.
fn decoder(script: &str, arguments: &[&str]) -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/decoder");
    let output = Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(folder.join(script))
        .args(arguments)
        .output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: python3 is not installed");
            return None;
        }
        output => output.unwrap(),
    };
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}{stderr}");
    Some(stdout)
}

/// The SIMULATED TEE of this test binary and when its certificates begin to count.
fn platform() -> &'static (SimulatedTee, Sha256Digest, UnixTime) {
    static PLATFORM: OnceLock<(SimulatedTee, Sha256Digest, UnixTime)> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let root = SimulatedTee::install(dir.path()).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let tee = SimulatedTee::open(dir.path(), MEASUREMENT).unwrap();
        (tee, root, UnixTime(now))
    })
}

fn now() -> UnixTime {
    platform().2
}

fn workload() -> Workload {
    Workload {
        enclave_version: "1".into(),
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

fn attest(identity: &SigningKey) -> AttestedPeer {
    let (tee, root, now) = platform();
    let (workload, nonce) = (workload(), [6; 32]);
    let enclave = enclave_id(&identity.public(), &BOOT, &workload.digest());
    let bound = report_data(&nonce, &enclave, &devices_digest(&[]));
    let evidence = Evidence::of_cpu(identity.public(), BOOT, workload, &nonce, tee.report(&bound).unwrap());
    let policy = simulated_policy(*root, Measurement::from_bytes(MEASUREMENT), &evidence.workload);
    let result = appraise(&evidence, &nonce, *now, &policy, &Endorsements::default()).unwrap();
    AttestedPeer::new(result, *now).unwrap()
}

fn facts(identity: &SigningKey, padding: PaddingProfile) -> EnclaveFacts {
    let workload = workload();
    EnclaveFacts {
        tee: Tee::Simulated,
        enclave_id: enclave_id(&identity.public(), &BOOT, &workload.digest()),
        boot_id: BOOT,
        model: MODEL,
        served_model_name: workload.served_model_name.clone(),
        workload: workload.digest(),
        switch_isolation: workload.switch_isolation,
        padding,
    }
}

struct Tenant {
    root: TenantRoot,
    member_seed: [u8; 32],
    credential: SignedCredential,
}

fn tenant() -> Tenant {
    let root = TenantRoot::new(SigningKey::generate().unwrap());
    let member_seed = [7; 32];
    let credential = root.issue(&MemberCredential {
        root: root.key().public(),
        member: key(member_seed).public(),
        not_before: now(),
        not_after: now().plus(600),
        models: vec![MODEL],
        audience: CLUSTER.into(),
        salt_scope: SaltScope::Tenant,
    });
    Tenant {
        root,
        member_seed,
        credential,
    }
}

impl Tenant {
    fn reference(&self) -> TenantRef {
        tenant_ref(CLUSTER, &self.root.tenant_id())
    }
}

fn public_half(identity: &SigningKey) -> Vec<u8> {
    identity.public().spki_der()[12..].to_vec()
}

fn receive(mut opener: ResponseOpener, m2: &[u8]) -> (Vec<u8>, Option<ErrorCode>, Ended) {
    let (mut body, mut error) = (Vec::new(), None);
    for part in m2.chunks(1000) {
        for event in opener.push(part).unwrap() {
            match event {
                Event::Head(head) => assert_eq!(head, HEAD),
                Event::Data(data) => body.extend_from_slice(&data),
                Event::Error(code) => error = Some(code),
            }
        }
    }
    (body, error, opener.finish().unwrap())
}

const HEAD: ResponseHead = ResponseHead {
    status: 200,
    content_type: ContentType::EventStream,
};

#[test]
fn the_decoder_reads_the_published_vectors_and_the_golden_files() {
    if let Some(output) = decoder("check.py", &[]) {
        assert!(output.trim_end().ends_with(" passed, 0 failed"), "{output}");
    }
}

/// A key whose private half the decoder gets, as an enclave would make one for a window.
fn foreign_config(identity: &SigningKey, seed: &[u8; 32], padding: PaddingProfile, tenant: &Tenant) -> SignedKeyConfig {
    let private = <XWing as Kem>::PrivateKey::from_bytes(seed).unwrap();
    let facts = facts(identity, padding);
    let mut config = KeyConfig {
        tee: facts.tee,
        key_id: KeyId::from_bytes([0; 16]),
        public_key: Box::new(XWing::sk_to_pk(&private).to_bytes().into()),
        enclave_id: facts.enclave_id,
        boot_id: facts.boot_id,
        tenant_ref: tenant.reference(),
        model: facts.model,
        served_model_name: facts.served_model_name,
        workload: facts.workload,
        switch_isolation: facts.switch_isolation,
        window: 3,
        not_before: now(),
        not_after: now().plus(600),
        padding: facts.padding,
    };
    config.key_id = config.derive_key_id();
    config.sign(identity)
}

#[test]
fn the_decoder_opens_and_answers_what_this_crate_seals() {
    let pieces: [&[u8]; 3] = [b"one", b"two", b"three"];
    for (padding, error) in [
        (PaddingProfile::OFF, None),
        (PADDED, None),
        (PADDED, Some(ErrorCode::Preempted)),
    ] {
        let (tenant, identity_seed, xwing) = (tenant(), [8; 32], [9; 32]);
        let identity = key(identity_seed);
        let signed = foreign_config(&identity, &xwing, padding, &tenant);
        let config = signed.verify(&attest(&identity), &tenant.reference(), now()).unwrap();
        let body = "{\"long\":\"".to_owned() + &"x".repeat(40_000) + "\"}";
        let (sealed, opener) = seal(&SealRequest {
            candidates: &[config],
            tenant: tenant.root.tenant_id(),
            credential: &tenant.credential,
            member: &key(tenant.member_seed),
            policy: POLICY,
            created: now(),
            ttl: 60,
            inner: &InnerRequest {
                path: ApiPath::Responses,
                body: Zeroizing::new(body.clone().into()),
            },
        })
        .unwrap();
        let given = json!({
            "identity": hex(&public_half(&identity)),
            "identity_seed": hex(&identity_seed),
            "key_config": hex(&signed.to_bytes()),
            "xwing_private_key": hex(&xwing),
            "cluster_id": CLUSTER,
            "now": now().0,
            "status": HEAD.status,
            "content_type": HEAD.content_type.as_str(),
            "pieces": pieces.map(hex),
            "error": error.map(ErrorCode::name),
        });
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("m1.bin"), &sealed.bytes).unwrap();
        let Some(opened) = play(folder.path(), "enclave", &given, "opened.json") else {
            return;
        };
        assert_eq!(opened["path"], "/v1/responses");
        assert_eq!(unhex(&opened["body"]), body.as_bytes());
        assert_eq!(unhex(&opened["policy_hash"]), POLICY.as_bytes());

        let m2 = fs::read(folder.path().join("m2.bin")).unwrap();
        let (said, failure, ended) = receive(opener, &m2);
        assert_eq!(said, pieces.concat());
        assert_eq!(failure, error);
        assert_eq!(ended.receipt.request_id, sealed.request_id);
        assert_eq!(ended.receipt.outcome == Outcome::Error, error.is_some());
    }
}

#[test]
fn this_crate_opens_and_answers_what_the_decoder_seals() {
    let tenant = tenant();
    let identities = [[10; 32], [11; 32]].map(key);
    let mut windows = [(&identities[0], PaddingProfile::OFF), (&identities[1], PADDED)]
        .map(|(identity, padding)| WindowKeys::new(facts(identity, padding), 0, now()).unwrap());
    let configs: Vec<SignedKeyConfig> = windows
        .iter_mut()
        .zip(&identities)
        .map(|(keys, identity)| {
            keys.key_configs(&tenant.reference(), identity, now())
                .unwrap()
                .remove(0)
        })
        .collect();
    let body = "y".repeat(20_000);
    let given = json!({
        "identities": identities.each_ref().map(|identity| hex(&public_half(identity))),
        "key_configs": configs.iter().map(|config| hex(&config.to_bytes())).collect::<Vec<_>>(),
        "now": now().0,
        "ttl": 30,
        "path": "/v1/completions",
        "body": hex(body.as_bytes()),
        "member_seed": hex(&tenant.member_seed),
        "credential": hex(&tenant.credential.to_bytes()),
        "tenant_id": hex(tenant.root.tenant_id().as_bytes()),
        "policy_hash": hex(POLICY.as_bytes()),
    });
    let folder = tempfile::tempdir().unwrap();
    if play(folder.path(), "client", &given, "sealed.json").is_none() {
        return;
    }
    let m1 = fs::read(folder.path().join("m1.bin")).unwrap();
    for (keys, identity) in windows.iter().zip(&identities) {
        let request = open(keys, &m1);
        assert_eq!(request.path(), ApiPath::Completions);
        assert_eq!(request.body(), body.as_bytes());
        assert_eq!(request.member(), key(tenant.member_seed).public());
        fs::write(folder.path().join("m2.bin"), answer(keys, identity, &request)).unwrap();
        let answer = play(folder.path(), "reader", &given, "answer.json").unwrap();
        assert_eq!(unhex(&answer["body"]), b"onetwo");
        assert_eq!(unhex(&answer["key_id"]), request.key_id().as_bytes());
        assert_eq!(answer["head"], json!([200, "text/event-stream"]));
        assert_eq!(answer["error"], Value::Null);
    }
}

/// Lets the decoder play a role; what it learnt.
fn play(folder: &Path, role: &str, given: &Value, learnt: &str) -> Option<Value> {
    fs::write(folder.join(format!("{role}.json")), given.to_string()).unwrap();
    decoder("peer.py", &[role, folder.to_str().unwrap()])?;
    Some(serde_json::from_slice(&fs::read(folder.join(learnt)).unwrap()).unwrap())
}

fn open(keys: &WindowKeys, m1: &[u8]) -> OpenedRequest {
    let Ok(Parsed::Complete { outer, consumed }) = OuterRequest::parse(m1) else {
        panic!("not an outer part")
    };
    let waiting = keys.open(&keys.find(&outer, now()).unwrap(), &outer).unwrap();
    let Ok(AuthStep::Claimed(claimed)) = waiting.push(&m1[consumed..]) else {
        panic!("no first chunk")
    };
    let mut body = claimed.verify(now(), CLUSTER).unwrap();
    body.push(&[]).unwrap();
    body.finish().unwrap()
}

fn answer(keys: &WindowKeys, identity: &SigningKey, request: &OpenedRequest) -> Vec<u8> {
    let facts = keys.facts();
    let (mut sealer, mut m2) = request.respond().unwrap();
    m2.extend(sealer.head(&HEAD).unwrap());
    m2.extend(sealer.data(b"one").unwrap());
    m2.extend(sealer.data(b"two").unwrap());
    for _ in 0..sealer.missing_dummies() {
        m2.extend(sealer.dummy().unwrap());
    }
    let sign = |response_hash| {
        let receipt = Receipt {
            tee: facts.tee,
            request_id: request.request_id(),
            issued_at: now(),
            enclave_id: facts.enclave_id,
            boot_id: facts.boot_id,
            epoch: 1,
            key_id: request.key_id(),
            tenant_id: request.tenant(),
            model: facts.model,
            workload: facts.workload,
            gpu_checked_at: UnixTime(0),
            policy: request.policy(),
            distinct_tenants: 1,
            scrub_proof: Sha256Digest::from_bytes([0; 32]),
            sequence: 1,
            usage_bucket: 0,
            request_hash: request.request_hash(),
            response_hash,
            outcome: Outcome::Complete,
        };
        receipt.sign(identity)
    };
    m2.extend(sealer.end(sign).unwrap());
    m2
}
