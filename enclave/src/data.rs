//! The data plane: takes M1, in the order that the protocol demands, and answers with M2.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use cloister_enclave_lease::Account;
use cloister_enclave_openai::{ApiError, Context, Dialect, Endpoint, EngineRequest, sanitize};
use cloister_session::{
    REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE,
    enclave::{AuthStep, OpenedRequest},
    limits::MAX_REQUEST,
    outer::{OuterRequest, Parsed},
    record::ErrorCode,
    replay::ReplayError,
};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use zeroize::Zeroizing;

use crate::{
    answer::{Answer, body},
    enclave::Enclave,
    leases::PermitGuard,
    metrics::RequestEnd,
    outbox::{Cut, Outbox, outbox},
};

/// Tells the router whether the request, sealed anew, may succeed.
pub const RETRYABLE: &str = "cloister-retryable";

/// A request that is not opened: one code for every reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Refusal {
    retryable: bool,
}

/// The lease or the key is not there, now: sealing anew may help.
const RETRY: Refusal = Refusal { retryable: true };
/// Everything else.
const REFUSED: Refusal = Refusal { retryable: false };

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let retryable = HeaderValue::from_static(if self.retryable { "true" } else { "false" });
        (StatusCode::FORBIDDEN, [(RETRYABLE, retryable)]).into_response()
    }
}

impl From<cloister_session::enclave::Refused> for Refusal {
    fn from(_: cloister_session::enclave::Refused) -> Self {
        REFUSED
    }
}

/// `POST /cloister/v1/requests`.
pub async fn handle(State(enclave): State<Arc<Enclave>>, request: Request) -> Response {
    match accept(&enclave, request).await {
        Ok((opened, permit, account)) => answer(enclave, opened, permit, account).await,
        Err(refusal) => {
            enclave.metrics.request(if refusal.retryable {
                RequestEnd::Deferred
            } else {
                RequestEnd::Refused
            });
            refusal.into_response()
        }
    }
}

/// Opens a request under a permit of its tenant's lease.
///
/// What is refused for good is read to its end first: when a refusal comes must not tell which check it was.
async fn accept(enclave: &Arc<Enclave>, request: Request) -> Result<(OpenedRequest, PermitGuard, Account), Refusal> {
    let (parts, body) = request.into_parts();
    let mut upload = Upload { body, taken: 0 };
    let deadline = tokio::time::Instant::now() + enclave.upload_timeout;
    let read = tokio::time::timeout_at(deadline, async {
        let outer = match check_headers(&parts.headers) {
            Ok(()) => read_outer(&mut upload).await,
            Err(refusal) => Err(refusal),
        };
        if outer.is_err() {
            upload.discard().await;
        }
        outer
    });
    let (outer, rest) = read.await.map_err(|_| REFUSED)??;

    // Key live, model ours; then the lease. Nothing is decapsulated before both.
    if enclave.keys().find(&outer, enclave.clock.now()).is_err() {
        return Err(RETRY);
    }
    let mut permit = enclave.leases.admit(&outer.header().tenant_ref).map_err(|_| RETRY)?;
    let revoked = permit.revoked().clone();
    let opening = async {
        let opened = open(enclave, &outer, rest, &mut upload, &mut permit).await;
        if opened.is_err() {
            // The permit is kept meanwhile: neither must the end of the lease tell. It can be revoked all the same.
            upload.discard().await;
        }
        opened
    };
    let opened = tokio::select! {
        biased;
        () = revoked.cancelled() => return Err(RETRY),
        opened = tokio::time::timeout_at(deadline, opening) => opened.map_err(|_| REFUSED)??,
    };
    let account = permit.account().ok_or(RETRY)?;
    Ok((opened, permit, account))
}

fn check_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if media_type != Some(REQUEST_MEDIA_TYPE.as_bytes()) || headers.contains_key(header::CONTENT_ENCODING) {
        return Err(REFUSED);
    }
    Ok(())
}

/// The checks of the seal, each on the outcome of the one before.
async fn open(
    enclave: &Enclave,
    outer: &OuterRequest,
    rest: Bytes,
    upload: &mut Upload,
    permit: &mut PermitGuard,
) -> Result<OpenedRequest, Refusal> {
    let mut auth = {
        let keys = enclave.keys();
        let key = keys.find(outer, enclave.clock.now())?;
        keys.open(&key, outer)?
    };
    let mut bytes = rest;
    let claimed = loop {
        match auth.push(&bytes)? {
            AuthStep::Claimed(claimed) => break claimed,
            AuthStep::More(more) => auth = more,
        }
        bytes = upload.next().await?.ok_or(REFUSED)?;
    };
    let mut body = claimed.verify(enclave.clock.now(), &enclave.cluster_id)?;
    permit.identify(&body.tenant()).map_err(|_| REFUSED)?;
    while let Some(bytes) = upload.next().await? {
        body.push(&bytes)?;
    }
    Ok(body.finish()?)
}

