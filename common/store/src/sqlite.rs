//! A store in an SQLite file, the default: one file for each role and nothing else to install.
//!
//! Every write is one `BEGIN IMMEDIATE` transaction in a write-ahead log with `synchronous=FULL`: a commit that was
//! answered is on disk. There are three connections. One belongs to a single thread, writes, and reads the rows of a
//! batch. A second one lists and counts, so that an export or a status never delays a batch. A third one reads single
//! entities, so that neither of the others delays a query.
//!
//! Several processes may have the same file open, but only on a local disk: network file systems do not keep the locks
//! that this relies on.

mod audit;
mod backups;
mod columns;
mod commit;
mod db;
mod dead_letters;
mod deferred;
mod epochs;
mod error;
mod file;
mod identity;
mod inline_reader;
mod load;
mod options;
mod outbox;
mod overflow;
mod prune;
mod scan;
mod source_owners;
mod sources;
mod tasks;
mod thread;
mod totals;

use std::path::{Path, PathBuf};

use doorstep_event::{Sequence, Source, StreamKey, Timestamp};

pub use self::{
    backups::{Backup, InPlace, RestoredFrom},
    file::OldOutbox,
    options::Options,
};
use self::{
    db::Db,
    error::{SqliteError, StorePath},
    file::{Access, Opened},
    inline_reader::InlineReader,
    thread::Worker,
};
use crate::{
    AuditFilter, AuditId, AuditPage, Beat, ClaimTasks, Claimed, Commit, DeadLetter,
    DeadLetterFilter, DeadLetterGroup, DeadLetterId, DeferredEvent, EntityKey, EntityRow,
    HolderRow, KeptLog, OutboxRow, OwnEpochs, ReadResult, ReadSet, Result, SequenceGap, SourceRow,
    Store, StoreUsage, StreamRow, Streamless, Summary, TableUsage, TaskFilter, TaskHolder, TaskId,
    TaskProgress, TaskRow, WriteSet,
};

/// A store in an SQLite file. Clones share its connections, which close with the last of them.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    source: Source,
    access: Access,
    glance: InlineReader,
    writer: Worker,
    reader: Worker,
    place: StorePath,
    max_log_bytes: u64,
}

/// The maximum of missed events that one transaction makes due.
const REPAIR_PAGE: usize = 1_000;
/// The maximum of entities to read inline, on the caller's thread.
const INLINE_READ: usize = 8;

impl SqliteStore {
    /// Opens the store of a role, `FOLDER/ROLE.sqlite3`. Creates a missing one with a new, unique source. Blocks while
    /// it reads and writes a few pages.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: the folder cannot be created or written, or the file is not a store of this role in a
    /// schema version that this program knows. [`StoreError::Unavailable`]: another process has kept the file locked,
    /// or the disk is full or has failed.
    pub fn open(folder: &Path, role: &str, options: &Options) -> Result<Self> {
        Self::opened(folder, role, Access::Create, options)
    }

    /// Opens the existing store of a role for reading and writing, as an operator's command does beside the role.
    ///
    /// # Errors
    /// As [`SqliteStore::open`], and [`StoreError::Unusable`] if there is no such file; none is created.
    pub fn open_existing(folder: &Path, role: &str, options: &Options) -> Result<Self> {
        Self::opened(folder, role, Access::Existing, options)
    }

    /// Opens the existing store of a role for reading, as status and export do beside the role. Every write fails with
    /// [`StoreError::Unusable`].
    ///
    /// # Errors
    /// As [`SqliteStore::open_existing`].
    pub fn open_read_only(folder: &Path, role: &str, options: &Options) -> Result<Self> {
        Self::opened(folder, role, Access::ReadOnly, options)
    }

    /// Gives a store that was restored from a copy a new source, and returns it. The original store has gone on
    /// numbering after the copy was made, so the same sequences under the same source would name other events.
    /// Sequences start again from 1 under the new source. A process that has the store open can no longer write to it.
    /// Rows of the outbox keep the old source. `record` is written in the same transaction.
    ///
    /// # Errors
    /// As [`SqliteStore::open_existing`].
    pub fn mint_source(
        folder: &Path,
        role: &str,
        outbox: OldOutbox,
        record: &WriteSet,
        options: &Options,
    ) -> Result<Source> {
        file::mint_source(folder, role, outbox, record, options)
    }

