use super::fake::{CLUSTER, FakeCluster, Lie, MODEL, policy};
use super::*;
use crate::backend::{Attempt, Call, Ready};
use crate::failure::Code;
use crate::receipts::{ReceiptFileError, ReceiptStore, verify_file};
use crate::retry::{self, Complete, RetryPolicy};
use crate::tenant::{Issue, Tenant};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_attestation::{AppraisalPolicy, BootId, EnclaveId, ModelDigest, Tee, UnixTime, WorkloadDigest};
use cloister_session::TenantRef;
use cloister_session::credential::SaltScope;
use cloister_session::inner::{ApiPath, InnerRequest};
use cloister_session::receipt::{Receipt, ReceiptError};
use cloister_session::record::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use zeroize::Zeroizing;

const ONCE: RetryPolicy = RetryPolicy {
    attempts: 1,
    base: Duration::from_millis(1),
    max: Duration::from_millis(1),
    after_execution: false,
};
const TWICE: RetryPolicy = RetryPolicy { attempts: 2, ..ONCE };
const TWICE_IN_ANY_CASE: RetryPolicy = RetryPolicy {
    after_execution: true,
    ..TWICE
};

struct Set {
    cluster: Arc<FakeCluster>,
    party: RelyingParty,
    dir: tempfile::TempDir,
}

fn set_with(enclaves: usize, policy: AppraisalPolicy, models: &[ModelDigest]) -> Set {
    let cluster = FakeCluster::new(enclaves);
    let dir = tempfile::tempdir().unwrap();
    let tenant = Tenant::at(dir.path(), "acme").unwrap();
    tenant.create().unwrap();
    let clock = cluster.clock();
    let issue = Issue {
        member: "me".into(),
        cluster_id: CLUSTER.into(),
        models: models.to_vec(),
        life: 3600,
        salt_scope: SaltScope::Member,
    };
    let issued = tenant.issue(&issue, clock()).unwrap();
    let member = MemberFiles::new(issued.credential, issued.member_key, CLUSTER.into(), clock.clone());
    let settings = Settings {
        models: BTreeMap::from([("m".to_owned(), vec![MODEL]), ("alias".to_owned(), vec![MODEL])]),
        candidates: 2,
        ttl: 120,
        receipts: Some(Arc::new(ReceiptStore::open(&dir.path().join("receipts")).unwrap())),
        clock,
    };
    let party = RelyingParty::new(cluster.clone(), member, Trust::new(policy, None), settings);
    Set { cluster, party, dir }
}

fn set(enclaves: usize) -> Set {
    set_with(enclaves, policy(), &[MODEL])
}

fn call() -> Call {
    let body = Zeroizing::new(br#"{"model":"m","messages":[]}"#.to_vec());
    Call {
        model: "m".into(),
        inner: Arc::new(InnerRequest {
            path: ApiPath::ChatCompletions,
            body,
        }),
    }
}

impl Set {
    async fn ask(&self, policy: &RetryPolicy) -> Result<Complete, crate::failure::Failure> {
        retry::whole(&self.party, policy, &call()).await
    }

    /// The code that one call with one attempt ends with.
    async fn fails(&self) -> Code {
        self.ask(&ONCE).await.err().expect("the call must fail").code
    }

    fn receipts(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.dir.path().join("receipts")).unwrap();
        let paths = files.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("receipt-"))
            .collect()
    }

    fn fetches(&self) -> (usize, usize) {
        let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
        (count(&self.cluster.key_fetches), count(&self.cluster.evidence_fetches))
    }
}

