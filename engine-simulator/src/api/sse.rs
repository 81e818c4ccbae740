//! Answers as they are sent: server-sent events, or a connection that breaks.

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::Value;

use super::run::{Output, Run};

/// What the fault of a dying engine looks like to hyper: the body fails, so the connection is cut.
#[derive(Debug, thiserror::Error)]
#[error("simulated engine died")]
struct Died;

/// Writes the events of one API.
pub(super) trait Format: Send + 'static {
    fn begin(&mut self, run: &Run, to: &mut Events);
    fn piece(&mut self, run: &Run, choice: usize, index: usize, to: &mut Events);
    fn end(&mut self, run: &Run, choice: usize, to: &mut Events);
    fn finish(&mut self, run: &Run, to: &mut Events);
}

/// Events that go out together.
#[derive(Default)]
pub(super) struct Events(String);

impl Events {
    pub(super) fn data(&mut self, value: &Value) {
        self.text(&value.to_string());
    }

    /// An event with a name, which is also its `type`.
    pub(super) fn named(&mut self, value: &Value) {
        if let Some(name) = value.get("type").and_then(Value::as_str) {
            self.0.push_str("event: ");
            self.0.push_str(name);
            self.0.push('\n');
        }
        self.data(value);
    }

    pub(super) fn text(&mut self, data: &str) {
        self.0.push_str("data: ");
        self.0.push_str(data);
        self.0.push_str("\n\n");
    }

    fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.0))
    }
}

enum Stage {
    Begin,
    Running,
    Over,
}

/// Streams a run in the given format. Dropping the response, as a closed connection does, drops the run.
pub(super) fn stream(run: Run, format: impl Format) -> Response {
    let body = stream::unfold((run, format, Stage::Begin), |(mut run, mut format, stage)| async move {
        let mut events = Events::default();
        let stage = match stage {
            Stage::Over => return None,
            Stage::Begin => {
                format.begin(&run, &mut events);
                Stage::Running
            }
            Stage::Running => match run.next().await {
                Some(Output::Died) => {
                    // What came before is on the wire before the connection breaks.
                    tokio::task::yield_now().await;
                    return Some((Err(Died), (run, format, Stage::Over)));
                }
                Some(Output::Piece { choice, index }) => {
                    format.piece(&run, choice, index, &mut events);
                    Stage::Running
                }
                Some(Output::End { choice }) => {
                    format.end(&run, choice, &mut events);
                    Stage::Running
                }
                None => {
                    format.finish(&run, &mut events);
                    Stage::Over
                }
            },
        };
        Some((Ok(events.take()), (run, format, stage)))
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")],
        Body::from_stream(body),
    )
        .into_response()
}

/// An answer whose connection breaks before its body.
pub(super) fn broken() -> Response {
    let body = stream::once(async {
        tokio::task::yield_now().await;
        Err::<Bytes, _>(Died)
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}
