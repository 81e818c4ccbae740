//! Captured answers of engines, each with the request that it answers.

use cloister_enclave_openai::{Dialect, Endpoint, EngineRequest, FilterOptions, ResponseFilter};
use serde_json::{Value, json};

use crate::support::{MODEL, request, testdata};

use Dialect::{LlamaCpp, Vllm};
use Endpoint::{ChatCompletions, Completions, Embeddings, Responses};

/// One captured answer, and the request that it answers as far as the filter cares.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    data: &'static str,
    endpoint: Endpoint,
    dialect: Dialect,
    body: Value,
}

fn case(name: &'static str, data: &'static str, endpoint: Endpoint, dialect: Dialect, body: Value) -> Case {
    Case {
        name,
        data,
        endpoint,
        dialect,
        body,
    }
}

#[rustfmt::skip] // A table: one line for each case.
pub(crate) fn cases() -> Vec<Case> {
    let two = json!({"max_tokens": 2, "n": 2, "logprobs": true, "top_logprobs": 1});
    let two_streamed = merge(two.clone(), &stream());
    let required = tools("required", false);
    let required_response = tools("required", true);
    vec![
        case("chat.json", "llamacpp/chat.json", ChatCompletions, LlamaCpp, chat(&json!({}))),
        case("chat_stream.sse", "llamacpp/chat_stream.sse", ChatCompletions, LlamaCpp, chat(&stream())),
        case("chat_stream_no_usage.sse", "llamacpp/chat_stream.sse", ChatCompletions, LlamaCpp, chat(&json!({"stream": true}))),
        case("chat_logprobs_n2.json", "llamacpp/chat_logprobs_n2.json", ChatCompletions, LlamaCpp, chat(&two)),
        case("chat_logprobs_n2_stream.sse", "llamacpp/chat_logprobs_n2_stream.sse", ChatCompletions, LlamaCpp, chat(&two_streamed)),
        case("chat_forced.json", "llamacpp/chat_forced.json", ChatCompletions, LlamaCpp, chat(&required)),
        case("chat_forced_cut.json", "llamacpp/chat_forced_cut.json", ChatCompletions, LlamaCpp, chat(&required)),
        case("chat_forced_stream.sse", "llamacpp/chat_forced_stream.sse", ChatCompletions, LlamaCpp, chat(&merge(required.clone(), &stream()))),
        case("chat_tools.json", "llamacpp/chat_tools.json", ChatCompletions, LlamaCpp, chat(&tools("auto", false))),
        case("chat_tools_stream.sse", "llamacpp/chat_tools_stream.sse", ChatCompletions, LlamaCpp, chat(&merge(tools("auto", false), &stream()))),
        case("chat_vllm.json", "vllm/chat.json", ChatCompletions, Vllm, chat(&json!({}))),
        case("chat_vllm_stream.sse", "vllm/chat_stream.sse", ChatCompletions, Vllm, chat(&stream())),
        case("response.json", "llamacpp/chat.json", Responses, LlamaCpp, response(&json!({"max_output_tokens": 6, "instructions": "Be \"brief\"."}))),
        case("response_stream.sse", "llamacpp/chat_stream.sse", Responses, LlamaCpp, response(&json!({"stream": true}))),
        case("response_forced.json", "llamacpp/chat_forced.json", Responses, LlamaCpp, response(&required_response)),
        case("response_forced_stream.sse", "llamacpp/chat_forced_stream.sse", Responses, LlamaCpp, response(&merge(required_response.clone(), &json!({"stream": true})))),
        case("response_tools.json", "llamacpp/chat_tools.json", Responses, LlamaCpp, response(&tools("auto", true))),
        case("response_tools_stream.sse", "llamacpp/chat_tools_stream.sse", Responses, LlamaCpp, response(&merge(tools("auto", true), &json!({"stream": true})))),
        case("response_two_calls.json", "vllm/chat.json", Responses, Vllm, response(&json!({}))),
        case("response_reasoning_stream.sse", "vllm/chat_stream.sse", Responses, Vllm, response(&json!({"stream": true}))),
        case("completions.json", "llamacpp/completions.json", Completions, LlamaCpp, completion(&json!({"logprobs": 2}))),
        case("completions_stream.sse", "llamacpp/completions_stream.sse", Completions, LlamaCpp, completion(&merge(json!({"logprobs": 1}), &stream()))),
        case("completions_vllm_stream.sse", "vllm/completions_stream.sse", Completions, Vllm, completion(&merge(json!({"logprobs": 1}), &stream()))),
        case("embeddings_float.json", "llamacpp/embeddings_float.json", Embeddings, LlamaCpp, embedding("float")),
        case("embeddings_float_as_base64.json", "llamacpp/embeddings_float.json", Embeddings, LlamaCpp, embedding("base64")),
        case("embeddings_base64.json", "llamacpp/embeddings_base64.json", Embeddings, LlamaCpp, embedding("base64")),
    ]
}

impl Case {
    pub(crate) fn input(&self) -> Vec<u8> {
        testdata(self.data)
    }

    pub(crate) fn request(&self) -> EngineRequest {
        request(self.endpoint, self.dialect, &self.body).unwrap()
    }

    pub(crate) fn filter(&self) -> ResponseFilter {
        self.request().response_filter(200, FilterOptions::default())
    }
}

pub(crate) fn chat(extra: &Value) -> Value {
    merge(
        json!({"model": MODEL, "messages": [{"role": "user", "content": "Say hi."}]}),
        extra,
    )
}

pub(crate) fn response(extra: &Value) -> Value {
    merge(json!({"model": MODEL, "input": "Say hi."}), extra)
}

pub(crate) fn completion(extra: &Value) -> Value {
    merge(json!({"model": MODEL, "prompt": ["One two", "A"]}), extra)
}

pub(crate) fn embedding(encoding: &str) -> Value {
    json!({"model": MODEL, "input": ["a", "b"], "encoding_format": encoding})
}

pub(crate) fn tools(choice: &str, response: bool) -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let function = json!({"name": "get_weather", "parameters": parameters});
    let flat = merge(json!({"type": "function"}), &function);
    let tool = if response {
        flat
    } else {
        json!({"type": "function", "function": function})
    };
    json!({"tools": [tool], "tool_choice": choice})
}

pub(crate) fn stream() -> Value {
    json!({"stream": true, "stream_options": {"include_usage": true}})
}

pub(crate) fn merge(mut body: Value, extra: &Value) -> Value {
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}
