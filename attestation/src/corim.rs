//! Reference values from a CoRIM (draft-ietf-rats-corim), into an [`AppraisalPolicy`].
//!
//! A manifest states more than a list of digests can hold: for which instance, together with what, unless what. Whatever is not
//! understood here is refused, never skipped, for to skip a condition is to accept more than its author did. Understood are
//! concise module identifiers (tag 506) whose only triples are reference triples without instance, group, layer or index:
//!
//! - AMD SEV-SNP, profile `tag:amd.com,2024:snp-corim-profile` (draft-deeglaze-amd-sev-snp-corim-profile): the measurement with
//!   key 641, one SHA-384, of a class of AMD's arc;
//! - Intel TDX, without a profile: class vendor `Intel Corporation`, model `TDX`, integrity registers `mrtd` and `rtmr0` to
//!   `rtmr3`, one SHA-384 each. No profile of Intel's names the registers of a guest; these names are this repository's.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, UnparsedPublicKey, VerificationAlgorithm,
};
use minicbor::data::{IanaTag, Tag, Type};
use minicbor::{Decoder, Encoder};

use crate::ids::UnixTime;
use crate::policy::{AppraisalPolicy, Measurement};

/// Longest manifest in bytes.
pub const MAX_CORIM_LEN: usize = 256 * 1024;
/// Most entries of any map or array of a manifest.
pub const MAX_ENTRIES: u64 = 256;
/// Longest text of a manifest that is looked at.
const MAX_TEXT_LEN: usize = 256;

/// Tag of an unsigned manifest (section 4.1).
const TAG_CORIM: Tag = Tag::new(501);
/// Tag of a concise module identifier (section 4.1.2).
const TAG_COMID: Tag = Tag::new(506);
/// Tag of COSE_Sign1 (RFC 9052, section 2).
const TAG_SIGN1: Tag = Tag::new(18);
/// Tag of an object identifier (RFC 9090).
const TAG_OID: Tag = Tag::new(111);
/// Content type of the payload of a signed manifest.
const CONTENT_TYPE: &str = "application/rim+cbor";

const PROFILE_SNP: &str = "tag:amd.com,2024:snp-corim-profile";
/// Key of a report's MEASUREMENT in that profile.
const KEY_SNP_MEASUREMENT: u64 = 641;
/// DER content of AMD's arc, 1.3.6.1.4.1.3704.
const AMD_ARC: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78];
/// SHA-384 among the named information hash algorithms of IANA.
const SHA384: u64 = 7;