    /// Checks that no process has the store open. Blocks for a moment.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: a process has it open. Otherwise as [`SqliteStore::open_existing`].
    pub fn require_alone(folder: &Path, role: &str, options: &Options) -> Result<()> {
        backups::require_alone(folder, role, options)
    }

    /// Copies the store into a new file, readable by its owner alone, while roles go on using it. The copy is of one
    /// moment. Blocks until it is on disk and was read back completely.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: there is no store, `to` exists already or cannot be written, or the store is damaged.
    /// [`StoreError::Unavailable`]: the disk is full or has failed. No file is left under the name `to`.
    pub fn backup(folder: &Path, role: &str, to: &Path, options: &Options) -> Result<Backup> {
        backups::backup(folder, role, to, options)
    }

    /// Returns the bytes written so far of a backup to this file, 0 before and after; at most the size of the store's
    /// files.
    #[must_use]
    pub fn backup_written(to: &Path) -> u64 {
        backups::written(to)
    }

    /// Returns the size of a store's files in bytes, 0 if there are none.
    #[must_use]
    pub fn size(folder: &Path, role: &str) -> u64 {
        backups::size(&file::path(folder, role))
    }

    /// Replaces a role's store by a backup, marked as restored. Nothing is deleted. Blocks until the new store is on
    /// disk.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: `from` is no sound backup of this role, or a store exists and is not to be moved.
    /// [`StoreError::Unavailable`]: a process has that store open, or the disk is full or has failed.
    pub fn restore(
        folder: &Path,
        role: &str,
        from: &Path,
        in_place: InPlace,
        now: Timestamp,
        options: &Options,
    ) -> Result<RestoredFrom> {
        backups::restore(folder, role, from, in_place, now, options)
    }

    /// Waits until the last clone is gone and the connections are closed, which checkpoints the write-ahead log into
    /// the file. A program that ends earlier leaves a log behind: harmless, but it has to be copied along with the
    /// file.
    ///
    /// Waits for as long as there are clones, so give it a timeout. May be cancelled; the connections close all the
    /// same.
    pub async fn close(self) {
        let Self {
            glance,
            writer,
            reader,
            ..
        } = self;
        drop(glance);
        // The last connection to close also deletes the log, so the one that may write closes last.
        reader.close().await;
        writer.close().await;
    }

    /// Returns the path of a role's store.
    #[must_use]
    pub fn path(folder: &Path, role: &str) -> PathBuf {
        file::path(folder, role)
    }

    /// Returns true if there is a store. A file that a role has only begun to create does not count. If the file cannot
    /// be examined, the answer is true, so that opening it reports the cause. Blocks for a moment.
    #[must_use]
    pub fn exists(folder: &Path, role: &str) -> bool {
        file::exists(folder, role)
    }

    /// Returns true if there is a store of an older schema version, which [`SqliteStore::open`] would migrate. An earlier version of the
    /// program cannot open it afterwards. Blocks for a moment.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: it is not a store of a schema version that this program knows. [`StoreError::Unavailable`]: it cannot be
    /// read now.
    pub fn needs_migration(folder: &Path, role: &str) -> Result<bool> {
        if !Self::exists(folder, role) {
            return Ok(false);
        }
        let place = file::place(folder, role)?;
        file::needs_migration(&place).map_err(|stop| match stop {
            SqliteError::Sql(error) => place.not_opened(&error),
            stop => place.stopped(stop),
        })
    }

    /// The file beside a role's store for dead letters of no stream that exceed the store's bounds. It is created on
    /// first use.
    #[must_use]
    pub fn overflow_path(folder: &Path, role: &str) -> PathBuf {
        overflow::OverflowFile::beside(&file::path(folder, role))
            .path()
            .to_owned()
    }

