//! The meanings of this program's exit codes.

/// The exit codes, as they stand at the end of `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed in a way that the other codes do not cover
  2    `run --exit-when-idle`: all work is done, but an event is blocked, missing or a dead letter, the effect of a task
       is unknown, or a store is full;
       `dead-letters replay`: some were rejected again;
       `topology verify`: the broker differs;
       `health`: not every role does its work, or something is stuck
  3    `dead-letters`, `tasks`: already decided by another operator
  64   wrong usage or settings; all wrong settings are listed at once
  65   `dead-letters`: it cannot be replayed, or its new data would be rejected; `tasks`: it is running
  66   the store, entity, dead letter or task is not there; `report`: the period has nothing; `health`: no process responds
  69   the broker cannot be reached, or does not let the roles work
  70   a role has panicked: a bug in the program
  73   the store cannot be created or opened
  74   reading or writing a store or file failed
  75   too busy just now, try again
  78   `run`: a role's queue belongs to another store, and nothing is consumed from it; `store take-over`: it is in use
  130  interrupted before all was done, or ended at once by a second SIGINT or SIGTERM";
