//! Golden files of every wire format, in `golden/`: the formats are frozen, and these tests fail when one changes.
//!
//! All but the wraps of M1 follows from the constants below and is compared byte for byte; the wraps are random and are
//! opened. `CLOISTER_GOLDEN=write cargo test -p cloister-session golden::what_is_written` writes the files anew: only with a new
//! version of the protocol.

use std::{fs, path::PathBuf};

use cloister_attestation::{BootId, ModelDigest, PolicyHash, Sha256Digest, Tee, UnixTime, binding::enclave_id};
use hpke::Serializable;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    client::{SealRequest, seal_with},
    credential::{MemberCredential, SaltScope, SignedCredential, TenantRoot},
    enclave::{AwaitingAuth, OpenedRequest},
    ids::{KeyId, RequestId, TenantRef, tenant_ref},
    inner::{ApiPath, ContentType, InnerRequest, ResponseHead},
    key_config::{KeyConfig, PaddingProfile, SignedKeyConfig, VerifiedKeyConfig},
    limits::{DEK_LEN, WRAP_LEN},
    opener::{Candidate, Ended, Event, Expected, ResponseOpener},
    receipt::{Outcome, Receipt, SignedReceipt},
    record::{ErrorCode, encode_error},
    refusals::fixture,
    signing::SigningKey,
    suite,
};

const CLUSTER: &str = "golden-cluster";
/// When everything happens.
const NOW: UnixTime = UnixTime(1_800_000_000);
const ROOT_SEED: [u8; 32] = [1; 32];
const MEMBER_SEED: [u8; 32] = [2; 32];
const POLICY: PolicyHash = PolicyHash::from_bytes([3; 32]);
const DEK: [u8; DEK_LEN] = [4; DEK_LEN];
const REQUEST_ID: RequestId = RequestId::from_bytes([5; 16]);
const SCRUB_PROOF: Sha256Digest = Sha256Digest::from_bytes([6; 32]);
/// Pieces of the answer's body.
const PIECES: [&str; 3] = ["data: {\"a\":1}\n\n", "data: {\"b\":2}\n\n", "data: [DONE]\n\n"];
const HEAD: ResponseHead = ResponseHead {
    status: 200,
    content_type: ContentType::EventStream,
};
/// `PrivateKeyInfo` of an Ed25519 seed (RFC 8410 section 7) before the seed.
const PKCS8_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

fn key(seed: &[u8; 32]) -> SigningKey {
    SigningKey::from_pkcs8(&[PKCS8_PREFIX.as_slice(), seed].concat()).unwrap()
}

fn root() -> TenantRoot {
    TenantRoot::new(key(&ROOT_SEED))
}

fn reference() -> TenantRef {
    tenant_ref(CLUSTER, &root().tenant_id())
}

fn credential() -> SignedCredential {
    root().issue(&MemberCredential {
        root: root().key().public(),
        member: key(&MEMBER_SEED).public(),
        not_before: UnixTime(NOW.0 - 600),
        not_after: NOW.plus(3000),
        models: vec![fixture::MODEL, ModelDigest::from_bytes([7; 32])],
        audience: CLUSTER.into(),
        salt_scope: SaltScope::Member,
    })
}

/// A body that needs several chunks.
fn body() -> Vec<u8> {
    let content = "golden ".repeat(3000);
    format!("{{\"model\":\"tiny\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"{content}\"}}]}}")
        .into()
}

/// One of the two candidates.
struct Enclave {
    identity_seed: [u8; 32],
    boot_id: BootId,
    window_secret: [u8; 32],
    padding: PaddingProfile,
    response_nonce: [u8; 32],
}

/// The first pads its answers, the second does not.
fn enclaves() -> [Enclave; 2] {
    [
        Enclave {
            identity_seed: [0x10; 32],
            boot_id: BootId::from_bytes([0x11; 16]),
            window_secret: [0x12; 32],
            padding: PaddingProfile {
                record_size: 512,
                tick_millis: 20,
                count_bucket: 8,
            },
            response_nonce: [0x13; 32],
        },
        Enclave {
            identity_seed: [0x20; 32],
            boot_id: BootId::from_bytes([0x21; 16]),
            window_secret: [0x22; 32],
            padding: PaddingProfile::OFF,
            response_nonce: [0x23; 32],
        },
    ]
}

impl Enclave {
    fn identity(&self) -> SigningKey {
        key(&self.identity_seed)
    }

    fn signed_config(&self) -> SignedKeyConfig {
        let workload = fixture::workload();
        let (_, public) = suite::tenant_key_pair(&self.window_secret, &reference()).unwrap();
        let mut config = KeyConfig {
            tee: Tee::Simulated,
            key_id: KeyId::from_bytes([0; 16]),
            public_key: Box::new(public),
            enclave_id: enclave_id(&self.identity().public(), &self.boot_id, &workload.digest()),
            boot_id: self.boot_id,
            tenant_ref: reference(),
            model: workload.model,
            served_model_name: workload.served_model_name.clone(),
            workload: workload.digest(),
            switch_isolation: workload.switch_isolation,
            window: 42,
            not_before: UnixTime(NOW.0 - 300),
            not_after: NOW.plus(300),
            padding: self.padding,
        };
        config.key_id = config.derive_key_id();
        config.sign(&self.identity())
    }

