//! Requests to vendors' services: bounded in time, size, number and place.
//!
//! Answers are not trusted because of TLS; all are signed by their vendor. TLS keeps others from withholding, and from learning
//! which chips someone relies on.

use crate::retry::RetryPolicy;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Response, StatusCode, Url};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Most redirects of one request; each must stay at the same scheme, host and port.
const MAX_REDIRECTS: usize = 3;

/// Where a service is: `https`, or `http` on this machine. No credentials, no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
    loopback: bool,
}

/// Text that is no [`BaseUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a service's address: use https://host[:port][/path], or http:// on a loopback address")]
pub struct BaseUrlError(String);

/// How long, how often and how much.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a connection.
    pub connect: Duration,
    /// For one attempt, to the end of its answer.
    pub total: Duration,
    /// Attempts; only an answer of 429 or 5xx is followed by another.
    pub retry: RetryPolicy,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// The service.
    pub(super) base: BaseUrl,
    /// Path and query below it, of characters that were checked.
    pub(super) path: String,
    /// Body of a POST and its media type.
    pub(super) post: Option<(Vec<u8>, &'static str)>,
    /// Largest answer, bytes.
    pub(super) limit: usize,
    /// What an answer of 404 means.
    pub(super) absent: &'static str,
    /// The flag that names another service.
    pub(super) flag: &'static str,
}

/// An answer of 200.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// A request without a usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// No client can be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(String),
    /// No connection, or it broke.
    #[error("{url}: {reason}; check the network and HTTPS_PROXY, or name a mirror with {flag}")]
    Unreachable {
        /// The request.
        url: String,
        /// Why.
        reason: String,
        /// Flag of the service.
        flag: &'static str,
    },
    /// Too slow.
    #[error("{url}: no complete answer within {seconds} s; try again later, or name a mirror with {flag}")]
    Slow {
        /// The request.
        url: String,
        /// The limit.
        seconds: u64,
        /// Flag of the service.
        flag: &'static str,
    },
    /// 404.
    #[error("{url}: not found: {absent}")]
    Absent {
        /// The request.
        url: String,
        /// What that means.
        absent: &'static str,
    },
    /// 429, to the end.
    #[error("{url}: the service asks for fewer requests{}; wait, or name a mirror with {flag}", after(*.seconds))]
    Limited {
        /// The request.
        url: String,
        /// How long it asks to wait.
        seconds: Option<u64>,
        /// Flag of the service.
        flag: &'static str,
    },
    /// Any other status.
    #[error("{url}: the service answers {status}; try again later, or name a mirror with {flag}")]
    Status {
        /// The request.
        url: String,
        /// The status.
        status: u16,
        /// Flag of the service.
        flag: &'static str,
    },
    /// To another host.
    #[error(
        "{url}: the service redirects to another host, or too often, which is not followed; name it with {flag} if it is right"
    )]
    Redirected {
        /// The request.
        url: String,
        /// Flag of the service.
        flag: &'static str,
    },
    /// Over the limit.
    #[error(
        "{url}: the answer is larger than {limit} bytes, which no {what} is",
        what = "such answer"
    )]
    TooLarge {
        /// The request.
        url: String,
        /// The limit, bytes.
        limit: usize,
    },
}

/// Sends requests.
#[derive(Clone, Debug)]
pub struct Http {
    /// By way of a proxy, if the environment names one.
    outward: Client,
    /// To this machine.
    direct: Client,
    limits: Limits,
}

// === impl BaseUrl ===

impl BaseUrl {
    /// The whole address, as in messages.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let error = || BaseUrlError(text.to_owned());
        let url = Url::parse(text).map_err(|_| error())?;
        let host = url.host_str().ok_or_else(error)?;
        let loopback = is_loopback(host);
        let plain =
            url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        let secure = url.scheme() == "https" || (url.scheme() == "http" && loopback);
        if !plain || !secure {
            return Err(error());
        }
        Ok(Self {
            text: url.as_str().trim_end_matches('/').to_owned(),
            loopback,
        })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            total: Duration::from_secs(60),
            retry: RetryPolicy {
                attempts: 4,
                base: Duration::from_secs(1),
                max: Duration::from_secs(30),
                after_execution: true,
            },
        }
    }
}

// === impl Http ===

