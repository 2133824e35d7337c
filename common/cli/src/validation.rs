//! Errors in the settings, collected so that all are reported at once.

use std::fmt::Display;

use crate::{CliError, ExitReason};

/// The errors found so far.
#[derive(Debug, Default)]
pub struct SettingsErrors(Vec<String>);

impl SettingsErrors {
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
            ([one], _) => Err(CliError::new(ExitReason::Settings, one.clone())),
            (many, _) => {
                let lines: String = many.iter().map(|line| format!("\n  {line}")).collect();
                let text = format!("{} settings are wrong:{lines}", many.len());
                Err(CliError::new(ExitReason::Settings, text))
            }
        }
    }
}
