//! Meanings of this program's exit codes.

/// The exit codes, as they stand at the end of `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed in a way that the other codes do not cover
  3    `user`: there is such a user already, or none, or only one operator
  64   wrong usage or settings; all wrong settings are listed at once
  66   `user list`, `store`: there is no store, or nothing to accept
  70   broke off: a mistake in the program
  73   a store cannot be created or opened
  74   reading or writing a store or file failed
  130  stopped by a second SIGINT or SIGTERM";
