//! Sans-IO sealed-session protocol.
