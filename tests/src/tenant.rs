//! Tenants with one member each, and what they know of an enclave.

use std::{
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use cloister_attestation::{AttestedPeer, Endorsements, ModelDigest, PolicyHash, UnixTime, appraise};
use cloister_session::{
    TenantId, TenantRef,
    client::{SealRequest, SealedRequest, seal},
    credential::{MemberCredential, SaltScope, SignedCredential, TenantRoot},
    inner::{ApiPath, InnerRequest},
    key_config::{SignedKeyConfig, VerifiedKeyConfig},
    opener::ResponseOpener,
    signing::SigningKey,
    tenant_ref,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    answer::{Answer, Exchange},
    enclave::Enclave,
    lying::Lying,
    site::{CLUSTER, MODEL},
};

/// Now.
#[must_use]
pub fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    UnixTime(since.as_secs())
}

/// 32 random bytes.
#[must_use]
pub fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
    bytes
}

/// A tenant and its one member.
pub struct Tenant {
    /// Its root key.
    pub root: TenantRoot,
    /// The member's key.
    pub member: SigningKey,
    /// The member's credential.
    pub credential: SignedCredential,
}

impl Tenant {
    /// A new tenant whose members share their cache, so that its requests of one epoch have one salt.
    #[must_use]
    pub fn new(model: ModelDigest) -> Self {
        let key = || SigningKey::generate().expect("a key");
        let (root, member) = (TenantRoot::new(key()), key());
        let credential = root.issue(&claims(&member, model));
        Self {
            root,
            member,
            credential,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> TenantId {
        self.root.tenant_id()
    }

    /// Its reference in the cluster.
    #[must_use]
    pub fn reference(&self) -> TenantRef {
        tenant_ref(CLUSTER, &self.id())
    }

    /// Asks an enclave for evidence and keys, and appraises both as a relying party does.
    pub async fn trust(self, enclave: &Enclave, lying: &Lying) -> Client {
        let trust = Trust::new(&self, enclave, lying).await;
        Client {
            tenant: self,
            policy: enclave.policy().canonical_hash(),
            trust: Mutex::new(trust),
        }
    }
}

/// What a tenant knows of an enclave.
struct Trust {
    peer: AttestedPeer,
    /// Of this window and, in the last minutes of it, of the next.
    keys: Vec<SignedKeyConfig>,
}

impl Trust {
    async fn new(tenant: &Tenant, enclave: &Enclave, lying: &Lying) -> Self {
        let (nonce, reference) = (random(), tenant.reference());
        let evidence = lying.evidence(nonce, reference).await;
        let result =
            appraise(&evidence, &nonce, now(), enclave.policy(), &Endorsements::default()).expect("good evidence");
        Self {
            peer: AttestedPeer::new(result, now()).expect("fresh evidence"),
            keys: lying.key_configs(reference).await,
        }
    }

    fn live(&self, reference: &TenantRef) -> Option<Key> {
        self.keys.iter().find_map(|signed| {
            let verified = signed.verify(&self.peer, reference, now()).ok()?;
            let signed = signed.clone();
            Some(Key { signed, verified })
        })
    }
}

/// What a good credential says.
#[must_use]
pub fn claims(member: &SigningKey, model: ModelDigest) -> MemberCredential {
    MemberCredential {
        root: member.public(),
        member: member.public(),
        not_before: UnixTime(now().0 - 60),
        not_after: now().plus(3000),
        models: vec![model],
        audience: CLUSTER.to_owned(),
        salt_scope: SaltScope::Tenant,
    }
}

/// An enclave's key for a tenant.
pub struct Key {
    /// As signed.
    pub signed: SignedKeyConfig,
    /// As verified.
    pub verified: VerifiedKeyConfig,
}

/// A tenant that trusts one enclave, and seals for it.
pub struct Client {
    /// The tenant.
    pub tenant: Tenant,
    /// Hash of its policy.
    pub policy: PolicyHash,
    trust: Mutex<Trust>,
}

impl Client {
    /// A new tenant that trusts `enclave`.
    pub async fn new(enclave: &Enclave, lying: &Lying) -> Self {
        Tenant::new(enclave.model()).trust(enclave, lying).await
    }

    /// The tenant's reference.
    #[must_use]
    pub fn reference(&self) -> TenantRef {
        self.tenant.reference()
    }

    /// Trusts the enclave anew, after it was restarted.
    pub async fn renew(&mut self, enclave: &Enclave, lying: &Lying) {
        self.trust = Mutex::new(Trust::new(&self.tenant, enclave, lying).await);
    }

    /// The key that is live now.
    ///
    /// # Panics
    /// When there is none: a test that lasts for minutes has to [`refresh`](Self::refresh).
    #[must_use]
    pub fn key(&self) -> Key {
        let trust = self.trust.lock().expect("never poisoned");
        trust.live(&self.reference()).expect("a live key")
    }

    /// Fetches the keys again if none is live: windows begin at a random phase, so any test can see one end.
    pub async fn refresh(&self, lying: &Lying) {
        let reference = self.reference();
        if self.trust.lock().expect("never poisoned").live(&reference).is_none() {
            let keys = lying.key_configs(reference).await;
            self.trust.lock().expect("never poisoned").keys = keys;
        }
    }

    /// Seals a request.
    #[must_use]
    pub fn seal(&self, body: &Value) -> (SealedRequest, ResponseOpener) {
        seal(&SealRequest {
            candidates: &[self.key().verified],
            tenant: self.tenant.id(),
            credential: &self.tenant.credential,
            member: &self.tenant.member,
            policy: self.policy,
            created: now(),
            ttl: 120,
            inner: &inner(body),
        })
        .expect("a sealed request")
    }

    /// Seals a request, sends it, and opens the answer as it comes.
    pub async fn ask(&self, lying: &Lying, body: &Value) -> Exchange {
        self.refresh(lying).await;
        let (sealed, opener) = self.seal(body);
        Exchange::new(lying.post(&sealed.bytes).await, opener)
    }

    /// Seals a request, sends it, and waits for all of the answer.
    pub async fn answer(&self, lying: &Lying, body: &Value) -> Answer {
        self.ask(lying, body).await.finish().await
    }
}

/// A request of the API.
#[must_use]
pub fn inner(body: &Value) -> InnerRequest {
    InnerRequest {
        path: ApiPath::ChatCompletions,
        body: Zeroizing::new(body.to_string().into_bytes()),
    }
}

/// A chat that is streamed.
#[must_use]
pub fn stream(prompt: &str, tokens: u32) -> Value {
    let mut chat = chat(prompt, tokens);
    chat["stream"] = json!(true);
    chat
}

/// A chat that is answered in one piece.
#[must_use]
pub fn chat(prompt: &str, tokens: u32) -> Value {
    json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
    })
}
