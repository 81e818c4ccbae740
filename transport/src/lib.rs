//! HTTP/2 over TLS between components.
