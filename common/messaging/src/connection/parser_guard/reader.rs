//! The guard between a stream and lapin's read buffer.

use std::{io, task::Poll};

use super::{FRAME_HEADER, Guard, Inspection};

/// Buffer capacity kept between reads; any excess is freed.
const KEPT_CAPACITY: usize = 256 * 1024;

/// Reads from a stream into lapin's buffer, so that lapin sees only what it can parse.
///
/// Bytes go straight into lapin's buffer and are inspected there. Only an incomplete frame's beginning, and the bytes behind a replaced
/// frame, are buffered here and copied.
#[derive(Debug, Default)]
pub(in crate::connection) struct GuardedReader {
    guard: Guard,
    /// Bytes read and not passed on. Bounded by lapin's buffer and the longest frame.
    buffered: Vec<u8>,
    /// Number of these bytes already passed on.
    passed: usize,
    /// Number of these bytes that may be passed on.
    checked: usize,
    /// Total bytes of the frame that the buffered bytes begin; 0 if they have not been inspected.
    needed: usize,
    /// A frame to pass on after the checked bytes, and the number of buffered bytes it replaces.
    replacement: Option<Replacement>,
}

#[derive(Debug)]
struct Replacement {
    frame: Vec<u8>,
    passed: usize,
    replaces: usize,
}

impl GuardedReader {
    /// Fills lapin's buffer, which must not be empty, from the stream. Loses nothing if the stream is pending.
    ///
    /// # Errors
    /// Returns the stream's errors, or an error for a frame that no broker sends.
    pub(in crate::connection) fn poll_read(
        &mut self,
        buffer: &mut [u8],
        mut read: impl FnMut(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(count) = self.pass_on(buffer) {
                return Poll::Ready(Ok(count));
            }
            if self.checked < self.buffered.len() && self.needed == 0 {
                self.inspect_buffered()?;
                continue;
            }
            let (begun, needed) = (self.buffered.len(), self.needed.max(FRAME_HEADER));
            let count = if buffer.len() >= needed {
                buffer[..begun].copy_from_slice(&self.buffered);
                let Poll::Ready(count) = read(&mut buffer[begun..])? else {
                    return Poll::Pending;
                };
                if count > 0 {
                    self.buffered.clear();
                    self.needed = 0;
                    let count = self.inspect_new(&mut buffer[..begun + count])?;
                    if count > 0 {
                        return Poll::Ready(Ok(count));
                    }
                }
                count
            } else {
                // The remaining room in lapin's ring buffer is shorter than the frame.
                self.buffered.resize(needed, 0);
                let polled = read(&mut self.buffered[begun..]);
                let count = match &polled {
                    Poll::Ready(Ok(count)) => *count,
                    Poll::Ready(Err(_)) | Poll::Pending => 0,
                };
                self.buffered.truncate(begun + count);
                let Poll::Ready(count) = polled? else {
                    return Poll::Pending;
                };
                if self.buffered.len() >= needed {
                    self.needed = 0;
                }
                count
            };
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
        }
    }

    /// Inspects bytes read into lapin's buffer. Returns how many may stay there; the rest moves to this reader's buffer.
    fn inspect_new(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let inspection = self.guard.inspect(bytes).map_err(invalid)?;
        let passed = match inspection {
            Inspection::Pass(count) => count,
            Inspection::Need(_) | Inspection::Replace(..) => 0,
        };
        self.buffered.extend_from_slice(&bytes[passed..]);
        (self.passed, self.checked) = (0, 0);
        self.apply(inspection);
        Ok(passed)
    }

    fn inspect_buffered(&mut self) -> io::Result<()> {
        let inspection = self.guard.inspect(&mut self.buffered[self.checked..]);
        let inspection = inspection.map_err(invalid)?;
        if let Inspection::Pass(count) = inspection {
            self.checked += count;
        }
        self.apply(inspection);
        Ok(())
    }

    fn apply(&mut self, inspection: Inspection) {
        match inspection {
            Inspection::Pass(_) => {}
            Inspection::Need(needed) => {
                // They begin a frame, and are completed in place.
                self.buffered.drain(..self.checked);
                (self.passed, self.checked) = (0, 0);
                self.needed = needed;
            }
            Inspection::Replace(replaces, frame) => {
                self.replacement = Some(Replacement {
                    frame,
                    passed: 0,
                    replaces,
                });
            }
        }
    }

    /// Copies bytes that may pass. Returns `None` if there are none.
    fn pass_on(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let count = copy(&self.buffered[self.passed..self.checked], buffer);
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
        if self.passed > 0 && self.passed == self.buffered.len() {
            self.buffered.clear();
            self.buffered.shrink_to(KEPT_CAPACITY);
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
