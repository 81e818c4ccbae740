//! The digest of the firmware that a report's key was made for (FWID), in the key's certificate (TCG DICE Attestation
//! Architecture 1.1, sections 6.1.1 and 6.1.3).

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::ID_SHA_384;
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};

use super::spdm::DIGEST_LEN;
use crate::x509::{Certificate, CertificateRefusal};

/// `tcg-dice-CompositeDeviceID` of older certificates: version, key of the device, FWID. Hopper, LS10.
pub(super) const COMPOSITE_DEVICE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.5.4.1");
/// `tcg-dice-TcbInfo`. Blackwell.
pub(super) const TCB_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.5.4.1.1");

/// `DiceTcbInfo.fwids`.
const FWIDS: TagNumber = TagNumber::N6;
/// Most fields of a `DiceTcbInfo`.
const MAX_FIELDS: usize = 16;

/// The FWID of `leaf`, if it has one of the two extensions.
///
/// # Errors
/// [`CertificateRefusal::Extension`] for an extension that is not strict DER of its form, and for both at once.
pub(super) fn of(leaf: &Certificate<'_>) -> Result<Option<[u8; DIGEST_LEN]>, CertificateRefusal> {
    const WRONG: CertificateRefusal = CertificateRefusal::Extension("the digest of its firmware (FWID)");
    let found = match (leaf.extension(&COMPOSITE_DEVICE_ID), leaf.extension(&TCB_INFO)) {
        (None, None) => return Ok(None),
        (Some(value), None) => of_composite(value),
        (None, Some(value)) => of_tcb_info(value),
        (Some(_), Some(_)) => return Err(WRONG),
    };
    found.ok().flatten().map(Some).ok_or(WRONG)
}

/// SEQUENCE { INTEGER 1, SubjectPublicKeyInfo, FWID }.
fn of_composite(value: &[u8]) -> der::Result<Option<[u8; DIGEST_LEN]>> {
    let mut reader = SliceReader::new(value)?;
    let found = reader.sequence(|inner| {
        let version = u8::decode(inner)?;
        inner.tlv_bytes()?;
        Ok(fwid(inner)?.filter(|_| version == 1))
    })?;
    reader.finish(found)
}

/// SEQUENCE of fields with implicit tags in ascending order, of which the seventh is SEQUENCE OF FWID. The first FWID is that
/// of the firmware.
fn of_tcb_info(value: &[u8]) -> der::Result<Option<[u8; DIGEST_LEN]>> {
    let mut reader = SliceReader::new(value)?;
    let found = reader.sequence(|inner| {
        let (mut found, mut last) = (None, None);
        for _ in 0..MAX_FIELDS {
            if inner.is_finished() {
                break;
            }
            let field = AnyRef::decode(inner)?;
            let Tag::ContextSpecific { number, constructed } = field.tag() else {
                return Err(field.tag().value_error());
            };
            if last.is_some_and(|last| number <= last) {
                return Err(field.tag().value_error());
            }
            last = Some(number);
            if number == FWIDS && constructed {
                found = fwid(&mut SliceReader::new(field.value())?)?;
            }
        }
        Ok(found)
    })?;
    reader.finish(found)
}

/// SEQUENCE { OID, OCTET STRING } of SHA-384.
fn fwid<'a>(reader: &mut impl Reader<'a>) -> der::Result<Option<[u8; DIGEST_LEN]>> {
    reader.sequence(|inner| {
        let algorithm = ObjectIdentifier::decode(inner)?;
        let digest = OctetStringRef::decode(inner)?.as_bytes().try_into().ok();
        Ok(digest.filter(|_| algorithm == ID_SHA_384))
    })
}
