//! Refusals of files, and what they say.

mod common;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use cloister_transport::{ClientAuth, PemError, TlsError, TlsFiles, client_config, pki::Usage, server_config};
use common::Authority;

fn refusal(files: &TlsFiles) -> TlsError {
    server_config(files, ClientAuth::Required).unwrap_err()
}

#[test]
fn a_key_that_others_can_reach_is_refused() {
    let authority = Authority::new();
    let files = authority.files("server");
    for mode in [0o640, 0o604, 0o620, 0o602, 0o611] {
        fs::set_permissions(&files.key, Permissions::from_mode(mode)).unwrap();
        let error = refusal(&files);
        assert!(matches!(error, TlsError::Pem(PemError::KeyExposed { .. })), "{error}");
        let message = error.to_string();
        assert!(message.contains("server.key"), "{message}");
        assert!(message.contains(&format!("{mode:03o}")), "{message}");
        assert!(message.contains("chmod 600"), "{message}");
        let as_client = client_config(&files.ca, Some((&files.certificate, &files.key)));
        assert!(as_client.is_err());
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&files.key, Permissions::from_mode(mode)).unwrap();
        server_config(&files, ClientAuth::Required).unwrap();
    }
}

#[test]
fn a_missing_file_is_named() {
    let authority = Authority::new();
    let good = authority.files("server");
    let missing = authority.path("missing");
    for files in [
        TlsFiles {
            ca: missing.clone(),
            ..good.clone()
        },
        TlsFiles {
            certificate: missing.clone(),
            ..good.clone()
        },
        TlsFiles {
            key: missing.clone(),
            ..good.clone()
        },
    ] {
        let error = refusal(&files);
        assert!(matches!(error, TlsError::Pem(PemError::Read { .. })), "{error}");
        assert!(error.to_string().contains("missing"), "{error}");
    }
}

#[test]
fn a_file_without_what_it_should_hold_is_refused_without_quoting_it() {
    let authority = Authority::new();
    let good = authority.files("server");
    let path = authority.path("broken");
    for text in [
        "",
        "CANARY",
        "-----BEGIN CERTIFICATE-----\nCANARY!\n-----END CERTIFICATE-----\n",
        "-----BEGIN PRIVATE KEY-----\nCANARY\n",
        "-----BEGIN CANARY\nxx\n",
    ] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        for files in [
            TlsFiles {
                ca: path.clone(),
                ..good.clone()
            },
            TlsFiles {
                certificate: path.clone(),
                ..good.clone()
            },
            TlsFiles {
                key: path.clone(),
                ..good.clone()
            },
        ] {
            let error = refusal(&files);
            assert!(matches!(error, TlsError::Pem(PemError::Malformed { .. })), "{error}");
            assert!(error.to_string().contains("broken"), "{error}");
            assert!(!format!("{error} {error:?}").contains("CANARY"), "{error:?}");
        }
    }
}

#[test]
fn a_directory_and_a_huge_file_are_refused() {
    let authority = Authority::new();
    let good = authority.files("server");
    let directory = authority.path("directory");
    fs::create_dir(&directory).unwrap();
    let error = refusal(&TlsFiles {
        ca: directory,
        ..good.clone()
    });
    assert!(matches!(error, TlsError::Pem(PemError::NotAFile { .. })), "{error}");
    let huge = authority.path("huge");
    fs::write(&huge, vec![b'\n'; 1024 * 1024 + 1]).unwrap();
    let error = refusal(&TlsFiles { ca: huge, ..good });
    assert!(matches!(error, TlsError::Pem(PemError::TooLarge { .. })), "{error}");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let authority = Authority::new();
    authority.issue("other", &["localhost"], Usage::Server);
    let files = TlsFiles {
        key: authority.path("other.key"),
        ..authority.files("server")
    };
    let error = refusal(&files);
    assert!(matches!(error, TlsError::Identity { .. }), "{error}");
    let as_client = client_config(&files.ca, Some((&files.certificate, &files.key)));
    assert!(matches!(as_client, Err(TlsError::Identity { .. })));
}

#[test]
fn the_configuration_section_is_strict() {
    let parse = serde_norway::from_str::<TlsFiles>;
    let files = parse("{ca: a, certificate: b, key: c}").unwrap();
    assert_eq!(files.key.to_str(), Some("c"));
    assert!(parse("{ca: a, certificate: b}").is_err());
    assert!(parse("{ca: a, certificate: b, key: c, insecure: true}").is_err());
}
