//! What one kind of file is to the import: its columns, and which events its rows become.

use doorstep_event::{Event, Source};

use super::table::Row;

/// The rows of one kind of file as events. Fed every row in order, twice: first to look ahead, then to make events.
///
/// The same rows under the same options make the same events, with the same ids and sequences: that is what lets an import be killed
/// and run again.
pub(crate) trait Mapping: Send + 'static {
    /// The kind of file, as it stands in the source.
    const NAME: &'static str;
    /// The columns, in order.
    const COLUMNS: &'static [&'static str];
    /// The type of which an imported row becomes exactly one event: counted, it proves the import's sums.
    const ONE_PER_ROW: &'static str;

    /// The options that shape events, as part of what the source is named after.
    fn options(&self) -> String;

    /// Takes note of a row in the first reading.
    fn look_ahead(&mut self, row: &Row<'_>);

    /// Makes the events that are due with this row, of which some may belong to earlier rows.
    ///
    /// # Errors
    /// Why this row is refused. Nothing of it went into any event, and no number was used up for it; events of earlier rows that
    /// were waiting for it are in `events` all the same.
    fn events(
        &mut self,
        source: &Source,
        row: &Row<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), String>;

    /// How many rows wait for others before they can become events: none at the end.
    fn waiting(&self) -> usize;
}
