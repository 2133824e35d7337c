//! Errors in the settings, collected so that all are reported at once.

use std::{cell::RefCell, ffi::OsStr, fmt::Display};

use clap::{
    Arg, Command, Error,
    builder::TypedValueParser,
    error::{ErrorKind, Result as ClapResult},
};

use crate::CliError;

/// The errors found so far.
#[derive(Debug, Default)]
pub struct SettingsErrors(Vec<String>);

thread_local! {
    /// Errors of [`checked`] arguments. A parser of clap's can only return a value or end the parsing.
    static OF_ARGUMENTS: RefCell<SettingsErrors> = RefCell::default();
}

impl SettingsErrors {
    /// Takes the errors that parsers of [`checked`] arguments have found on this thread. Call once after the parsing, and drop the
    /// arguments if there are errors: a wrong one has another value.
    #[must_use]
    pub fn of_arguments() -> Self {
        OF_ARGUMENTS.take()
    }

    /// Returns true if there are none. Settings that depend on one another are compared only then: a wrong argument has another value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value, or records its error under the name of flag and variable, each error once.
    pub fn check<T, E: Display>(&mut self, name: &str, result: Result<T, E>) -> Option<T> {
        result
            .map_err(|error| {
                let line = format!("{name}: {error}");
                // Several parts of the settings may read the same argument.
                if !self.0.contains(&line) {
                    self.0.push(line);
                }
            })
            .ok()
    }

    /// Returns the settings if there were no errors.
    ///
    /// # Errors
    /// All errors found.
    pub fn into_result<T>(self, settings: Option<T>) -> Result<T, CliError> {
        match (self.0.as_slice(), settings) {
            ([], Some(settings)) => Ok(settings),
            ([one], _) => Err(CliError::settings(one.clone())),
            (many, _) => {
                let lines: String = many.iter().map(|line| format!("\n  {line}")).collect();
                let text = format!("{} settings are wrong:{lines}", many.len());
                Err(CliError::settings(text))
            }
        }
    }
}

/// Returns a parser that lets clap go on after an error, with the value of a valid `sample`, so that all errors are reported at once:
/// see [`SettingsErrors::of_arguments`].
pub fn checked<T: Clone + Send + Sync + 'static, E: Display>(
    parse: impl Fn(&str) -> Result<T, E> + Clone + Send + Sync + 'static,
    sample: impl Into<String>,
) -> impl TypedValueParser<Value = T> {
    Checked {
        parse,
        sample: sample.into(),
    }
}

#[derive(Clone)]
struct Checked<P> {
    parse: P,
    sample: String,
}

impl<P, T, E> TypedValueParser for Checked<P>
where
    P: Fn(&str) -> Result<T, E> + Clone + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    E: Display,
{
    type Value = T;

    fn parse_ref(&self, _: &Command, arg: Option<&Arg>, text: &OsStr) -> ClapResult<T> {
        let name = arg.map(name).unwrap_or_default();
        let value = match text.to_str() {
            Some(text) => (self.parse)(text).map_err(|error| error.to_string()),
            None => Err(format!("{text:?} is not UTF-8")),
        };
        let value = OF_ARGUMENTS.with_borrow_mut(|errors| errors.check(&name, value));
        value
            .map_or_else(|| (self.parse)(&self.sample), Ok)
            .map_err(|error| Error::raw(ErrorKind::ValueValidation, error))
    }
}

/// Returns the name of an argument as errors show it: `--flag (VARIABLE)`.
fn name(arg: &Arg) -> String {
    let flag = match (arg.get_long(), arg.get_value_names()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some([name, ..])) => name.to_string(),
        (None, _) => arg.get_id().as_str().to_uppercase(),
    };
    match arg.get_env() {
        Some(variable) => format!("{flag} ({})", variable.to_string_lossy()),
        None => flag,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn arguments_that_are_not_utf8_are_errors() {
        let word = Arg::new("word")
            .value_parser(checked(|text: &str| Ok::<_, String>(text.to_owned()), "x"));
        let command = Command::new("test").arg(word);
        let latin = OsStr::from_bytes(b"caf\xe9");
        command
            .try_get_matches_from([OsStr::new("test"), latin])
            .unwrap();
        let error = SettingsErrors::of_arguments()
            .into_result(Some(()))
            .unwrap_err();
        assert!(error.to_string().contains("is not UTF-8"), "{error}");
    }
}
