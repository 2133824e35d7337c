//! The part of an import that depends on the kind of file: its columns, its units of rows, and their events.

use std::collections::HashMap;

use doorstep_event::{Event, Source};

use super::table::{Column, Row};

/// The mapping of one kind of file to events.
///
/// Rows belong to units that the file names, such as invoices. The same rows in the same order make the same events,
/// with the same ids and sequences. So an import may be killed and run again.
pub(crate) trait RowMapper: Send + 'static {
    /// The kind of file, as it stands in the source.
    const NAME: &'static str;
    /// The word for a unit, for messages.
    const UNIT: &'static str;
    /// The columns. Rows return fields by these indices, independent of the order of columns in the file.
    const COLUMNS: &'static [Column];
    /// The type of which every imported row becomes exactly one event; its count proves the import's sums.
    const ROW_EVENT: &'static str;

    /// Returns the name of the unit that a row belongs to.
    ///
    /// # Errors
    /// The reason why the row names none.
    fn unit<'r>(&self, row: &'r Row<'_>) -> Result<&'r [u8], String>;

    /// Appends the row's content in one form, independent of the form of the file.
    ///
    /// # Errors
    /// The reason why the row is rejected.
    fn normalise(&self, row: &Row<'_>, form: &mut Vec<u8>) -> Result<(), String>;

    /// Begins the events of a source with these units and the number of rows of each, rejected ones included.
    fn begin(&self, units: HashMap<Box<[u8]>, u64>) -> Self;

    /// Appends the events that are due with this row, some of which may belong to earlier rows.
    ///
    /// # Errors
    /// The reason why this row is rejected. It is part of no event and has used up no number. Events of earlier rows
    /// that waited for it are in `events` all the same.
    fn events(
        &mut self,
        source: &Source,
        row: &Row<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), String>;

    /// Returns the number of units that wait for rows: none at the end.
    fn pending(&self) -> usize;
}