/// Why a manifest is not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorimRefusal {
    /// More than [`MAX_CORIM_LEN`] bytes.
    #[error("CoRIM is longer than {MAX_CORIM_LEN} bytes")]
    TooLong,
    /// Not CBOR of a manifest; which part.
    #[error("CoRIM is malformed: {0}")]
    Malformed(&'static str),
    /// Something that this verifier would have to ignore.
    #[error("CoRIM has {0}, which is not understood: import it by hand")]
    NotUnderstood(&'static str),
    /// Signed where an unsigned one was expected, or the other way round.
    #[error("CoRIM is {0}")]
    Signedness(&'static str),
    /// Not signed by the key that was given.
    #[error("CoRIM is not signed by the given key")]
    Signature,
    /// Used before or after it may be.
    #[error("CoRIM is not valid at this time: fetch a new one, or check this machine's clock")]
    NotValid,
    /// Nothing to import.
    #[error("CoRIM has no reference value")]
    Empty,
}

/// Reference values for guests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReferenceValues {
    /// Launch measurements of SEV-SNP.
    pub snp: BTreeSet<Measurement>,
    /// Registers of TDX, by name: `mrtd`, `rtmr0` to `rtmr3`.
    pub tdx: BTreeMap<&'static str, BTreeSet<Measurement>>,
}

/// The key that a manifest must be signed by: an uncompressed point.
#[derive(Debug, Clone, Copy)]
pub enum SignerKey<'a> {
    /// ECDSA over P-256 with SHA-256.
    Es256(&'a [u8]),
    /// ECDSA over P-384 with SHA-384.
    Es384(&'a [u8]),
}

type Parsed<T> = Result<T, CorimRefusal>;

/// Imports a manifest that nobody signed: one of the relying party's own files.
///
/// # Errors
/// [`CorimRefusal`].
pub fn import_unsigned(corim: &[u8], now: UnixTime) -> Parsed<ReferenceValues> {
    let mut d = limited(corim)?;
    match d.tag() {
        Ok(tag) if tag == TAG_CORIM => {}
        Ok(tag) if tag == TAG_SIGN1 => return Err(CorimRefusal::Signedness("signed: name the signer's key")),
        _ => return Err(CorimRefusal::Malformed("it has no tag of a CoRIM")),
    }
    let values = manifest(&mut d, now)?;
    finished(&d)?;
    Ok(values)
}

/// Imports a manifest that `key` signed (COSE_Sign1, section 4.2).
///
/// # Errors
/// [`CorimRefusal`].
pub fn import_signed(corim: &[u8], key: SignerKey<'_>, now: UnixTime) -> Parsed<ReferenceValues> {
    let mut d = limited(corim)?;
    match d.tag() {
        Ok(tag) if tag == TAG_SIGN1 => {}
        Ok(tag) if tag == TAG_CORIM => return Err(CorimRefusal::Signedness("not signed")),
        _ => return Err(CorimRefusal::Malformed("it has no tag of a signed CoRIM")),
    }
    const WHAT: &str = "its COSE_Sign1";
    if d.array().ok() != Some(Some(4)) {
        return Err(CorimRefusal::Malformed(WHAT));
    }
    let protected = d.bytes().map_err(|_| CorimRefusal::Malformed(WHAT))?;
    if d.map().ok() != Some(Some(0)) {
        return Err(CorimRefusal::NotUnderstood("an unprotected header"));
    }
    let payload = d.bytes().map_err(|_| CorimRefusal::Malformed(WHAT))?;
    let signature = d.bytes().map_err(|_| CorimRefusal::Malformed(WHAT))?;
    finished(&d)?;
    check_protected(protected, key)?;
    key.check(&to_be_signed(protected, payload), signature)?;
    import_unsigned(payload, now)
}

// === impl ReferenceValues ===

impl ReferenceValues {
    /// Adds these to what `policy` accepts.
    pub fn add_to(&self, policy: &mut AppraisalPolicy) {
        policy.measurements.extend(&self.snp);
        for (name, values) in &self.tdx {
            let register = match *name {
                "mrtd" => &mut policy.tdx.mrtd,
                "rtmr0" => &mut policy.tdx.rtmr0,
                "rtmr1" => &mut policy.tdx.rtmr1,
                "rtmr2" => &mut policy.tdx.rtmr2,
                _ => &mut policy.tdx.rtmr3,
            };
            register.extend(values);
        }
    }

    fn is_empty(&self) -> bool {
        self.snp.is_empty() && self.tdx.is_empty()
    }
}

// === impl SignerKey ===

impl SignerKey<'_> {
    /// COSE algorithm (RFC 9053, section 2.1).
    const fn algorithm(self) -> i64 {
        match self {
            Self::Es256(_) => -7,
            Self::Es384(_) => -35,
        }
    }

    fn check(self, message: &[u8], signature: &[u8]) -> Parsed<()> {
        let (algorithm, key): (&'static dyn VerificationAlgorithm, &[u8]) = match self {
            Self::Es256(key) => (&ECDSA_P256_SHA256_FIXED, key),
            Self::Es384(key) => (&ECDSA_P384_SHA384_FIXED, key),
        };
        let key = UnparsedPublicKey::new(algorithm, key);
        key.verify(message, signature).map_err(|_| CorimRefusal::Signature)
    }
}

/// Sig_structure (RFC 9052, section 4.4).
fn to_be_signed(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Encoder::new(Vec::new());
    // The only error of an encoder is that of its writer, and a `Vec` has none.
    let _ = out
        .array(4)
        .and_then(|e| e.str("Signature1"))
        .and_then(|e| e.bytes(protected))
        .and_then(|e| e.bytes(&[]))
        .and_then(|e| e.bytes(payload));
    out.into_writer()
}

/// Algorithm, content type, key id and what the signer says of itself (section 4.2.1).
fn check_protected(protected: &[u8], key: SignerKey<'_>) -> Parsed<()> {
    let mut d = Decoder::new(protected);
    let (mut algorithm, mut content_type) = (None, None);
    each_entry(&mut d, "its protected header", |name, d| {
        match name {
            1 => algorithm = d.i64().ok(),
            3 => content_type = d.str().ok(),
            4 | 8 => drop(d.bytes().map_err(|_| CorimRefusal::Malformed("its protected header"))?),
            // Critical headers and others may change what the signature means.
            _ => return Err(CorimRefusal::NotUnderstood("another protected header")),
        }
        Ok(())
    })?;
    finished(&d)?;
    if algorithm != Some(key.algorithm()) || content_type != Some(CONTENT_TYPE) {
        return Err(CorimRefusal::Signature);
    }
    Ok(())
}

/// corim-map (section 4.1).
fn manifest(d: &mut Decoder<'_>, now: UnixTime) -> Parsed<ReferenceValues> {
    let mut profile = None;
    let mut tags = Vec::new();
    let mut has_id = false;
    each_entry(d, "its corim-map", |name, d| {
        match name {
            0 => {
                has_id = true;
                skip(d)?;
            }
            1 => each_item(d, "its tags", |d| {
                match d.tag() {
                    Ok(tag) if tag == TAG_COMID => {}
                    _ => return Err(CorimRefusal::NotUnderstood("a tag that is no CoMID")),
                }
                tags.push(d.bytes().map_err(|_| CorimRefusal::Malformed("a CoMID is not bytes"))?);
                Ok(())
            })?,
            3 => profile = Some(profile_uri(d)?),
            4 => check_validity(d, now)?,
            5 => skip(d)?,
            2 => return Err(CorimRefusal::NotUnderstood("manifests that it depends on")),
            _ => return Err(CorimRefusal::NotUnderstood("another entry of its corim-map")),
        }
        Ok(())
    })?;
    if !has_id {
        return Err(CorimRefusal::Malformed("it has no id"));
    }
    let mut values = ReferenceValues::default();
    for tag in tags {
        let mut d = Decoder::new(tag);
        module(&mut d, profile.as_deref(), &mut values)?;
        finished(&d)?;
    }
    if values.is_empty() {
        return Err(CorimRefusal::Empty);
    }
    Ok(values)
}

fn profile_uri(d: &mut Decoder<'_>) -> Parsed<String> {
    if d.datatype().ok() == Some(Type::Tag) && d.tag().ok() != Some(IanaTag::Uri.into()) {
        return Err(CorimRefusal::NotUnderstood("a profile that is no URI"));
    }
    text(d, "its profile").map(str::to_owned)
}

/// validity-map (section 7.3): both ends included.
fn check_validity(d: &mut Decoder<'_>, now: UnixTime) -> Parsed<()> {
    const WHAT: &str = "its validity";
    let mut valid = true;
    let mut ends = false;
    each_entry(d, WHAT, |name, d| {
        if d.tag().ok() != Some(IanaTag::Timestamp.into()) {
            return Err(CorimRefusal::Malformed(WHAT));
        }
        let at = UnixTime(d.u64().map_err(|_| CorimRefusal::Malformed(WHAT))?);
        match name {
            0 => valid &= at <= now,
            1 => {
                ends = true;
                valid &= now <= at;
            }
            _ => return Err(CorimRefusal::Malformed(WHAT)),
        }
        Ok(())
    })?;
    match (ends, valid) {
        (false, _) => Err(CorimRefusal::Malformed(WHAT)),
        (true, false) => Err(CorimRefusal::NotValid),
        (true, true) => Ok(()),
    }
}

/// concise-mid-tag (section 5.1).
fn module(d: &mut Decoder<'_>, profile: Option<&str>, values: &mut ReferenceValues) -> Parsed<()> {
    each_entry(d, "a CoMID", |name, d| match name {
        0..=2 => skip(d),
        3 => Err(CorimRefusal::NotUnderstood("links to other tags")),
        4 => each_entry(d, "its triples", |name, d| match name {
            0 => each_item(d, "its reference triples", |d| triple(d, profile, values)),
            _ => Err(CorimRefusal::NotUnderstood("other triples than reference values")),
        }),
        _ => Err(CorimRefusal::NotUnderstood("another entry of a CoMID")),
    })
}

/// Class of an environment.
#[derive(Default)]
struct Class<'b> {
    oid: Option<&'b [u8]>,
    vendor: Option<&'b str>,
    model: Option<&'b str>,
}

