//! The commands `store backup`, `restore`, `restored` and `accept`, which programs with stores have in common.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use doorstep_event::{Source, Timestamp};
use doorstep_runtime::operate::{self, Attribution};
use doorstep_store::{
    SqliteStore, StoreError,
    sqlite::{InPlace, OldOutbox, Options},
};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::time::interval;

use crate::{
    CliError, ReasonArgs, SettingsErrors,
    output::{print, print_json, print_line, progress_bar},
};

/// The arguments of a command on a copy, after those that name the store.
#[derive(Debug, Args)]
#[group(skip)]
pub struct OnCopy<P: Args, C: Args> {
    #[command(flatten)]
    pub place: P,

    #[command(flatten)]
    pub copy: C,
}

/// The target of a copy.
#[derive(Debug, Args)]
#[group(skip)]
pub struct BackupArgs {
    /// The file to write, or a folder for one that is named by role and time.
    #[arg(long, value_name = "FILE|FOLDER")]
    to: PathBuf,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// The backup to restore.
#[derive(Debug, Args)]
#[group(skip)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,

    /// Rename the store in its place, rather than fail.
    #[arg(long)]
    move_aside: bool,
}

/// The arguments with which a store gets a source of its own.
#[derive(Debug, Args)]
#[group(skip)]
pub struct RestoredArgs {
    /// Publish the rows of the outbox under the old source, unchanged: consumers drop those that they had before as
    /// duplicates.
    #[arg(long)]
    keep_outbox: bool,

    #[command(flatten)]
    record: ReasonArgs,
}

/// A job on copies of a store.
#[derive(Debug)]
pub enum CopyJob {
    /// Copy the store while it is in use.
    Backup(BackupArgs),
    /// Replace the store by a backup.
    Restore(RestoreArgs),
    /// Give the store a source of its own.
    Restored {
        /// The fate of the rows of its outbox.
        outbox: OldOutbox,
        /// The operator, time and reason.
        by: Attribution,
    },
    /// Accept that the store, or that of this source, was restored.
    Accept {
        /// The source, if another program's store was restored.
        source: Option<Source>,
        /// The operator, time and reason.
        by: Attribution,
    },
}

impl RestoredArgs {
    /// Validates operator and reason.
    pub fn check(&self, wrong: &mut SettingsErrors) -> Option<CopyJob> {
        let outbox = if self.keep_outbox {
            OldOutbox::Keep
        } else {
            OldOutbox::MustBeEmpty
        };
        let by = self.record.by(wrong)?;
        Some(CopyJob::Restored { outbox, by })
    }
}

/// A store, with the words that its program uses for it.
#[derive(Debug, Clone, Copy)]
pub struct StorePlace<'a> {
    pub folder: &'a Path,
    pub role: &'static str,
    /// The command of which `backup` and the others are part, such as `consumers store`.
    pub command: &'static str,
    /// The words after them that name the role: its name with a blank before it, or nothing.
    pub named: &'a str,
    /// The command that creates such a store.
    pub created_by: &'a str,
    /// The sign of a restored store.
    pub restored_sign: &'static str,
}

