//! What no vendor should answer.

use super::super::http::HttpError;
use super::super::need::of_bundle;
use super::super::{FmspcCa, Product};
use super::vendors::{gpu_bundle, rim_answer};
use super::*;

const CHAIN: &str = "/vcek/v1/Milan/cert_chain";
const ID: &str = "NV_GPU_DRIVER_GH100_545.00";

fn chain() -> Need {
    Need::AmdChain(Product::Milan)
}

fn good() -> Reply {
    Reply::ok(data("snp/sev_cert_chain_milan.pem"))
}

fn is_content(error: &FetchError, part: &str) -> bool {
    matches!(error, FetchError::Content { reason, .. } if reason.contains(part))
}

#[tokio::test]
async fn an_oversized_answer_is_refused_before_it_ends() {
    let server = Server::one(CHAIN, vec![Reply::of(Content::Endless)]).await;
    let error = error_of(&server, chain()).await;
    assert!(matches!(error, FetchError::Http(HttpError::TooLarge { .. })), "{error}");
}

#[tokio::test]
async fn a_slow_answer_is_given_up() {
    let server = Server::one(CHAIN, vec![Reply::of(Content::Silent)]).await;
    let limits = Limits {
        total: Duration::from_millis(300),
        ..Limits::default()
    };
    let error = error_with(&server, &Http::new(limits).unwrap(), chain()).await;
    assert!(matches!(error, FetchError::Http(HttpError::Slow { .. })), "{error}");
}

#[tokio::test]
async fn wrong_content_is_not_kept() {
    let page = || Reply::ok("<html>log in to this network</html>");
    let server = Server::new([
        (CHAIN.to_owned(), vec![page()]),
        ("/vcek/v1/Milan/crl".to_owned(), vec![page()]),
        (format!("/v1/rim/{ID}"), vec![page()]),
        ("/tdx/certification/v4/tcb?fmspc=90c06f000000".to_owned(), vec![page()]),
        ("/tdx/certification/v4/qe/identity".to_owned(), vec![page()]),
        (
            "/sgx/certification/v4/pckcrl?ca=platform&encoding=der".to_owned(),
            vec![page()],
        ),
        ("/sgx/certification/v4/rootcacrl".to_owned(), vec![page()]),
    ])
    .await;
    let intel = Need::Intel {
        fmspc: [0x90, 0xc0, 0x6f, 0, 0, 0],
        ca: FmspcCa::Platform,
    };
    for need in [chain(), Need::AmdCrl(Product::Milan), Need::Rim(ID.to_owned()), intel] {
        let error = error_of(&server, need).await;
        assert!(is_content(&error, ""), "{error}");
    }
}

#[tokio::test]
async fn another_products_chain_is_refused() {
    let server = Server::one("/vcek/v1/Genoa/cert_chain", vec![good()]).await;
    let error = error_of(&server, Need::AmdChain(Product::Genoa)).await;
    assert!(is_content(&error, "instead of ARK-Genoa"), "{error}");
}

#[tokio::test]
async fn another_chips_certificate_is_refused() {
    let tcb = super::super::Tcb {
        fmc: None,
        bootloader: 1,
        tee: 2,
        snp: 3,
        microcode: 4,
    };
    let path = "/vcek/v1/Milan/abab?blSPL=01&teeSPL=02&snpSPL=03&ucodeSPL=04";
    let server = Server::one(path, vec![Reply::ok(data("snp/sev_vcek_milan.der"))]).await;
    let need = Need::Vcek {
        product: Product::Milan,
        hwid: vec![0xab; 2],
        tcb,
    };
    let error = error_of(&server, need).await;
    assert!(is_content(&error, "another chip"), "{error}");
}

#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed() {
    let other = Server::one(CHAIN, vec![good()]).await;
    let location = format!("{}{CHAIN}", other.url);
    let server = Server::one(CHAIN, vec![Reply::new(302, "").with("location", location)]).await;
    let error = error_of(&server, chain()).await;
    assert!(
        matches!(error, FetchError::Http(HttpError::Redirected { .. })),
        "{error}"
    );
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn a_redirect_on_the_same_host_is_followed_a_few_times() {
    let moved = Reply::new(302, "").with("location", "/moved");
    let server = Server::new([(CHAIN.to_owned(), vec![moved]), ("/moved".to_owned(), vec![good()])]).await;
    let (_dir, store) = store();
    fetch_all(&store, &server, [chain()]).await.remove(0).result.unwrap();
    let round = Server::one(CHAIN, vec![Reply::new(302, "").with("location", CHAIN)]).await;
    let error = error_of(&round, chain()).await;
    assert!(
        matches!(error, FetchError::Http(HttpError::Redirected { .. })),
        "{error}"
    );
    assert_eq!(round.asked().len(), 4);
}