    fn opened(folder: &Path, role: &str, access: Access, options: &Options) -> Result<Self> {
        let Opened { db, source } = file::open(folder, role, access, options)?;
        let reading = Options {
            cache_kib: options.cache_kib.min(options::READER_CACHE_KIB),
            ..options.clone()
        };
        let mut reader = file::open(folder, role, Access::ReadOnly, &reading)?;
        let mut glance = file::open(folder, role, Access::ReadOnly, &reading)?;
        let place = glance.db.place.clone();
        for other in [&mut reader, &mut glance] {
            let shared = other.db.identity.share(&db.identity);
            shared.map_err(|e| place.unavailable(format!("{e}; try again")))?;
        }
        Ok(Self {
            source,
            access,
            glance: InlineReader::with(glance.db).map_err(|e| place.not_opened(&e))?,
            writer: Worker::start(format!("{role} store"), db)?,
            reader: Worker::start(format!("{role} scan"), reader.db)?,
            place,
            max_log_bytes: options.max_log_bytes(),
        })
    }

    /// Runs a call that writes.
    async fn write<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Db) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T> {
        let access = self.access;
        self.writer
            .run(move |db| match access {
                Access::Create | Access::Existing => call(db),
                Access::ReadOnly => Err(SqliteError::Unusable(
                    "it was opened for reading only".into(),
                )),
            })
            .await
    }
}

impl Store for SqliteStore {
    fn source(&self) -> &Source {
        &self.source
    }

    async fn load(&self, ask: ReadSet) -> Result<ReadResult> {
        self.writer.run(move |db| load::load(db, &ask)).await
    }

    async fn read_entities(&self, entities: Vec<EntityKey>) -> Result<Vec<EntityRow>> {
        if entities.len() <= INLINE_READ
            && let Some(rows) = self.glance.read(|db| load::read_entities(db, &entities))
        {
            return Ok(rows);
        }
        self.reader
            .run(move |db| load::read_entities(db, &entities))
            .await
    }

    async fn commit(&self, changes: WriteSet) -> Result<Commit> {
        self.write(move |db| commit::commit(db, &changes)).await
    }

    async fn due(
        &self,
        now: Timestamp,
        limit: usize,
        max_bytes: u64,
    ) -> Result<Vec<DeferredEvent>> {
        self.writer
            .run(move |db| {
                db.identity.check()?;
                deferred::due(db, now, limit, max_bytes)
            })
            .await
    }

    async fn repair_due(&self, now: Timestamp) -> Result<u64> {
        let mut made_due = 0;
        loop {
            let ids = self
                .reader
                .run(|db| deferred::missed_due(db, REPAIR_PAGE))
                .await?;
            if ids.is_empty() {
                return Ok(made_due);
            }
            let now_due = self
                .write(move |db| deferred::make_due(db, &ids, now))
                .await?;
            if now_due == 0 {
                return Ok(made_due);
            }
            made_due += now_due;
        }
    }

    async fn clamp_due_times(&self, now: Timestamp, beyond: Timestamp) -> Result<u64> {
        self.write(move |db| deferred::clamp_due_times(db, now, beyond))
            .await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>> {
        self.writer.run(deferred::next_due).await
    }

    async fn outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<OutboxRow>> {
        self.writer
            .run(move |db| {
                // The outbox of a stale store may have been published by its successor under other sequences.
                db.identity.check()?;
                outbox::outbox(db, now, limit)
            })
            .await
    }

    async fn entities(&self, after: Option<EntityKey>, limit: usize) -> Result<Vec<EntityRow>> {
        self.reader
            .run(move |db| scan::entities(db, after.as_ref(), limit))
            .await
    }

    async fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        self.reader
            .run(move |db| dead_letters::dead(db, &filter, after.as_ref(), limit))
            .await
    }

    async fn dead_letter_groups(&self, limit: usize) -> Result<Vec<DeadLetterGroup>> {
        self.reader
            .run(move |db| audit::dead_letter_groups(db, limit))
            .await
    }

