//! Intel TDX.

mod policy;

pub use self::policy::{BitSet, FixedBits, Fmspc, Ppid, TcbStatus, TdxPolicy, TeeTcbSvn};
