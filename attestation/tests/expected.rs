//! `testdata/expected.json`: what is known of the real evidence, against what an appraisal under `genuine` rules finds.

mod cases;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cases::{Case, expected, read};
use cloister_attestation::appraisal::{Appraisal, appraise_bundle};
use cloister_attestation::bundle::Bundle;
use cloister_attestation::nvidia::rim::{self, RimStore};
use cloister_attestation::{Endorsements, Rules, UnixTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

fn time(text: &str) -> UnixTime {
    let time = OffsetDateTime::parse(text, &Rfc3339).unwrap();
    UnixTime(time.unix_timestamp().try_into().unwrap())
}

fn appraise(case: &Case) -> Appraisal {
    let bundle = Bundle::from_json(case.bundle().to_string().as_bytes()).unwrap();
    let nonce = case.nonce.as_ref().map(|nonce| hex::decode(nonce).unwrap());
    let mut endorsements = Endorsements::default();
    let mut rims = RimStore::new();
    for path in &case.rims {
        rims.insert(&path.file_name().unwrap().to_string_lossy(), &read(path))
            .unwrap();
    }
    endorsements.rims = rims;
    appraise_bundle(
        &bundle,
        nonce.as_deref(),
        time(&case.now),
        Rules::Genuine,
        &endorsements,
    )
}

fn differences(case: &Case) -> Vec<String> {
    let appraisal = appraise(case);
    let parts = appraisal.submodules.values().flat_map(|part| part.reasons());
    let reasons: Vec<String> = parts.chain(appraisal.reasons()).map(ToString::to_string).collect();
    let mut found = Vec::new();
    let mut compare = |what: &str, expected: &str, actual: &str| {
        if expected != actual {
            found.push(format!("{}: {what} is {actual}, not {expected}: {reasons:?}", case.id));
        }
    };
    compare("status", &case.status, appraisal.status().as_str());
    for (name, tiers) in &case.submods {
        let vector = appraisal
            .submodules
            .get(name)
            .map(|part| part.vector())
            .unwrap_or_default();
        let value = |trust: cloister_attestation::Trust| trust.value().to_string();
        compare(
            &format!("hardware of {name}"),
            &tiers.hardware.to_string(),
            &value(vector.hardware),
        );
        compare(
            &format!("executables of {name}"),
            &tiers.executables.to_string(),
            &value(vector.executables),
        );
    }
    if let Some(reason) = &case.reason {
        let named = reasons
            .iter()
            .any(|found| found.to_lowercase().contains(&reason.to_lowercase()));
        compare("reason", reason, if named { reason } else { "another" });
    }
    found
}

#[test]
fn every_piece_of_real_evidence_gets_the_status_that_is_known_of_it() {
    let cases = expected().cases;
    assert!(cases.len() > 60);
    let wrong: Vec<String> = cases.iter().flat_map(differences).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn affirmed_evidence_has_no_reason_and_every_other_has_one() {
    for case in expected().cases {
        let appraisal = appraise(&case);
        let reasons = appraisal.submodules.values().flat_map(|part| part.reasons()).count();
        let reasons = reasons + appraisal.reasons().len();
        assert_eq!(case.status == "affirming", reasons == 0, "{}", case.id);
    }
}

#[test]
fn every_real_reference_manifest_is_what_is_known_of_it() {
    let mut wrong = Vec::new();
    for document in expected().rims {
        let mut bytes = read(&document.file);
        if document.file.extension().is_some_and(|extension| extension == "b64") {
            bytes.retain(|byte| !byte.is_ascii_whitespace());
            bytes = STANDARD.decode(&bytes).unwrap();
        }
        let found = rim::verify(&bytes, time(&document.now));
        let reason = found.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let named = document
            .reason
            .as_ref()
            .is_none_or(|expected| reason.contains(expected.as_str()));
        if found.is_ok() != document.valid || !named {
            wrong.push(format!("{} at {}: {reason:?}", document.file.display(), document.now));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
