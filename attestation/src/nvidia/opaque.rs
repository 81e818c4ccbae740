//! What a device says of itself beside its measurements: fields of NVIDIA's in the opaque data of SPDM, each a type (u16), a
//! length (u16) and a value, little-endian.

use std::collections::BTreeMap;

use super::policy::{DriverVersion, FeatureMode, VbiosVersion};
use super::refusal::ReportRefusal;
use super::spdm::{DIGEST_LEN, Reader};

/// Types of the fields that are understood.
pub mod kind {
    /// Version of the driver: text, closed by a zero byte.
    pub const DRIVER: u16 = 3;
    /// Version of the VBIOS: 8 bytes of a GPU, text of a switch.
    pub const VBIOS: u16 = 6;
    /// State of the video decoder NVDEC0.
    pub const NVDEC0: u16 = 11;
    /// Number of the board.
    pub const BOARD: u16 = 14;
    /// Kind of the chip, as text.
    pub const CHIP_SKU: u16 = 15;
    /// Project of the board, as text.
    pub const PROJECT: u16 = 17;
    /// Kind of the board, as text.
    pub const PROJECT_SKU: u16 = 18;
    /// Digest of the firmware that the key was made for.
    pub const FWID: u16 = 20;
    /// State of protected PCIe.
    pub const PPCIE: u16 = 21;
    /// Of a GPU: the switches that its links end at. Of a switch: itself.
    pub const SWITCH_PDIS: u16 = 22;
    /// Of a switch: the GPUs that its links end at.
    pub const GPU_PDIS: u16 = 26;
    /// What a GPU is set up for.
    pub const FEATURE: u16 = 36;
}

/// On, in fields that must not turn by one bit.
const ON: u8 = 0xaa;
/// Off.
const OFF: u8 = 0x55;
/// Length of an identity of a device in bytes.
pub const PDI_LEN: usize = 8;
/// Links of a switch of which field 26 names the other end; after them, it holds a map of ports.
const SWITCH_LINKS: usize = 8;
/// Most bytes of a field of text, with what fills it up.
const MAX_TEXT_LEN: usize = 32;

/// Identity of a device on the links between devices, as in field 22 of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pdi(pub [u8; PDI_LEN]);

/// Fields of the opaque data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opaque {
    fields: BTreeMap<u16, Vec<u8>>,
    /// Version of the driver: GPUs only.
    pub driver: Option<DriverVersion>,
    /// Version of the VBIOS or of the switch's BIOS.
    pub vbios: VbiosVersion,
    /// Whether NVDEC0 is on.
    pub nvdec0: Option<bool>,
    /// Kind of the chip: GPUs only.
    pub chip_sku: Option<String>,
    /// Project of the board: GPUs only.
    pub project: Option<String>,
    /// Kind of the board: GPUs only.
    pub project_sku: Option<String>,
    /// Digest of the firmware that the key was made for: since driver 550.
    pub fwid: Option<[u8; DIGEST_LEN]>,
    /// What the GPU is set up for: fields 36 and 21, of which older drivers write none.
    pub feature: Option<FeatureMode>,
}

impl Opaque {
    /// Parses the fields. Unknown ones are kept; of known ones each length is checked.
    ///
    /// # Errors
    /// [`ReportRefusal`] for fields that repeat, have a wrong length or no meaning, and for a VBIOS that is missing.
    pub fn parse(opaque: &[u8]) -> Result<Self, ReportRefusal> {
        let mut reader = Reader { rest: opaque };
        let mut fields = BTreeMap::new();
        while !reader.rest.is_empty() {
            let kind = reader.u16("opaque data")?;
            let len = reader.u16("opaque data")?;
            let value = reader.take(usize::from(len), "opaque data")?;
            if fields.insert(kind, value.to_vec()).is_some() {
                return Err(ReportRefusal::DuplicateField(kind));
            }
        }
        let of = Fields(&fields);
        of.exact::<4>(kind::BOARD)?;
        of.check_pdis()?;
        let protected = of.switch(kind::PPCIE)?;
        Ok(Self {
            driver: of.driver()?,
            vbios: of.vbios()?,
            nvdec0: of.switch(kind::NVDEC0)?,
            chip_sku: of.text(kind::CHIP_SKU)?,
            project: of.text(kind::PROJECT)?,
            project_sku: of.text(kind::PROJECT_SKU)?,
            fwid: of.exact(kind::FWID)?,
            feature: of.feature(protected)?,
            fields,
        })
    }

    /// A field as it came.
    #[must_use]
    pub fn field(&self, kind: u16) -> Option<&[u8]> {
        self.fields.get(&kind).map(Vec::as_slice)
    }

    /// Of a GPU: the switches that its links end at. It writes them in the other order of bytes than switches do.
    #[must_use]
    pub fn switches_of_gpu(&self) -> Vec<Pdi> {
        let field = self.field(kind::SWITCH_PDIS).unwrap_or_default();
        let reversed = pdis(field).map(|Pdi(mut bytes)| {
            bytes.reverse();
            Pdi(bytes)
        });
        reversed.filter(Pdi::is_linked).collect()
    }

