//! Reads datagrams out of a stream of bytes.

use ahoy_protocol::tunnel::{DATAGRAM_BYTES_MAX, FrameTooLong, HEADER_BYTES, parse_frame};

/// What is read at once: some frames of a call, or a dozen packets.
const BUFFER_BYTES: usize = 16 * 1024;

/// Takes bytes as they come and gives the datagrams in them. Its buffer never grows.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Box<[u8]>,
    filled: usize,
}

impl FrameReader {
    /// Nothing was read yet.
    #[must_use]
    pub fn new() -> Self {
        const { assert!(BUFFER_BYTES > HEADER_BYTES + DATAGRAM_BYTES_MAX, "the longest frame fits") };
        Self { buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), filled: 0 }
    }

    /// Where the next bytes are to be put; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// So many bytes were put into [`space`](Self::space). Every datagram that is whole goes to `receive`; empty frames only keep the
    /// connection alive.
    ///
    /// # Errors
    /// [`FrameTooLong`], after which nothing more can be read.
    pub fn filled(&mut self, count: usize, receive: &mut dyn FnMut(&[u8])) -> Result<(), FrameTooLong> {
        self.filled = (self.filled + count).min(self.buffer.len());
        let mut start = 0;
        while let Some((datagram, used)) = parse_frame(&self.buffer[start..self.filled])? {
            if !datagram.is_empty() {
                receive(datagram);
            }
            start += used;
        }
        self.buffer.copy_within(start..self.filled, 0);
        self.filled -= start;
        Ok(())
    }
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_protocol::tunnel::frame;
    use proptest::prelude::*;

    /// All datagrams in `stream`, of which so many bytes come at a time.
    fn read(stream: &[u8], step: usize) -> Result<Vec<Vec<u8>>, FrameTooLong> {
        let (mut reader, mut datagrams) = (FrameReader::new(), Vec::new());
        for mut part in stream.chunks(step) {
            while !part.is_empty() {
                let space = reader.space();
                let count = part.len().min(space.len());
                space[..count].copy_from_slice(&part[..count]);
                reader.filled(count, &mut |datagram| datagrams.push(datagram.to_vec()))?;
                part = &part[count..];
            }
        }
        Ok(datagrams)
    }

    #[test]
    fn a_frame_that_is_too_long_ends_it() {
        let stream = [frame(b"ahoy").expect("short"), vec![0xff; 9]].concat();
        assert_eq!(read(&stream, 100), Err(FrameTooLong(0xffff)));
    }

    proptest! {
        #[test]
        fn datagrams_are_read_however_the_stream_is_cut(
            sizes in proptest::collection::vec(0..=DATAGRAM_BYTES_MAX, 0..60),
            step in 1..40_000_usize,
        ) {
            let sent: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(index, size)| vec![index as u8; *size]).collect();
            let stream: Vec<u8> = sent.iter().flat_map(|datagram| frame(datagram).expect("within the limit")).collect();
            let expected: Vec<Vec<u8>> = sent.into_iter().filter(|datagram| !datagram.is_empty()).collect();
            prop_assert_eq!(read(&stream, step), Ok(expected));
        }
    }
}
