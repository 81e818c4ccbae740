//! Embeddings.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use super::{
    FilterOptions, Summary,
    common::{Usage, UsageOut, broken},
    wire::{Embedding, EmbeddingWire, EmbeddingsWire},
};
use crate::{
    ApiError,
    plan::{EmbeddingPlan, Plan},
    secret::{Text, write_json},
};

/// Checks that there is one vector for each input, in any order, and writes them in the order of the inputs.
pub(super) fn unary(
    wire: EmbeddingsWire<'_>,
    plan: &Plan,
    embedding: &EmbeddingPlan,
    options: FilterOptions,
    out: &mut Zeroizing<Vec<u8>>,
) -> Result<Summary, ApiError> {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'static str,
        data: Vec<Item<'a>>,
        model: &'a str,
        usage: UsageOut,
    }
    let mut vectors = wire.data;
    vectors.sort_by_key(|vector| vector.index);
    let whole = vectors.len() == embedding.inputs && vectors.iter().enumerate().all(|(place, one)| one.index == place);
    if !whole {
        return Err(broken());
    }
    let usage = wire.usage.map(Usage::from).unwrap_or_default();
    let items = vectors.into_iter().map(|vector| Item::new(vector, embedding.base64));
    let list = List {
        object: "list",
        data: items.collect::<Result<_, _>>()?,
        model: &plan.served_model,
        usage: usage.out(options, false),
    };
    write_json(out, &list)?;
    Ok(Summary {
        prompt_tokens: usage.prompt,
        completion_tokens: 0,
        total_tokens: usage.total,
        finished: true,
    })
}

#[derive(Serialize)]
struct Item<'a> {
    object: &'static str,
    index: usize,
    embedding: Vector<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector<'a> {
    #[serde(serialize_with = "floats")]
    Floats(Zeroizing<Vec<f32>>),
    Base64(Text<'a>),
}

// === impl Item ===

impl<'a> Item<'a> {
    /// Gives the vector the form that the client asked for, whatever the engine's.
    fn new(wire: EmbeddingWire<'a>, base64: bool) -> Result<Self, ApiError> {
        let embedding = match wire.embedding {
            Embedding::Base64(text) => {
                let floats = decode(&text)?;
                if base64 {
                    Vector::Base64(text)
                } else {
                    Vector::Floats(floats)
                }
            }
            Embedding::Floats(floats) => {
                let floats = Zeroizing::new(floats);
                if base64 {
                    Vector::Base64(encode(&floats))
                } else {
                    Vector::Floats(floats)
                }
            }
        };
        Ok(Self {
            object: "embedding",
            index: wire.index,
            embedding,
        })
    }
}

fn floats<S: Serializer>(floats: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(floats)
}

fn decode(text: &str) -> Result<Zeroizing<Vec<f32>>, ApiError> {
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| broken())?);
    let (floats, rest) = bytes.as_chunks::<4>();
    let floats: Vec<f32> = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let floats = Zeroizing::new(floats);
    if rest.is_empty() && floats.iter().all(|float| float.is_finite()) {
        Ok(floats)
    } else {
        Err(broken())
    }
}

fn encode(floats: &[f32]) -> Text<'static> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(floats.len().saturating_mul(4)));
    for float in floats {
        bytes.extend_from_slice(&float.to_le_bytes());
    }
    Text::Owned(Zeroizing::new(STANDARD.encode(&*bytes)))
}
