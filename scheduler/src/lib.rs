//! Routes sealed sessions to enclaves; can read nothing.
