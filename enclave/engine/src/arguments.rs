//! What an operator may set of an engine: options and variables of which it is known that they neither name another program
//! or model, open a second way in, write prompts down, nor keep state past what a scrub clears. Everything else is refused.

use std::collections::BTreeMap;

/// Most bytes of one value.
const MAX_VALUE_LEN: usize = 4096;

/// An argument, or a variable, that an engine of the enclave must not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("engine argument or variable `{name}` is refused: {reason}")]
pub struct ForbiddenArgument {
    /// Its name, without the value.
    pub name: String,
    /// Why it is refused.
    pub reason: &'static str,
}

/// Which options an operator may give to an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorOptions {
    /// Those of the built-in launcher of llama.cpp's server.
    LlamaCpp,
    /// Those of a vLLM server that decide on memory, batches and numeric types.
    Vllm,
    /// Those of the engine simulator, which runs no model.
    Simulator,
}

/// What an option takes.
#[derive(Clone, Copy)]
enum Value {
    /// Nothing: it stands alone.
    Flag,
    /// A decimal integer that is not negative.
    Integer,
    /// A decimal fraction that is not negative.
    Fraction,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A name: letters, digits, `_`, `.` and `-`, and no `-` first. So no path and no address.
    Name,
    /// Anything that does not begin with `-`.
    Text,
}

type Options = &'static [(&'static str, Value)];

const LLAMACPP: Options = &[
    ("--parallel", Value::Integer),
    ("--context", Value::Integer),
    ("--threads", Value::Integer),
];

const SIMULATOR: Options = &[
    ("--profile", Value::Name),
    ("--output-tokens", Value::Integer),
    ("--max-num-seqs", Value::Integer),
    ("--max-model-len", Value::Integer),
    ("--kv-blocks", Value::Integer),
    ("--engine-version", Value::Name),
    ("--batch-log", Value::Name),
    ("--faults", Value::Text),
];

/// Names as in vLLM 0.11 to 0.12. Not here, though they look harmless: what loads code or files by a path of the operator's
/// (`--chat-template`, `--tool-parser-plugin`, `--tokenizer`, `--trust-remote-code`), what takes a nested configuration.
const VLLM: Options = &[
    ("--max-model-len", Value::Integer),
    ("--max-num-seqs", Value::Integer),
    ("--max-num-batched-tokens", Value::Integer),
    ("--tensor-parallel-size", Value::Integer),
    ("--pipeline-parallel-size", Value::Integer),
    ("--block-size", Value::Integer),
    ("--max-logprobs", Value::Integer),
    ("--seed", Value::Integer),
    ("--gpu-memory-utilization", Value::Fraction),
    (
        "--dtype",
        Value::OneOf(&["auto", "half", "float16", "bfloat16", "float", "float32"]),
    ),
    (
        "--kv-cache-dtype",
        Value::OneOf(&["auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"]),
    ),
    ("--load-format", Value::OneOf(&["auto", "safetensors"])),
    ("--tokenizer-mode", Value::OneOf(&["auto", "slow", "mistral"])),
    ("--runner", Value::OneOf(&["auto", "generate", "pooling"])),
    ("--quantization", Value::Name),
    ("--tool-call-parser", Value::Name),
    ("--reasoning-parser", Value::Name),
    ("--enable-auto-tool-choice", Value::Flag),
    ("--enable-chunked-prefill", Value::Flag),
    ("--no-enable-chunked-prefill", Value::Flag),
    ("--enable-expert-parallel", Value::Flag),
    ("--enforce-eager", Value::Flag),
    ("--disable-custom-all-reduce", Value::Flag),
];

/// Variables that choose devices, threads and kernels. Values are names, with `,` and `:` as well.
const VARIABLES: &[&str] = &[
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "NCCL_CUMEM_ENABLE",
    "NCCL_P2P_DISABLE",
    "OMP_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
    "VLLM_ATTENTION_BACKEND",
    "VLLM_USE_FLASHINFER_SAMPLER",
    "VLLM_WORKER_MULTIPROC_METHOD",
];

