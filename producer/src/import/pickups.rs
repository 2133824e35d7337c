//! Courier pick-ups, one row a parcel: on `delivery/<order_id>` the assignment, then the GPS fixes by their time, then
//! the pick-up.
//!
//! - A fix keeps its own time even if that is before the assignment: devices report late.
//! - Times are `MM-DD hh:mm:ss`; the year and the offset from UTC are options. A time that would be more than about
//!   half a year away from the assignment belongs to the year before or after. So a file may include New Year's Eve.
//! - A delivery is one row. A second row with the same `order_id` is rejected.
//! - `ds`, the day of the row's export, is ignored, since it is no part of the delivery.

use std::collections::HashMap;

use doorstep_contracts::{
    CourierId, DeliveryAssigned, DeliveryId, DeliveryPickedUp, DeliveryPositionRecorded, Label,
    Position, TimeWindow,
};
use doorstep_event::{Contract, Event, Sequence, Source, Subject, Timestamp};
use jiff::{civil::DateTime, tz::Offset};

use super::{
    mapping::RowMapper,
    table::{Column, Row},
};

/// The state of an import of pick-ups.
pub(crate) struct Pickups {
    calendar: Calendar,
    /// The deliveries read so far, and the line of each.
    lines: HashMap<DeliveryId, u64>,
}

/// The parts of a time that the file omits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Calendar {
    /// The year of the assignments.
    pub(crate) year: i16,
    /// The offset of the file's clock from UTC.
    pub(crate) offset: Offset,
}

impl Pickups {
    /// Creates an import that reads times by this calendar.
    pub(crate) fn new(calendar: Calendar) -> Self {
        Self {
            calendar,
            lines: HashMap::new(),
        }
    }
}

/// The columns by name.
mod column {
    pub(super) const ORDER_ID: usize = 0;
    pub(super) const REGION_ID: usize = 1;
    pub(super) const CITY: usize = 2;
    pub(super) const COURIER_ID: usize = 3;
    pub(super) const ACCEPT_TIME: usize = 4;
    pub(super) const WINDOW_START: usize = 5;
    pub(super) const WINDOW_END: usize = 6;
    pub(super) const LNG: usize = 7;
    pub(super) const LAT: usize = 8;
    pub(super) const AOI_ID: usize = 9;
    pub(super) const AOI_TYPE: usize = 10;
    pub(super) const PICKUP_TIME: usize = 11;
    pub(super) const PICKUP_GPS: GpsColumns = GpsColumns(12, 13, 14);
    pub(super) const ACCEPT_GPS: GpsColumns = GpsColumns(15, 16, 17);

    /// A fix: its time, longitude and latitude.
    pub(super) struct GpsColumns(pub(super) usize, pub(super) usize, pub(super) usize);
}

const fn named(name: &'static str) -> Column {
    Column::required(name, name)
}

impl RowMapper for Pickups {
    const NAME: &'static str = "pickups";
    const UNIT: &'static str = "delivery";
    const COLUMNS: &'static [Column] = &[
        named("order_id"),
        named("region_id"),
        named("city"),
        named("courier_id"),
        named("accept_time"),
        named("time_window_start"),
        named("time_window_end"),
        named("lng"),
        named("lat"),
        named("aoi_id"),
        named("aoi_type"),
        named("pickup_time"),
        named("pickup_gps_time"),
        named("pickup_gps_lng"),
        named("pickup_gps_lat"),
        named("accept_gps_time"),
        named("accept_gps_lng"),
        named("accept_gps_lat"),
        named("ds"),
    ];
    const ROW_EVENT: &'static str = DeliveryAssigned::TYPE;

    fn unit<'r>(&self, row: &'r Row<'_>) -> Result<&'r [u8], String> {
        match row.bytes(column::ORDER_ID)? {
            [] => Err("order_id is empty".to_owned()),
            id => Ok(id),
        }
    }

    fn normalise(&self, row: &Row<'_>, form: &mut Vec<u8>) -> Result<(), String> {
        let id = DeliveryId::new(row.field(column::ORDER_ID)?).map_err(|e| e.to_string())?;
        // Only the fields that become part of an event are part of the row's content.
        let source = Source::new(Self::NAME).map_err(|e| e.to_string())?;
        let fields = Fields {
            row,
            calendar: self.calendar,
        };
        for event in delivery(&fields, &source, &id)? {
            form.extend_from_slice(event.id.as_str().as_bytes());
            form.extend_from_slice(event.event_type.as_str().as_bytes());
            form.extend_from_slice(&event.data);
        }
        Ok(())
    }

    fn begin(&self, _units: HashMap<Box<[u8]>, u64>) -> Self {
        Self::new(self.calendar)
    }

    fn events(
        &mut self,
        source: &Source,
        row: &Row<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let id = DeliveryId::new(row.field(column::ORDER_ID)?).map_err(|e| e.to_string())?;
        if let Some(line) = self.lines.get(&id) {
            return Err(format!("delivery {id} was already on line {line}"));
        }
        let made = delivery(
            &Fields {
                row,
                calendar: self.calendar,
            },
            source,
            &id,
        )?;
        self.lines.insert(id, row.line);
        events.extend(made);
        Ok(())
    }

    fn pending(&self) -> usize {
        0
    }
}

