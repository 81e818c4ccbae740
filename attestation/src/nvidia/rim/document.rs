//! The values of a manifest: a software identity tag of ISO/IEC 19770-2 with the TCG's RIM information model.
//!
//! They are read from the bytes that the signature's digest is over, parsed once more, and from nothing else.

use std::collections::BTreeMap;

use super::id::RimKind;
use super::refusal::RimRefusal;
use super::xml::{self, Element};
use crate::policy::Measurement;

/// Namespace of software identity tags.
const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
/// Namespace that marks a hash as SHA-384.
const SHA384: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
/// Highest index, so that the block of a report that it stands for, one higher, has a number.
pub const MAX_INDEX: u8 = 254;
/// Most values that one measurement may have.
pub const MAX_ALTERNATIVES: usize = 32;
/// Longest name of a tag, chip or measurement.
const MAX_NAME_LEN: usize = 128;
/// Length of a SHA-384, as the manifest writes it.
const SIZE: &str = "48";

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Values {
    pub(super) kind: RimKind,
    pub(super) tag_id: String,
    pub(super) chip: String,
    pub(super) version: String,
    pub(super) measurements: BTreeMap<u8, GoldenMeasurement>,
}

/// What one measurement of a device should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoldenMeasurement {
    /// Name, for people.
    pub name: String,
    /// Whether a device is to be compared with it.
    pub active: bool,
    /// Values of which the device must have one.
    pub alternatives: Vec<Measurement>,
}

// === impl Values ===

impl Values {
    /// Reads the bytes that were digested.
    pub(super) fn read(content: &[u8]) -> Result<Self, RimRefusal> {
        let root = xml::parse(content)?;
        let (chip, version, kind) = head(&root)?;
        let tag_id = name(root.attribute("tagId"), "its tagId is missing or too long")?;
        let payload = only(&root, "Payload", "it does not have one Payload")?;
        let mut measurements = BTreeMap::new();
        for resource in payload.elements() {
            if !resource.is(SWID, "Resource") || resource.attribute("type") != Some("Measurement") {
                return Err(RimRefusal::Malformed(
                    "its Payload has something else than measurements",
                ));
            }
            let (index, measurement) = read_measurement(resource)?;
            if measurements.insert(index, measurement).is_some() {
                return Err(RimRefusal::RepeatedIndex(index));
            }
        }
        if !measurements.values().any(|measurement| measurement.active) {
            return Err(RimRefusal::NoActive);
        }
        Ok(Self {
            kind,
            tag_id,
            chip,
            version,
            measurements,
        })
    }
}

/// Chip, version and kind of a manifest, signed or not.
pub(super) fn head(root: &Element) -> Result<(String, String, RimKind), RimRefusal> {
    if !root.is(SWID, "SoftwareIdentity") {
        return Err(RimRefusal::NotAnIdentity);
    }
    let meta = only(root, "Meta", "it does not have one Meta")?;
    let chip = name(meta.attribute("product"), "its product is missing or too long")?;
    if root.attribute("name") != Some(&chip) {
        return Err(RimRefusal::Malformed("its name is not its product"));
    }
    let version = name(
        meta.attribute("colloquialVersion"),
        "its version is missing or too long",
    )?;
    let kind = RimKind::of(meta.attribute("edition").unwrap_or_default(), &version).ok_or(RimRefusal::Malformed(
        "its edition and version are of no known component",
    ))?;
    Ok((chip, version, kind))
}

fn read_measurement(resource: &Element) -> Result<(u8, GoldenMeasurement), RimRefusal> {
    let index = resource.attribute("index").and_then(number);
    let index = index.filter(|index| *index <= MAX_INDEX);
    let index = index.ok_or(RimRefusal::Malformed(
        "the index of a measurement is missing or out of range",
    ))?;
    let malformed = |what| RimRefusal::Measurement { index, what };
    let active = match resource.attribute("active") {
        Some("True") => true,
        Some("False") => false,
        _ => return Err(malformed("it is neither active nor not")),
    };
    if resource.attribute("size") != Some(SIZE) {
        return Err(malformed("its size is not 48"));
    }
    let name = resource.attribute("name").filter(|name| name.len() <= MAX_NAME_LEN);
    let name = name.ok_or(malformed("its name is missing or too long"))?;
    let hashes = |attribute: &&xml::Attribute| attribute.local.to_ascii_lowercase().starts_with("hash");
    let alternatives = resource.attributes.iter().filter(hashes).count();
    let stated = resource.attribute("alternatives").and_then(number).map(usize::from);
    if stated != Some(alternatives) || !(1..=MAX_ALTERNATIVES).contains(&alternatives) {
        return Err(malformed("it does not have as many alternatives as it says"));
    }
    let alternatives = (0..alternatives)
        .map(|at| alternative(resource, at))
        .collect::<Option<_>>();
    let alternatives = alternatives.ok_or(malformed("its alternatives are not all SHA-384, numbered from 0"))?;
    let measurement = GoldenMeasurement {
        name: name.to_owned(),
        active,
        alternatives,
    };
    Ok((index, measurement))
}

fn alternative(resource: &Element, at: usize) -> Option<Measurement> {
    let name = format!("Hash{at}");
    let mut found = resource
        .attributes
        .iter()
        .filter(|a| a.namespace == SHA384 && a.local == name);
    let bytes = hex::decode(&found.next()?.value).ok()?;
    bytes.as_slice().try_into().ok()
}

fn only<'a>(root: &'a Element, local: &str, what: &'static str) -> Result<&'a Element, RimRefusal> {
    let mut found = root.elements().filter(|element| element.is(SWID, local));
    match (found.next(), found.next()) {
        (Some(element), None) => Ok(element),
        _ => Err(RimRefusal::Malformed(what)),
    }
}

fn name(text: Option<&str>, what: &'static str) -> Result<String, RimRefusal> {
    match text {
        Some(text) if !text.is_empty() && text.len() <= MAX_NAME_LEN => Ok(text.to_owned()),
        _ => Err(RimRefusal::Malformed(what)),
    }
}

/// A number without sign or leading zeros.
fn number(text: &str) -> Option<u8> {
    let number: u8 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
