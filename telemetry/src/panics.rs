//! Panics, without what they say.

use std::{
    io::{self, Write},
    panic::{self, Location},
};

use crate::LogFormat;

/// Replaces the panic hook by one that writes where a panic happened to standard error, and never its message: an
/// `expect` on a parsed request would quote the request. [`crate::init`] calls it; call it alone where there is no
/// telemetry.
pub fn hide_panic_messages(format: LogFormat) {
    panic::set_hook(Box::new(move |info| {
        let line = line(format, info.location());
        // Written directly: the panic may come from within the log. There is nobody to tell when this fails.
        writeln!(io::stderr().lock(), "{line}").ok();
    }));
}

fn line(format: LogFormat, location: Option<&Location<'_>>) -> String {
    let place = location.map_or_else(|| "unknown place".to_owned(), ToString::to_string);
    match format {
        LogFormat::Text => format!("panicked at {place} (message withheld)"),
        LogFormat::Json => serde_json::json!({
            "level": "ERROR",
            "message": "panicked (message withheld)",
            "location": place,
        })
        .to_string(),
    }
}