/// Returns all events of one delivery.
fn delivery(
    fields: &Fields<'_, '_>,
    source: &Source,
    id: &DeliveryId,
) -> Result<Vec<Event>, String> {
    let accepted_at = fields.assignment_time()?;
    let time = |column| fields.time(column, accepted_at);
    let assigned = DeliveryAssigned {
        courier: CourierId::new(fields.text(column::COURIER_ID)?).map_err(|e| e.to_string())?,
        accepted_at,
        city: fields.label(column::CITY)?,
        region: fields.label(column::REGION_ID)?,
        area: fields.label(column::AOI_ID)?,
        area_kind: fields.label(column::AOI_TYPE)?,
        position: Some(fields.position(column::LNG, column::LAT)?),
        window: Some(TimeWindow {
            start: time(column::WINDOW_START)?,
            end: time(column::WINDOW_END)?,
        }),
    };
    let picked_up = DeliveryPickedUp {
        picked_up_at: time(column::PICKUP_TIME)?,
    };
    // In the order of the events, so that a stable sort keeps it for fixes of one second.
    let mut fixes: Vec<DeliveryPositionRecorded> = [column::ACCEPT_GPS, column::PICKUP_GPS]
        .into_iter()
        .filter_map(|fix| fields.fix(&fix, accepted_at).transpose())
        .collect::<Result<_, _>>()?;
    fixes.sort_by_key(|fix| fix.recorded_at);

    let mut stream = Stream {
        source,
        subject: id.subject(),
        events: Vec::with_capacity(2 + fixes.len()),
    };
    stream.emit(accepted_at, &assigned)?;
    for fix in &fixes {
        stream.emit(fix.recorded_at, fix)?;
    }
    stream.emit(picked_up.picked_up_at, &picked_up)?;
    Ok(stream.events)
}

/// The events of one delivery, numbered from 1.
struct Stream<'a> {
    source: &'a Source,
    subject: Subject,
    events: Vec<Event>,
}

impl Stream<'_> {
    fn emit<C: Contract>(&mut self, time: Timestamp, fact: &C) -> Result<(), String> {
        let number = self.events.len() as u64 + 1;
        let sequence = Sequence::new(number).unwrap_or(Sequence::FIRST);
        let event = Event::from_contract(self.source, &self.subject, sequence, time, fact);
        self.events.push(event.map_err(|e| e.to_string())?);
        Ok(())
    }
}

/// Reads the fields of a row.
struct Fields<'a, 'r> {
    row: &'a Row<'r>,
    calendar: Calendar,
}

impl Fields<'_, '_> {
    fn text(&self, column: usize) -> Result<&str, String> {
        self.row.field(column)
    }

    fn label(&self, column: usize) -> Result<Option<Label>, String> {
        match self.text(column)? {
            "" => Ok(None),
            text => Label::new(text)
                .map(Some)
                .map_err(|e| format!("{}: {e}", Pickups::COLUMNS[column].name)),
        }
    }

    fn degrees(&self, column: usize) -> Result<f64, String> {
        let text = self.text(column)?;
        let is_number = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'-'));
        text.parse()
            .ok()
            .filter(|_| is_number)
            .ok_or_else(|| format!("{} {text:?} is not a number", Pickups::COLUMNS[column].name))
    }

    fn position(&self, lng: usize, lat: usize) -> Result<Position, String> {
        Position::new(self.degrees(lng)?, self.degrees(lat)?).map_err(|e| e.to_string())
    }

    /// Returns a fix, if there is one: all three of its fields or none.
    fn fix(
        &self,
        fix: &column::GpsColumns,
        near: Timestamp,
    ) -> Result<Option<DeliveryPositionRecorded>, String> {
        let column::GpsColumns(time, lng, lat) = *fix;
        let texts = [self.text(time)?, self.text(lng)?, self.text(lat)?];
        if texts.iter().all(|text| text.is_empty()) {
            return Ok(None);
        }
        Ok(Some(DeliveryPositionRecorded {
            position: self.position(lng, lat)?,
            recorded_at: self.time(time, near)?,
        }))
    }

    fn assignment_time(&self) -> Result<Timestamp, String> {
        let text = self.text(column::ACCEPT_TIME)?;
        self.calendar
            .time(text, self.calendar.year)
            .ok_or_else(|| self.wrong_time(column::ACCEPT_TIME, text))
    }

    /// Returns a time in the year that brings it nearest to another. This year comes first, so that it wins a tie.
    fn time(&self, column: usize, near: Timestamp) -> Result<Timestamp, String> {
        let text = self.text(column)?;
        let year = self.calendar.year;
        [year, year - 1, year + 1]
            .into_iter()
            .filter_map(|year| self.calendar.time(text, year))
            .min_by_key(|time| time.duration_since(near).abs())
            .ok_or_else(|| self.wrong_time(column, text))
    }

    fn wrong_time(&self, column: usize, text: &str) -> String {
        format!(
            "{} {text:?} is not a time of {} of the form 05-01 07:59:00",
            Pickups::COLUMNS[column].name,
            self.calendar.year
        )
    }
}

impl Calendar {
    /// Reads `05-01 07:59:00` as a time of that year; `None` if it has another form, or that year has no such day.
    fn time(self, text: &str, year: i16) -> Option<Timestamp> {
        if text.len() != "05-01 07:59:00".len() {
            return None;
        }
        let time: DateTime = format!("{year:04}-{text}").parse().ok()?;
        self.offset.to_timestamp(time).ok()
    }
}
