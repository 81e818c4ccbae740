//! Engine arguments that would keep, share or move state past what a scrub clears, or open a second way in.

use std::collections::BTreeMap;

/// An argument, or a variable, that an engine of the enclave must not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("engine argument `{name}` is refused: {reason}; remove it")]
pub struct ForbiddenArgument {
    /// Its name, without the value.
    pub name: String,
    /// Why it is refused.
    pub reason: &'static str,
}

/// When an option is acceptable after all.
#[derive(Clone, Copy)]
enum Unless {
    /// Never.
    Never,
    /// When its value is this number.
    Value(f64),
}

const CONNECTOR: &str = "KV moved out of the engine is out of the scrub's reach";
const OFFLOAD: &str = "KV or weights in host memory are out of the scrub's reach";
const LORA: &str = "adapters are state of a tenant";
const PARALLEL: &str = "a reset reaches one data-parallel rank only";
const LISTEN: &str = "the enclave alone decides where the engine listens";
const LOGGING: &str = "it writes down prompts or their traces";
const CACHE: &str = "this cache outlives a reset";
const DRAFT: &str = "the draft model's state is not on the list of what a reset clears";
const SLEEP: &str = "sleep levels keep copies in host memory";
const INDIRECT: &str = "arguments must be seen to be measured";
const REACH: &str = "requests must not reach files, adapters or templates of their choice";

/// Names as in vLLM's and llama.cpp's servers, with dashes.
const OPTIONS: &[(&str, Unless, &str)] = &[
    ("--kv-transfer-config", Unless::Never, CONNECTOR),
    ("--kv-events-config", Unless::Never, CONNECTOR),
    ("--ec-transfer-config", Unless::Never, CONNECTOR),
    ("--rpc", Unless::Never, CONNECTOR),
    ("--cpu-offload-gb", Unless::Value(0.0), OFFLOAD),
    ("--swap-space", Unless::Value(0.0), OFFLOAD),
    ("--kv-offloading-size", Unless::Value(0.0), OFFLOAD),
    ("--kv-offloading-backend", Unless::Never, OFFLOAD),
    ("--enable-lora", Unless::Never, LORA),
    ("--lora-modules", Unless::Never, LORA),
    ("--lora", Unless::Never, LORA),
    ("--lora-scaled", Unless::Never, LORA),
    ("--control-vector", Unless::Never, LORA),
    ("--data-parallel-size", Unless::Value(1.0), PARALLEL),
    ("--data-parallel-size-local", Unless::Value(1.0), PARALLEL),
    ("-dp", Unless::Value(1.0), PARALLEL),
    ("-dpl", Unless::Value(1.0), PARALLEL),
    ("--data-parallel-backend", Unless::Never, PARALLEL),
    ("--data-parallel-hybrid-lb", Unless::Never, PARALLEL),
    ("--data-parallel-external-lb", Unless::Never, PARALLEL),
    ("--api-server-count", Unless::Value(1.0), PARALLEL),
    ("--host", Unless::Never, LISTEN),
    ("--port", Unless::Never, LISTEN),
    ("--uds", Unless::Never, LISTEN),
    ("--socket", Unless::Never, LISTEN),
    ("--listen", Unless::Never, LISTEN),
    ("--enable-log-requests", Unless::Never, LOGGING),
    ("--enable-log-outputs", Unless::Never, LOGGING),
    ("--otlp-traces-endpoint", Unless::Never, LOGGING),
    ("--collect-detailed-traces", Unless::Never, LOGGING),
    ("--log-config-file", Unless::Never, LOGGING),
    ("--log-file", Unless::Never, LOGGING),
    ("--log-prompts-dir", Unless::Never, LOGGING),
    ("--mm-processor-cache-gb", Unless::Value(0.0), CACHE),
    ("--cache-ram", Unless::Value(0.0), CACHE),
    ("--prompt-cache", Unless::Never, CACHE),
    ("--slot-save-path", Unless::Never, CACHE),
    ("--slots-dir", Unless::Never, CACHE),
    ("--speculative-config", Unless::Never, DRAFT),
    ("--model-draft", Unless::Never, DRAFT),
    ("-md", Unless::Never, DRAFT),
    ("--enable-sleep-mode", Unless::Never, SLEEP),
    ("--config", Unless::Never, INDIRECT),
    ("--tool-server", Unless::Never, REACH),
    ("--allowed-local-media-path", Unless::Never, REACH),
    ("--trust-request-chat-template", Unless::Never, REACH),
    ("--enable-prompt-embeds", Unless::Never, REACH),
    ("--media-path", Unless::Never, REACH),
];