/// reference-triple-record (section 5.1.5).
fn triple(d: &mut Decoder<'_>, profile: Option<&str>, values: &mut ReferenceValues) -> Parsed<()> {
    if d.array().ok() != Some(Some(2)) {
        return Err(CorimRefusal::Malformed("a reference triple"));
    }
    let class = environment(d)?;
    let is_snp = profile == Some(PROFILE_SNP) && class.oid.is_some_and(|oid| oid.starts_with(AMD_ARC));
    let is_tdx = profile.is_none() && class.vendor == Some("Intel Corporation") && class.model == Some("TDX");
    each_item(d, "its measurements", |d| match (is_snp, is_tdx) {
        (true, _) => snp_measurement(d, values),
        (false, true) => tdx_measurement(d, values),
        (false, false) => Err(CorimRefusal::NotUnderstood(
            "reference values of another environment or profile",
        )),
    })
}

/// environment-map (section 5.1.4.2).
fn environment<'b>(d: &mut Decoder<'b>) -> Parsed<Class<'b>> {
    let mut class = Class::default();
    each_entry(d, "an environment", |name, d| match name {
        0 => each_entry(d, "a class", |name, d| {
            match name {
                0 if d.tag().ok() == Some(TAG_OID) => {
                    class.oid = Some(d.bytes().map_err(|_| CorimRefusal::Malformed("a class"))?);
                }
                0 => return Err(CorimRefusal::NotUnderstood("a class that is no object identifier")),
                1 => class.vendor = Some(text(d, "a class's vendor")?),
                2 => class.model = Some(text(d, "a class's model")?),
                _ => return Err(CorimRefusal::NotUnderstood("a layer or index")),
            }
            Ok(())
        }),
        _ => Err(CorimRefusal::NotUnderstood("values for one instance or group")),
    })?;
    Ok(class)
}