#[tokio::test]
async fn what_is_not_there_says_what_that_means_and_is_asked_for_once() {
    let server = Server::new([]).await;
    let error = error_of(&server, Need::Rim(ID.to_owned())).await;
    assert!(
        error.to_string().contains("NVIDIA publishes no RIM of this id"),
        "{error}"
    );
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_limit_is_waited_for() {
    let limited = || Reply::new(429, "").with("retry-after", "0");
    let server = Server::one(CHAIN, vec![limited(), Reply::new(503, ""), good()]).await;
    let (_dir, store) = store();
    fetch_all(&store, &server, [chain()]).await.remove(0).result.unwrap();
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn attempts_end() {
    let server = Server::one(CHAIN, vec![Reply::new(500, "")]).await;
    let error = error_of(&server, chain()).await;
    assert!(
        matches!(error, FetchError::Http(HttpError::Status { status: 500, .. })),
        "{error}"
    );
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_limit_that_is_too_long_is_told_at_once() {
    let server = Server::one(CHAIN, vec![Reply::new(429, "").with("retry-after", "3600")]).await;
    let error = error_of(&server, chain()).await.to_string();
    assert!(error.contains("for 3600 s") && error.contains("--amd-kds"), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_not_asked_for_again() {
    let server = Server::one(CHAIN, vec![Reply::new(403, "")]).await;
    let error = error_of(&server, chain()).await;
    assert!(
        matches!(error, FetchError::Http(HttpError::Status { status: 403, .. })),
        "{error}"
    );
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_rim_that_was_changed_on_the_way_is_refused() {
    let document = data("nvidia/e2e_pass/driver_rim_545.00.swidtag");
    let mut changed = rim_answer(ID, &document);
    // One letter of the base64, in the middle of the document.
    let middle = changed.len() / 2;
    changed[middle] = if changed[middle] == b'A' { b'B' } else { b'A' };
    let server = Server::one(&format!("/v1/rim/{ID}"), vec![Reply::ok(changed)]).await;
    let error = error_of(&server, Need::Rim(ID.to_owned())).await;
    assert!(is_content(&error, "sha256"), "{error}");
}

#[tokio::test]
async fn an_id_with_other_characters_reaches_neither_the_disk_nor_the_network() {
    let server = Server::new([]).await;
    for id in ["../../etc/passwd", "a?b=c", "a#b", "@evil.example", "a%2fb"] {
        let error = error_of(&server, Need::Rim(id.to_owned())).await;
        assert!(matches!(error, FetchError::Name(_)), "{error}");
    }
    assert!(server.asked().is_empty());
    // The id comes from a report that nobody has verified.
    let mut report = hex::decode(data("nvidia/e2e_pass/report.hex").trim_ascii()).unwrap();
    let at = report.windows(6).position(|window| window == b"545.00").unwrap();
    report[at..at + 6].copy_from_slice(b"../a/b");
    let error = of_bundle(gpu_bundle(&report).as_bytes(), None).unwrap_err();
    assert!(error.to_string().contains("RIM id"), "{error}");
}

#[tokio::test]
async fn a_status_of_something_else_is_refused() {
    let chain = String::from_utf8(data("nvidia/e2e_pass/cert_chain.pem")).unwrap();
    let (certificate, issuer) = super::super::nvidia::device_chain(&chain).remove(0);
    let changes: [(Change, &str); 3] = [
        (|data| data.responses.clear(), "another certificate"),
        (
            |data| data.responses[0].cert_id.serial_number = x509_cert::serial_number::SerialNumber::from(7_u32),
            "another certificate",
        ),
        (
            |data| {
                let other = OctetString::new([7; 32]).unwrap().to_der().unwrap();
                data.response_extensions.as_mut().unwrap()[0].extn_value = OctetString::new(other).unwrap();
            },
            "another nonce",
        ),
    ];
    for (change, reason) in changes {
        let server = Server::one("/", vec![Reply::of(Content::Status(change))]).await;
        let need = Need::Status {
            certificate: certificate.clone(),
            issuer: issuer.clone(),
        };
        let error = error_of(&server, need).await;
        assert!(is_content(&error, reason), "{error}");
    }
    // Without a nonce it is one that the service made earlier, which its dates judge.
    let server = Server::one(
        "/",
        vec![Reply::of(Content::Status(|data| data.response_extensions = None))],
    )
    .await;
    let (_dir, store) = store();
    let outcome = fetch_all(&store, &server, [Need::Status { certificate, issuer }])
        .await
        .remove(0);
    outcome.result.unwrap();
}

#[tokio::test]
async fn one_failure_does_not_keep_the_others_away() {
    let server = Server::one(CHAIN, vec![good()]).await;
    let (_dir, store) = store();
    let outcomes = fetch_all(&store, &server, [Need::AmdCrl(Product::Milan), chain()]).await;
    assert!(outcomes[0].result.is_err() && outcomes[1].result.is_ok());
    assert_eq!(store.list().unwrap().len(), 1);
}
