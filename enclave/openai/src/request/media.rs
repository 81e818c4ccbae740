//! Images, which come inside the request or not at all: nothing is fetched.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::value::Value;
use crate::{ApiError, ErrorCode, secret::Text};

/// A test of the first bytes of an image.
type Signature = fn(&[u8]) -> bool;

/// Types that are let through, each with the test of its first bytes.
const TYPES: [(&str, Signature); 4] = [
    ("data:image/png;base64,", |bytes| {
        bytes.starts_with(b"\x89PNG\r\n\x1a\n")
    }),
    ("data:image/jpeg;base64,", |bytes| bytes.starts_with(b"\xff\xd8\xff")),
    ("data:image/webp;base64,", |bytes| {
        bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")
    }),
    ("data:image/gif;base64,", |bytes| {
        bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a")
    }),
];

/// Checks an image's URI: a base64 `data:` URI of a known type whose bytes begin as that type does.
pub(super) fn image<'a>(value: &Value<'a, '_>, vision: bool) -> Result<Text<'a>, ApiError> {
    let uri = value.text()?;
    let refused = || value.error(ErrorCode::UnsupportedMedia);
    if !vision {
        return Err(refused());
    }
    let found = TYPES
        .iter()
        .find_map(|(prefix, begins)| Some((uri.strip_prefix(prefix)?, begins)));
    let (data, begins) = found.ok_or_else(refused)?;
    let bytes = Zeroizing::new(STANDARD.decode(data).map_err(|_| refused())?);
    if begins(&bytes) { Ok(uri) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::{super::value::Path, *};

    fn check(uri: &str, vision: bool) -> bool {
        let json = serde_json::to_string(uri).unwrap();
        let value = Value::new(serde_json::from_str(&json).unwrap(), Path::Root);
        image(&value, vision).is_ok()
    }

    fn uri(kind: &str, bytes: &[u8]) -> String {
        format!("data:image/{kind};base64,{}", STANDARD.encode(bytes))
    }

    #[test]
    fn known_images_pass_and_only_with_vision() {
        let images: [(&str, &[u8]); 5] = [
            ("png", b"\x89PNG\r\n\x1a\nrest"),
            ("jpeg", b"\xff\xd8\xff\xe0rest"),
            ("webp", b"RIFF\x04\0\0\0WEBPVP8 "),
            ("gif", b"GIF87arest"),
            ("gif", b"GIF89arest"),
        ];
        for (kind, bytes) in images {
            assert!(check(&uri(kind, bytes), true), "{kind}");
            assert!(!check(&uri(kind, bytes), false), "{kind}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let png = uri("png", b"\x89PNG\r\n\x1a\nrest");
        for uri in [
            "https://example.com/a.png".to_owned(),
            "file:///etc/passwd".to_owned(),
            "data:image/svg+xml;base64,PHN2Zz4=".to_owned(),
            "data:image/png,abc".to_owned(),
            "data:image/png;charset=utf-8;base64,AAAA".to_owned(),
            uri("png", b"\xff\xd8\xff\xe0"),
            uri("png", b""),
            format!("{png}!"),
            format!(" {png}"),
        ] {
            assert!(!check(&uri, true), "{uri}");
        }
    }
}
