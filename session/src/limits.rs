//! Every length that a peer controls, in bytes unless said otherwise.

/// Version octet of M1 and M2.
pub const VERSION: u8 = 1;
/// Longest header of M1.
pub const MAX_HEADER: usize = 1024;
/// Most candidates, and so wraps, of one request.
pub const MAX_WRAPS: usize = 4;
/// Candidates that a client names by default.
pub const DEFAULT_WRAPS: usize = 2;
/// Largest plaintext of a chunk.
pub const MAX_CHUNK: usize = 16 * 1024;
/// The first chunk of M1 is padded to a multiple of this: members whose credentials name up to 18 models look the same.
pub const FIRST_CHUNK_UNIT: usize = 1024;
/// Tag of ChaCha20Poly1305.
pub const TAG_LEN: usize = 16;
/// Largest padded inner request.
pub const MAX_BODY: usize = 8 * 1024 * 1024;
/// Smallest padded inner request.
pub const MIN_BUCKET: usize = 1024;
/// Longest time to live of a request, in seconds.
pub const MAX_TTL: u32 = 120;
/// How far ahead of the enclave's clock a client's may be, in seconds.
pub const MAX_CLOCK_SKEW: u64 = 30;
/// Longest life of a member credential, in seconds.
pub const MAX_CREDENTIAL_LIFE: u64 = 3600;
/// Most models that a credential names.
pub const MAX_CREDENTIAL_MODELS: usize = 64;
/// Longest cluster id and served model name.
pub const MAX_NAME: usize = 128;
/// Longest signed object: a key configuration, a credential, a receipt.
pub const MAX_SIGNED_OBJECT: usize = 8 * 1024;
/// Length of a KEM public key (X-Wing).
pub const PUBLIC_KEY_LEN: usize = 1216;
/// Length of an encapsulated KEM key (X-Wing).
pub const ENCAPSULATED_LEN: usize = 1120;
/// Length of the data encryption key of a request.
pub const DEK_LEN: usize = 32;
/// Length of one wrap: key id, encapsulated key, sealed DEK.
pub const WRAP_LEN: usize = 16 + ENCAPSULATED_LEN + DEK_LEN + TAG_LEN;
/// Longest outer part of M1: what a router has to read.
pub const MAX_OUTER: usize = 1 + 2 + MAX_HEADER + 1 + MAX_WRAPS * WRAP_LEN;
/// Longest M1: outer part, first chunk and every other chunk with its framing.
pub const MAX_REQUEST: usize = MAX_OUTER + (2 + MAX_BODY / MAX_CHUNK) * (MAX_CHUNK + TAG_LEN + 4);
/// Size of the end record when padding is on.
pub const END_RECORD: usize = 2048;
/// Smallest record when padding is on.
pub const MIN_RECORD: usize = 256;
/// Length of M2 before its chunks: version, key id, nonce.
pub const RESPONSE_PREFIX: usize = 1 + 16 + 32;
