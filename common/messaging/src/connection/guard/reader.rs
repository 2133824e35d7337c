//! The guard between a stream and the client's read buffer.

use std::{io, task::Poll};

use super::{FRAME_HEADER, Guard, Seen};

/// The room that is kept between reads; more is given back.
const KEPT_ROOM: usize = 256 * 1024;

/// Reads from a stream into the client's buffer, so that the client sees only what it can parse.
///
/// Bytes go straight into the client's buffer and are looked at there. Only the beginning of a frame that is not whole yet is held back
/// and copied, and whatever follows a frame that is replaced.
#[derive(Debug)]
pub(in crate::connection) struct GuardedReader {
    guard: Guard,
    /// Bytes that were read and not passed on. Bounded by the client's buffer and the longest frame.
    held: Vec<u8>,
    /// The number of them that was passed on.
    passed: usize,
    /// The number of them that may be.
    checked: usize,
    /// The number of bytes that the frame needs that the held ones begin; 0 if they have not been looked at.
    needed: usize,
    /// A frame to be passed on after the checked bytes, and how many of the held bytes it replaces.
    replacement: Option<Replacement>,
}

#[derive(Debug)]
struct Replacement {
    frame: Vec<u8>,
    passed: usize,
    replaces: usize,
}

impl GuardedReader {
    pub(in crate::connection) fn new() -> Self {
        Self {
            guard: Guard::new(),
            held: Vec::new(),
            passed: 0,
            checked: 0,
            needed: 0,
            replacement: None,
        }
    }

    /// Fills the client's buffer, which must not be empty, from the stream that this reads from. Nothing is lost where the stream has
    /// nothing ready.
    ///
    /// # Errors
    /// The stream's, or a frame that no broker would send.
    pub(in crate::connection) fn poll_read(
        &mut self,
        buffer: &mut [u8],
        mut read: impl FnMut(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(count) = self.pass_on(buffer) {
                return Poll::Ready(Ok(count));
            }
            if self.checked < self.held.len() && self.needed == 0 {
                self.look_at_held()?;
                continue;
            }
            let (begun, wanted) = (self.held.len(), self.needed.max(FRAME_HEADER));
            let count = if buffer.len() >= wanted {
                buffer[..begun].copy_from_slice(&self.held);
                let Poll::Ready(count) = read(&mut buffer[begun..])? else {
                    return Poll::Pending;
                };
                if count > 0 {
                    self.held.clear();
                    self.needed = 0;
                    let count = self.take_in(&mut buffer[..begun + count])?;
                    if count > 0 {
                        return Poll::Ready(Ok(count));
                    }
                }
                count
            } else {
                // What is left of the client's ring is shorter than the frame.
                self.held.resize(wanted, 0);
                let polled = read(&mut self.held[begun..]);
                let count = match &polled {
                    Poll::Ready(Ok(count)) => *count,
                    Poll::Ready(Err(_)) | Poll::Pending => 0,
                };
                self.held.truncate(begun + count);
                let Poll::Ready(count) = polled? else {
                    return Poll::Pending;
                };
                if self.held.len() >= wanted {
                    self.needed = 0;
                }
                count
            };
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
        }
    }

    /// Looks at what was read into the client's buffer. Returns how much of it stays there; the rest is held.
    fn take_in(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let seen = self.guard.inspect(bytes).map_err(invalid)?;
        let passed = match seen {
            Seen::Pass(count) => count,
            Seen::Need(_) | Seen::Replace(..) => 0,
        };
        self.held.extend_from_slice(&bytes[passed..]);
        (self.passed, self.checked) = (0, 0);
        self.note(seen);
        Ok(passed)
    }

    fn look_at_held(&mut self) -> io::Result<()> {
        let seen = self.guard.inspect(&mut self.held[self.checked..]);
        let seen = seen.map_err(invalid)?;
        if let Seen::Pass(count) = seen {
            self.checked += count;
        }
        self.note(seen);
        Ok(())
    }

    fn note(&mut self, seen: Seen) {
        match seen {
            Seen::Pass(_) => {}
            Seen::Need(needed) => {
                // They begin a frame, and will be read on at their place.
                self.held.drain(..self.checked);
                (self.passed, self.checked) = (0, 0);
                self.needed = needed;
            }
            Seen::Replace(replaces, frame) => {
                self.replacement = Some(Replacement {
                    frame,
                    passed: 0,
                    replaces,
                });
            }
        }
    }

    /// Copies what may be passed on. Returns `None` if there is nothing.
    fn pass_on(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let count = copy(&self.held[self.passed..self.checked], buffer);
        if count > 0 {
            self.passed += count;
        } else if let Some(replacement) = &mut self.replacement {
            let count = copy(&replacement.frame[replacement.passed..], buffer);
            replacement.passed += count;
            if replacement.passed == replacement.frame.len() {
                self.checked += replacement.replaces;
                self.passed = self.checked;
                self.replacement = None;
            }
            self.forget_passed();
            return Some(count);
        }
        self.forget_passed();
        (count > 0).then_some(count)
    }

    fn forget_passed(&mut self) {
        if self.passed > 0 && self.passed == self.held.len() {
            self.held.clear();
            self.held.shrink_to(KEPT_ROOM);
            (self.passed, self.checked) = (0, 0);
        }
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    count
}

fn invalid(error: super::TooLong) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
