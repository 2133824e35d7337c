//! A guard over the bytes that lapin reads from the broker.
//!
//! Any publisher can send a message that lapin cannot parse. Its parser recurses on nested tables without a bound, until the stack of its
//! thread overflows and the process aborts. It also ends the connection over a short string that is not UTF-8. The broker would redeliver
//! such a message forever. So each content header is checked before lapin sees it. A header that lapin cannot parse is replaced by a marked
//! one ([`Undecodable`]) that carries the original, and the body follows unchanged. The rest of the connection is not affected.
//!
//! - [`Guard`] follows the frames, in place and without I/O.
//! - `check` decides whether lapin can parse a header; `defect` is the reason if not.
//! - `mark` builds and parses the replacement; `show` formats the original for people.
//! - [`GuardedReader`] sits between a stream and lapin's read buffer.

mod check;
mod defect;
mod mark;
mod reader;
mod show;

use std::collections::HashMap;

use check::Levels;
use defect::Defect;

pub(crate) use mark::Undecodable;
pub(super) use reader::GuardedReader;

/// Bytes of a frame's type, channel and length.
const FRAME_HEADER: usize = 7;
/// Last byte of every frame.
const FRAME_END: u8 = 0xce;
/// Maximum frame of a method or content header before the broker has announced its limit, or if it has none.
const DEFAULT_FRAME_MAX: usize = 1024 * 1024;

const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;

/// Follows the frames of one connection from broker to client.
#[derive(Debug)]
pub(super) struct Guard {
    /// Bytes to come that need no inspection, mostly of a body.
    passing: usize,
    frame_max: usize,
    /// Channels whose next content header belongs to a repaired method.
    repaired: HashMap<u16, Repaired>,
    levels: Levels,
}

/// A short string of a method that was not UTF-8.
#[derive(Debug)]
struct Repaired {
    what: &'static str,
    text: Vec<u8>,
}

/// The guard's decision about the inspected bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inspection {
    /// This many bytes may pass to the client; at least one.
    Pass(usize),
    /// All bytes are the start of one frame, which needs this many bytes.
    Need(usize),
    /// The first bytes, this many, are a frame to replace by this one.
    Replace(usize, Vec<u8>),
}

/// A method or content header longer than the frame limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes exceeds the broker's limit of {limit}")]
pub(super) struct TooLong {
    length: usize,
    limit: usize,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            passing: 0,
            frame_max: DEFAULT_FRAME_MAX,
            repaired: HashMap::new(),
            levels: Levels::default(),
        }
    }
}

impl Guard {
    /// Inspects bytes that follow those passed or replaced before. Bytes that are neither passed nor replaced must be presented again.
    ///
    /// # Errors
    /// Fails if a frame that must be buffered as a whole exceeds the negotiated limit.
    pub(super) fn inspect(&mut self, bytes: &mut [u8]) -> Result<Inspection, TooLong> {
        let mut at = 0;
        loop {
            let left = &mut bytes[at..];
            if self.passing >= left.len() {
                self.passing -= left.len();
                return Ok(Inspection::Pass(bytes.len()));
            }
            at += self.passing;
            let left = &mut left[self.passing..];
            self.passing = 0;
            let pass_or = |inspection| {
                if at > 0 {
                    Inspection::Pass(at)
                } else {
                    inspection
                }
            };
            let Some((&mut [kind, c1, c0, l3, l2, l1, l0], rest)) = left.split_first_chunk_mut()
            else {
                return Ok(pass_or(Inspection::Need(FRAME_HEADER)));
            };
            let payload =
                usize::try_from(u32::from_be_bytes([l3, l2, l1, l0])).unwrap_or(usize::MAX);
            let length = payload.saturating_add(FRAME_HEADER + 1);
            if !matches!(kind, METHOD | CONTENT_HEADER) {
                // Bodies and heartbeats contain nothing to parse. lapin ends the connection for any other frame type.
                self.passing = length;
                continue;
            }
            if length > self.frame_max {
                let limit = self.frame_max;
                return Err(TooLong { length, limit });
            }
            if rest.len() <= payload {
                return Ok(pass_or(Inspection::Need(length)));
            }
            let channel = u16::from_be_bytes([c1, c0]);
            let payload = &mut rest[..payload];
            if kind == METHOD {
                self.method(channel, payload);
            } else if let Err((defect, repaired)) = self.content_header(channel, payload) {
                if at > 0 {
                    // Presented again at the start of the bytes.
                    if let Some(repaired) = repaired {
                        self.repaired.insert(channel, repaired);
                    }
                    return Ok(Inspection::Pass(at));
                }
                let repaired = repaired.map(|repaired| repaired.text);
                let frame = mark::frame(channel, payload, defect, repaired, self.frame_max);
                return Ok(Inspection::Replace(length, frame));
            }
            at += length;
        }
    }

    fn method(&mut self, channel: u16, payload: &mut [u8]) {
        let Some((&mut [c1, c0, m1, m0], arguments)) = payload.split_first_chunk_mut() else {
            return;
        };
        let (class, method) = (u16::from_be_bytes([c1, c0]), u16::from_be_bytes([m1, m0]));
        // connection.tune: the client accepts the broker's limit.
        if (class, method) == (10, 30)
            && let Some(&[l3, l2, l1, l0]) = arguments.get(2..).and_then(<[u8]>::first_chunk)
        {
            let announced =
                usize::try_from(u32::from_be_bytes([l3, l2, l1, l0])).unwrap_or_default();
            self.frame_max = if announced == 0 {
                DEFAULT_FRAME_MAX
            } else {
                announced
            };
            return;
        }
        let repaired = check::repair_method(class, method, arguments);
        if check::has_content(class, method) {
            match repaired {
                Some((what, text)) => {
                    self.repaired.insert(channel, Repaired { what, text });
                }
                None if self.repaired.is_empty() => {}
                // The content of the earlier method was aborted.
                None => {
                    self.repaired.remove(&channel);
                }
            }
        }
    }

    fn content_header(
        &mut self,
        channel: u16,
        payload: &[u8],
    ) -> Result<(), (Defect, Option<Repaired>)> {
        let checked = check::content_header(payload, &mut self.levels);
        let repaired = if self.repaired.is_empty() {
            None
        } else {
            self.repaired.remove(&channel)
        };
        match (checked, repaired) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(repaired)) => Err((Defect::NotUtf8(repaired.what), Some(repaired))),
            (Err(defect), repaired) => Err((defect, repaired)),
        }
    }
}

#[cfg(test)]
mod tests;