fn snp_measurement(d: &mut Decoder<'_>, values: &mut ReferenceValues) -> Parsed<()> {
    let mut key = None;
    let mut found = None;
    each_entry(d, "a measurement", |name, d| match name {
        0 => {
            key = d.u64().ok();
            Ok(())
        }
        1 => each_entry(d, "a measurement's values", |name, d| match name {
            2 => {
                found = Some(digest(d)?);
                Ok(())
            }
            _ => Err(CorimRefusal::NotUnderstood("another value than a digest")),
        }),
        _ => Err(CorimRefusal::NotUnderstood("authorities of a measurement")),
    })?;
    match (key, found) {
        (Some(KEY_SNP_MEASUREMENT), Some(digest)) => {
            values.snp.insert(digest);
            Ok(())
        }
        _ => Err(CorimRefusal::NotUnderstood(
            "another measurement of SEV-SNP than MEASUREMENT (641)",
        )),
    }
}

fn tdx_measurement(d: &mut Decoder<'_>, values: &mut ReferenceValues) -> Parsed<()> {
    each_entry(d, "a measurement", |name, d| match name {
        1 => each_entry(d, "a measurement's values", |name, d| match name {
            14 => registers(d, values),
            _ => Err(CorimRefusal::NotUnderstood("another value than integrity registers")),
        }),
        _ => Err(CorimRefusal::NotUnderstood("keys or authorities of a measurement")),
    })
}