#[tokio::test]
async fn a_call_is_sealed_answered_and_receipted() {
    let set = set(3);
    let complete = set.ask(&ONCE).await.unwrap();
    assert_eq!((complete.status, &complete.body[..]), (200, &b"{\"answer\":true}"[..]));
    let seen = set.cluster.seen.lock().unwrap().clone();
    assert_eq!(seen[0].body, *call().inner.body);
    assert_eq!(seen[0].candidates, 2);
    let receipts = set.receipts();
    assert_eq!(receipts.len(), 1);
    let verified = verify_file(&receipts[0], &policy()).unwrap();
    assert_eq!(verified.receipt.request_id, seen[0].request_id);
    let text = verified.to_string();
    assert!(
        text.contains("SIMULATED") && text.contains("proves nothing about hardware"),
        "{text}"
    );
    assert!(text.contains(&seen[0].request_id.to_string()));
}

#[tokio::test]
async fn keys_and_evidence_are_fetched_once() {
    let set = set(3);
    for _ in 0..5 {
        set.ask(&ONCE).await.unwrap();
    }
    assert_eq!(
        set.fetches(),
        (1, 2),
        "one list of keys, evidence of the two drawn enclaves only"
    );
    let first: BTreeSet<_> = set.cluster.seen.lock().unwrap().iter().map(|seen| seen.first).collect();
    assert_eq!(first.len(), 1, "the order of candidates stays within a window");
    assert_eq!(set.receipts().len(), 5);
}

#[tokio::test]
async fn a_window_draws_anew() {
    let set = set(16);
    let mut firsts = BTreeSet::new();
    for _ in 0..5 {
        set.ask(&ONCE).await.unwrap();
        firsts.insert(set.cluster.seen.lock().unwrap().last().unwrap().first);
        set.cluster.pass(601);
    }
    // Five draws of sixteen agree by chance once in 65,536 runs.
    assert!(firsts.len() > 1);
    assert_eq!(set.fetches().0, 5);
}

#[tokio::test]
async fn evidence_is_renewed_after_half_an_hour() {
    let set = set(1);
    set.ask(&ONCE).await.unwrap();
    set.cluster.pass(REATTEST_AFTER - 1);
    set.ask(&ONCE).await.unwrap();
    assert_eq!(set.fetches().1, 1);
    set.cluster.pass(601);
    set.ask(&ONCE).await.unwrap();
    assert_eq!(set.fetches().1, 2);
}

#[tokio::test]
async fn a_retry_is_sealed_anew() {
    let set = set(1);
    set.cluster.lie([Lie::CutBeforeEnd]);
    set.ask(&TWICE_IN_ANY_CASE).await.unwrap();
    let seen = set.cluster.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0].request_id, seen[1].request_id);
    assert_eq!(set.receipts().len(), 1, "a cut answer has no receipt");
}

#[tokio::test]
async fn a_restarted_cluster_is_attested_anew() {
    let set = set(2);
    set.ask(&ONCE).await.unwrap();
    set.cluster.restart();
    assert_eq!(set.fails().await, Code::KeysReplaced);
    set.ask(&ONCE).await.unwrap();
    assert_eq!(set.fetches(), (2, 4));
}