    /// Of a switch: itself.
    #[must_use]
    pub fn switch_itself(&self) -> Option<Pdi> {
        let field = self.field(kind::SWITCH_PDIS)?;
        field.try_into().ok().map(Pdi)
    }

    /// Of a switch: the GPUs that its links end at.
    #[must_use]
    pub fn gpus_of_switch(&self) -> Vec<Pdi> {
        let field = self.field(kind::GPU_PDIS).unwrap_or_default();
        pdis(field).take(SWITCH_LINKS).filter(Pdi::is_linked).collect()
    }
}

fn pdis(field: &[u8]) -> impl Iterator<Item = Pdi> {
    field.as_chunks().0.iter().copied().map(Pdi)
}

impl Pdi {
    /// False for the values of links that end nowhere.
    fn is_linked(&self) -> bool {
        self.0 != [0; PDI_LEN] && self.0 != [0xff; PDI_LEN]
    }
}

/// Fields whose values are not read yet.
struct Fields<'a>(&'a BTreeMap<u16, Vec<u8>>);

impl Fields<'_> {
    fn get(&self, kind: u16) -> Option<&[u8]> {
        self.0.get(&kind).map(Vec::as_slice)
    }

    fn exact<const N: usize>(&self, kind: u16) -> Result<Option<[u8; N]>, ReportRefusal> {
        let exact = |value: &[u8]| {
            let found = value.len();
            value.try_into().map_err(|_| ReportRefusal::FieldLength { kind, found })
        };
        self.get(kind).map(exact).transpose()
    }

    /// Printable text, filled up with zero bytes.
    fn text(&self, kind: u16) -> Result<Option<String>, ReportRefusal> {
        let Some(value) = self.get(kind) else {
            return Ok(None);
        };
        if !(1..=MAX_TEXT_LEN).contains(&value.len()) {
            return Err(ReportRefusal::FieldLength {
                kind,
                found: value.len(),
            });
        }
        let end = value
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last.saturating_add(1));
        let text = value.get(..end).unwrap_or_default();
        if text.is_empty() || !text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'.') {
            return Err(ReportRefusal::FieldValue(kind));
        }
        Ok(Some(String::from_utf8_lossy(text).into_owned()))
    }

    fn driver(&self) -> Result<Option<DriverVersion>, ReportRefusal> {
        let parsed = self.text(kind::DRIVER)?.map(|text| text.parse());
        parsed.transpose().map_err(|_| ReportRefusal::FieldValue(kind::DRIVER))
    }

    /// A GPU writes 8 bytes, of which the last three are zero: the four first of them, in the other order, and the fifth.
    fn vbios(&self) -> Result<VbiosVersion, ReportRefusal> {
        let value = self.get(kind::VBIOS).ok_or(ReportRefusal::MissingField(kind::VBIOS))?;
        match *value {
            [d, c, b, a, e, 0, 0, 0] => Ok(VbiosVersion::from_bytes([a, b, c, d, e])),
            [_, _, _, _, _, _, _, _] => Err(ReportRefusal::FieldValue(kind::VBIOS)),
            _ if value.len() == "96.10.73.00.01".len() => {
                let text = self.text(kind::VBIOS)?.unwrap_or_default();
                text.parse().map_err(|_| ReportRefusal::FieldValue(kind::VBIOS))
            }
            _ => Err(ReportRefusal::FieldLength {
                kind: kind::VBIOS,
                found: value.len(),
            }),
        }
    }

    fn switch(&self, kind: u16) -> Result<Option<bool>, ReportRefusal> {
        match self.exact(kind)? {
            None => Ok(None),
            Some([ON]) => Ok(Some(true)),
            Some([OFF]) => Ok(Some(false)),
            Some(_) => Err(ReportRefusal::FieldValue(kind)),
        }
    }

    /// What the GPU is set up for; the older field says only whether it is protected PCIe.
    fn feature(&self, protected: Option<bool>) -> Result<Option<FeatureMode>, ReportRefusal> {
        let feature = match self.exact(kind::FEATURE)?.map(u16::from_le_bytes) {
            Some(0) => Some(FeatureMode::Spt),
            Some(1) => Some(FeatureMode::Mpt),
            Some(2) => Some(FeatureMode::Ppcie),
            Some(_) => return Err(ReportRefusal::FieldValue(kind::FEATURE)),
            None => None,
        };
        match (feature, protected) {
            (Some(feature), Some(protected)) if (feature == FeatureMode::Ppcie) != protected => {
                Err(ReportRefusal::FeatureConflict)
            }
            (None, Some(true)) => Ok(Some(FeatureMode::Ppcie)),
            _ => Ok(feature),
        }
    }

    fn check_pdis(&self) -> Result<(), ReportRefusal> {
        for (kind, most) in [(kind::SWITCH_PDIS, 32), (kind::GPU_PDIS, 32)] {
            let Some(value) = self.get(kind) else { continue };
            let (whole, rest) = value.as_chunks::<PDI_LEN>();
            if whole.is_empty() || whole.len() > most || !rest.is_empty() {
                return Err(ReportRefusal::FieldLength {
                    kind,
                    found: value.len(),
                });
            }
        }
        Ok(())
    }
}
