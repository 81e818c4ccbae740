//! A scheduler that says what it likes.

use std::pin::Pin;

use bytes::Bytes;
use cloister_attestation::Evidence;
use cloister_proto::{
    DrainRequest, Epoch, EvidenceRequest, GrantRequest, KeyConfigsRequest, LeaseState, LeaseStatus, StatusRequest,
    enclave_control_client::EnclaveControlClient, enclave_keys_client::EnclaveKeysClient,
};
use cloister_session::{REQUEST_MEDIA_TYPE, TenantRef, key_config::SignedKeyConfig};
use cloister_transport::{ClientLimits, Http2Client, ResponseBody};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tonic::Streaming;

use crate::{site::Site, wait};

/// Path of the data plane.
pub const REQUESTS_PATH: &str = "/cloister/v1/requests";

/// The scheduler, connected to one enclave.
#[derive(Clone, Debug)]
pub struct Lying {
    data: Http2Client,
    control: Http2Client,
    origin: Uri,
}

/// What the enclave said to a request that it did not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// All headers but the time of day.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Refusal {
    /// Whether the enclave says that sealing anew may help.
    ///
    /// # Panics
    /// When it says neither yes nor no.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.headers.get("cloister-retryable").map(http::HeaderValue::as_bytes) {
            Some(b"true") => true,
            Some(b"false") => false,
            other => panic!("cloister-retryable: {other:?}"),
        }
    }
}

impl Lying {
    /// Connects, once the enclave listens.
    pub async fn connect(site: &Site, address: &str) -> Self {
        let origin: Uri = address.parse().expect("an address");
        let client = || Http2Client::new(&origin, &site.client_tls(), ClientLimits::default()).expect("a client");
        let lying = Self {
            data: client(),
            control: client(),
            origin: origin.clone(),
        };
        wait::until("an enclave that listens", || async { lying.watch().await.ok() }).await;
        lying
    }

    /// Calls of control.
    #[must_use]
    pub fn control(&self) -> EnclaveControlClient<Http2Client> {
        EnclaveControlClient::with_origin(self.control.clone(), self.origin.clone())
    }

    /// Calls for keys and evidence.
    #[must_use]
    pub fn keys(&self) -> EnclaveKeysClient<Http2Client> {
        EnclaveKeysClient::with_origin(self.control.clone(), self.origin.clone())
    }

    /// The state now, then each change of it.
    ///
    /// # Errors
    /// The enclave is not there.
    pub async fn watch(&self) -> Result<Streaming<LeaseStatus>, tonic::Status> {
        Ok(self.control().status(StatusRequest {}).await?.into_inner())
    }

    /// The state now.
    pub async fn status(&self) -> LeaseStatus {
        wait::within("the state", async {
            let mut stream = self.watch().await.expect("a stream");
            stream.message().await.expect("a status").expect("a status")
        })
        .await
    }

    /// Waits for a state.
    ///
    /// # Panics
    /// After [`wait::LIMIT`], with the last state.
    pub async fn until(&self, what: &str, mut is: impl FnMut(&LeaseStatus) -> bool) -> LeaseStatus {
        let mut last = None;
        let watching = async {
            let mut stream = self.watch().await.expect("a stream");
            loop {
                let status = stream.message().await.expect("a status").expect("a status");
                if is(&status) {
                    return status;
                }
                last = Some(status);
            }
        };
        match tokio::time::timeout(wait::LIMIT, watching).await {
            Ok(status) => status,
            Err(_) => panic!("{what}: not within {:?}; the last state is {last:?}", wait::LIMIT),
        }
    }

    /// Waits until the replica may be leased, and says under which epoch.
    pub async fn until_vacant(&self) -> Epoch {
        let status = self
            .until("a vacant replica", |status| status.state() == LeaseState::Vacant)
            .await;
        status.epoch.expect("an epoch")
    }

    /// Grants, whatever the enclave makes of it.
    pub async fn grant(&self, tenant: TenantRef, expect: Epoch) -> LeaseStatus {
        let request = GrantRequest {
            tenant_ref: Bytes::copy_from_slice(tenant.as_bytes()),
            expect: Some(expect),
        };
        let mut control = self.control();
        let granted = wait::within("the answer to a grant", control.grant(request)).await;
        granted.expect("a status").into_inner()
    }

    /// Drains, whatever the enclave makes of it.
    pub async fn drain(&self, expect: Epoch) -> LeaseStatus {
        let request = DrainRequest { expect: Some(expect) };
        let mut control = self.control();
        let drained = wait::within("the answer to a drain", control.drain(request)).await;
        drained.expect("a status").into_inner()
    }

    /// Gives the replica to a tenant as an honest scheduler does. Its epoch.
    pub async fn lease(&self, tenant: TenantRef) -> Epoch {
        let epoch = self.until_vacant().await;
        let status = self.grant(tenant, epoch.clone()).await;
        assert!(status.applied, "{status:?}");
        epoch
    }

    /// Ends a lease as an honest scheduler does, and waits until the replica may be leased again.
    pub async fn release(&self, epoch: Epoch) -> Epoch {
        assert!(self.drain(epoch).await.applied);
        self.until_vacant().await
    }

    /// Signed keys for a tenant.
    pub async fn key_configs(&self, tenant: TenantRef) -> Vec<SignedKeyConfig> {
        let request = KeyConfigsRequest {
            tenant_ref: Bytes::copy_from_slice(tenant.as_bytes()),
        };
        let mut keys = self.keys();
        let reply = wait::within("keys", keys.key_configs(request)).await;
        let reply = reply.expect("keys").into_inner();
        let parse = |bytes: &Bytes| SignedKeyConfig::parse(bytes).expect("a key");
        reply.key_configs.iter().map(parse).collect()
    }

    /// Evidence over `nonce`.
    pub async fn evidence(&self, nonce: [u8; 32], tenant: TenantRef) -> Evidence {
        let request = EvidenceRequest {
            nonce: Bytes::copy_from_slice(&nonce),
            tenant_ref: Bytes::copy_from_slice(tenant.as_bytes()),
        };
        let mut keys = self.keys();
        let reply = wait::within("evidence", keys.evidence(request)).await;
        let reply = reply.expect("evidence").into_inner();
        Evidence::from_json(&reply.evidence).expect("evidence")
    }

    /// Sends a request.
    pub async fn post(&self, m1: &[u8]) -> Response<ResponseBody> {
        self.send(request(Full::new(Bytes::copy_from_slice(m1))))
            .await
            .expect("a response")
    }

    /// Sends a request of any form.
    ///
    /// # Errors
    /// See [`Http2Client::send`].
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<ResponseBody>, cloister_transport::ClientError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let sending: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(self.data.send(request));
        wait::within("a response", sending).await
    }

    /// Sends a request that has to be refused.
    pub async fn refused(&self, m1: &[u8]) -> Refusal {
        refusal(self.post(m1).await).await
    }
}

/// A request as schedulers send it.
pub fn request<B>(body: B) -> Request<B> {
    Request::post(REQUESTS_PATH)
        .header("content-type", REQUEST_MEDIA_TYPE)
        .body(body)
        .expect("a request")
}

/// All of a refusal.
///
/// # Panics
/// When it is none.
pub async fn refusal(response: Response<ResponseBody>) -> Refusal {
    let (parts, body) = response.into_parts();
    assert_eq!(parts.status, StatusCode::FORBIDDEN, "not refused");
    let mut headers = parts.headers;
    headers.remove("date");
    let body = wait::within("the body of a refusal", body.collect()).await;
    Refusal {
        status: parts.status,
        headers,
        body: body.expect("a body").to_bytes(),
    }
}
