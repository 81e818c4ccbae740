//! What vendors answered.

use super::super::expiry::{State, listing};
use super::super::fetch::Kept;
use super::super::need::of_bundle;
use super::super::{Entry, FmspcCa, Product};
use super::*;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_attestation::UnixTime;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use x509_cert::crl::CertificateList;

const NOW_TDX: u64 = 1_772_323_200;
const FMSPC: [u8; 6] = [0x90, 0xc0, 0x6f, 0, 0, 0];

fn json_of(path: &str) -> Value {
    serde_json::from_slice(&data(path)).unwrap()
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Intel's four answers for a collateral that was put together from them; bodies that were recorded as they came go first.
fn intel_replies(fmspc: &str, collateral: &Value, bodies: Option<[Vec<u8>; 2]>) -> Vec<(String, Vec<Reply>)> {
    let field = |name: &str| collateral[name].as_str().unwrap().to_owned();
    let body = |outer: &str, inner: &str| {
        let signature = field(&format!("{inner}_signature"));
        format!("{{\"{outer}\":{},\"signature\":\"{signature}\"}}", field(inner)).into_bytes()
    };
    let [tcb, identity] = bodies.unwrap_or([body("tcbInfo", "tcb_info"), body("enclaveIdentity", "qe_identity")]);
    let chain = |name: &str| percent(&field(name));
    vec![
        (
            format!("/tdx/certification/v4/tcb?fmspc={fmspc}"),
            vec![Reply::ok(tcb).with("TCB-Info-Issuer-Chain", chain("tcb_info_issuer_chain"))],
        ),
        (
            "/tdx/certification/v4/qe/identity".to_owned(),
            vec![Reply::ok(identity).with("SGX-Enclave-Identity-Issuer-Chain", chain("qe_identity_issuer_chain"))],
        ),
        (
            "/sgx/certification/v4/pckcrl?ca=platform&encoding=der".to_owned(),
            vec![
                Reply::ok(hex::decode(field("pck_crl")).unwrap())
                    .with("SGX-PCK-CRL-Issuer-Chain", chain("pck_crl_issuer_chain")),
            ],
        ),
        // As a cache answers: hex.
        (
            "/sgx/certification/v4/rootcacrl".to_owned(),
            vec![Reply::ok(field("root_ca_crl"))],
        ),
    ]
}

#[tokio::test]
async fn intels_answers_are_kept_byte_for_byte() {
    let recorded = json_of("tdx/assembled/gotdx_50806f000000_collateral.json");
    let bodies = [
        data("tdx/gotdx_sample_tcbInfo_response"),
        data("tdx/gotdx_sample_qeIdentity_response"),
    ];
    let server = Server::new(intel_replies("50806f000000", &recorded, Some(bodies))).await;
    let (_dir, store) = store();
    let fmspc = [0x50, 0x80, 0x6f, 0, 0, 0];
    let ca = FmspcCa::Platform;
    let outcomes = fetch_all(&store, &server, [Need::Intel { fmspc, ca }]).await;
    let (entry, kept) = outcomes[0].result.as_ref().unwrap();
    assert_eq!(
        (entry.to_string().as_str(), *kept),
        ("intel/50806f000000/platform.json", Kept::Fetched)
    );
    let stored: Value = serde_json::from_slice(&store.read(entry).unwrap().unwrap()).unwrap();
    assert_eq!(stored, recorded);
    assert_eq!(
        stored["pck_crl"].as_str().unwrap(),
        hex::encode(data("tdx/gotdx_pckcrl"))
    );
    assert_eq!(
        stored["root_ca_crl"].as_str().unwrap(),
        hex::encode(data("tdx/gotdx_rootcrl.der"))
    );
}

#[tokio::test]
async fn a_real_quote_verifies_with_what_was_fetched_for_it() {
    let quote = data("tdx/gotdx_quote_v5_sample.dat");
    let bundle = json!({ "cpu": { "tee": "tdx", "quote": STANDARD.encode(&quote) } }).to_string();
    let needs = of_bundle(bundle.as_bytes(), None).unwrap();
    let ca = FmspcCa::Platform;
    assert_eq!(needs, BTreeSet::from([Need::Intel { fmspc: FMSPC, ca }]));
    let recorded = json_of("tdx/assembled/phala_90c06f_2026-02_collateral_nopck.json");
    let server = Server::new(intel_replies("90c06f000000", &recorded, None)).await;
    let (_dir, store) = store();
    let outcomes = fetch_all(&store, &server, needs).await;
    outcomes[0].result.as_ref().unwrap();
    let stored = store.read(&Entry::intel(FMSPC, ca)).unwrap().unwrap();
    let collateral: dcap_qvl::QuoteCollateralV3 = serde_json::from_slice(&stored).unwrap();
    let verified = dcap_qvl::verify::verify(&quote, &collateral, NOW_TDX).unwrap();
    assert_eq!(verified.status, "UpToDate");
    let list = listing(&store, UnixTime(NOW_TDX)).unwrap();
    assert!(list.iter().all(|file| file.is_usable()), "{list:?}");
    let late = listing(&store, UnixTime(NOW_TDX + 90 * 86400)).unwrap();
    assert_eq!(late[0].state, State::Expired);
}

/// AMD's revocation list. SYNTHETIC: none was captured, so Intel's under the name of AMD's root.
fn amd_crl(product: &str) -> Vec<u8> {
    let mut list = CertificateList::from_der(&data("tdx/gotdx_pckcrl")).unwrap();
    list.tbs_cert_list.issuer = format!("CN=ARK-{product},O=Advanced Micro Devices").parse().unwrap();
    list.to_der().unwrap()
}

fn milan_bundle() -> String {
    let report = data("snp/sev_report_milan.bin");
    let vek = data("snp/sev_vcek_milan.der");
    json!({ "cpu": { "tee": "snp", "report": STANDARD.encode(report), "vek": STANDARD.encode(vek) } }).to_string()
}

#[tokio::test]
async fn amds_certificate_is_that_of_the_chip_and_is_asked_for_once() {
    let needs = of_bundle(milan_bundle().as_bytes(), None).unwrap();
    let Some(Need::Vcek { hwid, tcb, .. }) = needs.iter().find(|need| matches!(need, Need::Vcek { .. })) else {
        panic!("no certificate of the chip is needed");
    };
    let vcek = format!(
        "/vcek/v1/Milan/{}?blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
        hex::encode(hwid),
        tcb.bootloader,
        tcb.tee,
        tcb.snp,
        tcb.microcode
    );
    let chain = data("snp/sev_cert_chain_milan.pem");
    let server = Server::new([
        (vcek.clone(), vec![Reply::ok(data("snp/sev_vcek_milan.der"))]),
        ("/vcek/v1/Milan/cert_chain".to_owned(), vec![Reply::ok(chain)]),
        ("/vcek/v1/Milan/crl".to_owned(), vec![Reply::ok(amd_crl("Milan"))]),
    ])
    .await;
    let (_dir, store) = store();
    for outcome in fetch_all(&store, &server, needs.clone()).await {
        outcome.result.unwrap();
    }
    let entry = Entry::vcek(Product::Milan, hwid, &tcb.name());
    assert_eq!(store.read(&entry).unwrap().unwrap(), data("snp/sev_vcek_milan.der"));
    let again = fetch_all(&store, &server, needs.clone()).await;
    let kept = again
        .iter()
        .filter(|outcome| outcome.result.as_ref().unwrap().1 == Kept::Already);
    assert_eq!(kept.count(), 1);
    assert_eq!(server.asked().iter().filter(|path| **path == vcek).count(), 1);
}

#[test]
fn a_report_of_version_2_needs_to_be_told_its_generation() {
    let report = STANDARD.encode(data("snp/sev_report_milan.bin"));
    let bundle = json!({ "cpu": { "tee": "snp", "report": report } }).to_string();
    let error = of_bundle(bundle.as_bytes(), None).unwrap_err().to_string();
    assert!(error.contains("--product"), "{error}");
    assert!(of_bundle(bundle.as_bytes(), Some(Product::Milan)).is_ok());
}

#[test]
fn a_report_by_a_vlek_needs_no_certificate_of_the_chip() {
    let report = STANDARD.encode(data("snp/trustee_vlek_report.bin"));
    let bundle = json!({ "cpu": { "tee": "snp", "report": report } }).to_string();
    let needs = of_bundle(bundle.as_bytes(), None).unwrap();
    let product = Product::Milan;
    assert_eq!(
        needs,
        BTreeSet::from([Need::AmdVlekChain(product), Need::AmdCrl(product)])
    );
}

#[test]
fn turin_is_asked_for_by_eight_bytes_and_five_versions() {
    // SYNTHETIC: no report of Turin was captured.
    let mut report = vec![0; 1184];
    report[0] = 5;
    report[0x180..0x188].copy_from_slice(&[1, 2, 3, 4, 0, 0, 0, 9]);
    report[0x188] = 0x1a;
    report[0x1a0..0x1a8].fill(0xcd);
    let bundle = json!({ "cpu": { "tee": "snp", "report": STANDARD.encode(&report) } }).to_string();
    let needs = of_bundle(bundle.as_bytes(), None).unwrap();
    let names: Vec<_> = needs.iter().map(|need| need.entry().unwrap().to_string()).collect();
    assert!(
        names.contains(&"amd/Turin/cdcdcdcdcdcdcdcd/01-02-03-04-09.der".to_owned()),
        "{names:?}"
    );
    report[0x1a0..0x1a8].fill(0);
    let masked = json!({ "cpu": { "tee": "snp", "report": STANDARD.encode(&report) } }).to_string();
    assert!(
        of_bundle(masked.as_bytes(), None)
            .unwrap_err()
            .to_string()
            .contains("masked")
    );
}

pub(super) fn rim_answer(id: &str, document: &[u8]) -> Vec<u8> {
    let sha256 = hex::encode(digest(&SHA256, document));
    json!({ "id": id, "rim": STANDARD.encode(document), "sha256": sha256, "rim_format": "TCG" })
        .to_string()
        .into_bytes()
}

pub(super) fn gpu_bundle(report: &[u8]) -> String {
    let certificate = STANDARD.encode(data("nvidia/e2e_pass/cert_chain.pem"));
    let device = json!({ "arch": "HOPPER", "evidence": STANDARD.encode(report), "certificate": certificate });
    json!({ "devices": [device.clone(), device] }).to_string()
}

#[tokio::test]
async fn nvidias_rims_come_with_the_status_of_every_certificate_above() {
    let driver = data("nvidia/e2e_pass/driver_rim_545.00.swidtag");
    let vbios = data("nvidia/e2e_pass/vbios_rim_96.00.5E.00.01.swidtag");
    let rim = |id: &str, document: &[u8]| (format!("/v1/rim/{id}"), vec![Reply::ok(rim_answer(id, document))]);
    let server = Server::new([
        rim("NV_GPU_DRIVER_GH100_545.00", &driver),
        rim("NV_GPU_VBIOS_1010_0200_882_96005E0001", &vbios),
        ("/".to_owned(), vec![Reply::of(Content::Status(|_| {}))]),
    ])
    .await;
    let report = hex::decode(data("nvidia/e2e_pass/report.hex").trim_ascii()).unwrap();
    let needs = of_bundle(gpu_bundle(&report).as_bytes(), None).unwrap();
    // Two RIMs, and three certificates of the device's chain, however many devices say so.
    assert_eq!(needs.len(), 5);
    let (_dir, store) = store();
    let outcomes = fetch_all(&store, &server, needs).await;
    for outcome in &outcomes {
        outcome
            .result
            .as_ref()
            .unwrap_or_else(|error| panic!("{}: {error}", outcome.need));
    }
    let entry = Entry::rim("NV_GPU_DRIVER_GH100_545.00").unwrap();
    assert_eq!(store.read(&entry).unwrap().unwrap(), driver);
    // Those of the RIMs' chains are found in the RIMs.
    let statuses = store
        .list()
        .unwrap()
        .iter()
        .filter(|entry| entry.to_string().contains("/ocsp/"))
        .count();
    assert!(statuses > 3, "{statuses}");
    assert_eq!(statuses + 2, outcomes.len());
    let day = 86400;
    let now = 1_733_011_200; // 2024-12-01
    let state = |now: u64| {
        let list = listing(&store, UnixTime(now)).unwrap();
        list.into_iter()
            .find(|file| file.name.contains("/ocsp/"))
            .unwrap()
            .state
    };
    assert_eq!((state(now), state(now + 2 * day)), (State::Soon, State::Expired));
}