    fn config(&self) -> VerifiedKeyConfig {
        VerifiedKeyConfig::unchecked(&self.signed_config(), self.identity().public())
    }

    /// Opens a request as an enclave with this window secret.
    fn open(&self, m1: &[u8]) -> OpenedRequest {
        let (outer, consumed) = fixture::outer(m1).unwrap();
        let config = self.signed_config();
        let key_id = config.unverified().key_id;
        let wrap = outer.wraps().iter().find(|wrap| wrap.key_id() == key_id).unwrap();
        let (private, _) = suite::tenant_key_pair(&self.window_secret, &reference()).unwrap();
        let (dek, exporter) = suite::open_wrap(&private, &config.hash(), &outer.header_hash(), wrap.sealed()).unwrap();
        assert_eq!(*dek, DEK);
        let waiting = AwaitingAuth::new(&outer, key_id, &dek, exporter, self.padding).unwrap();
        fixture::read_in(CLUSTER, waiting, &m1[consumed..], NOW, 1000).unwrap()
    }

    fn receipt(&self, request: &OpenedRequest, response_hash: Sha256Digest, outcome: Outcome) -> SignedReceipt {
        let config = self.signed_config();
        let config = config.unverified();
        let receipt = Receipt {
            tee: config.tee,
            request_id: request.request_id(),
            issued_at: NOW.plus(5),
            enclave_id: config.enclave_id,
            boot_id: config.boot_id,
            epoch: 9,
            key_id: config.key_id,
            tenant_id: request.tenant(),
            model: config.model,
            workload: config.workload,
            gpu_checked_at: UnixTime(0),
            policy: request.policy(),
            distinct_tenants: 1,
            scrub_proof: SCRUB_PROOF,
            sequence: 3,
            usage_bucket: 4096,
            request_hash: request.request_hash(),
            response_hash,
            outcome,
        };
        receipt.sign(&self.identity())
    }

    fn answer(&self, m1: &[u8], outcome: Outcome) -> Vec<u8> {
        let request = self.open(m1);
        let (mut sealer, mut m2) = request.respond_with(&request.key_id(), &self.response_nonce);
        m2.extend(sealer.head(&HEAD).unwrap());
        for piece in PIECES {
            m2.extend(sealer.data(piece.as_bytes()).unwrap());
        }
        if outcome == Outcome::Error {
            m2.extend(sealer.error(ErrorCode::EngineFailed).unwrap());
        }
        for _ in 0..sealer.missing_dummies() {
            m2.extend(sealer.dummy().unwrap());
        }
        m2.extend(sealer.end(|hash| self.receipt(&request, hash, outcome)).unwrap());
        m2
    }

    /// Opens an answer as the client.
    fn receive(&self, m1: &[u8], m2: &[u8]) -> (Vec<Event>, Ended) {
        let (outer, _) = fixture::outer(m1).unwrap();
        let config = self.config();
        let key_id = config.config().key_id;
        let wrap = outer.wraps().iter().find(|wrap| wrap.key_id() == key_id).unwrap();
        let (private, _) = suite::tenant_key_pair(&self.window_secret, &reference()).unwrap();
        // The sender's context is gone; the receiver's exports the same.
        let (_, exporter) = suite::open_wrap(&private, config.hash(), &outer.header_hash(), wrap.sealed()).unwrap();
        let expected = Expected {
            request_id: REQUEST_ID,
            tenant: root().tenant_id(),
            model: fixture::MODEL,
            policy: POLICY,
            header_hash: outer.header_hash(),
            request_hash: self.open(m1).request_hash(),
        };
        let opener = ResponseOpener::new(expected, vec![Candidate { config, exporter }]);
        fixture::receive(opener, m2, 100).unwrap()
    }

    fn inputs(&self) -> Value {
        let (private, _) = suite::tenant_key_pair(&self.window_secret, &reference()).unwrap();
        json!({
            "boot_id": self.boot_id.to_string(),
            "identity_seed": hex::encode(self.identity_seed),
            "padding": {
                "count_bucket": self.padding.count_bucket,
                "record_size": self.padding.record_size,
                "tick_millis": self.padding.tick_millis,
            },
            "response_nonce": hex::encode(self.response_nonce),
            "window_secret": hex::encode(self.window_secret),
            "xwing_private_key": hex::encode(private.to_bytes()),
        })
    }
}