    async fn deferred_sequences(
        &self,
        stream: StreamKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Sequence>> {
        self.reader
            .run(move |db| audit::deferred_sequences(db, &stream, after, limit))
            .await
    }

    async fn audit(
        &self,
        filter: AuditFilter,
        before: Option<AuditId>,
        limit: usize,
    ) -> Result<AuditPage> {
        self.reader
            .run(move |db| audit::audit(db, &filter, before, limit))
            .await
    }

    async fn gaps(
        &self,
        older_than: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<SequenceGap>> {
        self.reader
            .run(move |db| scan::gaps(db, older_than, now, limit))
            .await
    }

    async fn prune_seen(&self, older_than: Timestamp, limit: usize) -> Result<u64> {
        self.write(move |db| prune::prune_seen(db, older_than, limit))
            .await
    }

    async fn prune_crash_counts(&self, older_than: Timestamp, limit: usize) -> Result<u64> {
        self.write(move |db| prune::prune_crash_counts(db, older_than, limit))
            .await
    }

    async fn prune_replies(&self, older_than: Timestamp, limit: usize) -> Result<u64> {
        self.write(move |db| prune::prune_replies(db, older_than, limit))
            .await
    }

    async fn trim_log(&self) -> Result<Option<KeptLog>> {
        let (file, max_bytes) = (self.place.file.clone(), self.max_log_bytes);
        let above = |place: &StorePath| place.log_bytes().filter(|bytes| *bytes > max_bytes);
        if above(&self.place).is_none() {
            return Ok(None);
        }
        self.write(Db::trim_log).await?;
        Ok(above(&self.place).map(|bytes| KeptLog {
            file,
            bytes,
            max_bytes,
        }))
    }

    async fn streamless(&self, least: TableUsage, limit: usize) -> Result<Streamless> {
        self.reader
            .run(move |db| scan::streamless(db, least, limit))
            .await
    }

    async fn claim_tasks(&self, ask: ClaimTasks) -> Result<Claimed> {
        self.write(move |db| tasks::claim(db, &ask)).await
    }

    async fn beat_tasks(
        &self,
        holder: TaskHolder,
        progress: Vec<TaskProgress>,
        now: Timestamp,
    ) -> Result<Beat> {
        self.write(move |db| tasks::beat(db, holder, &progress, now))
            .await
    }

    async fn task_holders(&self) -> Result<Vec<HolderRow>> {
        self.reader.run(tasks::holders).await
    }

    async fn take_over_tasks(
        &self,
        holder: TaskHolder,
        beat: u64,
        now: Timestamp,
    ) -> Result<Option<u64>> {
        self.write(move |db| tasks::take_over(db, holder, beat, now))
            .await
    }

    async fn clamp_task_times(&self, now: Timestamp, beyond: Timestamp) -> Result<u64> {
        self.write(move |db| tasks::clamp_due_times(db, now, beyond))
            .await
    }

    async fn end_holder(&self, holder: TaskHolder, now: Timestamp) -> Result<()> {
        self.write(move |db| tasks::end_holder(db, holder, now))
            .await
    }

    async fn read_tasks(&self, ids: Vec<TaskId>) -> Result<Vec<Option<TaskRow>>> {
        self.reader.run(move |db| tasks::read(db, &ids)).await
    }

    async fn tasks(
        &self,
        filter: TaskFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<TaskRow>> {
        self.reader
            .run(move |db| tasks::list(db, &filter, after, limit))
            .await
    }

    async fn usage(&self) -> Result<StoreUsage> {
        self.reader.run(scan::usage).await
    }

    async fn summary(&self, now: Timestamp) -> Result<Summary> {
        self.reader.run(move |db| scan::summary(db, now)).await
    }

    async fn epochs(&self) -> Result<OwnEpochs> {
        self.reader.run(epochs::own_epochs).await
    }

    async fn sources(&self, after: Option<Source>, limit: usize) -> Result<Vec<SourceRow>> {
        self.reader
            .run(move |db| source_owners::sources(db, after.as_ref(), limit))
            .await
    }

    async fn streams(&self, after: Option<StreamKey>, limit: usize) -> Result<Vec<StreamRow>> {
        self.reader
            .run(move |db| scan::streams(db, after.as_ref(), limit))
            .await
    }
}
