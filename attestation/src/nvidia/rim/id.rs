//! Names of reference integrity manifests, as NVIDIA's service has them.

use std::fmt;

/// Longest part of a name.
const MAX_PART_LEN: usize = 32;

/// What a manifest is about. Ordered, so that it can be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RimKind {
    /// A GPU's driver.
    Driver,
    /// A GPU's VBIOS.
    Vbios,
    /// The BIOS of an NVSwitch.
    Switch,
}

/// Which build of a board: numbers of NVIDIA's, that a device's report states.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Board {
    /// Project, 4 characters: `1010`, `G520`.
    pub project: String,
    /// SKU of the project: `0200`.
    pub project_sku: String,
    /// SKU of the chip: `882`.
    pub chip_sku: String,
}

/// The one manifest that a device's report calls for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RimId {
    /// What it is about.
    pub kind: RimKind,
    /// Chip: `GH100`, `LS10`.
    pub chip: String,
    /// Version as in the report: `550.144.03`, `96.00.5E.00.01`.
    pub version: String,
    /// The board, but for drivers.
    pub board: Option<Board>,
}

// === impl RimId ===

impl RimId {
    /// Of a GPU's driver.
    #[must_use]
    pub fn driver(chip: &str, version: &str) -> Self {
        Self {
            kind: RimKind::Driver,
            chip: chip.to_owned(),
            version: version.to_owned(),
            board: None,
        }
    }

    /// Of a GPU's VBIOS.
    #[must_use]
    pub fn vbios(chip: &str, board: Board, version: &str) -> Self {
        Self {
            kind: RimKind::Vbios,
            chip: chip.to_owned(),
            version: version.to_ascii_uppercase(),
            board: Some(board.in_capitals()),
        }
    }

    /// Of an NVSwitch's BIOS.
    #[must_use]
    pub fn switch(chip: &str, board: Board, version: &str) -> Self {
        Self {
            kind: RimKind::Switch,
            ..Self::vbios(chip, board, version)
        }
    }

    /// The part of the name of a VBIOS or switch manifest that tells boards apart: `1010_0200_882_96005E0001`.
    #[must_use]
    pub fn board_and_version(&self) -> Option<String> {
        let board = self.board.as_ref()?;
        let version = self.version.replace('.', "");
        Some(format!(
            "{}_{}_{}_{version}",
            board.project, board.project_sku, board.chip_sku
        ))
    }
}

/// `NV_GPU_DRIVER_GH100_550.144.03`, `NV_GPU_CC_DRIVER_GB100_570.124.03`, `NV_GPU_VBIOS_1010_0200_882_96005E0001`,
/// `NV_SWITCH_BIOS_5612_0002_890_9610550001`.
impl fmt::Display for RimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let board = self.board_and_version().unwrap_or_default();
        match self.kind {
            // Hopper's came before the ones that say that they are for confidential computing.
            RimKind::Driver if self.chip == "GH100" => write!(f, "NV_GPU_DRIVER_{}_{}", self.chip, self.version),
            RimKind::Driver => write!(f, "NV_GPU_CC_DRIVER_{}_{}", self.chip, self.version),
            RimKind::Vbios => write!(f, "NV_GPU_VBIOS_{board}"),
            RimKind::Switch => write!(f, "NV_SWITCH_BIOS_{board}"),
        }
    }
}

// === impl Board ===

impl Board {
    fn in_capitals(self) -> Self {
        Self {
            project: self.project.to_ascii_uppercase(),
            project_sku: self.project_sku.to_ascii_uppercase(),
            chip_sku: self.chip_sku.to_ascii_uppercase(),
        }
    }
}

// === impl RimKind ===

impl RimKind {
    /// What a manifest is about, by its edition and the form of its version: a VBIOS has five pairs of hexadecimal digits.
    pub(super) fn of(edition: &str, version: &str) -> Option<Self> {
        let pairs: Vec<&str> = version.split('.').collect();
        let is_pair = |pair: &&str| pair.len() == 2 && pair.chars().all(|c| c.is_ascii_hexdigit());
        let is_bios = pairs.len() == 5 && pairs.iter().all(is_pair);
        let is_number = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        let is_driver = (2..=4).contains(&pairs.len()) && pairs.iter().all(is_number);
        match edition {
            _ if version.len() > MAX_PART_LEN => None,
            "GPU" if is_bios => Some(Self::Vbios),
            "GPU" if is_driver => Some(Self::Driver),
            "SWITCH" if is_bios => Some(Self::Switch),
            _ => None,
        }
    }
}

impl fmt::Display for RimKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Driver => "driver",
            Self::Vbios => "VBIOS",
            Self::Switch => "switch BIOS",
        })
    }
}