/// integrity-registers (section 5.1.4.5.8), by name.
fn registers(d: &mut Decoder<'_>, values: &mut ReferenceValues) -> Parsed<()> {
    const WHAT: &str = "integrity registers";
    let mut seen = BTreeSet::new();
    for _ in 0..length(d.map(), WHAT)? {
        let name = text(d, WHAT)?;
        let known = ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"];
        let name = known.into_iter().find(|known| *known == name);
        let name = name.ok_or(CorimRefusal::NotUnderstood("another register than MRTD and the RTMRs"))?;
        if !seen.insert(name) {
            return Err(CorimRefusal::Malformed(WHAT));
        }
        values.tdx.entry(name).or_default().insert(digest(d)?);
    }
    Ok(())
}

/// One SHA-384 (section 7.7). Several digests are of one thing by several algorithms, of which a report has only this.
fn digest(d: &mut Decoder<'_>) -> Parsed<Measurement> {
    const WHAT: CorimRefusal = CorimRefusal::NotUnderstood("digests that are not one SHA-384");
    if d.array().ok() != Some(Some(1)) || d.array().ok() != Some(Some(2)) {
        return Err(WHAT);
    }
    let is_sha384 = match d.datatype() {
        Ok(Type::String) => d.str().ok() == Some("sha-384"),
        _ => d.u64().ok() == Some(SHA384),
    };
    let value = d.bytes().ok().filter(|_| is_sha384);
    value.and_then(|value| value.try_into().ok()).ok_or(WHAT)
}

fn limited(corim: &[u8]) -> Parsed<Decoder<'_>> {
    if corim.len() > MAX_CORIM_LEN {
        return Err(CorimRefusal::TooLong);
    }
    Ok(Decoder::new(corim))
}

fn finished(d: &Decoder<'_>) -> Parsed<()> {
    if d.position() == d.input().len() {
        Ok(())
    } else {
        Err(CorimRefusal::Malformed("bytes follow where it should end"))
    }
}

fn skip(d: &mut Decoder<'_>) -> Parsed<()> {
    d.skip()
        .map_err(|_| CorimRefusal::Malformed("a value that is not looked at"))
}

fn text<'b>(d: &mut Decoder<'b>, what: &'static str) -> Parsed<&'b str> {
    let text = d.str().ok().filter(|text| text.len() <= MAX_TEXT_LEN);
    text.ok_or(CorimRefusal::Malformed(what))
}

/// A definite length of 1 to [`MAX_ENTRIES`].
fn length(found: Result<Option<u64>, minicbor::decode::Error>, what: &'static str) -> Parsed<u64> {
    let length = found.ok().flatten().filter(|length| (1..=MAX_ENTRIES).contains(length));
    length.ok_or(CorimRefusal::Malformed(what))
}

fn each_item<'b>(
    d: &mut Decoder<'b>,
    what: &'static str,
    mut read: impl FnMut(&mut Decoder<'b>) -> Parsed<()>,
) -> Parsed<()> {
    for _ in 0..length(d.array(), what)? {
        read(d)?;
    }
    Ok(())
}

/// Entries with integers for names, each at most once.
fn each_entry<'b>(
    d: &mut Decoder<'b>,
    what: &'static str,
    mut read: impl FnMut(i64, &mut Decoder<'b>) -> Parsed<()>,
) -> Parsed<()> {
    let mut seen = BTreeSet::new();
    for _ in 0..length(d.map(), what)? {
        let name = d
            .i64()
            .map_err(|_| CorimRefusal::NotUnderstood("a name that is no number"))?;
        if !seen.insert(name) {
            return Err(CorimRefusal::Malformed(what));
        }
        read(name, d)?;
    }
    Ok(())
}
