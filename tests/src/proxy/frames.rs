//! Splits a stream of AMQP 0-9-1 into its frames.

/// Type, channel and size precede a frame's payload, one byte follows it.
const HEAD: usize = 7;
const END: usize = 1;
/// The first bytes that a client sends.
const GREETING: &[u8] = b"AMQP";
const GREETING_LENGTH: usize = 8;
/// A larger frame is not AMQP.
const LONGEST: usize = 1 << 20;
const METHOD: u8 = 1;

/// The bytes of one direction that are not split into frames yet.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    began: bool,
}

/// A complete frame, or bytes that are none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame(pub(super) Vec<u8>);

impl Frames {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next complete frame.
    pub(super) fn next(&mut self) -> Option<Frame> {
        let length = if !self.began && self.bytes.starts_with(GREETING) {
            GREETING_LENGTH
        } else {
            let size = self.bytes.get(3..HEAD)?;
            let size = size
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            if size > LONGEST {
                // Forwarded unchanged: the proxy does not validate.
                self.bytes.len()
            } else {
                HEAD + size + END
            }
        };
        if self.bytes.len() < length {
            return None;
        }
        self.began = true;
        let rest = self.bytes.split_off(length);
        Some(Frame(std::mem::replace(&mut self.bytes, rest)))
    }
}

impl Frame {
    /// Returns the class and number of its method, if it has one.
    pub(super) fn method(&self) -> Option<(u16, u16)> {
        match self.0.get(HEAD..HEAD + 4) {
            Some(&[a, b, c, d]) if self.0[0] == METHOD => {
                Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
            }
            _ => None,
        }
    }

    /// Changes an acknowledgement to a delivery tag that does not exist. The tag follows class and method, high byte
    /// first.
    pub(super) fn rename_delivery(&mut self) {
        const NUMBER: usize = HEAD + 4;
        if let Some(high) = self.0.get_mut(NUMBER) {
            *high = 0x7f;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        let greeting = b"AMQP\x00\x00\x09\x01".to_vec();
        let ack = [&[1, 0, 1, 0, 0, 0, 4, 0, 60, 0, 80][..], &[0xce]].concat();
        let body = [&[3, 0, 1, 0, 0, 0, 2, 9, 9][..], &[0xce]].concat();
        let stream = [&greeting[..], &ack, &body].concat();
        let mut frames = Frames::default();
        let mut seen = Vec::new();
        for byte in stream {
            frames.add(&[byte]);
            seen.extend(frames.next());
        }
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[1].method(), Some((60, 80)));
        assert_eq!(seen[2].method(), None);
        assert_eq!(seen.iter().map(|f| f.0.len()).sum::<usize>(), 30);
        assert_eq!(frames.next(), None);
    }

    #[test]
    fn an_acknowledgement_is_made_one_of_another_delivery() {
        let head = [1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80];
        let ack = [&head[..], &[0, 0, 0, 0, 0, 0, 0, 9], &[1, 0xce]].concat();
        let other = [&head[..], &[0x7f, 0, 0, 0, 0, 0, 0, 9], &[1, 0xce]].concat();
        let mut frame = Frame(ack);
        frame.rename_delivery();
        assert_eq!(frame, Frame(other));
    }
}