const UNKNOWN: &str =
    "it is not one of those that are known to keep tenants apart and the workload as measured; remove it";
const VALUE: &str = "its value does not have the form that is known to be harmless";
const NO_OPTION: &str = "only options with their values may be given";

impl OperatorOptions {
    const fn list(self) -> Options {
        match self {
            Self::LlamaCpp => LLAMACPP,
            Self::Vllm => VLLM,
            Self::Simulator => SIMULATOR,
        }
    }

    /// Refuses every argument that is not a listed option with a value of its form, as `--name value` or `--name=value`.
    /// Other spellings, such as abbreviations, are not listed and so refused. Only what the operator configured is passed
    /// here; what the enclave adds itself is not.
    ///
    /// # Errors
    /// The first argument that is refused.
    pub fn check(self, arguments: &[String]) -> Result<(), ForbiddenArgument> {
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (argument.as_str(), None),
            };
            let refused = |reason| ForbiddenArgument {
                name: name.to_owned(),
                reason,
            };
            if !name.starts_with('-') {
                return Err(refused(NO_OPTION));
            }
            let (_, form) = self
                .list()
                .iter()
                .find(|(option, _)| *option == name)
                .ok_or_else(|| refused(UNKNOWN))?;
            let value = match (form, inline) {
                (Value::Flag, inline) => inline,
                (_, Some(inline)) => Some(inline),
                (_, None) => arguments.next().map(String::as_str),
            };
            if !form.takes(value) {
                return Err(refused(VALUE));
            }
        }
        Ok(())
    }
}

impl Value {
    fn takes(self, value: Option<&str>) -> bool {
        let Some(value) = value else {
            return matches!(self, Self::Flag);
        };
        let digits = |text: &str| !text.is_empty() && text.len() < 20 && text.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Self::Flag => false,
            Self::Integer => digits(value),
            Self::Fraction => match value.split_once('.') {
                Some((whole, part)) => digits(whole) && digits(part),
                None => digits(value),
            },
            Self::OneOf(values) => values.contains(&value),
            Self::Name => is_name(value, b"_.-"),
            Self::Text => !value.is_empty() && value.len() <= MAX_VALUE_LEN && !value.starts_with('-'),
        }
    }
}

fn is_name(value: &str, marks: &[u8]) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || marks.contains(&byte);
    !value.is_empty() && value.len() <= MAX_VALUE_LEN && !value.starts_with(['-', '.']) && value.bytes().all(known)
}

