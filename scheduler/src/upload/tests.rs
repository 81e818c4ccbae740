use futures::stream;
use http_body_util::BodyExt;

use super::*;

/// A body of these pieces; `Err` is a client that breaks off.
fn body(pieces: Vec<Result<Vec<u8>, ()>>) -> Body {
    let pieces = pieces
        .into_iter()
        .map(|piece| piece.map(Bytes::from).map_err(|()| std::io::Error::other("gone")));
    Body::from_stream(stream::iter(pieces))
}

fn upload(first: &[u8], rest: Vec<Result<Vec<u8>, ()>>) -> Upload {
    Upload::new(Bytes::copy_from_slice(first), body(rest))
}

async fn read(attempt: Attempt) -> Result<Bytes, UploadError> {
    attempt.collect().await.map(|collected| collected.to_bytes())
}

#[tokio::test]
async fn a_small_body_can_be_read_again() {
    let upload = upload(b"one", vec![Ok(b"two".to_vec()), Ok(b"three".to_vec())]);
    for _ in 0..3 {
        assert_eq!(read(upload.attempt().unwrap()).await.unwrap(), "onetwothree");
    }
}

#[tokio::test]
async fn an_attempt_that_was_cut_short_leaves_all_to_the_next() {
    let upload = upload(b"one", vec![Ok(b"two".to_vec()), Ok(b"three".to_vec())]);
    let mut first = upload.attempt().unwrap();
    first.frame().await.unwrap().unwrap();
    first.frame().await.unwrap().unwrap();
    let second = upload.attempt().unwrap();
    assert_eq!(first.frame().await.unwrap().unwrap_err(), UploadError::Superseded);
    assert_eq!(read(second).await.unwrap(), "onetwothree");
}

#[tokio::test]
async fn a_large_body_can_be_read_once() {
    let upload = upload(b"one", vec![Ok(vec![0; REPLAY_LIMIT - 3]), Ok(vec![1]), Ok(vec![2])]);
    let mut attempt = upload.attempt().unwrap();
    attempt.frame().await.unwrap().unwrap();
    attempt.frame().await.unwrap().unwrap();
    assert!(upload.is_replayable(), "all of it fits so far");
    let rest = read(attempt).await.unwrap();
    assert_eq!(*rest, [1, 2]);
    assert!(!upload.is_replayable() && upload.attempt().is_none());
}

#[tokio::test]
async fn a_body_is_complete_once_the_last_attempt_has_all_of_it() {
    let upload = upload(b"one", vec![Ok(b"two".to_vec())]);
    let mut first = upload.attempt().unwrap();
    first.frame().await.unwrap().unwrap();
    first.frame().await.unwrap().unwrap();
    assert!(!upload.is_complete(), "there may be more");
    assert!(first.frame().await.is_none());
    assert!(upload.is_complete());
    let mut second = upload.attempt().unwrap();
    assert!(!upload.is_complete(), "of another attempt");
    second.frame().await.unwrap().unwrap();
    assert!(!upload.is_complete());
    second.frame().await.unwrap().unwrap();
    assert!(upload.is_complete(), "with the last piece: nothing more will come");
}

#[tokio::test]
async fn a_body_that_says_its_length_is_complete_with_its_last_piece() {
    for (rest, pieces) in [(Body::empty(), 1), (Body::from("two"), 2)] {
        let upload = Upload::new(Bytes::from_static(b"one"), rest);
        let mut attempt = upload.attempt().unwrap();
        for _ in 0..pieces {
            assert!(!upload.is_complete());
            attempt.frame().await.unwrap().unwrap();
        }
        assert!(upload.is_complete());
    }
}

#[tokio::test]
async fn what_is_kept_is_let_go_when_the_answer_begins() {
    let upload = upload(b"one", vec![Ok(b"two".to_vec())]);
    let attempt = upload.attempt().unwrap();
    let source = Arc::clone(&upload.0);
    upload.commit();
    assert_eq!(read(attempt).await.unwrap(), "onetwo", "what was not sent yet still is");
    assert!(lock(&source).kept.is_empty());
}

#[tokio::test]
async fn a_client_that_breaks_off_is_told_apart_from_a_candidate_that_fails() {
    let upload = upload(b"one", vec![Err(())]);
    assert!(!upload.is_broken());
    assert_eq!(read(upload.attempt().unwrap()).await, Err(UploadError::Broken));
    assert!(upload.is_broken());
}

#[tokio::test]
async fn a_body_has_a_greatest_length() {
    let fits = upload(&[], vec![Ok(vec![0; MAX_REQUEST])]);
    assert_eq!(
        read(fits.attempt().unwrap()).await.map(|body| body.len()),
        Ok(MAX_REQUEST)
    );
    let longer = upload(b"1", vec![Ok(vec![0; MAX_REQUEST])]);
    assert_eq!(read(longer.attempt().unwrap()).await, Err(UploadError::TooLong));
    assert!(longer.is_broken());
}

#[tokio::test(start_paused = true)]
async fn an_outer_part_that_does_not_come_is_not_waited_for() {
    let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(Upload::begin(body).await.err(), Some(NoRequest));
}
