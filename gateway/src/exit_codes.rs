//! Meanings of this program's exit codes.

/// The exit codes, as they stand at the end of `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed in a way that the other codes do not cover
  3    `user`: the user exists already, does not exist, or is the only operator
  64   invalid usage or settings; all invalid settings are listed at once
  65   `serve`: the file of the signing key is damaged
  66   `user list`, `store`: there is no store, or nothing to accept
  70   internal error: a bug in the program
  73   a store cannot be created or opened
  74   reading or writing a store or file failed
  130  stopped by a second SIGINT or SIGTERM";