/// Refuses every variable that is not listed, or whose value is no plain list of names.
///
/// # Errors
/// The first variable that is refused.
pub fn check_environment(environment: &BTreeMap<String, String>) -> Result<(), ForbiddenArgument> {
    for (name, value) in environment {
        let refused = |reason| ForbiddenArgument {
            name: name.clone(),
            reason,
        };
        if !VARIABLES.contains(&name.as_str()) {
            return Err(refused(UNKNOWN));
        }
        if !is_name(value, b"_.,:-") {
            return Err(refused(VALUE));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::OperatorOptions::{LlamaCpp, Simulator, Vllm};
    use super::*;

    fn check(list: OperatorOptions, arguments: &[&str]) -> Result<(), ForbiddenArgument> {
        list.check(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[track_caller]
    fn refused(list: OperatorOptions, arguments: &[&str]) -> ForbiddenArgument {
        check(list, arguments).expect_err(&format!("{arguments:?}"))
    }

    #[test]
    fn what_would_take_the_place_of_the_enclaves_own_is_refused() {
        for list in [LlamaCpp, Vllm, Simulator] {
            for name in [
                "--wheel",
                "--model",
                "--socket",
                "--slots-dir",
                "--listen",
                "--uds",
                "--host",
            ] {
                assert_eq!(refused(list, &[name, "x"]).reason, UNKNOWN);
                assert_eq!(refused(list, &[&format!("{name}=x")]).name, name);
            }
            assert_eq!(refused(list, &["/other/model"]).reason, NO_OPTION);
            assert_eq!(refused(list, &["--"]).reason, UNKNOWN);
        }
    }

    #[test]
    fn what_keeps_shares_or_writes_down_state_is_refused() {
        for name in [
            "--kv-transfer-config",
            "--kv-events-config",
            "--ec-transfer-config",
            "--cpu-offload-gb",
            "--swap-space",
            "--kv-offloading-size",
            "--enable-lora",
            "--lora-modules",
            "--data-parallel-size",
            "-dp",
            "--api-server-count",
            "--enable-log-requests",
            "--otlp-traces-endpoint",
            "--log-config-file",
            "--mm-processor-cache-gb",
            "--slot-save-path",
            "--speculative-config",
            "--enable-sleep-mode",
            "--config",
            "--tool-server",
            "--allowed-local-media-path",
            "--trust-request-chat-template",
            "--trust-remote-code",
            "--enable-prompt-embeds",
            "--chat-template",
            "--tool-parser-plugin",
            "--tokenizer",
            "--hf-overrides",
            "--served-model-name",
        ] {
            assert_eq!(refused(Vllm, &[name, "0"]).name, name);
        }
    }

    #[test]
    fn only_exact_names_with_harmless_values_pass() {
        for arguments in [
            &["--max_model_len", "1"][..],
            &["--max-model-le", "1"],
            &["--max-model-len.x", "1"],
            &["--max-model-len"],
            &["--max-model-len", "-1"],
            &["--max-model-len", "--enforce-eager"],
            &["--max-model-len=1k"],
            &["--gpu-memory-utilization", "1e9"],
            &["--dtype", "other"],
            &["--quantization", "../plugin"],
            &["--quantization", ".."],
            &["--enforce-eager=1"],
            &["--enforce-eager", "1"],
        ] {
            refused(Vllm, arguments);
        }
        refused(LlamaCpp, &["--parallel", "4", "--context", "x"]);
        refused(LlamaCpp, &["--max-model-len", "4096"]);
        refused(Simulator, &["--batch-log", "/etc/passwd"]);
        refused(Simulator, &["--faults", "--model"]);
    }

    #[test]
    fn harmless_options_pass() {
        check(LlamaCpp, &["--parallel", "4", "--context=8192", "--threads", "2"]).expect("allowed");
        check(Simulator, &["--profile", "8b-h100", "--faults", "{\"slow\":0.3}"]).expect("allowed");
        check(Simulator, &["--batch-log", "batch.log", "--engine-version", "0.11.0"]).expect("allowed");
        let arguments =
            "--max-model-len 4096 --enforce-eager --gpu-memory-utilization 0.9 --dtype=bfloat16 --quantization fp8";
        check(Vllm, &arguments.split(' ').collect::<Vec<_>>()).expect("allowed");
        check(Vllm, &[]).expect("allowed");
    }

    #[test]
    fn variables_that_are_not_listed_are_refused() {
        let check = |name: &str, value: &str| check_environment(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "PATH",
            "HOME",
            "PYTHONPATH",
            "PYTHONHOME",
            "BASH_ENV",
            "ENV",
            "GLIBC_TUNABLES",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
            "VLLM_PLUGINS",
            "VLLM_SERVER_DEV_MODE",
            "VLLM_LOGGING_LEVEL",
            "LLAMA_ARG_MODEL",
            "HF_HUB_OFFLINE",
            "CUDA_INJECTION64_PATH",
            "OMP_NUM_THREADS=1 LD_PRELOAD",
            "",
        ] {
            assert_eq!(check(name, "1").expect_err(name).reason, UNKNOWN);
        }
        for value in ["", "/lib/evil.so", "a b", "-u", "$(x)", "a\nb", "a=b"] {
            assert_eq!(check("OMP_NUM_THREADS", value).expect_err(value).reason, VALUE);
        }
        check("CUDA_VISIBLE_DEVICES", "0,1").expect("allowed");
        check("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True").expect("allowed");
    }
}
