//! Bundles as text: what parses, what does not and where, and what it is taken for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_attestation::bundle::{
    MAX_BUNDLE_LEN, MAX_CHAIN_LEN, MAX_COLLATERAL_LEN, MAX_DEVICE_CHAIN_LEN, MAX_DEVICE_EVIDENCE_LEN, MAX_DEVICES,
    MAX_REPORT_LEN, MAX_VEK_LEN,
};
use cloister_attestation::{Bundle, BundleError, CpuEvidence, DeviceArch, DeviceEvidence, Tee};
use serde_json::{Value, json};

fn b64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn collateral() -> Value {
    let names = [
        "pck_crl_issuer_chain",
        "root_ca_crl",
        "pck_crl",
        "tcb_info_issuer_chain",
        "tcb_info",
        "tcb_info_signature",
        "qe_identity_issuer_chain",
        "qe_identity",
        "qe_identity_signature",
    ];
    Value::Object(names.iter().map(|name| ((*name).into(), (*name).into())).collect())
}

fn snp() -> Value {
    json!({
        "cpu": {"tee": "snp", "report": b64([1; 1184]), "vek": b64([2; 9])},
        "devices": [
            {"arch": "HOPPER", "evidence": b64([3; 9]), "certificate": b64("chain a")},
            {"arch": "BLACKWELL", "evidence": b64([4; 9]), "certificate": b64("chain b")},
            {"arch": "LS10", "evidence": b64([5; 9]), "certificate": b64("chain c")},
        ],
        "nonce": "0a0b"
    })
}

fn tdx() -> Value {
    json!({"cpu": {"tee": "tdx", "quote": b64([1; 9]), "collateral": collateral()}})
}

fn simulated() -> Value {
    json!({"cpu": {"tee": "simulated", "report": b64([1; 9]), "vek": b64([2; 9]), "chain": "pem"}})
}

fn parse(value: &Value) -> Result<Bundle, BundleError> {
    Bundle::from_json(value.to_string().as_bytes())
}

/// What the error says of `value` after `change`.
#[track_caller]
fn refused(mut value: Value, change: impl Fn(&mut Value)) -> String {
    change(&mut value);
    parse(&value).expect_err("parsed").to_string()
}

#[test]
fn the_documented_form_parses() {
    let bundle = parse(&snp()).unwrap();
    let device = |arch, byte, chain: &str| DeviceEvidence {
        arch,
        evidence: vec![byte; 9],
        certificate: chain.into(),
    };
    let expected = Bundle {
        cpu: Some(CpuEvidence::Snp {
            report: vec![1; 1184],
            vek: vec![2; 9],
        }),
        devices: vec![
            device(DeviceArch::Hopper, 3, "chain a"),
            device(DeviceArch::Blackwell, 4, "chain b"),
            device(DeviceArch::Ls10, 5, "chain c"),
        ],
        nonce: Some(vec![10, 11]),
    };
    assert_eq!(bundle, expected);
    let Some(CpuEvidence::Tdx {
        quote,
        collateral: json,
    }) = parse(&tdx()).unwrap().cpu
    else {
        panic!("not of TDX");
    };
    assert_eq!(
        (quote, serde_json::from_str::<Value>(&json).unwrap()),
        (vec![1; 9], collateral())
    );
    assert_eq!(parse(&simulated()).unwrap().cpu.unwrap().tee(), Tee::Simulated);
}

#[test]
fn what_is_written_is_read_back() {
    for value in [snp(), tdx(), simulated()] {
        let bundle = parse(&value).unwrap();
        assert_eq!(Bundle::from_json(bundle.to_json().as_bytes()).unwrap(), bundle);
    }
}

#[test]
fn either_part_may_be_missing_and_not_both() {
    let mut devices = snp();
    devices.as_object_mut().unwrap().remove("cpu");
    assert_eq!(parse(&devices).unwrap().cpu, None);
    assert!(parse(&tdx()).unwrap().devices.is_empty());
    for text in ["{}", r#"{"devices":[]}"#, r#"{"nonce":"00"}"#] {
        assert!(matches!(Bundle::from_json(text.as_bytes()), Err(BundleError::Empty)));
    }
}

