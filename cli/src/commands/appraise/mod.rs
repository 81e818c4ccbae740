//! `cloister appraise`

mod input;
mod report;

use std::path::Path;

use self::input::{Input, unreadable, wrong};
use self::report::{Line, Part, Report};
use crate::args::{AppraiseArgs, Output};
use crate::output::{CHECK_FAILED, Failed, Printer};
use cloister_attestation::appraisal::{Appraisal, appraise_bundle, appraise_enclave};
use cloister_attestation::binding::NONCE_LEN;
use cloister_attestation::bundle::Bundle;
use cloister_attestation::check::Trust;
use cloister_attestation::ear::{Ear, EarSigner};
use cloister_attestation::policy::{AppraisalPolicy, DEFAULT_RESULT_AGE};
use cloister_attestation::{Endorsements, Rules, UnixTime};
use cloister_client::collateral::load_rims;
use cloister_client::run;
use serde_json::Value;

/// The built-in rules, in place of a policy's file.
const GENUINE: &str = "genuine";

/// What an appraisal needs besides the evidence.
struct Question {
    policy: Option<AppraisalPolicy>,
    now: UnixTime,
    nonce: Option<Vec<u8>>,
    endorsements: Endorsements,
}

pub(crate) fn run(args: &AppraiseArgs, printer: &Printer) -> Result<(), Failed> {
    // Before anything else is read: a mistake in the command line is said first.
    let signer = signer(args, printer.output())?;
    let question = Question {
        now: input::time(&args.now)?,
        nonce: args.nonce.as_deref().map(input::nonce).transpose()?,
        policy: policy(&args.policy)?,
        endorsements: endorsements(args.rims.as_deref())?,
    };
    let input = Input::read(&args.bundle)?;
    let nonce = question.nonce(&input)?;
    let appraisal = question.appraise(&input, nonce.as_deref());
    let status = appraisal.status();
    if let Some(signer) = &signer {
        let ear = question.ear(&input, &appraisal, nonce.as_deref());
        println!("{}", signer.sign(&ear).map_err(|error| wrong("--key", error))?);
    } else {
        let report = shown(&input, &appraisal);
        printer.result(&report.text(), &report.json());
    }
    if status == Trust::Affirming {
        return Ok(());
    }
    Err(Failed {
        code: CHECK_FAILED,
        message: None,
    })
}

fn signer(args: &AppraiseArgs, output: Output) -> Result<Option<EarSigner>, Failed> {
    if output != Output::Jwt {
        return Ok(None);
    }
    let key = args.key.as_deref().ok_or_else(|| {
        wrong(
            "--output jwt",
            "a result is signed: name a private key with --key FILE; \
             make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out ear.key",
        )
    })?;
    input::signer(key).map(Some)
}

fn policy(path: &Path) -> Result<Option<AppraisalPolicy>, Failed> {
    if path == Path::new(GENUINE) {
        eprintln!(
            "note: the policy `genuine` is for looking at evidence and no policy to run on: it asks for no reference \
             value, no floor, no list and no binding"
        );
        return Ok(None);
    }
    run::policy(path).map(Some).map_err(unreadable)
}

fn endorsements(rims: Option<&Path>) -> Result<Endorsements, Failed> {
    let mut endorsements = Endorsements::default();
    if let Some(folder) = rims {
        let (store, errors) = load_rims(folder).map_err(unreadable)?;
        for (file, reason) in &errors {
            eprintln!("warning: {}: not used: {reason}", folder.join(file).display());
        }
        endorsements.rims = store;
    }
    Ok(endorsements)
}

fn shown(input: &Input, appraisal: &Appraisal) -> Report {
    let parts = appraisal.submodules.iter().map(|(name, part)| Part {
        name: name.clone(),
        label: label(input.bundle(), name),
        status: part.status(),
        vector: part.vector(),
        claims: claims(part.claims.as_ref()),
        lines: part.checks.iter().map(Line::of).collect(),
    });
    Report {
        status: appraisal.status(),
        parts: parts.collect(),
        common: appraisal.common().map(Line::of).collect(),
    }
}

/// What a part claims to be, for people.
fn label(bundle: &Bundle, name: &str) -> String {
    match &bundle.cpu {
        Some(cpu) if name.starts_with("cpu") => cpu.tee().label().to_owned(),
        _ => "NVIDIA".to_owned(),
    }
}

/// Name of a part's kind in an EAR: Trustee's.
fn kind(bundle: &Bundle, name: &str) -> &'static str {
    match &bundle.cpu {
        Some(cpu) if name.starts_with("cpu") => cpu.tee().as_str(),
        _ => "nvidia",
    }
}

/// The claims of a part of which nothing is proven are none.
fn claims(claims: Option<&impl serde::Serialize>) -> Value {
    let value = claims.and_then(|claims| serde_json::to_value(claims).ok());
    value.unwrap_or_else(|| Value::Object(serde_json::Map::new()))
}

// === impl Question ===

impl Question {
    fn rules(&self) -> Rules<'_> {
        self.policy.as_ref().map_or(Rules::Genuine, Rules::Policy)
    }

    /// The nonce to compare with. That of an enclave's evidence is proven by its binding, if not fresh.
    fn nonce(&self, input: &Input) -> Result<Option<Vec<u8>>, Failed> {
        let Input::Evidence(evidence) = input else {
            return Ok(self.nonce.clone());
        };
        if self.nonce.is_none() {
            eprintln!("note: without --nonce nothing shows that the evidence is fresh");
        }
        let nonce = self.nonce.as_ref().or(evidence.bundle.nonce.as_ref());
        let nonce = nonce.filter(|nonce| nonce.len() == NONCE_LEN);
        nonce
            .map(|nonce| Some(nonce.clone()))
            .ok_or_else(|| wrong("nonce", format!("that of an enclave's evidence has {NONCE_LEN} bytes")))
    }

    fn appraise(&self, input: &Input, nonce: Option<&[u8]>) -> Appraisal {
        let (now, rules, endorsements) = (self.now, self.rules(), &self.endorsements);
        match (input, nonce.and_then(|nonce| nonce.first_chunk())) {
            (Input::Evidence(evidence), Some(nonce)) => appraise_enclave(evidence, nonce, now, rules, endorsements),
            _ => appraise_bundle(input.bundle(), nonce, now, rules, endorsements),
        }
    }

    fn ear(&self, input: &Input, appraisal: &Appraisal, nonce: Option<&[u8]>) -> Ear {
        let age = self
            .policy
            .as_ref()
            .map_or(DEFAULT_RESULT_AGE, |policy| policy.max_age_seconds.value());
        // What has ended already was refused, and the refusal lives as long as any result.
        let last = self.now.plus(age);
        let until = Some(appraisal.valid_until()).filter(|until| *until > self.now);
        let mut ear = Ear::new(self.now, until.map_or(last, |until| until.min(last)), nonce);
        let policy_id = self
            .policy
            .as_ref()
            .map_or_else(|| GENUINE.to_owned(), |policy| policy.canonical_hash().to_string());
        for (name, part) in &appraisal.submodules {
            let kind = kind(input.bundle(), name);
            ear.submodule(
                name,
                part.status(),
                &part.vector(),
                &policy_id,
                kind,
                claims(part.claims.as_ref()),
            );
        }
        ear.worsen(appraisal.status());
        if let (Input::Evidence(evidence), Trust::Affirming | Trust::Warning) = (input, appraisal.status()) {
            ear.confirm(&evidence.identity_key);
        }
        ear
    }
}
