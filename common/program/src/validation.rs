//! What is wrong with the settings: collected, so that all of it is told at once.

use std::fmt::Display;

use crate::{CliError, ExitReason};

/// What was found wrong so far.
#[derive(Debug, Default)]
pub struct SettingsErrors(Vec<String>);

impl SettingsErrors {
    /// Notes what is wrong under the name of its flag and variable, each thing once; the value where nothing is.
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

    /// The settings, if nothing was wrong.
    ///
    /// # Errors
    /// Lists all that was.
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