#[test]
fn other_json_is_refused() {
    let text = snp().to_string();
    for other in [
        text[..text.len() - 1].to_owned(),
        format!("{text}{{}}"),
        format!("{text}x"),
        String::new(),
        "[]".into(),
        "null".into(),
    ] {
        let error = Bundle::from_json(other.as_bytes()).unwrap_err();
        assert!(matches!(error, BundleError::Json(_)), "{error}");
    }
    assert!(matches!(Bundle::from_json(&[0xff]), Err(BundleError::Json(_))));
}

#[test]
fn an_array_is_not_taken_for_an_object() {
    let expected = "expected an object";
    assert!(refused(snp(), |v| v["cpu"] = json!(["snp", b64([1; 9]), b64([2; 9])])).contains(expected));
    assert!(refused(snp(), |v| v["devices"][0] = json!(["HOPPER", "", ""])).contains(expected));
    let fields: Vec<Value> = collateral().as_object().unwrap().values().cloned().collect();
    assert!(refused(tdx(), |v| v["cpu"]["collateral"] = fields.clone().into()).contains(expected));
    assert!(refused(snp(), |v| *v = json!([v["cpu"], v["devices"], v["nonce"]])).contains(expected));
}

#[test]
fn unknown_and_repeated_fields_are_refused() {
    let name = |field: &str| refused(snp(), |v| v[field] = 1.into());
    assert!(name("extra").contains("unknown field `extra`"));
    assert!(refused(snp(), |v| v["cpu"]["extra"] = 1.into()).contains("unknown field `extra`"));
    assert!(refused(snp(), |v| v["devices"][1]["extra"] = 1.into()).contains("unknown field `extra`"));
    assert!(refused(tdx(), |v| v["cpu"]["collateral"]["extra"] = 1.into()).contains("unknown field `extra`"));
    for (field, other) in [
        ("\"cpu\":", "null"),
        ("\"tee\":", "\"tdx\""),
        ("\"arch\":", "\"LS10\""),
        ("\"tcb_info\":", "\"\""),
    ] {
        let text = if field == "\"tcb_info\":" { tdx() } else { snp() }.to_string();
        let twice = text.replacen(field, &format!("{field}{other},{field}"), 1);
        let error = Bundle::from_json(twice.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("duplicate field") && error.contains("column"), "{error}");
    }
}

#[test]
fn unknown_kinds_are_refused() {
    for tee in ["sgx", "SNP", "none"] {
        assert!(refused(snp(), |v| v["cpu"]["tee"] = tee.into()).contains("unknown variant"));
    }
    for arch in ["hopper", "AMPERE", "Ls10"] {
        assert!(refused(snp(), |v| v["devices"][0]["arch"] = arch.into()).contains("unknown variant"));
    }
}

#[test]
fn fields_of_another_tee_and_missing_ones_are_named() {
    for (name, value) in [("quote", json!("")), ("collateral", collateral()), ("chain", json!(""))] {
        let error = refused(snp(), |v| v["cpu"][name] = value.clone());
        assert_eq!(
            error,
            format!("bundle: cpu.{name} is not part of the evidence of TEE snp")
        );
    }
    for name in ["report", "vek", "chain"] {
        let error = refused(tdx(), |v| v["cpu"][name] = "".into());
        assert_eq!(
            error,
            format!("bundle: cpu.{name} is not part of the evidence of TEE tdx")
        );
    }
    for (value, tee, names) in [
        (snp(), "snp", ["report", "vek"].as_slice()),
        (tdx(), "tdx", &["quote", "collateral"]),
        (simulated(), "simulated", &["report", "vek", "chain"]),
    ] {
        for name in names {
            let error = refused(value.clone(), |v| {
                v["cpu"].as_object_mut().unwrap().remove(*name);
            });
            assert_eq!(
                error,
                format!("bundle: cpu.{name} is missing: evidence of TEE {tee} needs it")
            );
        }
    }
}

