//! The exit codes of this program.

/// The exit codes, as they stand at the end of `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done; rows that an import rejected are counted and listed, and do not change this
  1    failed in a way that the other codes do not cover
  64   wrong usage or settings; all wrong settings are listed at once
  65   invalid input: not gzip, not CSV, truncated, other columns; `publish`: at least one line was rejected;
       `import`, `publish`: the broker refuses single events
  66   the input file is missing or cannot be opened
  69   the broker cannot be reached, or does not take the events
  70   internal error: a bug in the program
  73   a store cannot be created or opened
  74   reading or writing a store or file failed
  130  stopped by SIGINT or SIGTERM: the confirmed events are reported, and a second signal ends at once";
