//! What AMD's certificates are made of (VCEK Certificate and KDS Interface Specification, 57230).

use const_oid::ObjectIdentifier;

/// `productName`, for example `Milan-B0`: an IA5String.
pub const PRODUCT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
/// `blSPL`: the boot loader's version, an INTEGER of 0 to 255 as are the next four.
pub const BOOTLOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
/// `teeSPL`: the version of the security processor's operating system.
pub const TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
/// `snpSPL`: the SNP firmware's version.
pub const SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
/// `ucodeSPL`: the microcode's version.
pub const MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
/// `fmcSPL`: the FMC's version, from Turin on.
pub const FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
/// `hwID`: the chip id, raw and not wrapped in a type of its own.
pub const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");

/// DER of the AlgorithmIdentifier RSASSA-PSS {SHA-384, MGF1 {SHA-384}, salt 48}.
pub const PSS_SHA384: &[u8] =
    b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\
      \x02\x02\x05\x00\xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\
      \x03\x04\x02\x02\x05\x00\xa2\x03\x02\x01\x30";
/// The same with the default trailer field written out, which DER forbids and some of AMD's certificates do.
pub(super) const PSS_SHA384_WITH_TRAILER: &[u8] =
    b"\x30\x46\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x39\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\
      \x02\x02\x05\x00\xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\
      \x03\x04\x02\x02\x05\x00\xa2\x03\x02\x01\x30\xa3\x03\x02\x01\x01";
