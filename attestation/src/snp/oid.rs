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
/// `hwID`: the chip id, raw in every certificate at hand.
pub const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");

/// `csp_id`: the cloud provider that holds the key, in a VLEK's certificate: an IA5String.
pub const PROVIDER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");

pub use crate::x509::PSS_SHA384;