impl Http {
    /// A sender.
    ///
    /// # Errors
    ///
    /// The system's root certificates cannot be used.
    pub fn new(limits: Limits) -> Result<Self, HttpError> {
        let build = |direct: bool| {
            let builder = Client::builder()
                .user_agent(concat!("cloister/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(limits.connect)
                .timeout(limits.total)
                .redirect(Policy::custom(redirect));
            let builder = if direct { builder.no_proxy() } else { builder };
            builder.build().map_err(|error| HttpError::Client(chain(&error)))
        };
        Ok(Self {
            outward: build(false)?,
            direct: build(true)?,
            limits,
        })
    }

    /// Sends a request until it is answered with anything but 429 or 5xx, or attempts run out.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Answer, HttpError> {
        let mut next = 2;
        loop {
            let response = self.once(ask).await?;
            let status = response.status();
            if !(status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()) {
                return self.read(ask, response).await;
            }
            let asked = retry_after(response.headers(), SystemTime::now().into());
            let wait = self.limits.retry.wait(next, asked, crate::random::u32());
            let (Some(wait), true) = (wait, next <= self.limits.retry.attempts) else {
                return Err(ask.refused(status, asked));
            };
            tracing::debug!(
                url = ask.url(),
                status = status.as_u16(),
                attempt = next,
                "asking again"
            );
            tokio::time::sleep(wait).await;
            next = next.saturating_add(1);
        }
    }

    async fn once(&self, ask: &Ask) -> Result<Response, HttpError> {
        let client = if ask.base.loopback { &self.direct } else { &self.outward };
        let request = match &ask.post {
            None => client.get(ask.url()),
            Some((body, media)) => client.post(ask.url()).header(CONTENT_TYPE, *media).body(body.clone()),
        };
        request.send().await.map_err(|error| self.failed(ask, &error))
    }

    async fn read(&self, ask: &Ask, mut response: Response) -> Result<Answer, HttpError> {
        match response.status() {
            StatusCode::OK => {}
            status => return Err(ask.refused(status, None)),
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.failed(ask, &error))? {
            if body.len().saturating_add(piece.len()) > ask.limit {
                let limit = ask.limit;
                return Err(HttpError::TooLarge { url: ask.url(), limit });
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer {
            url: ask.url(),
            headers: std::mem::take(response.headers_mut()),
            body,
        })
    }

    fn failed(&self, ask: &Ask, error: &reqwest::Error) -> HttpError {
        if error.is_timeout() {
            return HttpError::Slow {
                url: ask.url(),
                seconds: self.limits.total.as_secs(),
                flag: ask.flag,
            };
        }
        HttpError::Unreachable {
            url: ask.url(),
            reason: chain(error),
            flag: ask.flag,
        }
    }
}

// === impl Ask ===

impl Ask {
    pub(super) fn url(&self) -> String {
        format!("{}{}", self.base.text, self.path)
    }

    fn refused(&self, status: StatusCode, asked: Option<Duration>) -> HttpError {
        let (url, flag) = (self.url(), self.flag);
        match status {
            StatusCode::NOT_FOUND => HttpError::Absent {
                url,
                absent: self.absent,
            },
            StatusCode::TOO_MANY_REQUESTS => HttpError::Limited {
                url,
                seconds: asked.map(|asked| asked.as_secs()),
                flag,
            },
            status if status.is_redirection() => HttpError::Redirected { url, flag },
            status => HttpError::Status {
                url,
                status: status.as_u16(),
                flag,
            },
        }
    }
}

/// Follows a redirect at the same scheme, host and port. Anywhere else would be a way into the network of whoever fetches.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let same = attempt
        .previous()
        .first()
        .is_some_and(|first| first.origin() == attempt.url().origin());
    if same && attempt.previous().len() <= MAX_REDIRECTS {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

/// How long an answer asks to wait: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some(Duration::try_from(date - now).unwrap_or_default())
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// The whole reason: reqwest keeps what went wrong in the sources of its error.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(source) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&source.to_string());
        next = source.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

fn after(seconds: Option<u64>) -> String {
    seconds.map(|seconds| format!(" for {seconds} s")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_https_or_on_this_machine() {
        for good in [
            "https://kdsintf.amd.com",
            "https://mirror.example:8443/amd/",
            "http://127.0.0.1:8080",
            "http://[::1]:80",
            "http://localhost:1",
        ] {
            let base: BaseUrl = good.parse().unwrap();
            assert!(!base.as_str().ends_with('/'), "{good}");
        }
        for bad in [
            "",
            "kdsintf.amd.com",
            "http://kdsintf.amd.com",
            "http://127.0.0.1.example",
            "http://localhost.example",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "https://user:word@host",
            "https://host/?x=1",
            "https://host/#x",
            "http://169.254.169.254",
        ] {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn waits_are_seconds_or_a_date() {
        let now = time::macros::datetime!(2026-01-01 00:00:00 UTC);
        let wait = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Thu, 01 Jan 2026 00:00:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(wait("Wed, 31 Dec 2025 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
