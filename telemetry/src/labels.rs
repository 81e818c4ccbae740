//! Labels of metrics: closed sets, so that no tenant, id or content can become one, and no peer can multiply series.
//!
//! ```
//! cloister_telemetry::labels! {
//!     /// How a request ended.
//!     pub enum Outcome("outcome") {
//!         /// With an answer.
//!         Answered => "answered",
//!         /// With a refusal.
//!         Refused => "refused",
//!     }
//! }
//!
//! let requests = cloister_telemetry::meter().counter::<Outcome>("cloister.requests", "{request}", "Requests by outcome.");
//! requests.add(1, Outcome::Answered);
//! ```
//!
//! A string is not a label:
//!
//! ```compile_fail,E0277
//! cloister_telemetry::meter().counter::<&'static str>("cloister.requests", "{request}", "Requests.");
//! ```
//!
//! and neither is a value that is made at run time:
//!
//! ```compile_fail
//! let tenant = String::from("acme");
//! cloister_telemetry::labels! {
//!     /// Whose request.
//!     pub enum Tenant("tenant") {
//!         /// A tenant.
//!         Some => tenant,
//!     }
//! }
//! ```

use opentelemetry::KeyValue;

/// A label whose values are all known when the program is compiled. Made by [`labels!`](crate::labels!).
pub trait Label: Copy + Send + Sync + 'static {
    /// Name of the label.
    const KEY: &'static str;
    /// Every value that it can have.
    const VALUES: &'static [&'static str];

    /// Place of this value in [`Label::VALUES`].
    fn index(self) -> usize;

    /// This value; `other` when an implementation answers an index that does not exist.
    fn value(self) -> &'static str {
        Self::VALUES.get(self.index()).copied().unwrap_or("other")
    }
}

/// The labels of an instrument: none `()`, one, or a tuple of two or three.
pub trait LabelSet: Copy + Send + Sync + 'static {
    #[doc(hidden)]
    type Attributes: AsRef<[KeyValue]>;

    #[doc(hidden)]
    fn attributes(self) -> Self::Attributes;
}

// === impl LabelSet ===

impl LabelSet for () {
    type Attributes = [KeyValue; 0];

    fn attributes(self) -> [KeyValue; 0] {
        []
    }
}

impl<A: Label> LabelSet for A {
    type Attributes = [KeyValue; 1];

    fn attributes(self) -> [KeyValue; 1] {
        [attribute(self)]
    }
}

impl<A: Label, B: Label> LabelSet for (A, B) {
    type Attributes = [KeyValue; 2];

    fn attributes(self) -> [KeyValue; 2] {
        [attribute(self.0), attribute(self.1)]
    }
}

impl<A: Label, B: Label, C: Label> LabelSet for (A, B, C) {
    type Attributes = [KeyValue; 3];

    fn attributes(self) -> [KeyValue; 3] {
        [attribute(self.0), attribute(self.1), attribute(self.2)]
    }
}

fn attribute<L: Label>(label: L) -> KeyValue {
    KeyValue::new(L::KEY, label.value())
}

/// Defines a [`Label`](crate::labels::Label): an enum, the label's name, and each variant's value, all literals.
#[macro_export]
macro_rules! labels {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident($key:literal) {
            $($(#[$variant_attribute:meta])* $variant:ident => $value:literal,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $name {
            $($(#[$variant_attribute])* $variant,)+
        }

        impl $crate::labels::Label for $name {
            const KEY: &'static str = $key;
            const VALUES: &'static [&'static str] = &[$($value),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
