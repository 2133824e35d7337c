//! The part of an import that depends on the kind of file: its columns, which of its rows belong together, and which events they become.

use std::collections::HashMap;

use doorstep_event::{Event, Source};

use super::table::{Column, Row};

/// The rows of one kind of file as events.
///
/// Rows belong to units that the file names, such as invoices. The same rows in the same order make the same events, with the same ids and
/// sequences: that is what lets an import be killed and run again.
pub(crate) trait RowMapper: Send + 'static {
    /// The kind of file, as it stands in the source.
    const NAME: &'static str;
    /// The word for a unit, for messages.
    const UNIT: &'static str;
    /// The columns; rows are asked for fields by these indices, wherever a column stands in the file.
    const COLUMNS: &'static [Column];
    /// The type of which an imported row becomes exactly one event: counted, it proves the import's sums.
    const ROW_EVENT: &'static str;

    /// Returns the name of the unit that a row belongs to.
    ///
    /// # Errors
    /// Says why the row names none.
    fn unit<'r>(&self, row: &'r Row<'_>) -> Result<&'r [u8], String>;

    /// Appends what the row says, in one form however the file wrote it.
    ///
    /// # Errors
    /// Says why the row is refused.
    fn normalise(&self, row: &Row<'_>, form: &mut Vec<u8>) -> Result<(), String>;

    /// Begins the events of a source, which come from these units; the number of rows of each, refused ones included.
    fn begin(&self, units: HashMap<Box<[u8]>, u64>) -> Self;

    /// Makes the events that are due with this row, of which some may belong to earlier rows.
    ///
    /// # Errors
    /// Says why this row is refused. Nothing of it went into any event, and no number was used up for it; events of earlier rows that
    /// were waiting for it are in `events` all the same.
    fn events(
        &mut self,
        source: &Source,
        row: &Row<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), String>;

    /// Returns the number of units that wait for rows: none at the end.
    fn pending(&self) -> usize;
}
