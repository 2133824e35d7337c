//! `producer user`: adds users and ends their sessions, beside a gateway that may be running on the same store.

use std::{
    env::{self, VarError},
    io::{self, BufRead, IsTerminal},
    path::PathBuf,
};

use doorstep_program::{Failure, Reason, output::print};

use super::{
    auth::{MAX_CHARS, Password, hash},
    books::{Books, BooksError},
    role::{AddUser, RevokeTokens, Standing, UserName},
};

/// Where a password may stand beside standard input.
const VARIABLE: &str = "DOORSTEP_USER_PASSWORD";

/// What to do about a user.
#[derive(Debug)]
pub(crate) enum UserJob {
    /// Add one.
    Add {
        /// Where the gateway's store is.
        folder: PathBuf,
        /// Who.
        name: UserName,
        /// As what.
        standing: Standing,
    },
    /// End all sessions of one.
    Revoke {
        /// Where the gateway's store is.
        folder: PathBuf,
        /// Whose.
        name: UserName,
    },
}

/// Does it.
///
/// # Errors
/// There is such a user already, or none; the password cannot be read or used; the store cannot be used.
pub(crate) async fn run(job: UserJob) -> Result<(), Failure> {
    match job {
        UserJob::Add {
            folder,
            name,
            standing,
        } => {
            let hash = hash(&password()?).map_err(|e| Failure::new(Reason::Failed, e))?;
            let add = AddUser {
                name: name.clone(),
                standing,
                hash,
            };
            let books = Books::alone(super::open(&folder)?);
            books.obey(&add).await.map_err(failed)?;
            print(|out| writeln!(out, "{name} may log in"))
        }
        UserJob::Revoke { folder, name } => {
            let books = Books::alone(super::open(&folder)?);
            let revoke = RevokeTokens { name: name.clone() };
            books.obey(&revoke).await.map_err(failed)?;
            print(|out| {
                writeln!(
                    out,
                    "no token of {name} is good any more; a running gateway notices within 5 s"
                )
            })
        }
    }
}

/// The password: from the environment, or a line of standard input. Never an argument, which other users of the machine can read.
fn password() -> Result<Password, Failure> {
    let (from, text) = match env::var(VARIABLE) {
        Ok(text) => (VARIABLE, text),
        Err(VarError::NotUnicode(_)) => {
            let text = format!("{VARIABLE}: it is no UTF-8");
            return Err(Failure::new(Reason::Settings, text));
        }
        Err(VarError::NotPresent) => {
            if io::stdin().is_terminal() {
                eprintln!(
                    "type the password and Enter; it is shown as you type, so rather pipe it in or set {VARIABLE}"
                );
            }
            ("standard input", line()?)
        }
    };
    Password::try_from(text).map_err(|e| Failure::new(Reason::Settings, format!("{from}: {e}")))
}

fn line() -> Result<String, Failure> {
    let mut line = String::new();
    let mut input = io::Read::take(io::stdin().lock(), MAX_CHARS as u64 * 4 + 3);
    input
        .read_line(&mut line)
        .map_err(|e| Failure::new(Reason::Io, format!("the password cannot be read: {e}")))?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

fn failed(error: BooksError) -> Failure {
    match error {
        BooksError::Refused(refused) => Failure::new(Reason::Settled, refused.detail),
        error @ (BooksError::Overloaded { .. } | BooksError::Away(_)) => {
            Failure::new(Reason::Io, error.to_string())
        }
    }
}