/// Options that are a prefix of a forbidden one and a whole option of their own.
const WHOLE: &[&str] = &["--model", "--enable-log"];

/// Variables that do what forbidden options do.
const VARIABLES: &[(&str, &str)] = &[
    ("VLLM_ALLOW_RUNTIME_LORA_UPDATING", LORA),
    ("VLLM_PLUGINS", REACH),
    ("VLLM_ENABLE_RESPONSES_API_STORE", CACHE),
    ("VLLM_LOGGING_CONFIG_PATH", LOGGING),
    ("VLLM_LOGGING_LEVEL", LOGGING),
    ("VLLM_TRACE_FUNCTION", LOGGING),
    ("VLLM_CONFIGURE_LOGGING", LOGGING),
    ("VLLM_SERVER_DEV_MODE", "the enclave sets it itself"),
    ("LLAMA_ARG_", INDIRECT),
];

/// Refuses arguments that make an engine keep state which no scrub clears. Only what the operator configured is passed
/// here; what the enclave adds itself is not.
///
/// Underscores count as dashes, and `--option.key`, `--option=value` and abbreviations as the option, as in vLLM's parser.
///
/// # Errors
/// The first argument that is refused.
pub fn check_arguments(arguments: &[String]) -> Result<(), ForbiddenArgument> {
    for (index, argument) in arguments.iter().enumerate() {
        if !argument.starts_with('-') {
            continue;
        }
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument.as_str(), None),
        };
        let name = name.split('.').next().unwrap_or(name).replace('_', "-");
        let value = inline.or_else(|| arguments.get(index.saturating_add(1)).map(String::as_str));
        if let Some((_, _, reason)) = OPTIONS
            .iter()
            .find(|(option, unless, _)| forbids(option, *unless, &name, value))
        {
            return Err(ForbiddenArgument { name, reason });
        }
    }
    Ok(())
}

/// Refuses variables that do what forbidden arguments do.
///
/// # Errors
/// The first variable that is refused.
pub fn check_environment(environment: &BTreeMap<String, String>) -> Result<(), ForbiddenArgument> {
    for name in environment.keys() {
        if let Some((_, reason)) = VARIABLES.iter().find(|(prefix, _)| name.starts_with(prefix)) {
            return Err(ForbiddenArgument {
                name: name.clone(),
                reason,
            });
        }
    }
    Ok(())
}

fn forbids(option: &str, unless: Unless, name: &str, value: Option<&str>) -> bool {
    // Python's parser takes any unambiguous beginning of a long option for the option.
    let abbreviated = name.len() > 2 && name.starts_with("--") && option.starts_with(name) && !WHOLE.contains(&name);
    if name != option && !abbreviated {
        return false;
    }
    match unless {
        Unless::Never => true,
        Unless::Value(harmless) => value.and_then(|value| value.parse::<f64>().ok()) != Some(harmless),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str]) -> Result<(), ForbiddenArgument> {
        check_arguments(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn every_listed_option_is_refused() {
        for (option, unless, reason) in OPTIONS {
            let found = check(&[option, "7"]).expect_err(option);
            assert_eq!((found.name.as_str(), found.reason), (*option, *reason));
            if let Unless::Value(harmless) = unless {
                check(&[option, &harmless.to_string()]).expect(option);
                check(&[option]).expect_err("without a value it is not known to be harmless");
            }
        }
    }

    #[test]
    fn other_spellings_are_refused_too() {
        for arguments in [
            &["--kv_transfer_config", "{}"][..],
            &["--kv-transfer-config={}"],
            &["--kv-transfer-config.kv_connector", "x"],
            &["--kv-transfer-conf", "{}"],
            &["--enable-lor"],
            &["--data-parallel-size=2"],
            &["--tensor-parallel-size", "2", "--cpu_offload_gb=4"],
        ] {
            check(arguments).expect_err("forbidden");
        }
    }

    #[test]
    fn ordinary_options_pass() {
        check(&[
            "--model",
            "m",
            "--max-model-len",
            "4096",
            "--tensor-parallel-size",
            "8",
            "--data-parallel-size=1",
        ])
        .expect("allowed");
        check(&["--parallel", "4", "--context", "4096", "serve", "host"]).expect("allowed");
    }

    #[test]
    fn variables_are_refused() {
        for (name, _) in VARIABLES {
            check_environment(&BTreeMap::from([((*name).to_owned(), "1".to_owned())])).expect_err(name);
        }
        check_environment(&BTreeMap::from([("CUDA_VISIBLE_DEVICES".to_owned(), "0".to_owned())])).expect("allowed");
    }
}
