//! The relying party: decides which enclaves to trust, seals for them, and opens what they answer.
//!
//! One attempt at a call goes: the member's credential ([`Member`]) -> candidates of the model, drawn once per window
//! ([`draw`]), attested under this party's own policy ([`Trust`]), with live keys ([`Pool`]) -> seal -> [`Upstream`] -> the
//! answer, record by record ([`answer`]), and its receipt ([`Receipts`]). Only [`Upstream`] does network IO.

mod answer;
mod draw;
mod http;
mod member;
mod party;
mod pool;
mod trust;
mod upstream;
mod watched;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

pub use self::http::{HttpUpstream, MAX_TOKEN_BYTES, TokenError, TokenSource, parse_token};
pub use draw::MAX_ATTESTED_PER_DRAW;
pub use member::{Member, MemberError, MemberFiles};
pub use party::{RelyingParty, Settings};
pub use pool::{Candidate, MAX_OFFERED, parse_offered};
pub use trust::{Attested, ContactError, LAPSES_AFTER, REATTEST_AFTER, Trust};
pub use upstream::{SealedAnswer, Upstream};
pub(crate) use watched::Watched;