#[test]
fn each_length_has_its_bound_and_the_error_says_where() {
    let long = |max: usize| Value::from(b64(vec![b'x'; max + 1]));
    let refusals = [
        (
            "cpu.report",
            refused(snp(), |v| v["cpu"]["report"] = long(MAX_REPORT_LEN)),
        ),
        ("cpu.vek", refused(snp(), |v| v["cpu"]["vek"] = long(MAX_VEK_LEN))),
        (
            "cpu.quote",
            refused(tdx(), |v| v["cpu"]["quote"] = long(MAX_REPORT_LEN)),
        ),
        (
            "cpu.chain",
            refused(simulated(), |v| v["cpu"]["chain"] = long(MAX_CHAIN_LEN)),
        ),
        (
            "cpu.collateral",
            refused(tdx(), |v| {
                v["cpu"]["collateral"]["tcb_info"] = "x".repeat(MAX_COLLATERAL_LEN).into();
            }),
        ),
        (
            "devices[2].evidence",
            refused(snp(), |v| v["devices"][2]["evidence"] = long(MAX_DEVICE_EVIDENCE_LEN)),
        ),
        (
            "devices[1].certificate",
            refused(snp(), |v| v["devices"][1]["certificate"] = long(MAX_DEVICE_CHAIN_LEN)),
        ),
    ];
    for (field, error) in refusals {
        assert_eq!(error, format!("bundle: {field} is not within its longest length"));
    }
    let many = refused(snp(), |v| {
        v["devices"] = vec![v["devices"][0].clone(); MAX_DEVICES + 1].into();
    });
    assert!(many.contains("devices has 17 entries"), "{many}");
    let padded = format!("{}{}", snp(), " ".repeat(MAX_BUNDLE_LEN));
    assert!(matches!(
        Bundle::from_json(padded.as_bytes()),
        Err(BundleError::TooLong)
    ));
}

#[test]
fn what_is_no_base64_hex_or_pem_is_named() {
    assert_eq!(
        refused(snp(), |v| v["cpu"]["report"] = "%".into()),
        "bundle: cpu.report is not base64"
    );
    assert_eq!(
        refused(snp(), |v| v["devices"][1]["evidence"] = "AA".into()),
        "bundle: devices[1].evidence is not base64"
    );
    assert_eq!(
        refused(snp(), |v| v["devices"][0]["certificate"] = b64([0xff]).into()),
        "bundle: devices[0].certificate is not base64 of a PEM chain"
    );
    for nonce in ["", "0", "0g", &"00".repeat(65)] {
        let error = refused(snp(), |v| v["nonce"] = nonce.into());
        assert_eq!(error, "bundle: nonce is not 1 to 64 bytes of hex");
    }
}

#[test]
fn a_chip_key_in_pem_is_taken_for_its_der() {
    let der = include_bytes!("../testdata/snp/trustee_vcek.der");
    let pem = |label, bytes: &[u8]| der::pem::encode_string(label, der::pem::LineEnding::LF, bytes).unwrap();
    let (one, other) = (pem("CERTIFICATE", der), pem("CERTIFICATE", b"\x30\x00"));
    let with = |text: &str| {
        let mut value = snp();
        value["cpu"]["vek"] = b64(text).into();
        parse(&value)
    };
    for good in [
        one.clone(),
        one.replace('\n', "\r\n"),
        format!("{one}{other}\n{other}{other}"),
    ] {
        let Some(CpuEvidence::Snp { vek, .. }) = with(&good).unwrap().cpu else {
            panic!("not of SNP");
        };
        assert_eq!(vek, der);
    }
    for bad in [
        one[..one.len() - 2].to_owned(),
        format!("{one}x"),
        format!("{one}{other}{other}{other}{other}"),
        pem("PRIVATE KEY", der),
        format!("{one}{}", pem("PRIVATE KEY", der)),
    ] {
        let error = with(&bad).unwrap_err().to_string();
        assert!(
            error.starts_with("bundle: cpu.vek is not base64 of DER, or of PEM"),
            "{error}"
        );
    }
}
