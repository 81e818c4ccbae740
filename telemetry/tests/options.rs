//! Options that cannot work are refused before anything is set up.

use cloister_telemetry::{Error, Options, init};

fn with_endpoint(endpoint: &str) -> Options {
    Options {
        otlp_endpoint: Some(endpoint.to_owned()),
        ..Options::default()
    }
}

#[test]
fn options_that_cannot_work_are_refused() {
    let filter = Options {
        log_filter: Some("cloister=loud".to_owned()),
        ..Options::default()
    };
    assert!(matches!(init("test", &filter), Err(Error::Filter(_))));
    for endpoint in [
        "localhost:4317",
        "https://collector:4317",
        "http://",
        "http://user:secret@collector:4317",
        "http://collector:4317/path",
    ] {
        let result = init("test", &with_endpoint(endpoint));
        assert!(matches!(result, Err(Error::Endpoint)), "{endpoint}: {result:?}");
    }
    // Not within a runtime.
    let result = init("test", &with_endpoint("http://127.0.0.1:4317"));
    assert!(matches!(result, Err(Error::NoRuntime)), "{result:?}");
    // None of these has taken the place of the one that works; an empty address means none.
    let _guard = init("test", &with_endpoint("")).unwrap();
}
