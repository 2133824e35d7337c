//! A guard over the bytes that the client reads from the broker.
//!
//! Any publisher may send a message that the client cannot read: its parser recurses on nested tables, without a bound, until the stack
//! of its thread overflows and the process aborts, and it ends the connection over a short string that is not UTF-8. The broker would
//! deliver such a message again and again. So each content header is checked before the client sees it. One that the client could not
//! read is replaced by a marked one ([`Undecodable`]) that carries the original, with the same body after it; the rest of the connection
//! does not notice.
//!
//! - [`Guard`] follows the frames, in place and without I/O.
//! - `check` decides what the client can read; `defect` is why not.
//! - `mark` makes and reads the replacement, `show` shows the original to people.
//! - [`GuardedReader`] lies between a stream and the client's read buffer.

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

/// A frame's type, channel and length.
const FRAME_HEADER: usize = 7;
/// The octet that ends a frame.
const FRAME_END: u8 = 0xce;
/// The longest frame of a method or content header before the broker has said how long frames are, and where it sets no limit.
const FRAME_MAX_UNTOLD: usize = 1024 * 1024;

const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;

/// Follows the frames of one connection, from the broker to the client.
#[derive(Debug)]
pub(super) struct Guard {
    /// The bytes to come that pass without a look: of a body, mostly.
    passing: usize,
    frame_max: usize,
    /// The channels whose next content header belongs to a method that was mended.
    mended: HashMap<u16, Mended>,
    levels: Levels,
}

/// A short string of a method that was not UTF-8.
#[derive(Debug)]
struct Mended {
    what: &'static str,
    text: Vec<u8>,
}

/// The fate of the bytes that the guard was shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// This number may go on to the client; at least one.
    Pass(usize),
    /// All of them begin one frame, which needs so many bytes in all.
    Need(usize),
    /// The first so many are a frame to be replaced by this one.
    Replace(usize, Vec<u8>),
}

/// A method or content header that is longer than any may be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes, where the broker's limit is {limit}")]
pub(super) struct TooLong {
    length: usize,
    limit: usize,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self {
            passing: 0,
            frame_max: FRAME_MAX_UNTOLD,
            mended: HashMap::new(),
            levels: Levels::default(),
        }
    }

    /// Looks at bytes that follow those passed or replaced before. Bytes that it neither passes nor replaces must be shown again.
    ///
    /// # Errors
    /// A frame that has to be held until it is whole is longer than the broker and the client have agreed on.
    pub(super) fn inspect(&mut self, bytes: &mut [u8]) -> Result<Seen, TooLong> {
        let mut at = 0;
        loop {
            let left = &mut bytes[at..];
            if self.passing >= left.len() {
                self.passing -= left.len();
                return Ok(Seen::Pass(bytes.len()));
            }
            at += self.passing;
            let left = &mut left[self.passing..];
            self.passing = 0;
            let pass_or = |seen| if at > 0 { Seen::Pass(at) } else { seen };
            let Some((&mut [kind, c1, c0, l3, l2, l1, l0], rest)) = left.split_first_chunk_mut()
            else {
                return Ok(pass_or(Seen::Need(FRAME_HEADER)));
            };
            let payload =
                usize::try_from(u32::from_be_bytes([l3, l2, l1, l0])).unwrap_or(usize::MAX);
            let length = payload.saturating_add(FRAME_HEADER + 1);
            if !matches!(kind, METHOD | CONTENT_HEADER) {
                // Bodies and heartbeats hold nothing to parse; of anything else the client ends the connection by itself.
                self.passing = length;
                continue;
            }
            if length > self.frame_max {
                let limit = self.frame_max;
                return Err(TooLong { length, limit });
            }
            if rest.len() <= payload {
                return Ok(pass_or(Seen::Need(length)));
            }
            let channel = u16::from_be_bytes([c1, c0]);
            let payload = &mut rest[..payload];
            if kind == METHOD {
                self.method(channel, payload);
            } else if let Err((defect, mended)) = self.content_header(channel, payload) {
                if at > 0 {
                    // Shown again, with nothing before it.
                    if let Some(mended) = mended {
                        self.mended.insert(channel, mended);
                    }
                    return Ok(Seen::Pass(at));
                }
                let mended = mended.map(|mended| mended.text);
                let frame = mark::frame(channel, payload, defect, mended, self.frame_max);
                return Ok(Seen::Replace(length, frame));
            }
            at += length;
        }
    }

    fn method(&mut self, channel: u16, payload: &mut [u8]) {
        let Some((&mut [c1, c0, m1, m0], arguments)) = payload.split_first_chunk_mut() else {
            return;
        };
        let (class, method) = (u16::from_be_bytes([c1, c0]), u16::from_be_bytes([m1, m0]));
        // connection.tune: the client agrees to the broker's limit.
        if (class, method) == (10, 30)
            && let Some(&[l3, l2, l1, l0]) = arguments.get(2..).and_then(<[u8]>::first_chunk)
        {
            let told = usize::try_from(u32::from_be_bytes([l3, l2, l1, l0])).unwrap_or_default();
            self.frame_max = if told == 0 { FRAME_MAX_UNTOLD } else { told };
            return;
        }
        let mended = check::mend_method(class, method, arguments);
        if check::has_content(class, method) {
            match mended {
                Some((what, text)) => {
                    self.mended.insert(channel, Mended { what, text });
                }
                None if self.mended.is_empty() => {}
                // Content that was broken off.
                None => {
                    self.mended.remove(&channel);
                }
            }
        }
    }

    fn content_header(
        &mut self,
        channel: u16,
        payload: &[u8],
    ) -> Result<(), (Defect, Option<Mended>)> {
        let checked = check::content_header(payload, &mut self.levels);
        let mended = if self.mended.is_empty() {
            None
        } else {
            self.mended.remove(&channel)
        };
        match (checked, mended) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(mended)) => Err((Defect::NotUtf8(mended.what), Some(mended))),
            (Err(defect), mended) => Err((defect, mended)),
        }
    }
}

#[cfg(test)]
mod tests;
