//! Text that is no manifest, or not only one: outside of the subset of XML that is read.

use cloister_attestation::UnixTime;
use cloister_attestation::nvidia::rim::xml::{MAX_DOCUMENT_LEN, XmlRefusal};
use cloister_attestation::nvidia::rim::{RimRefusal, verify};
use proptest::prelude::*;

/// 2024-12-01: the certificates are valid.
const NOW: UnixTime = UnixTime(1_733_011_200);
const DRIVER: &[u8] = include_bytes!("../testdata/nvidia/e2e_pass/driver_rim_545.00.swidtag");

fn refusal(document: &[u8]) -> RimRefusal {
    verify(document, NOW).unwrap_err()
}

/// The document with the first `from` replaced.
fn replaced(document: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(document).unwrap();
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn what_has_no_place_in_a_manifest_is_refused() {
    let construct = |document: &[u8]| matches!(refusal(document), RimRefusal::Xml(XmlRefusal::Construct(_)));
    let entity = r#"<!DOCTYPE a [<!ENTITY e "545.00">]><SoftwareIdentity "#;
    assert!(construct(&replaced(DRIVER, "<SoftwareIdentity ", entity)));
    assert!(construct(&replaced(DRIVER, "\"545.00\"", "\"&e;\"")));
    assert!(construct(&replaced(DRIVER, "    <ns0:Entity", "&e;<ns0:Entity")));
    // None of these changes the canonical form, so that the digest would hold.
    assert!(construct(&replaced(
        DRIVER,
        "    <ns0:Entity",
        "<!-- 544.00 -->    <ns0:Entity"
    )));
    assert!(construct(&replaced(
        DRIVER,
        "<SoftwareIdentity ",
        "<?xml-stylesheet href=\"a\"?><SoftwareIdentity "
    )));
    assert!(construct(&replaced(
        DRIVER,
        "    <ns0:Entity",
        "<![CDATA[    ]]><ns0:Entity"
    )));
    assert!(construct(&replaced(DRIVER, "corpus=", "Id=\"a\" corpus=")));
    assert!(construct(&replaced(
        DRIVER,
        "corpus=",
        "xml:base=\"http://a/\" corpus="
    )));
    assert!(construct(&replaced(
        DRIVER,
        "<SoftwareIdentity ",
        "<?xml version=\"1.1\"?><SoftwareIdentity "
    )));
    assert!(construct(&replaced(
        DRIVER,
        "<SoftwareIdentity ",
        "<?xml version=\"1.0\" encoding=\"UTF-16\"?><SoftwareIdentity "
    )));
}

#[test]
fn what_canonicalisation_takes_away_is_no_change() {
    let declared = replaced(
        DRIVER,
        "<SoftwareIdentity ",
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<SoftwareIdentity ",
    );
    assert!(verify(&declared, NOW).is_ok());
    let crlf = String::from_utf8(DRIVER.to_vec()).unwrap().replace('\n', "\r\n");
    assert!(verify(crlf.as_bytes(), NOW).is_ok());
    let spaced = replaced(
        DRIVER,
        "corpus=\"false\" name=\"GH100\"",
        "name = 'GH100'\n\tcorpus='&#102;alse'",
    );
    assert!(verify(&spaced, NOW).is_ok());
}

#[test]
fn names_spaces_and_attributes_that_read_in_two_ways_are_refused() {
    let xml = |document: &[u8]| match refusal(document) {
        RimRefusal::Xml(reason) => reason,
        other => panic!("{other}"),
    };
    let rebound = replaced(DRIVER, "<ns0:Payload ", "<ns0:Payload xmlns:ns0=\"http://a/\" ");
    assert_eq!(xml(&rebound), XmlRefusal::Rebound("ns0".into()));
    let rebound = replaced(DRIVER, "<ns0:Payload ", "<ns0:Payload xmlns=\"http://a/\" ");
    assert_eq!(xml(&rebound), XmlRefusal::Rebound(String::new()));
    let twice = replaced(DRIVER, "corpus=\"false\"", "corpus=\"false\" corpus=\"false\"");
    assert_eq!(xml(&twice), XmlRefusal::RepeatedAttribute("corpus".into()));
    // One name by two prefixes.
    let twice = replaced(
        DRIVER,
        "<ns0:Payload xmlns:SHA384=\"http://www.w3.org/2001/04/xmlenc#sha384\">",
        "<ns0:Payload xmlns:SHA384=\"http://www.w3.org/2001/04/xmlenc#sha384\" SHA384:a=\"1\" ns2:a=\"2\">",
    );
    assert_eq!(xml(&twice), XmlRefusal::RepeatedAttribute("a".into()));
    let twice = replaced(DRIVER, "xmlns:ns0=", "xmlns:ns2=\"http://a/\" xmlns:ns0=");
    assert_eq!(xml(&twice), XmlRefusal::RepeatedAttribute("xmlns:ns2".into()));
    assert_eq!(
        xml(&replaced(DRIVER, "<ns0:Entity ", "<ns9:Entity ")),
        XmlRefusal::Prefix("ns9".into())
    );
    for uri in [
        "",
        "relative",
        "http://www.w3.org/XML/1998/namespace",
        "http://www.w3.org/2000/xmlns/",
    ] {
        let declared = replaced(DRIVER, "xmlns:ns0=", &format!("xmlns:ns9=\"{uri}\" xmlns:ns0="));
        assert!(matches!(xml(&declared), XmlRefusal::Construct(_)), "{uri}");
    }
}

#[test]
fn text_that_is_not_well_formed_is_refused() {
    let malformed = |document: &[u8]| matches!(refusal(document), RimRefusal::Xml(XmlRefusal::Malformed { .. }));
    for (from, to) in [
        ("</SoftwareIdentity>", ""),
        ("</SoftwareIdentity>", "</SoftwareIdentity><a/>"),
        ("</SoftwareIdentity>", "</SoftwareIdentity>a"),
        ("<SoftwareIdentity ", "a<SoftwareIdentity "),
        ("<SoftwareIdentity ", " <?xml version=\"1.0\"?><SoftwareIdentity "),
        ("</ns0:Payload>", "</ns1:Payload>"),
        ("</ns0:Payload>", "</ns0:Payload></ns0:Payload>"),
        ("corpus=\"false\" name", "corpus=\"false\"name"),
        ("corpus=\"false\"", "corpus=false"),
        ("corpus=\"false\"", "corpus"),
        ("corpus=\"false\"", "corpus=\"<\""),
        ("corpus=\"false\"", "corpus=\"&amp\""),
        ("corpus=", "c\u{e9}rpus="),
        ("corpus=", ":corpus="),
        ("corpus=", "a:b:corpus="),
        ("    <ns0:Entity", "]]><ns0:Entity"),
        ("    <ns0:Entity", "& <ns0:Entity"),
    ] {
        assert!(malformed(&replaced(DRIVER, from, to)), "{from} -> {to}");
    }
    for document in [b"".as_slice(), b" ", b"<", b"<a", b"</a>"] {
        assert!(malformed(document), "{document:?}");
    }
}

#[test]
fn characters_and_sizes_are_bounded() {
    let characters = RimRefusal::Xml(XmlRefusal::Characters);
    assert_eq!(refusal(b"\xff\xfe<\0a\0/\0>\0"), characters);
    assert_eq!(refusal(b"<a>\x01</a>"), characters);
    for reference in [
        "&#0;",
        "&#x1;",
        "&#xD800;",
        "&#xFFFE;",
        "&#;",
        "&#x;",
        "&#+9;",
        "&#x110000;",
    ] {
        assert_eq!(
            refusal(format!("<a>{reference}</a>").as_bytes()),
            characters,
            "{reference}"
        );
    }
    let too_many = |what| RimRefusal::Xml(XmlRefusal::TooMany(what));
    assert_eq!(
        refusal(&[b' '].repeat(MAX_DOCUMENT_LEN + 1)),
        RimRefusal::Xml(XmlRefusal::TooLong)
    );
    assert_eq!(refusal("<a>".repeat(13).as_bytes()), too_many("levels"));
    assert_eq!(
        refusal(format!("<a>{}</a>", "<a/>".repeat(1024)).as_bytes()),
        too_many("elements")
    );
    let attributes: String = (0..65).map(|n| format!(" a{n}=''")).collect();
    assert_eq!(refusal(format!("<a{attributes}/>").as_bytes()), too_many("attributes"));
}

proptest! {
    #[test]
    fn arbitrary_text_is_refused(text: String) {
        prop_assert!(verify(text.as_bytes(), NOW).is_err());
    }

    /// Whatever byte of a manifest is changed to whatever: it is refused, or nothing that is read has changed.
    #[test]
    fn a_changed_byte_changes_nothing_or_is_refused(at in 0..DRIVER.len(), byte: u8) {
        let mut changed = DRIVER.to_vec();
        changed[at] = byte;
        if let Ok(rim) = verify(&changed, NOW) {
            prop_assert_eq!(rim, verify(DRIVER, NOW).unwrap());
        }
    }
}
