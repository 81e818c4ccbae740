//! AMD's Key Distribution Service: AMD 57230, "VCEK Certificate and KDS Interface Specification", chapter 4.
//!
//! `/vcek/v1/{product}/{hwid}?[fmcSPL=..&]blSPL=..&teeSPL=..&snpSPL=..&ucodeSPL=..`, `/{vcek|vlek}/v1/{product}/cert_chain` and
//! `/vcek/v1/{product}/crl`. Versions have two decimal digits at least. For Turin the hwid is the first 8 bytes of the report's chip
//! id and `fmcSPL` comes first, as snpguest and Trustee ask. The service limits how often one address may ask; the interval is in no
//! document found.

use super::fields;
use super::fields::pem_certificates;
use super::http::{Ask, BaseUrl};
use super::name::{Product, TcbName};
use const_oid::ObjectIdentifier;
use der::Decode;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;

/// Where AMD serves it.
pub const KDS_URL: &str = "https://kdsintf.amd.com";

/// Extension `hwID` of a VCEK, raw.
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
const FLAG: &str = "--amd-kds";
/// Largest certificate, bytes.
const MAX_CERTIFICATE: usize = 16 * 1024;
/// Largest chain, bytes of PEM.
const MAX_CHAIN: usize = 64 * 1024;
/// Largest revocation list, bytes.
const MAX_CRL: usize = 1024 * 1024;

/// Security versions of a chip's firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tcb {
    /// Of the FMC, which Turin has.
    pub fmc: Option<u8>,
    /// Of the boot loader.
    pub bootloader: u8,
    /// Of the security processor's operating system.
    pub tee: u8,
    /// Of the SNP firmware.
    pub snp: u8,
    /// Of the microcode.
    pub microcode: u8,
}

impl Tcb {
    /// As part of a name in the store.
    pub fn name(self) -> TcbName {
        TcbName::new(self.fmc, self.bootloader, self.tee, self.snp, self.microcode)
    }

    fn query(self) -> String {
        let fmc = self.fmc.map(|fmc| format!("fmcSPL={fmc:02}&")).unwrap_or_default();
        format!(
            "{fmc}blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
            self.bootloader, self.tee, self.snp, self.microcode
        )
    }
}

pub(super) fn ask_vcek(base: &BaseUrl, product: Product, hwid: &[u8], tcb: Tcb) -> Ask {
    let absent = "AMD knows no such chip at this TCB; is the product right, and was the chip id not masked?";
    let path = format!("/vcek/v1/{product}/{}?{}", hex::encode(hwid), tcb.query());
    ask(base, path, MAX_CERTIFICATE, absent)
}

pub(super) fn ask_chain(base: &BaseUrl, product: Product, vlek: bool) -> Ask {
    let kind = if vlek { "vlek" } else { "vcek" };
    ask(
        base,
        format!("/{kind}/v1/{product}/cert_chain"),
        MAX_CHAIN,
        "the service does not know this product",
    )
}

pub(super) fn ask_crl(base: &BaseUrl, product: Product) -> Ask {
    ask(
        base,
        format!("/vcek/v1/{product}/crl"),
        MAX_CRL,
        "the service does not know this product",
    )
}

/// Whether an answer is the certificate that was asked for, as far as it says itself.
pub(super) fn check_vcek(der: &[u8], hwid: &[u8]) -> Result<(), String> {
    let vcek = fields::certificate(der).ok_or("not a certificate in DER")?;
    let id = vcek
        .tbs_certificate
        .extensions
        .iter()
        .flatten()
        .find(|extension| extension.extn_id == HARDWARE_ID)
        .map(|extension| extension.extn_value.as_bytes());
    if id != Some(hwid) {
        return Err("a certificate of another chip".to_owned());
    }
    Ok(())
}

/// Whether an answer is two certificates, the second AMD's root of the product by its name.
pub(super) fn check_chain(pem: &[u8], product: Product) -> Result<(), String> {
    let text = std::str::from_utf8(pem).map_err(|_| "not PEM")?;
    let chain = pem_certificates(text);
    let [_, root] = chain.as_slice() else {
        return Err(format!("{} certificates in PEM instead of 2", chain.len()));
    };
    let root = Certificate::from_der(root).map_err(|_| "not certificates")?;
    named(&root.tbs_certificate.subject.to_string(), product)
}

/// Whether an answer is a revocation list of the product's root by its name.
pub(super) fn check_crl(der: &[u8], product: Product) -> Result<(), String> {
    let list = CertificateList::from_der(der).map_err(|_| "not a revocation list in DER")?;
    named(&list.tbs_cert_list.issuer.to_string(), product)
}

fn named(name: &str, product: Product) -> Result<(), String> {
    if name.split([',', '+']).any(|part| part == format!("CN=ARK-{product}")) {
        return Ok(());
    }
    Err(format!("of {name:?} instead of ARK-{product}"))
}

fn ask(base: &BaseUrl, path: String, limit: usize, absent: &'static str) -> Ask {
    Ask {
        base: base.clone(),
        path,
        post: None,
        limit,
        absent,
        flag: FLAG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_services_order_and_lengths() {
        let base: BaseUrl = KDS_URL.parse().unwrap();
        let milan = Tcb {
            fmc: None,
            bootloader: 3,
            tee: 0,
            snp: 8,
            microcode: 115,
        };
        assert_eq!(
            ask_vcek(&base, Product::Milan, &[0xab; 2], milan).url(),
            "https://kdsintf.amd.com/vcek/v1/Milan/abab?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115"
        );
        let turin = Tcb { fmc: Some(1), ..milan };
        assert_eq!(
            ask_vcek(&base, Product::Turin, &[0xcd; 8], turin).url(),
            "https://kdsintf.amd.com/vcek/v1/Turin/cdcdcdcdcdcdcdcd?fmcSPL=01&blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115"
        );
        assert_eq!(
            ask_chain(&base, Product::Genoa, true).url(),
            "https://kdsintf.amd.com/vlek/v1/Genoa/cert_chain"
        );
        assert_eq!(
            ask_crl(&base, Product::Genoa).url(),
            "https://kdsintf.amd.com/vcek/v1/Genoa/crl"
        );
    }
}