/// Reads until the outer part is whole.
async fn read_outer(upload: &mut Upload) -> Result<(Box<OuterRequest>, Bytes), Refusal> {
    let mut buffer = Vec::new();
    loop {
        let bytes = upload.next().await?.ok_or(REFUSED)?;
        buffer.extend_from_slice(&bytes);
        match OuterRequest::parse(&buffer).map_err(|_| REFUSED)? {
            Parsed::Incomplete => {}
            Parsed::Complete { outer, consumed } => return Ok((outer, Bytes::from(buffer).split_off(consumed))),
        }
    }
}

/// The bytes of M1 as they come, up to the longest M1 there is.
struct Upload {
    body: Body,
    taken: usize,
}

impl Upload {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        while let Some(frame) = self.body.frame().await {
            let Ok(bytes) = frame.map_err(|_| REFUSED)?.into_data() else {
                continue;
            };
            self.taken = self.taken.saturating_add(bytes.len());
            if self.taken > MAX_REQUEST {
                return Err(REFUSED);
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    async fn discard(&mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }
}

/// Answers an opened request: a task of its own, which ends when the reader is gone.
async fn answer(enclave: Arc<Enclave>, opened: OpenedRequest, permit: PermitGuard, account: Account) -> Response {
    let tick = enclave.padding().tick_millis;
    let (outbox, mut inbox) = outbox(&enclave.backlog);
    tokio::spawn(async move {
        let counted = Arc::clone(&enclave);
        let end = respond(enclave, opened, permit, account, outbox).await;
        counted.metrics.request(if end.is_ok() {
            RequestEnd::Answered
        } else {
            RequestEnd::Cut
        });
    });
    // The response begins with its first sealed bytes: before them the request may still go to another candidate.
    let Some(Ok((first, _))) = inbox.next().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let stream = futures::stream::once(async move { Ok(first) }).chain(body(inbox, tick));
    ([(header::CONTENT_TYPE, RESPONSE_MEDIA_TYPE)], Body::from_stream(stream)).into_response()
}

/// What becomes of an authenticated request.
enum Decision {
    Run(EngineRequest),
    Refuse(ApiError),
    Fail(ErrorCode),
}

fn decide(enclave: &Enclave, opened: &OpenedRequest, salt: &Zeroizing<String>) -> Decision {
    match enclave.admit(opened) {
        Err(ReplayError::Replayed) => Decision::Fail(ErrorCode::Replayed),
        Err(ReplayError::QuotaExceeded) => Decision::Fail(ErrorCode::QuotaExceeded),
        Ok(()) => match sanitized(enclave, opened, salt) {
            Ok(request) => Decision::Run(request),
            Err(error) => Decision::Refuse(error),
        },
    }
}

async fn respond(
    enclave: Arc<Enclave>,
    opened: OpenedRequest,
    permit: PermitGuard,
    account: Account,
    outbox: Outbox,
) -> Result<(), Cut> {
    let salt = enclave.cache_salt(&opened, permit.epoch());
    let decision = decide(&enclave, &opened, &salt);
    let answer = Answer::start(enclave, opened, account, outbox)?;
    let request = match decision {
        Decision::Run(request) => request,
        Decision::Refuse(error) => return answer.refuse(&error, permit).await,
        Decision::Fail(code) => return answer.fail(code, permit).await,
    };
    match permit.begin_call(&salt) {
        Ok(call) => answer.run(request, call).await,
        Err(permit) => {
            // Erased before the permit is given back: no plaintext crosses an epoch.
            drop(request);
            answer.fail(ErrorCode::Preempted, permit).await
        }
    }
}

fn sanitized(enclave: &Enclave, opened: &OpenedRequest, salt: &Zeroizing<String>) -> Result<EngineRequest, ApiError> {
    let endpoint = Endpoint::from_path(opened.path().as_str())?;
    let dialect = match enclave.engine.dialect() {
        Some(cloister_enclave_engine::Dialect::Vllm) => Dialect::Vllm,
        _ => Dialect::LlamaCpp,
    };
    let context = Context {
        dialect,
        served_model: &enclave.facts.served_model_name,
        vision: enclave
            .engine
            .capabilities()
            .is_some_and(|capabilities| capabilities.vision),
        cache_salt: Some(salt),
    };
    sanitize(endpoint, opened.body(), &context)
}