/// Everything private that is needed to open the files, and what is in them.
fn inputs() -> Vec<u8> {
    let value = json!({
        "body_file": "body.json",
        "cluster_id": CLUSTER,
        "content_type": HEAD.content_type.as_str(),
        "dek": hex::encode(DEK),
        "enclaves": enclaves().iter().map(Enclave::inputs).collect::<Vec<_>>(),
        "error_code": ErrorCode::EngineFailed.name(),
        "member_seed": hex::encode(MEMBER_SEED),
        "now": NOW.0,
        "path": ApiPath::ChatCompletions.as_str(),
        "pieces": PIECES,
        "policy_hash": POLICY.to_string(),
        "request_id": REQUEST_ID.to_string(),
        "status": HEAD.status,
        "tenant_root_seed": hex::encode(ROOT_SEED),
        "ttl": 120,
        "workload": hex::encode(fixture::workload().to_cbor()),
    });
    let mut text = serde_json::to_vec_pretty(&value).unwrap();
    text.push(b'\n');
    text
}

/// M1 with fresh wraps.
fn request() -> Vec<u8> {
    let candidates = enclaves().map(|enclave| enclave.config());
    let request = SealRequest {
        candidates: &candidates,
        tenant: root().tenant_id(),
        credential: &credential(),
        member: &key(&MEMBER_SEED),
        policy: POLICY,
        created: NOW,
        ttl: 120,
        inner: &InnerRequest {
            path: ApiPath::ChatCompletions,
            body: Zeroizing::new(body()),
        },
    };
    let (sealed, _) = seal_with(&request, REQUEST_ID, &Zeroizing::new(DEK)).unwrap();
    sealed.bytes
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).join(name)
}

fn stored(name: &str) -> Vec<u8> {
    fs::read(file(name)).unwrap_or_else(|error| panic!("golden/{name}: {error}"))
}

/// The wraps of M1.
fn wraps(m1: &[u8]) -> std::ops::Range<usize> {
    let (_, consumed) = fixture::outer(m1).unwrap();
    consumed - 2 * WRAP_LEN..consumed
}

/// Every file and what it has to hold, given M1.
fn files(m1: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let [padded, plain] = enclaves();
    let (outer, _) = fixture::outer(m1).unwrap();
    let answer = plain.answer(m1, Outcome::Complete);
    let receipt = plain.receive(m1, &answer).1.signed;
    vec![
        ("inputs.json", inputs()),
        ("body.json", body()),
        ("credential.bin", credential().to_bytes()),
        ("key-config-padded.bin", padded.signed_config().to_bytes()),
        ("key-config-unpadded.bin", plain.signed_config().to_bytes()),
        ("m1-header.bin", outer.header().to_bytes()),
        ("m1.bin", m1.to_vec()),
        ("m2-padded.bin", padded.answer(m1, Outcome::Complete)),
        ("m2-padded-error.bin", padded.answer(m1, Outcome::Error)),
        ("m2-unpadded.bin", answer),
        ("receipt.bin", receipt.to_bytes()),
        ("receipt.cose.bin", receipt.to_cose()),
        ("error-record.bin", encode_error(ErrorCode::EngineFailed)),
    ]
}

#[test]
fn what_is_written_now_is_what_was_written_then() {
    let mut m1 = request();
    if std::env::var("CLOISTER_GOLDEN").is_ok_and(|mode| mode == "write") {
        fs::create_dir_all(file("")).unwrap();
        for (name, bytes) in files(&m1) {
            fs::write(file(name), bytes).unwrap();
        }
        return;
    }
    let old = stored("m1.bin");
    assert_eq!(old.len(), m1.len());
    let random = wraps(&m1);
    m1[random.clone()].copy_from_slice(&old[random]);
    for (name, bytes) in files(&m1) {
        assert!(stored(name) == bytes, "golden/{name} has another format");
    }
}

#[test]
fn what_was_written_then_is_read_now() {
    let m1 = stored("m1.bin");
    for (enclave, m2) in enclaves().iter().zip(["m2-padded.bin", "m2-unpadded.bin"]) {
        let request = enclave.open(&m1);
        assert_eq!(request.body(), body());
        assert_eq!(request.member(), key(&MEMBER_SEED).public());
        let (events, ended) = enclave.receive(&m1, &stored(m2));
        assert_eq!(said(&events), PIECES.concat());
        assert_eq!(ended.receipt.outcome, Outcome::Complete);
    }
    let (events, ended) = enclaves()[0].receive(&m1, &stored("m2-padded-error.bin"));
    assert!(matches!(events.last(), Some(Event::Error(ErrorCode::EngineFailed))));
    assert_eq!(ended.receipt.outcome, Outcome::Error);
    let credential = SignedCredential::parse(&stored("credential.bin")).unwrap();
    assert_eq!(credential.verify(NOW, CLUSTER).unwrap().tenant(), root().tenant_id());
}

fn said(events: &[Event]) -> String {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Data(data) => Some(String::from_utf8(data.to_vec()).unwrap()),
            Event::Head(_) | Event::Error(_) => None,
        })
        .collect()
}