impl StorePlace<'_> {
    /// Runs the job.
    ///
    /// # Errors
    /// There is no store, another process uses it, a file cannot be read or written, a backup is damaged, or there is
    /// nothing to accept.
    pub async fn work(&self, job: CopyJob) -> Result<(), CliError> {
        match job {
            CopyJob::Backup(args) => self.backup(args.to, args.json).await,
            CopyJob::Restore(args) => {
                let in_place = if args.move_aside {
                    InPlace::MoveAside
                } else {
                    InPlace::Refuse
                };
                self.restore(args.from, in_place).await
            }
            CopyJob::Restored { outbox, by } => self.restored(outbox, by).await,
            CopyJob::Accept { source, by } => self.accept(source, by).await,
        }
    }

    /// Checks that there is a store.
    ///
    /// # Errors
    /// There is none.
    fn require(&self) -> Result<(), CliError> {
        let Self { folder, role, .. } = self;
        if SqliteStore::exists(folder, role) {
            return Ok(());
        }
        Err(no_store(folder, role, self.created_by))
    }

    async fn backup(&self, to: PathBuf, json: bool) -> Result<(), CliError> {
        self.require()?;
        let (role, folder) = (self.role, self.folder.to_owned());
        let to = if to.is_dir() {
            let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
            to.join(format!("{role}-{stamp}.sqlite3"))
        } else {
            to
        };
        let file = to.clone();
        let bar = copying(role, SqliteStore::size(&folder, role));
        let copied = blocking(move || SqliteStore::backup(&folder, role, &to, &Options::default()));
        let made = shown(&bar, &file, copied).await?;
        if json {
            return print_json(&BackupView {
                role,
                file,
                bytes: made.bytes,
                source: made.source.to_string(),
                epoch: made.epoch.map(|epoch| epoch.to_string()),
            });
        }
        print_line(&format!(
            "{role} is copied to {}: {} bytes, read back whole",
            file.display(),
            made.bytes
        ))
    }

    async fn restore(&self, from: PathBuf, in_place: InPlace) -> Result<(), CliError> {
        let (role, folder) = (self.role, self.folder.to_owned());
        let done = blocking(move || {
            let now = Timestamp::now();
            SqliteStore::restore(&folder, role, &from, in_place, now, &Options::default())
        })
        .await?;
        let Self { command, named, .. } = self;
        print(|out| {
            for file in &done.aside {
                writeln!(out, "moved aside: {}", file.display())?;
            }
            writeln!(
                out,
                "{} is restored. It numbers anew what it had numbered since the backup, so before it is started:\n  \
                 {command} restored{named} --reason TEXT   gives it a source of its own\n\
                 What it had applied since the backup does not come again by itself. When that is dealt with:\n  \
                 {command} accept{named} --reason TEXT     ends its being degraded",
                done.file.display()
            )
        })
    }

    async fn restored(&self, outbox: OldOutbox, by: Attribution) -> Result<(), CliError> {
        self.require()?;
        let (role, folder) = (self.role, self.folder.to_owned());
        let source = blocking(move || {
            let options = Options::default();
            SqliteStore::require_alone(&folder, role, &options)?;
            let record = operate::record_of_new_source(by);
            SqliteStore::mint_source(&folder, role, outbox, &record, &options)
        })
        .await?;
        print_line(&format!(
            "{role} numbers under {source} from now on, each stream from 1"
        ))
    }

    async fn accept(&self, source: Option<Source>, by: Attribution) -> Result<(), CliError> {
        self.require()?;
        let Self { role, folder, .. } = self;
        let store = SqliteStore::open_existing(folder, role, &Options::default())?;
        let accepted = operate::accept_restored(&store, source.as_ref(), by).await?;
        let subject = source.map_or_else(
            || format!("the store of {role}"),
            |source| source.to_string(),
        );
        if accepted {
            return print_line(&format!("{subject} is accepted"));
        }
        Err(CliError::missing(format!(
            "{subject} is not recorded as restored; {} tells what is",
            self.restored_sign
        )))
    }
}

/// The interval between two updates of a copy's progress.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Creates a progress bar, shown if standard error is a terminal. A copy has no free pages, so it is smaller than its
/// store.
fn copying(role: &str, at_most: u64) -> ProgressBar {
    let template =
        "{spinner} {prefix} [{bar:30}] {bytes} of at most {total_bytes} copied, then read back";
    let bar = progress_bar(Some(at_most), template);
    bar.set_prefix(role.to_owned());
    bar
}

/// Shows the size of a copy until it is complete.
async fn shown<T>(bar: &ProgressBar, to: &Path, copied: impl Future<Output = T>) -> T {
    let mut timer = interval(POLL_INTERVAL);
    let mut copied = std::pin::pin!(copied);
    loop {
        // The timer may be dropped at any time.
        tokio::select! {
            biased;
            made = &mut copied => {
                bar.finish_and_clear();
                return made;
            }
            _ = timer.tick() => {
                bar.set_position(SqliteStore::backup_written(to));
                bar.tick();
            }
        }
    }
}

#[derive(Serialize)]
struct BackupView {
    role: &'static str,
    file: PathBuf,
    bytes: u64,
    source: String,
    epoch: Option<String>,
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, CliError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|e| CliError::internal(e.to_string()))??)
}

/// Returns the error for a missing store, which names the command that creates it.
#[must_use]
pub fn no_store(folder: &Path, role: &str, created_by: &str) -> CliError {
    CliError::missing(format!(
        "there is no store of {role} in {}: `{created_by}` creates it; another folder is named by --data-dir or DOORSTEP_DATA_DIR",
        folder.display(),
    ))
}
