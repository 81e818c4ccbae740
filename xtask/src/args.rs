//! Command-line arguments: `--name value`, `--name=value` and `--name`, in any order.

use std::{ffi::OsString, fmt::Display, str::FromStr};

use crate::error::{Error, Result};

/// What is left of the command line. Each reader removes what it read, and [`Arguments::finish`] refuses the rest.
#[derive(Debug)]
pub(crate) struct Arguments {
    rest: Vec<String>,
}

impl Arguments {
    /// Takes the arguments of the process without its name.
    ///
    /// # Errors
    ///
    /// An argument that is not UTF-8.
    pub(crate) fn new(arguments: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let rest = arguments
            .into_iter()
            .map(|argument| {
                argument
                    .into_string()
                    .map_err(|argument| Error::usage(format!("the argument {} is not UTF-8", argument.display())))
            })
            .collect::<Result<_>>()?;
        Ok(Self { rest })
    }

    /// Removes and returns the first argument if it is not an option: the name of a subcommand.
    pub(crate) fn subcommand(&mut self) -> Option<String> {
        let first = self.rest.first()?;
        (!first.starts_with('-')).then(|| self.rest.remove(0))
    }

    /// Whether the option `name` is given; it takes no value.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.rest.len();
        self.rest.retain(|argument| argument != name);
        self.rest.len() < before
    }

    /// Value of the option `name`, if it is given.
    ///
    /// # Errors
    ///
    /// The option is given twice, has no value, or one that is no `T`.
    pub(crate) fn value<T>(&mut self, name: &str) -> Result<Option<T>>
    where
        T: FromStr<Err: Display>,
    {
        let Some(text) = self.take(name)? else { return Ok(None) };
        if self.take(name)?.is_some() {
            return Err(Error::usage(format!("{name} is given twice: give it once")));
        }
        text.parse()
            .map(Some)
            .map_err(|error| Error::usage(format!("{name} cannot be {text:?}: {error}")))
    }

    /// Refuses arguments that nothing has read.
    pub(crate) fn finish(self) -> Result<()> {
        match self.rest.first() {
            None => Ok(()),
            Some(argument) => Err(Error::usage(format!(
                "unknown argument {argument:?}: see `cargo xtask help`"
            ))),
        }
    }

    fn take(&mut self, name: &str) -> Result<Option<String>> {
        let joined = format!("{name}=");
        let Some(at) = self
            .rest
            .iter()
            .position(|argument| argument == name || argument.starts_with(&joined))
        else {
            return Ok(None);
        };
        let argument = self.rest.remove(at);
        if let Some(value) = argument.strip_prefix(&joined) {
            return Ok(Some(value.to_owned()));
        }
        if self.rest.get(at).is_none_or(|next| next.starts_with("--")) {
            return Err(Error::usage(format!("{name} needs a value: {name} VALUE")));
        }
        Ok(Some(self.rest.remove(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Arguments {
        Arguments::new(line.split_whitespace().map(OsString::from)).unwrap()
    }

    #[test]
    fn reads_options_in_both_forms_and_any_order() {
        let mut arguments = arguments("up --tenants=2 --check --port 8090");
        assert_eq!(arguments.subcommand().as_deref(), Some("up"));
        assert_eq!(arguments.value::<u16>("--port").unwrap(), Some(8090));
        assert_eq!(arguments.value::<usize>("--tenants").unwrap(), Some(2));
        assert_eq!(arguments.value::<usize>("--replicas").unwrap(), None);
        assert!(arguments.flag("--check"));
        assert!(!arguments.flag("--check"));
        arguments.finish().unwrap();
    }

    #[test]
    fn an_option_is_no_subcommand() {
        assert_eq!(arguments("--port 1").subcommand(), None);
        assert_eq!(arguments("").subcommand(), None);
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for (line, text) in [
            ("--port", "needs a value"),
            ("--port --tenants 2", "needs a value"),
            ("--port 70000", "cannot be \"70000\""),
            ("--port 1 --port 2", "given twice"),
        ] {
            let error = arguments(line).value::<u16>("--port").unwrap_err();
            assert!(error.to_string().contains(text), "{line}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
        let error = arguments("--prot 1").finish().unwrap_err();
        assert!(error.to_string().contains("--prot"), "{error}");
    }
}