#[tokio::test]
async fn bad_keys_are_never_sealed_to() {
    for (lie, expected) in [
        (Lie::NoKeys, Code::NoEnclave),
        (Lie::GarbageKeys, Code::NoEnclave),
        (Lie::OtherTenantsKeys, Code::NoEnclave),
        (Lie::KeysBySomeoneElse, Code::NoEnclave),
    ] {
        let set = set(1);
        set.cluster.lie([lie]);
        assert_eq!(set.fails().await, expected, "{lie:?}");
        assert!(set.cluster.seen.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn bad_evidence_is_never_sealed_on() {
    for (lie, expected) in [
        (Lie::OldEvidence, Code::AttestationRefused),
        (Lie::OthersEvidence, Code::AttestationRefused),
        (Lie::NoEvidence, Code::UpstreamTimeout),
    ] {
        let set = set(1);
        set.cluster.lie([lie]);
        assert_eq!(set.fails().await, expected, "{lie:?}");
        assert!(set.cluster.seen.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_refused_enclave_is_not_asked_again_at_once() {
    let set = set(1);
    set.cluster.lie([Lie::OldEvidence]);
    assert_eq!(set.fails().await, Code::AttestationRefused);
    assert_eq!(set.fails().await, Code::AttestationRefused);
    assert_eq!(set.fetches().1, 1);
    set.cluster.pass(61);
    set.ask(&ONCE).await.unwrap();
}

#[tokio::test]
async fn an_enclave_that_is_refused_later_is_dropped() {
    let set = set(1);
    set.ask(&ONCE).await.unwrap();
    set.cluster.pass(REATTEST_AFTER + 1);
    set.cluster.lie([Lie::OldEvidence]);
    assert_eq!(set.fails().await, Code::AttestationRefused);
}

#[tokio::test]
async fn evidence_that_cannot_be_renewed_holds_until_it_ends() {
    let set = set(1);
    set.ask(&ONCE).await.unwrap();
    set.cluster.pass(REATTEST_AFTER + 1);
    set.cluster.lie([Lie::NoEvidence]);
    set.ask(&ONCE).await.unwrap();
    assert_eq!(set.fetches().1, 2);
}

#[tokio::test]
async fn evidence_that_is_withheld_lapses_whatever_the_policy_allows() {
    let mut patient = policy();
    patient.max_age_seconds = (4 * LAPSES_AFTER).try_into().unwrap();
    let (cluster, trust) = (FakeCluster::new(1), Trust::new(patient, None));
    let (clock, tenant) = (cluster.clock(), TenantRef::from_bytes([2; 16]));
    let objects = cluster.key_configs(&tenant, &MODEL).await.unwrap();
    let enclave = *parse_offered(&objects, &tenant, &MODEL).keys().next().unwrap();
    trust.attest(&*cluster, &tenant, &enclave, clock()).await.ok().unwrap();

    cluster.pass(LAPSES_AFTER - 1);
    cluster.lie([Lie::NoEvidence]);
    trust.attest(&*cluster, &tenant, &enclave, clock()).await.ok().unwrap();
    assert!(trust.known(&enclave, clock()).is_some());

    cluster.pass(1);
    assert!(trust.known(&enclave, clock()).is_none());
    cluster.lie([Lie::NoEvidence]);
    let refused = trust.attest(&*cluster, &tenant, &enclave, clock()).await.err();
    assert!(matches!(refused, Some(ContactError::Unreachable(_))));
    trust.attest(&*cluster, &tenant, &enclave, clock()).await.ok().unwrap();
    assert!(trust.known(&enclave, clock()).is_some(), "renewed");
}

#[tokio::test]
async fn a_policy_may_let_evidence_lapse_sooner() {
    let mut strict = policy();
    strict.max_age_seconds = 60.try_into().unwrap();
    let set = set_with(1, strict, &[MODEL]);
    set.ask(&ONCE).await.unwrap();
    set.cluster.pass(60);
    set.cluster.lie([Lie::NoEvidence]);
    assert_eq!(set.fails().await, Code::UpstreamTimeout);
}

#[tokio::test]
async fn the_policy_decides() {
    let set = set_with(1, AppraisalPolicy::default(), &[MODEL]);
    assert_eq!(set.fails().await, Code::AttestationRefused);
    let mut spread = policy();
    spread.min_distinct_platforms = 2.try_into().unwrap();
    let set = set_with(3, spread, &[MODEL]);
    assert_eq!(set.fails().await, Code::NoEnclave, "all are on one machine");
    assert!(set.cluster.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn answers_that_are_not_whole_and_true_are_errors() {
    for (lie, expected) in [
        (Lie::CutBeforeEnd, Code::AnswerTruncated),
        (Lie::CutAfterHead, Code::AnswerTruncated),
        (Lie::Flip, Code::AnswerNotAuthentic),
        (Lie::TwoTenants, Code::AnswerNotAuthentic),
    ] {
        let set = set(1);
        set.cluster.lie([lie]);
        assert_eq!(set.fails().await, expected, "{lie:?}");
        assert!(set.receipts().is_empty());
    }
    let set = set(1);
    set.ask(&ONCE).await.unwrap();
    set.cluster.lie([Lie::OldAnswer]);
    assert_eq!(set.fails().await, Code::AnswerNotAuthentic);
}

#[tokio::test]
async fn sealed_errors_have_their_codes() {
    for (code, expected) in [
        (ErrorCode::Preempted, Code::Interrupted),
        (ErrorCode::EngineFailed, Code::EngineFailed),
        (ErrorCode::QuotaExceeded, Code::RateLimitExceeded),
    ] {
        let set = set(1);
        set.cluster.lie([Lie::SealedError(code)]);
        assert_eq!(set.fails().await, expected);
    }
}

#[tokio::test]
async fn an_enclave_that_says_so_is_attested_again() {
    let set = set(1);
    set.cluster.lie([Lie::SealedError(ErrorCode::Revoked)]);
    assert_eq!(set.fails().await, Code::EnclaveUnavailable);
    set.ask(&ONCE).await.unwrap();
    assert_eq!(set.fetches(), (2, 2));
}

#[tokio::test]
async fn refusals_about_keys_lead_to_new_keys() {
    for code in [Code::KeysReplaced, Code::EnclaveRefused, Code::EnclaveUnavailable] {
        let set = set(1);
        set.ask(&ONCE).await.unwrap();
        set.cluster.lie([Lie::Refuse(code)]);
        set.ask(&TWICE).await.unwrap();
        assert_eq!(set.fetches().0, 2, "{code}");
    }
    let set = set_with(1, policy(), &[MODEL]);
    set.ask(&ONCE).await.unwrap();
    set.party.ready().await.unwrap();
    set.cluster.lie([Lie::Refuse(Code::EndpointUnreachable)]);
    set.fails().await;
    assert!(set.party.ready().await.is_err(), "the scheduler is gone");
    set.ask(&ONCE).await.unwrap();
    set.party.ready().await.unwrap();
    let set = set_with(1, policy(), &[MODEL]);
    set.ask(&ONCE).await.unwrap();
    set.cluster.lie([Lie::Refuse(Code::RateLimitExceeded)]);
    set.ask(&TWICE).await.unwrap();
    assert_eq!(set.fetches().0, 1, "a full queue says nothing about keys");
}

#[tokio::test]
async fn a_credential_for_other_models_is_refused_before_anything_is_sent() {
    let set = set_with(1, policy(), &[ModelDigest::from_bytes([8; 32])]);
    assert_eq!(set.fails().await, Code::CredentialUnusable);
    assert!(set.cluster.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn another_name_than_the_enclaves_is_refused() {
    let set = set(1);
    let call = Call {
        model: "alias".into(),
        ..call()
    };
    let failure = set.party.attempt(&call).await.err().unwrap();
    assert_eq!(failure.code, Code::ModelNotFound);
    assert!(failure.message.contains("\"m\""), "{failure}");
}

#[tokio::test]
async fn calls_that_wait_for_the_same_keys_share_one_fetch_and_its_failure() {
    let set = set(1);
    set.cluster.lie([Lie::NoKeys]);
    let calls = futures::future::join_all((0..8).map(|_| set.ask(&ONCE))).await;
    assert!(
        calls
            .into_iter()
            .all(|outcome| outcome.is_err_and(|failure| failure.code == Code::NoEnclave))
    );
    assert_eq!(set.fetches().0, 1);
    let calls = futures::future::join_all((0..8).map(|_| set.ask(&ONCE))).await;
    assert!(calls.into_iter().all(|outcome| outcome.is_ok()));
    assert_eq!(set.fetches(), (2, 1));
}

#[tokio::test]
async fn an_expired_credential_is_refused() {
    let set = set(1);
    set.cluster.pass(3600);
    assert_eq!(set.fails().await, Code::CredentialUnusable);
    assert_eq!(set.party.ready().await.unwrap_err().code, Code::CredentialUnusable);
}

#[tokio::test]
async fn ready_means_a_candidate_with_a_live_key() {
    let set = set(1);
    assert_eq!(set.party.ready().await.unwrap_err().code, Code::NoEnclave);
    set.ask(&ONCE).await.unwrap();
    assert_eq!(set.party.ready().await.unwrap().tee, "SIMULATED");
    set.cluster.lie([Lie::Refuse(Code::KeysReplaced)]);
    set.fails().await;
    assert_eq!(set.party.ready().await.unwrap_err().code, Code::NoEnclave);
    set.ask(&ONCE).await.unwrap();
    set.cluster.pass(601);
    assert_eq!(
        set.party.ready().await.unwrap_err().code,
        Code::NoEnclave,
        "the key has ended"
    );
}

#[tokio::test]
async fn dropping_an_answer_drops_the_stream_upstream() {
    let set = set(1);
    let answer = set.party.attempt(&call()).await.unwrap();
    assert_eq!(answer.status, 200);
    drop(answer);
    assert!(set.receipts().is_empty());
}

/// Points a receipt to other evidence, which is named as it should be.
fn with_evidence(receipt: &Path, evidence: &[u8]) {
    let name = format!("evidence-{}.json", crate::tenant::sha256(evidence));
    std::fs::write(receipt.with_file_name(&name), evidence).unwrap();
    edit(receipt, "evidence", &name);
}

fn edit(receipt: &Path, field: &str, value: &str) {
    let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
    file[field] = value.into();
    std::fs::write(receipt, file.to_string()).unwrap();
}

#[tokio::test]
async fn a_receipt_file_that_says_more_than_was_signed_is_refused() {
    let set = set(1);
    set.ask(&ONCE).await.unwrap();
    let path = set.receipts().remove(0);
    let original = std::fs::read(&path).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&original).unwrap();
    let cose = json["cose"].as_str().unwrap();
    let none = "0".repeat(64);
    for (field, value) in [
        ("requestHash", none.as_str()),
        ("responseHash", &none),
        ("cose", ""),
        ("cose", &cose[4..]),
        ("cose", json["receipt"].as_str().unwrap()),
    ] {
        edit(&path, field, value);
        let refused = verify_file(&path, &policy()).err();
        assert!(
            matches!(&refused, Some(ReceiptFileError::Edited { field: named, .. }) if *named == field),
            "{field}: {refused:?}"
        );
        std::fs::write(&path, &original).unwrap();
    }
    verify_file(&path, &policy()).unwrap();

    let evidence = path.with_file_name(json["evidence"].as_str().unwrap());
    let mut text = std::fs::read(&evidence).unwrap();
    text.push(b'\n');
    std::fs::write(&evidence, text).unwrap();
    assert!(matches!(
        verify_file(&path, &policy()),
        Err(ReceiptFileError::EditedEvidence { .. })
    ));
}

#[tokio::test]
async fn receipts_are_refused_when_anything_does_not_fit() {
    let set = set(1);
    set.ask(&ONCE).await.unwrap();
    let path = set.receipts().remove(0);
    assert!(matches!(
        verify_file(&path, &AppraisalPolicy::default()),
        Err(ReceiptFileError::Refused(_))
    ));

    // Another enclave's evidence for this receipt.
    let other = set_with(1, policy(), &[MODEL]);
    other.ask(&ONCE).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let original = std::fs::read(path.with_file_name(json["evidence"].as_str().unwrap())).unwrap();
    let other_text = std::fs::read_to_string(&other.receipts()[0]).unwrap();
    let other_json: serde_json::Value = serde_json::from_str(&other_text).unwrap();
    let other_evidence = other.receipts()[0].with_file_name(other_json["evidence"].as_str().unwrap());
    with_evidence(&path, &std::fs::read(other_evidence).unwrap());
    assert!(matches!(
        verify_file(&path, &policy()),
        Err(ReceiptFileError::Receipt(_))
    ));

    // Evidence that was appraised long before, or after, the receipt.
    let side: serde_json::Value = serde_json::from_slice(&original).unwrap();
    let at = side["appraisedAt"].as_u64().unwrap();
    for moved in [at + 3600, at - 3 * 3600] {
        let mut changed = side.clone();
        changed["appraisedAt"] = moved.into();
        with_evidence(&path, changed.to_string().as_bytes());
        assert!(verify_file(&path, &policy()).is_err(), "{moved}");
    }
    with_evidence(&path, &original);
    assert!(verify_file(&path, &policy()).is_ok());

    // A changed receipt, and fields that nobody knows.
    std::fs::write(&path, text.replace("\"receipt\": \"g", "\"receipt\": \"h")).unwrap();
    assert!(verify_file(&path, &policy()).is_err());
    std::fs::write(&path, text.replacen('{', "{\"extra\": 1,", 1)).unwrap();
    assert!(matches!(
        verify_file(&path, &policy()),
        Err(ReceiptFileError::Format { .. })
    ));
}

#[tokio::test]
async fn a_receipt_of_another_enclave_or_time_is_refused_although_the_key_is_right() {
    let set = set(1);
    set.ask(&ONCE).await.unwrap();
    let path = set.receipts().remove(0);
    let good = verify_file(&path, &policy()).unwrap().receipt;
    let verify = |change: fn(&mut Receipt)| {
        let mut receipt = good.clone();
        change(&mut receipt);
        let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let signed = set.cluster.resign(&receipt);
        file["receipt"] = STANDARD.encode(signed.to_bytes()).into();
        file["cose"] = STANDARD.encode(signed.to_cose()).into();
        std::fs::write(&path, file.to_string()).unwrap();
        verify_file(&path, &policy()).map(drop)
    };
    assert!(verify(|_| ()).is_ok());
    let others: [fn(&mut Receipt); 5] = [
        |receipt| receipt.enclave_id = EnclaveId::from_bytes([0; 32]),
        |receipt| receipt.boot_id = BootId::from_bytes([0; 16]),
        |receipt| receipt.tee = Tee::Snp,
        |receipt| receipt.workload = WorkloadDigest::from_bytes([0; 32]),
        |receipt| receipt.model = ModelDigest::from_bytes([0; 32]),
    ];
    for change in others {
        assert!(matches!(verify(change), Err(ReceiptFileError::OtherEnclave)));
    }
    let times: [fn(&mut Receipt); 2] = [
        |receipt| receipt.issued_at = UnixTime(receipt.issued_at.0 - 31),
        |receipt| receipt.issued_at = receipt.issued_at.plus(3 * 3600),
    ];
    for change in times {
        assert!(matches!(verify(change), Err(ReceiptFileError::Stale { .. })));
    }
    let shared = verify(|receipt| receipt.distinct_tenants = 2);
    assert!(matches!(
        shared,
        Err(ReceiptFileError::Receipt(ReceiptError::NotExclusive))
    ));
}

#[tokio::test]
async fn offers_for_others_are_left_out() {
    let cluster = FakeCluster::new(2);
    let tenant = TenantRef::from_bytes([2; 16]);
    let mut objects = cluster.key_configs(&tenant, &MODEL).await.unwrap();
    objects.push(vec![0; 64]);
    assert_eq!(parse_offered(&objects, &tenant, &MODEL).len(), 2);
    assert!(parse_offered(&objects, &TenantRef::from_bytes([3; 16]), &MODEL).is_empty());
    assert!(parse_offered(&objects, &tenant, &ModelDigest::from_bytes([5; 32])).is_empty());
    let many: Vec<_> = std::iter::repeat_n(vec![0; 64], MAX_OFFERED).chain(objects).collect();
    assert!(
        parse_offered(&many, &tenant, &MODEL).is_empty(),
        "no more than the limit is looked at"
    );
}
